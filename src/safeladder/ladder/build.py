"""From what a recipe says to what a loop needs. The one place that picks an engine."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safeladder.data.sources import OwnAnswersSource, SourceSpec, build_source
from safeladder.engine.base import Sampler, SamplingParams
from safeladder.engine.local.models import (
    LoadedModel,
    LoraParams,
    build_model,
    freeze,
    load_model,
)
from safeladder.engine.local.trainer import LocalTrainer
from safeladder.envs import Environment, SingleTurn
from safeladder.errors import DataError, TooManyAbstentions
from safeladder.ladder.embedded import train_seeing_tokenizer, train_tokenizer
from safeladder.ladder.recipe import (
    CheckpointModel,
    EmbeddedModel,
    LocalEngineSpec,
    Recipe,
)
from safeladder.render import Renderer
from safeladder.render.renderer import Demonstration
from safeladder.rollout import rollout
from safeladder.train.metrics import PhaseClock
from safeladder.train.sft import training_row
from safeladder.types import Datum, Group, Prompt, Trajectory
from safeladder.verifiers import (
    Objective,
    VerificationReport,
    Verifier,
    VerifyPolicy,
    verify_all,
)


def initial_model(recipe: Recipe) -> LoadedModel:
    """The model before the first rung: loaded, or made from nothing with the recipe's seed."""
    match recipe.model:
        case CheckpointModel(path=path):
            return load_checkpoint(path, recipe)
        case EmbeddedModel(config=config, vocab_size=vocab_size):
            corpus = itertools.chain.from_iterable(
                corpus_texts(load_prompts([source for source in rung.data
                                           if not isinstance(source, OwnAnswersSource)]))
                for rung in recipe.rungs if rung.type == "sft")
            sees = "vision_config" in config
            train = train_seeing_tokenizer if sees else train_tokenizer
            tokenizer = train(corpus, vocab_size)
            return freeze(build_model(config, tokenizer, seed=recipe.seed), recipe.engine.freeze)
    raise AssertionError(recipe.model)


def load_checkpoint(path: str | Path, recipe: Recipe) -> LoadedModel:
    """Load a Hugging Face checkpoint as the recipe's engine wants it."""
    engine = recipe.engine
    lora = None if engine.lora_rank is None else LoraParams(rank=engine.lora_rank)
    return freeze(load_model(path, device=engine.device, lora=lora), engine.freeze)


def build_trainer(loaded: LoadedModel, engine: LocalEngineSpec, failures: Path) -> LocalTrainer:
    """The engine of a rung; rows that break a loss are saved under ``failures``."""
    return LocalTrainer(
        loaded, precision=engine.precision, workers=engine.workers, max_rows=engine.max_rows,
        max_tokens_per_microbatch=engine.max_tokens_per_microbatch, failure_folder=failures)


def build_renderer(loaded: LoadedModel, recipe: Recipe) -> Renderer:
    """The renderer of a model, with the recipe's chat template if it gives one."""
    model = recipe.model
    template = model.chat_template if isinstance(model, CheckpointModel) else None
    generation = getattr(loaded.model, "generation_config", None)
    ends = getattr(generation, "eos_token_id", None) or ()
    return Renderer(loaded.tokenizer, loaded.processor, chat_template=template,
                    stop_token_ids=(ends,) if isinstance(ends, int) else tuple(ends))


_LOADED: dict[str, list[Prompt]] = {}


def load_prompts(specs: Sequence[SourceSpec]) -> list[Prompt]:
    """All rows of all sources, in order; a source named twice in a climb is loaded once."""
    prompts: list[Prompt] = []
    for spec in specs:
        key = spec.model_dump_json()
        if key not in _LOADED:
            _LOADED[key] = build_source(spec)
        prompts += _LOADED[key]
    return prompts


def corpus_texts(prompts: Sequence[Prompt]) -> list[str]:
    """The words of the rows, for the tokenizer."""
    return [prompt.rendered or " ".join(message.text for message in prompt.messages)
            for prompt in prompts]


