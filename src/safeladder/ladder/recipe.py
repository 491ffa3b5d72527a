"""What a recipe says: a model, an engine, an evaluation, and a list of rungs.

A recipe is a YAML file; ``safeladder climb NAME --set a.b=c`` reads it into these models and
writes the resolved form into the run directory. Every key has one reader. A recipe that begins with
``extends: OTHER`` says only what differs from the other one, ``like: RUNG`` the same of a rung
(what it must hold, and what it is compared with, stay its own).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from safeladder.config import StrictModel, near_miss, validate
from safeladder.data.microworld.search import SearchQuestions
from safeladder.data.microworld.source import MicroworldSource
from safeladder.data.sources import OwnAnswersSource, SourceSpec, SplitSource
from safeladder.data.stream import CurriculumSpec
from safeladder.ladder.environments import EnvironmentSpec, SingleTurnSpec
from safeladder.ladder.filters.steps import FilterStep
from safeladder.ladder.gates import PREVIOUS, Gate, OnFailure, Retry
from safeladder.ladder.recipe_files import find_recipe, merge, read_recipe
from safeladder.train.rl import RLSettings
from safeladder.train.sft import SFTSettings
from safeladder.verifiers import VerifyPolicy
from safeladder.verifiers.objective import (
    AnyObjective,
    DeliberativeReward,
    normalises,
    parts_of,
)
from safeladder.verifiers.registry import VERIFIERS


class EmbeddedModel(StrictModel):
    """A model made from nothing: stock architecture, random weights, tokenizer from the corpus."""

    type: Literal["embedded"]
    config: dict[str, Any] = Field(description="Hugging Face config; model_type and sizes")
    vocab_size: int = Field(512, ge=128, description="tokens, upper bound")


class CheckpointModel(StrictModel):
    """A Hugging Face checkpoint: a folder, or a hub id."""

    type: Literal["checkpoint"]
    path: str
    chat_template: str | None = Field(
        None, description="Jinja text or a .jinja file, for a tokenizer that has none")


class LocalEngineSpec(StrictModel):
    """One process, torch, a Hugging Face model."""

    type: Literal["local"] = "local"
    threads: int | None = Field(None, ge=1, description="torch threads; None: all cores")
    workers: int = Field(1, ge=1, description="data-parallel worker processes")
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = "cpu"
    max_rows: int = Field(128, ge=1, description="rows sampled at once")
    max_tokens_per_microbatch: int = Field(2048, ge=1)
    lora_rank: int | None = Field(None, ge=1, description="train a LoRA of this rank through peft")
    freeze: list[str] = Field(
        default_factory=list, description="modules that are not trained, by a name on their path: "
        "visual (Qwen2.5-VL) or vision_tower (LLaVA, InternVL) keeps the image encoder")


def _bare(sources: Iterable[SourceSpec]) -> Iterator[SourceSpec]:
    """The sources, and in place of a split what it is a part of."""
    for source in sources:
        yield from _bare([source.of]) if isinstance(source, SplitSource) else [source]


def _check_search(
    data: Sequence[SourceSpec], environment: EnvironmentSpec, where: str,
) -> None:
    """Questions to search for need where to search; ``ValueError`` otherwise."""
    asked = [source for source in _bare(data) if isinstance(source, SearchQuestions)]
    if not asked:
        return
    if environment.type != "search":
        raise ValueError(f"{where} asks search_questions, so its environment must be of type "
                         f"search, not {environment.type}")
    editions = max(source.editions for source in asked)
    if editions > environment.editions:
        raise ValueError(f"{where} asks in {editions} editions, but its environment has "
                         f"{environment.editions}: give both the same number")


class EvaluationSet(StrictModel):
    """Held-out prompts under one name; ``test`` metrics carry no suffix, others ``_<name>``."""

    name: str
    data: list[SourceSpec]
    environment: EnvironmentSpec = SingleTurnSpec()
    split: str | None = Field(
        None, description="suffix of the figures of stated confidence, where the environment is a "
        "search (test: none, _<split> otherwise); None: the set's name, which all other figures "
        "keep")

    @model_validator(mode="after")
    def _can_search(self) -> EvaluationSet:
        _check_search(self.data, self.environment, f"set {self.name!r}")
        return self

    @property
    def suffix(self) -> str:
        """What the names of the figures of stated confidence end in, as a split."""
        return self.name if self.split is None else self.split

    @model_validator(mode="after")
    def _split_fits(self) -> EvaluationSet:
        if self.split is not None and self.environment.type != "search":
            raise ValueError(f"set {self.name!r}: split is for figures of stated confidence, which "
                             "a set in a search environment has")
        return self


class EvaluationSpec(StrictModel):
    """How every rung is judged: the same prompts, parser and verifiers for all."""

    sets: list[EvaluationSet] = Field(min_length=1)
    validation: list[SourceSpec] = Field(
        default_factory=list, description="for choosing: scored while a rung runs")
    validation_environment: EnvironmentSpec = SingleTurnSpec()
    max_tokens: int = Field(ge=1)
    temperatures: list[float] = Field(default_factory=lambda: [0.0], description="0 is greedy")
    shown: int = Field(5, ge=0, description="test prompts shown before and after in the report")

    @model_validator(mode="after")
    def _can_search(self) -> EvaluationSpec:
        _check_search(self.validation, self.validation_environment, "evaluation.validation")
        return self


class RungBase(StrictModel):
    """What every rung has."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    start_from: str | None = Field(
        None, description="a rung of this recipe, or a checkpoint's folder; None: the rung before")
    baseline: bool = Field(
        False, description="a comparison: listed under baselines, and no rung continues from it")
    evaluate: bool = True
    compare_with: str | None = Field(
        None, description="a rung that ran before, whose answers false_certain_baseline_matched is "
        "taken from and false_certain_minus_matched compares with (None: the one it starts from); "
        "a baseline's differences in all figures are taken to it, too, if it is no other baseline, "
        "or else to the last rung that stands")
    disclosure: str = Field(
        "", description="what a reader of this rung's figures must know (a noisy teacher, say); "
        "the report prints it in the same sentence")
    seed: int | None = Field(None, description="None: the recipe's")
    gates: list[Gate] = Field(
        default_factory=list, description="what its figures must be for the next rung to start "
        "from its checkpoint")
    on_failure: OnFailure = Field(
        "keep_previous", description="of a gate: the next rung starts from what this one started "
        "from; retry: train it again first; stop: end the climb")
    retry: Retry | None = Field(None, description="with on_failure: retry")
    data: list[SourceSpec] = Field(min_length=1)

    @model_validator(mode="after")
    def _gates_fit(self) -> RungBase:
        if self.gates and not self.evaluate:
            raise ValueError(f"rung {self.name!r} has gates, so it must be evaluated")
        if (self.retry is not None) != (self.on_failure == "retry"):
            raise ValueError(f"rung {self.name!r}: retry and on_failure: retry go together")
        return self


