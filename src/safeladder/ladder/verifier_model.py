"""Training of a verifier that is a language model, and building it from what training left.

A trained verifier is a folder::

    verifier.yaml     what it is and how it asks: {type, path: ., rubric}
    checkpoint/       Hugging Face format
    recipe.yaml       the resolved recipe
    metrics.json      temperature, validation and test figures, seconds
    metrics.jsonl     one line per training step
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from safeladder.config import read_yaml, validate
from safeladder.data.responses import LabelledResponse
from safeladder.engine.local.classifier import (
    Classifier,
    load_classifier,
    save_classifier,
    with_head,
)
from safeladder.engine.local.models import LoadedModel, build_model, load_model, save_checkpoint
from safeladder.engine.local.sampler import SamplingEngine
from safeladder.engine.local.scorer import LocalChoices, LocalScorer
from safeladder.engine.local.trainer import LocalTrainer
from safeladder.errors import CheckpointError
from safeladder.files import atomic_folder, write_text
from safeladder.ladder.build import build_trainer
from safeladder.ladder.embedded import train_verifier_tokenizer
from safeladder.ladder.log import RungLog
from safeladder.ladder.recipe import CheckpointModel
from safeladder.ladder.run_dir import RunDir
from safeladder.ladder.verifier_cases import write_cases
from safeladder.ladder.verifier_model_recipe import (
    ClassifierVerifierRecipe,
    GenerativeVerifierRecipe,
    Lesson,
    ModelVerifierRecipe,
    Stage,
    lesson_rows,
    load_rows,
)
from safeladder.render import Renderer
from safeladder.train.progress import ProgressDisplay, make_progress
from safeladder.train.rows import ShuffledRows
from safeladder.train.sft import SFTRun, train_sft, training_row
from safeladder.train.sinks import build_sinks
from safeladder.train.state import Checkpoints
from safeladder.types import Datum, Prompt
from safeladder.verifiers.classifier import ClassifierSpec, ClassifierVerifier
from safeladder.verifiers.generative import GenerativeSpec, GenerativeVerifier
from safeladder.verifiers.labels import canonical
from safeladder.verifiers.model_based import ModelVerifier
from safeladder.verifiers.registry import Maker
from safeladder.verifiers.rubric import Rubric, Shown, fit_temperature, softmax

CARD, CHECKPOINT, METRICS = "verifier.yaml", "checkpoint", "metrics.json"


_CORPUS_ROWS = 1500
"""Rows of a lesson that the tokenizer of a model made from nothing is trained on."""

# ---------------------------------------------------------------- building trained verifiers

def model_makers() -> Mapping[str, Maker]:
    """What :func:`safeladder.verifiers.build_verifiers` needs to build trained verifiers."""
    return {"generative": make_generative, "classifier": make_classifier}


def make_generative(spec: GenerativeSpec, where: str) -> GenerativeVerifier:
    """Load the verifier that a recipe names.

    Raises:
        CheckpointError: the folder or its checkpoint cannot be read.
        ConfigError: neither the folder nor the recipe has a rubric.
    """
    rubric, checkpoint = _rubric(spec, where)
    loaded = load_model(checkpoint, device=spec.device)
    return _generative(spec.name, rubric, loaded, spec.reason_tokens, _origin(checkpoint))


def make_classifier(spec: ClassifierSpec, where: str) -> ClassifierVerifier:
    """Load the verifier that a recipe names.

    Raises:
        CheckpointError, ConfigError: as :func:`make_generative`.
    """
    rubric, checkpoint = _rubric(spec, where)
    classifier = load_classifier(checkpoint, rubric.classes, spec.device)
    return _classifier(spec.name, rubric, classifier, _origin(checkpoint))


def _rubric(spec: GenerativeSpec | ClassifierSpec, where: str) -> tuple[Rubric, Path | str]:
    """The rubric and the place of the weights: a trained folder, or any checkpoint."""
    folder = Path(spec.path)
    card = folder / CARD
    if not card.exists():
        if spec.rubric is None:
            raise CheckpointError(f"{where}: {folder} has no {CARD}: give a folder that "
                                  "'safeladder verifier train' left, or a rubric")
        return spec.rubric, spec.path
    found = read_yaml(card)
    if found.get("type") != spec.type:
        raise CheckpointError(f"{where}: {folder} holds a verifier of type "
                              f"{found.get('type')!r}, not {spec.type!r}")
    rubric = spec.rubric or validate(Rubric, found.get("rubric", {}), str(card))
    if spec.reasoning is not None:
        rubric = rubric.model_copy(update={"reasoning": spec.reasoning})
    return rubric, folder / CHECKPOINT


def _origin(checkpoint: Path | str) -> str:
    """Names the weights: the folder's name and the head of the SHA-256 of its weight files."""
    digest = hashlib.sha256()
    for file in sorted(Path(checkpoint).glob("*.safetensors")):
        digest.update(file.name.encode())
        with file.open("rb") as data:
            digest.update(hashlib.file_digest(data, "sha256").digest())
    return f"{Path(checkpoint).parent.name}@{digest.hexdigest()[:12]}"


