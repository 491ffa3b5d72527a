"""Recipes of verifiers that are trained language models: what is learned, in which order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from safeladder.config import StrictModel, near_miss
from safeladder.data.microworld import FORMS, labelled_responses
from safeladder.data.responses import LabelledResponse, read_responses
from safeladder.errors import DataError
from safeladder.ladder.recipe import CheckpointModel, EmbeddedModel, LocalEngineSpec
from safeladder.train.sft import SFTSettings
from safeladder.verifiers.rubric import Rubric

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class ResponseFiles(StrictModel):
    """Labelled responses in JSON-lines files (``data/responses.py``)."""

    type: Literal["files"]
    paths: list[str] = Field(min_length=1)

    def load(self) -> list[LabelledResponse]:
        """Read them."""
        return [row for path in self.paths for row in read_responses(Path(path))]


class MicroworldResponses(StrictModel):
    """Labelled responses of the microworld, drawn from a seed."""

    type: Literal["microworld"]
    kind: Literal["safety", "value", "knowledge"]
    split: Literal["train", "validation", "test", "unseen_forms"]
    count: int = Field(ge=1)
    seed: int = 0
    forms: list[Literal["text", "object_image", "scene_image", "wrapped"]] = Field(
        default=list(FORMS), min_length=1, description="of safety prompts")
    level: int | None = None

    def load(self) -> list[LabelledResponse]:
        """Draw them."""
        return labelled_responses(self.kind, self.split, self.count, self.seed,
                                  tuple(self.forms), self.level)


Responses = Annotated[ResponseFiles | MicroworldResponses, Field(discriminator="type")]


class Lesson(StrictModel):
    """Rows of one kind within a stage: what is shown, and what is to be answered.

    A verdict mixes several judgements (is the request dangerous? does the reply do what was
    asked?), and from labels alone a model made from nothing learns the easy one and stops. A
    lesson may therefore ask for another column of the data than the label: a written reason, or its
    conclusion (which hazard the request brings, or none).
    """

    answer: str = Field(
        "label", description="the label, or the name of another column of the data whose value "
        "is to be written")
    sentence: Literal["first", "last"] | None = Field(
        None, description="only one sentence of the value: what a written reason begins with "
        "(what is seen), or what it comes to")
    template: str | None = Field(
        None, description="None: the rubric's; another one may leave the response out")
    rows: int | None = Field(None, ge=1, description="so many; None: all")
    media: Literal["any", "with", "without"] = Field(
        "any", description="rows with images, without, or both")
    where: dict[str, str] = Field(
        default_factory=dict, description="column -> value: rows of some kind only")


class Stage(StrictModel):
    """Some steps on a mixture of lessons; each row of a step weighs the same."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    lessons: list[Lesson] = Field(min_length=1)
    settings: SFTSettings


class ModelVerifierRecipe(StrictModel):
    """What the generative and the classifier-head verifier have in common."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    description: str = ""
    seed: int = 0
    model: Annotated[EmbeddedModel | CheckpointModel, Field(discriminator="type")]
    engine: LocalEngineSpec = LocalEngineSpec()
    rubric: Rubric
    train: list[Responses] = Field(min_length=1)
    validation: list[Responses] = Field(
        min_length=1, description="rows on which the temperature is fitted; never trained on")
    test: list[Responses] = Field(
        default_factory=list, description="measured after training, never trained on")
    stages: list[Stage] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> ModelVerifierRecipe:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError("stages: two have the same name")
        if not any(lesson.answer == "label" for lesson in self.stages[-1].lessons):
            raise ValueError("stages: the last one must teach the label")
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of the model's outputs."""
        return self.rubric.classes


class GenerativeVerifierRecipe(ModelVerifierRecipe):
    """A verifier that writes its label (``verifiers/generative.py``)."""

    type: Literal["generative"]


class ClassifierVerifierRecipe(ModelVerifierRecipe):
    """A verifier with a classification head (``verifiers/classifier.py``).

    Stages before ``head_from`` train the language model, which may be taught to write the label
    beside other lessons; from there on the head answers, and labels alone are taught.
    """

    type: Literal["classifier"]
    head_from: str | None = Field(
        None, description="stage before which the head is put on; None: the first that teaches "
        "the label")

    @model_validator(mode="after")
    def _head_answers_with_labels(self) -> ClassifierVerifierRecipe:
        names = [stage.name for stage in self.stages]
        if self.head_from is not None and self.head_from not in names:
            raise ValueError(f"head_from: no stage {self.head_from!r}"
                             f"{near_miss(self.head_from, names)}")
        for stage in self.stages[self.first_head_stage:]:
            if any(lesson.answer != "label" for lesson in stage.lessons):
                raise ValueError(f"stages.{stage.name}: a head answers with classes alone; put "
                                 "other lessons into an earlier stage, and head_from behind it")
        return self

    @property
    def first_head_stage(self) -> int:
        """Index of the first stage that trains the head."""
        return next(i for i, stage in enumerate(self.stages) if stage.name == self.head_from or (
            self.head_from is None and any(x.answer == "label" for x in stage.lessons)))


def load_rows(specs: Sequence[Any]) -> list[LabelledResponse]:
    """All rows of all sources.

    Raises:
        DataError: a row without a label.
    """
    rows = [row for spec in specs for row in spec.load()]
    bare = [row.prompt.id for row in rows if row.label is None]
    if bare:
        raise DataError(f"{len(bare)} of {len(rows)} rows have no label (the first: {bare[0]})")
    return rows


def lesson_rows(rows: Sequence[LabelledResponse], lesson: Lesson) -> list[LabelledResponse]:
    """The rows a lesson teaches; ``label`` holds what is to be answered.

    Raises:
        DataError: a row lacks the column, or no row fits.
    """
    chosen = [row for row in rows
              if (lesson.media == "any" or bool(row.prompt.media) == (lesson.media == "with"))
              and all(str(row.prompt.meta.get(key)) == value
                      for key, value in lesson.where.items())]
    if not chosen:
        raise DataError(f"no training row fits the lesson on {lesson.answer!r} "
                        f"(images: {lesson.media}, where: {lesson.where or 'any'})")
    chosen = chosen[:lesson.rows]
    if lesson.answer == "label":
        return chosen
    return [replace(row, label=_column(row, lesson)) for row in chosen]


def _column(row: LabelledResponse, lesson: Lesson) -> str:
    name = lesson.answer
    if name not in row.prompt.meta:
        raise DataError(f"row {row.prompt.id!r} has no column {name!r} (it has: "
                        f"{', '.join(map(str, row.prompt.meta))})")
    value = row.prompt.meta[name]
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if lesson.sentence is None:
        return text
    sentences = _SENTENCE_END.split(text.strip())
    return sentences[0 if lesson.sentence == "first" else -1]