class SFTRung(RungBase):
    """Supervised: language pretraining on texts, fine-tuning on demonstrations."""

    type: Literal["sft"]
    settings: SFTSettings
    validation: list[SourceSpec] = Field(
        default_factory=list, description="held-out rows for the validation loss")
    filters: list[FilterStep] = Field(
        default_factory=list, description="steps that the demonstrations must pass "
        "(docs/rungs/cot_sft.md); the report is left in rungs/<name>/filters.json and .html")

    @model_validator(mode="after")
    def _noise_is_disclosed(self) -> SFTRung:
        noisy = [s for s in _bare(self.data) if isinstance(s, MicroworldSource) and s.noise]
        if noisy and not self.disclosure:
            raise ValueError(f"rung {self.name!r} learns from a teacher that misjudges "
                             f"(noise {max(s.noise for s in noisy):g}): say so in its disclosure")
        return self


class RLRung(RungBase):
    """Reinforcement learning from verifiers."""

    type: Literal["rl"]
    settings: RLSettings
    algorithm: dict[str, Any] = Field(description="preset, and fields to override")
    curriculum: CurriculumSpec = CurriculumSpec()
    environment: EnvironmentSpec = SingleTurnSpec()
    objective: AnyObjective | None = Field(
        None, description="of its training; None: the recipe's, which judges every evaluation")
    reference: str | None = Field(
        None, description="checkpoint the KL compares with; None: the rung's own start")

    @model_validator(mode="after")
    def _can_search(self) -> RLRung:
        _check_search(self.data, self.environment, f"rung {self.name!r}")
        return self