def _generative(name: str, rubric: Rubric, loaded: LoadedModel, reason_tokens: int = 0,
                origin: str = "") -> GenerativeVerifier:
    return GenerativeVerifier(
        name, rubric, _renderer(loaded), SamplingEngine(loaded).sampler(), LocalChoices(loaded),
        reason_tokens, origin)


def _classifier(name: str, rubric: Rubric, classifier: Classifier, origin: str = "",
                ) -> ClassifierVerifier:
    return ClassifierVerifier(name, rubric, _renderer(classifier.loaded),
                              LocalScorer(classifier.loaded), origin)


def _renderer(loaded: LoadedModel) -> Renderer:
    return Renderer(loaded.tokenizer, loaded.processor)


# ---------------------------------------------------------------- training

@dataclass(frozen=True)
class _Rows:
    train: list[LabelledResponse]
    validation: list[LabelledResponse]
    test: list[LabelledResponse]


def train_model_verifier(
    recipe: GenerativeVerifierRecipe | ClassifierVerifierRecipe, out: Path,
) -> dict[str, Any]:
    """Train, calibrate and measure; write the folder ``out``; return its ``metrics.json``.

    Raises:
        StorageError: ``out`` is there already, or cannot be written.
        DataError: rows without labels, without a column that a lesson asks for, or too long.
        NonFiniteLoss: training diverged; the rows are under ``<out>-failures``.
    """
    with atomic_folder(out) as folder, make_progress() as display:
        return train_into(folder, recipe, display, out.with_name(f"{out.name}-failures"))


def train_into(
    folder: Path, recipe: GenerativeVerifierRecipe | ClassifierVerifierRecipe,
    display: ProgressDisplay, failures: Path,
) -> dict[str, Any]:
    """:func:`train_model_verifier` for a folder that is there, and a display that runs.

    Raises:
        DataError: as there; NonFiniteLoss: the rows are under ``failures``.
    """
    return asyncio.run(_train(recipe, folder, display, failures))


async def _train(recipe: GenerativeVerifierRecipe | ClassifierVerifierRecipe, folder: Path,
                 display: ProgressDisplay, failures: Path) -> dict[str, Any]:
    clock, cpu = time.perf_counter(), time.process_time()
    rows = _Rows(*(load_rows(specs) for specs in (recipe.train, recipe.validation, recipe.test)))
    work = _Training(recipe, folder, display, failures)
    prepared = time.perf_counter() - clock
    verifier = await work.run(rows.train)
    seconds = {"data": prepared, "all": time.perf_counter() - clock,
               "cpu": time.process_time() - cpu}
    z, labels = await _class_scores(verifier, rows.validation)
    temperature = fit_temperature(z, labels)
    verifier.rubric = recipe.rubric.model_copy(update={"temperature": temperature})
    seconds["with_calibration"] = time.perf_counter() - clock
    metrics: dict[str, Any] = {
        "rows": {"train": len(rows.train), "validation": len(rows.validation)},
        "temperature": temperature, "seconds": seconds,
        "validation": _figures(z, labels, temperature)}
    if rows.test:
        metrics["rows"]["test"] = len(rows.test)
        metrics["test"] = _figures(*await _class_scores(verifier, rows.test), temperature)
    _write(folder, recipe, verifier.rubric, metrics)
    write_cases(folder, rows.test or rows.validation)
    return metrics