def supervised_rows(prompts: Sequence[Prompt], renderer: Renderer) -> list[Datum]:
    """Rows to train on: a demonstration where the last message is the assistant's, else the
    whole text of a rendered row. Of several messages of the assistant the last one is trained on,
    with ``meta["imitate"] = "all"`` every one (never what others say).

    Raises:
        DataError: a row is neither.
    """
    rows = []
    for prompt in prompts:
        if prompt.rendered is not None:
            rows.append(training_row(renderer.encode(prompt.rendered)))
        elif prompt.messages and prompt.messages[-1].role == "assistant":
            wanted = prompt.meta.get("imitate", "last")
            if wanted not in ("last", "all"):
                raise DataError(f"row {prompt.id!r}: imitate is 'last' or 'all', not {wanted!r}")
            shown = (renderer.render_conversation(prompt) if wanted == "all"
                     else _last_response(prompt, renderer))
            rows.append(training_row(shown.token_ids, shown.mask, shown.media))
        else:
            raise DataError(f"row {prompt.id!r}: nothing to imitate; the last message of a "
                            "demonstration is the assistant's")
    return rows


def _last_response(prompt: Prompt, renderer: Renderer) -> Demonstration:
    asked = Prompt(id=prompt.id, messages=prompt.messages[:-1], media=prompt.media)
    return renderer.render_demonstration(asked, prompt.messages[-1].text)


@dataclass(frozen=True)
class Judge:
    """Verifiers with the rule that combines them."""

    verifiers: Mapping[str, Verifier]
    objective: Objective
    policy: VerifyPolicy


@dataclass(frozen=True)
class Collector:
    """Prompts in, judged groups out: :class:`safeladder.train.rl.RolloutAndVerify`."""

    renderer: Renderer
    judge: Judge
    environment: Environment = SingleTurn()

    async def __call__(
        self, policy: Sampler, prompts_P: Sequence[Prompt], group_size: int,
        params: SamplingParams, clock: PhaseClock,
    ) -> tuple[list[Group], Mapping[str, float]]:
        """Sample and judge; counts are tokens and abstentions."""
        with clock("sampling"):
            groups_P = await rollout(policy, self.renderer, self.environment, prompts_P,
                                     group_size, params)
        check_failures(groups_P, self.judge.policy)
        tokens = sum(t.num_tokens for group in groups_P for t in group.trajectories)
        clock.count("sampling", tokens)
        with clock("verification"):
            report = await verify_all(groups_P, self.judge.verifiers, self.judge.objective,
                                      self.judge.policy)
        # The clock's figures are apart: what is in here must be equal on every run.
        counts = {k: v for k, v in report.counts().items() if "seconds" not in k}
        return groups_P, {"tokens/sampled": float(tokens), **counts}


def check_judged(trajectories: Sequence[Trajectory], policy: VerifyPolicy) -> None:
    """What an evaluation may leave unjudged is what training may: a rung whose figures a dead
    judge left out is not done, and is evaluated again on ``--resume``.

    Raises:
        TooManyAbstentions: as :func:`verify_all`.
    """
    rows: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        for name in trajectory.verdicts:
            rows.setdefault(name, []).append(trajectory)
    report = VerificationReport()
    for name, judged in rows.items():
        report.add(name, judged, 0.0)
    report.check(policy.max_abstentions, policy.min_abstentions)


def check_failures(groups_P: Sequence[Group], policy: VerifyPolicy) -> None:
    """Failed rollouts are as good as unjudged ones: above the same share they stop the run.

    Raises:
        TooManyAbstentions: with the first reason.
    """
    failed = [t for group in groups_P for t in group.trajectories if t.status.is_error]
    total = sum(len(group.trajectories) for group in groups_P)
    many = len(failed) >= policy.min_abstentions and len(failed) > policy.max_abstentions * total
    if many or (failed and len(failed) == total):
        raise TooManyAbstentions(
            f"{len(failed)} of {total} rollouts failed, more than verify.max_abstentions "
            f"({policy.max_abstentions:g}) allows; the first: {failed[0].status}: "
            f"{failed[0].error}")