Rung = Annotated[SFTRung | RLRung, Field(discriminator="type")]


class Recipe(StrictModel):
    """One climb."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    description: str = ""
    seed: int = 0
    model: Annotated[EmbeddedModel | CheckpointModel, Field(discriminator="type")]
    engine: LocalEngineSpec = LocalEngineSpec()
    verifiers: dict[str, dict[str, Any]] = Field(
        min_length=1, description="name -> {type: ..., settings}")
    objective: AnyObjective = Field(description="how verdicts become a reward")
    verify: VerifyPolicy = VerifyPolicy()
    evaluation: EvaluationSpec
    sinks: list[Literal["tensorboard", "trackio", "wandb"]] = Field(default_factory=list)
    rungs: list[Rung] = Field(min_length=1)

    @field_validator("rungs")
    @classmethod
    def _names_differ(cls, rungs: list[Rung]) -> list[Rung]:
        names = [rung.name for rung in rungs]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two rungs are named {sorted(twice)[0]!r}")
        return rungs

    @model_validator(mode="after")
    def _filters_exist(self) -> Recipe:
        known = {**self.verifiers, **VERIFIERS}
        for rung in self.rungs:
            for step in rung.filters if isinstance(rung, SFTRung) else ():
                name = getattr(step, "verifier", None)
                if isinstance(name, str) and name not in known and not Path(name).exists():
                    raise ValueError(f"rung {rung.name!r}, filters: no verifier {name!r}"
                                     f"{near_miss(name, list(known))}")
        return self

    @model_validator(mode="after")
    def _starts_exist(self) -> Recipe:
        before: list[str] = []
        for rung in self.rungs:
            start = rung.start_from
            if start in {r.name for r in self.rungs} and start not in before:
                raise ValueError(f"rung {rung.name!r} starts from {start!r}, which comes later")
            before.append(rung.name)
        return self

    @model_validator(mode="after")
    def _own_answers_exist(self) -> Recipe:
        sampled: list[str] = []
        asked = (self.evaluation.validation, *(chosen.data for chosen in self.evaluation.sets),
                 *(rung.validation for rung in self.rungs if isinstance(rung, SFTRung)))
        if any(isinstance(source, OwnAnswersSource) for data in asked for source in _bare(data)):
            raise ValueError("own_answers are to imitate, not to evaluate or validate with")
        for rung in self.rungs:
            own = [s for s in _bare(rung.data) if isinstance(s, OwnAnswersSource)]
            if own and not (isinstance(rung, SFTRung) and all(s in rung.data for s in own)):
                raise ValueError(f"rung {rung.name!r}: own_answers are to imitate, so they belong "
                                 "into the data of a rung of type sft, and into no split")
            for source in own:
                if source.rung not in sampled:
                    raise ValueError(f"rung {rung.name!r}: own_answers of {source.rung!r}, but no "
                                     "rung of type rl, with single turns and trace_every above 0, "
                                     "before it has that name")
            if (isinstance(rung, RLRung) and rung.environment.type == "single_turn"
                    and rung.settings.trace_every):
                sampled.append(rung.name)
        return self

    @model_validator(mode="after")
    def _comparisons_exist(self) -> Recipe:
        for rung in self.rungs:
            before = [other.name for other in self.rungs[:self._index(rung)] if other.evaluate]
            if rung.compare_with is not None and rung.compare_with not in before:
                raise ValueError(f"rung {rung.name!r} is compared with {rung.compare_with!r}, but "
                                 "no rung of that name is evaluated before it")
        return self

    @model_validator(mode="after")
    def _truncated_fits(self) -> Recipe:
        own = [rung.objective for rung in self.rungs if isinstance(rung, RLRung)]
        if not isinstance(self.verify.truncated, str) and any(
                normalises(objective) for objective in [self.objective, *own] if objective):
            raise ValueError("verify.truncated gives a fixed reward, but the objective normalises "
                             "rewards within their batch: set it to 'judge' or 'exclude'")
        return self

    @model_validator(mode="after")
    def _deliberation_is_judged(self) -> Recipe:
        own = [rung.objective for rung in self.rungs if isinstance(rung, RLRung)]
        for objective in [self.objective, *own]:
            for part in parts_of(objective) if objective else ():
                if isinstance(part, DeliberativeReward):
                    kind = self.verifiers.get(part.verifier, {}).get("type")
                    if kind != "deliberative":
                        found = f"of type {kind!r}" if kind else "none of the recipe"
                        raise ValueError("an objective of type deliberative needs a verifier of "
                                         f"that type, but {part.verifier!r} is {found}; name one "
                                         "under its key 'verifier'")
        return self

    @model_validator(mode="after")
    def _gates_fit(self) -> Recipe:
        for rung in self.rungs:
            attempt_of(rung, 1, 0)
            for gate in rung.gates:
                self._check_reference(rung, gate)
        return self

    def _check_reference(self, rung: Rung, gate: Gate) -> None:
        """A gate compares with a rung that comes before and is evaluated."""
        if gate.not_below is None:
            return
        name = self.start_of(rung) if gate.not_below == PREVIOUS else gate.not_below
        before = [other.name for other in self.rungs[:self._index(rung)]]
        if name not in before:
            raise ValueError(f"rung {rung.name!r}: the gate on {gate.figure!r} compares with "
                             f"{gate.not_below!r}, but no rung before it is that")
        if not self.by_name[name].evaluate:
            raise ValueError(f"rung {rung.name!r}: the gate on {gate.figure!r} compares with "
                             f"{name!r}, which is not evaluated")

    @property
    def by_name(self) -> Mapping[str, Rung]:
        """The rungs by their names."""
        return {rung.name: rung for rung in self.rungs}

    def _index(self, rung: Rung) -> int:
        return [other.name for other in self.rungs].index(rung.name)

    def start_of(self, rung: Rung) -> str | None:
        """The rung name or folder that ``rung`` starts from; None: the recipe's model."""
        if rung.start_from is not None:
            return rung.start_from
        climbed = [r.name for r in self.rungs[:self._index(rung)] if not r.baseline]
        return climbed[-1] if climbed else None

    @property
    def environments(self) -> list[EnvironmentSpec]:
        """Those of the rungs and of the evaluation."""
        return [*(rung.environment for rung in self.rungs if isinstance(rung, RLRung)),
                *(chosen.environment for chosen in self.evaluation.sets),
                self.evaluation.validation_environment]

    def objective_of(self, rung: Rung) -> AnyObjective:
        """How the verdicts of one rung become a reward."""
        own = rung.objective if isinstance(rung, RLRung) else None
        return self.objective if own is None else own

    def seed_of(self, rung: Rung) -> int:
        """The seed of one rung."""
        return self.seed if rung.seed is None else rung.seed


def attempt_of(rung: Rung, number: int, seed: int) -> Rung:
    """The rung as its attempt ``number`` trains it: 0 as it stands, later ones with ``seed`` +
    ``number`` and what ``retry`` overrides.

    Raises:
        ConfigError: the overridden settings are none; one line per problem.
    """
    if number == 0 or rung.retry is None:
        return rung
    data = merge(rung.settings.model_dump(), rung.retry.settings)
    settings = validate(type(rung.settings), data, f"rung {rung.name!r}, retry.settings")
    return rung.model_copy(update={"settings": settings, "seed": seed + number})


def load_recipe(name: str, overrides: list[str]) -> Recipe:
    """Read, override and check a recipe.

    Raises:
        ConfigError: one line per problem: file, key, what is wrong, the nearest known key.
    """
    path = find_recipe(name)
    return validate(Recipe, read_recipe(path, overrides=overrides), str(path))