class _Training:
    """The stages of one recipe."""

    def __init__(self, recipe: ModelVerifierRecipe, folder: Path, display: ProgressDisplay,
                 failures: Path) -> None:
        self.recipe, self.folder, self.display = recipe, folder, display
        self.failures = failures
        self.sinks = build_sinks([], folder)

    async def run(self, train: Sequence[LabelledResponse]) -> ModelVerifier:
        """Train all stages, save the checkpoint, return the verifier (temperature 1)."""
        recipe, rubric = self.recipe, self.recipe.rubric
        loaded = self._initial_model(train)
        renderer = _renderer(loaded)
        trainer = build_trainer(loaded, recipe.engine, self.failures)
        classifier: Classifier | None = None
        first_head = (recipe.first_head_stage if isinstance(recipe, ClassifierVerifierRecipe)
                      else len(recipe.stages))
        for number, stage in enumerate(recipe.stages):
            headed = number >= first_head
            if headed and classifier is None:
                classifier = with_head(loaded, rubric.classes, recipe.seed,
                                       _label_tokens(loaded, rubric) if number else None)
                trainer = build_trainer(loaded, recipe.engine, self.failures)
            await self._stage(stage, trainer, self._data(stage, train, renderer, headed))
        for sink in self.sinks:
            sink.close()
        if classifier is not None:
            save_classifier(classifier, self.folder / CHECKPOINT)
            return _classifier(recipe.name, rubric, classifier)
        save_checkpoint(loaded, self.folder / CHECKPOINT)
        return _generative(recipe.name, rubric, loaded)

    def _initial_model(self, train: Sequence[LabelledResponse]) -> LoadedModel:
        model, rubric = self.recipe.model, self.recipe.rubric
        if isinstance(model, CheckpointModel):
            return load_model(model.path, device=self.recipe.engine.device)
        texts = [text for stage in self.recipe.stages for lesson in stage.lessons
                 for row in lesson_rows(train, lesson)[:_CORPUS_ROWS]
                 for text in _texts(row, lesson, rubric)]
        tokenizer = train_verifier_tokenizer(
            texts, model.vocab_size, rubric.classes, images="vision_config" in model.config)
        return build_model(model.config, tokenizer, seed=self.recipe.seed)

    async def _stage(self, stage: Stage, trainer: LocalTrainer, data: list[Datum]) -> None:
        log = RungLog(stage.name, RunDir(self.folder), self.sinks, self.display,
                      stage.settings.num_steps)
        await train_sft(SFTRun(
            name=stage.name, trainer=trainer, rows=ShuffledRows(data, self.recipe.seed),
            settings=stage.settings, checkpoints=Checkpoints(self.folder / "state"), log=log))
        self.display.rung_finished()

    def _data(self, stage: Stage, train: Sequence[LabelledResponse], renderer: Renderer,
              headed: bool) -> list[Datum]:
        rubric = self.recipe.rubric
        data = []
        for lesson in stage.lessons:
            shown = Shown(rubric, lesson.template, renderer.plain)
            for row in lesson_rows(train, lesson):
                prompt = shown.prompt(row.trajectory())
                if lesson.answer == "label":
                    label = canonical(row.label or "", rubric.classes)
                    data.append(_class_row(prompt, rubric.classes.index(label), renderer)
                                if headed else _written_row(prompt, label, renderer))
                else:
                    data.append(_written_row(prompt, row.label or "", renderer))
        return data


def _label_tokens(loaded: LoadedModel, rubric: Rubric) -> list[int] | None:
    """The tokens of the labels, where each label is one: a head can begin with their rows."""
    ids = [_renderer(loaded).encode(label) for label in rubric.classes]
    return [row[0] for row in ids] if all(len(row) == 1 for row in ids) else None


def _texts(row: LabelledResponse, lesson: Lesson, rubric: Rubric) -> list[str]:
    """The words of one training row, for the tokenizer."""
    prompt = Shown(rubric, lesson.template).prompt(row.trajectory())
    texts = [message.text for message in prompt.messages]
    return texts if lesson.answer == "label" else [*texts, row.label or ""]


def _written_row(prompt: Prompt, answer: str, renderer: Renderer) -> Datum:
    """The answer is written, and the turn ended, behind the prompt."""
    shown = renderer.render_demonstration(prompt, answer)
    return training_row(shown.token_ids, shown.mask, shown.media)


def _class_row(prompt: Prompt, number: int, renderer: Renderer) -> Datum:
    """The prompt, and as its one trained token the number of the class."""
    shown = renderer.render(prompt)
    mask = np.zeros(len(shown.token_ids) + 1, np.float32)
    mask[-1] = 1.0
    return training_row((*shown.token_ids, number), mask, shown.media)


async def _class_scores(
    verifier: ModelVerifier, rows: Sequence[LabelledResponse],
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], list[int]]:
    """(N, K) class scores at temperature 1 and (N,) labels."""
    classes = verifier.rubric.classes
    found = await asyncio.gather(*(verifier.scores_of(row.trajectory()) for row in rows))
    labels = [classes.index(canonical(row.label or "", classes)) for row in rows]
    return np.array(found, np.float64).reshape(len(rows), len(classes)), labels


def _figures(z: np.ndarray[Any, np.dtype[np.float64]], labels: Sequence[int],
             temperature: float) -> dict[str, float]:
    """Accuracy and mean negative log-likelihood (nats) before and after the temperature."""
    index = np.arange(len(labels))
    nll = [float(-np.log(np.maximum(softmax(z / t)[index, list(labels)], 1e-12)).mean())
           for t in (1.0, temperature)]
    return {"accuracy": float((z.argmax(1) == np.array(labels)).mean()),
            "nll_uncalibrated": nll[0], "nll": nll[1]}


def _write(folder: Path, recipe: ModelVerifierRecipe, rubric: Rubric,
           metrics: Mapping[str, Any]) -> None:
    card = {"type": recipe.model_dump()["type"], "name": recipe.name, "path": ".",
            "rubric": rubric.model_dump(mode="json", exclude_defaults=True)}
    write_text(folder / CARD, yaml.safe_dump(card, sort_keys=False, width=100))
    write_text(folder / "recipe.yaml",
               yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=100))
    write_text(folder / METRICS, json.dumps(metrics, indent=2))
