"""Sources of prompts as a recipe names them: ``{type: jsonl, path: train.jsonl}`` and so on.

Each source is a small model; :func:`build_source` turns it into prompts. A new kind is one class
with a ``build`` method, named in :data:`SourceSpec`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, model_validator

from safeladder.config import StrictModel, validate
from safeladder.data.files import PlacedRow, find_files, read_jsonl, read_parquet
from safeladder.data.knights_knaves.compact_sources import (
    CompactChains,
    CompactPuzzles,
    CompactWalks,
)
from safeladder.data.knights_knaves.published_sources import (
    FreshKnightsKnavesSource,
    KnightsKnavesSource,
)
from safeladder.data.microworld.reading import ReadingExercises
from safeladder.data.microworld.search import SearchDemonstrations, SearchQuestions
from safeladder.data.microworld.source import MicroworldCorpus, MicroworldSource
from safeladder.data.reasoning_gym import reasoning_gym_prompts
from safeladder.data.responses import read_responses
from safeladder.data.rows import Columns, RowFormat, check_references, to_prompt
from safeladder.data.source import Source
from safeladder.data.splits import split_by_key
from safeladder.data.trace_answers import demonstrations, read_answers, shortest
from safeladder.errors import ConfigError, DataError, import_extra
from safeladder.types import Message, Prompt


class RowSource(Source):
    """What all sources of rows with columns have."""

    columns: Columns = Columns()
    rendered: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="whether a prompt given as one text already went through a chat template; "
        "auto recognises the common templates, always feeds text as it is (TRL's standard format)")
    reference: Literal["auto", "optional", "required"] = Field(
        default="auto", description="auto: within one task, all rows have one or none has")
    demonstration: Literal["keep", "drop"] = Field(
        default="keep",
        description="the assistant's last message (or the completion column): keep it to imitate "
        "it, drop it where the row serves as a prompt")

    def prompts_of(self, rows: Iterable[PlacedRow], name: str) -> list[Prompt]:
        """Make prompts of placed rows."""
        form = RowFormat(self.source or name, self.columns, self.task, self.system_prompt,
                         self.rendered, self.demonstration == "keep")
        placed = [(row.where, to_prompt(row, number, form))
                  for number, row in enumerate(islice(rows, self.limit))]
        if self.reference == "auto":
            check_references(placed)
        if self.reference == "required":
            for where, prompt in placed:
                if prompt.reference is None:
                    raise DataError(f"{where}: no reference, and this source requires one")
        return _with_own_ids([prompt for _, prompt in placed])


def _with_own_ids(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Let the second prompt of an id be ``id#2``, and so on: files joined together repeat ids."""
    seen: dict[str, int] = {}
    result = []
    for prompt in prompts:
        seen[prompt.id] = seen.get(prompt.id, 0) + 1
        times = seen[prompt.id]
        result.append(prompt if times == 1 else replace(prompt, id=f"{prompt.id}#{times}"))
    return result


class _FileSource(RowSource):
    path: str | tuple[str, ...] = Field(description="file, pattern (shard-*.jsonl), or several")

    def _prompts(self, base: Path, read: Callable[[Path], Iterator[PlacedRow]]) -> list[Prompt]:
        paths = [self.path] if isinstance(self.path, str) else self.path
        files = [file for path in paths for file in find_files(path, base)]
        rows = (row for file in files for row in read(file))
        return self.prompts_of(rows, f"{files[0].parent.name}/{files[0].stem}".lstrip("/"))


class JsonlSource(_FileSource):
    """A file of JSON lines."""

    type: Literal["jsonl"]

    def build(self, base: Path) -> list[Prompt]:
        """The prompts of the file."""
        return self._prompts(base, read_jsonl)


class ParquetSource(_FileSource):
    """A Parquet file: plain columns, or verl's schema."""

    type: Literal["parquet"]

    def build(self, base: Path) -> list[Prompt]:
        """The prompts of the file."""
        return self._prompts(base, read_parquet)


class HuggingFaceSource(RowSource):
    """A data set of Hugging Face ``datasets``: an id, or a folder written by save_to_disk."""

    type: Literal["hf"]
    id: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None

    def build(self, base: Path) -> list[Prompt]:
        """The prompts of the data set."""
        data = self._load(base)
        rows = (PlacedRow(f"{self.id}, row {number}", row, base)
                for number, row in enumerate(data))
        return self.prompts_of(rows, self.id.rstrip("/").rsplit("/", 1)[-1])

    def _load(self, base: Path) -> Any:
        datasets = import_extra("datasets", "data", "a hf source")

        folder = base / self.id
        try:
            if any((folder / name).exists() for name in ("state.json", "dataset_dict.json")):
                data = datasets.load_from_disk(str(folder))
                if isinstance(data, datasets.DatasetDict) and self.split is not None:
                    data = data[self.split]
            else:
                data = datasets.load_dataset(
                    self.id, self.config, split=self.split, revision=self.revision)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise DataError(f"{self.id}: {str(error).splitlines()[0]}") from None
        if isinstance(data, datasets.DatasetDict):
            if len(data) > 1:
                raise DataError(f"{self.id}: choose a split: one of {', '.join(data)}")
            data = next(iter(data.values()))
        undecoded = datasets.Image(decode=False)
        for name, feature in data.features.items():
            # Encoded bytes are kept as files; decoding a whole data set would fill the memory.
            if isinstance(feature, datasets.Image):
                data = data.cast_column(name, undecoded)
            elif isinstance(getattr(feature, "feature", None), datasets.Image):
                data = data.cast_column(name, datasets.Sequence(undecoded))
        return data


class PythonSource(RowSource):
    """A Python function (``package.module:function``) that yields rows or Prompts."""

    type: Literal["python"]
    target: str
    args: dict[str, Any] = Field(default_factory=dict)

    def build(self, base: Path) -> list[Prompt]:
        """Call the function and make prompts of what it yields."""
        module_name, _, name = self.target.partition(":")
        try:
            function = getattr(importlib.import_module(module_name), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"target {self.target!r}: {error}; expected module:function") from None
        return prompts_from_iterable(function(**self.args), self.target, self, base)


class ResponsesSource(Source):
    """A file of responses (:mod:`safeladder.data.responses`), to be imitated."""

    type: Literal["responses"]
    path: str

    def build(self, base: Path) -> list[Prompt]:
        """The prompts, each with its response as the assistant's last message."""
        rows = read_responses(base / self.path)
        return self.finish(_with_own_ids([
            replace(row.prompt, messages=(*row.prompt.messages, Message("assistant", row.response)))
            for row in rows]))


class ReasoningGymSource(Source):
    """A generator of reasoning-gym."""

    type: Literal["reasoning_gym"]
    name: str
    size: int = Field(gt=0)
    seed: int = 0
    config: dict[str, Any] = Field(default_factory=dict)

    def build(self, base: Path) -> list[Prompt]:
        """The prompts."""
        size = min(self.size, self.limit or self.size)
        return self.finish(reasoning_gym_prompts(self.name, size, self.seed, self.config))


class SplitSource(Source):
    """One part of another source, cut so that no key is in two parts."""

    type: Literal["split"]
    of: SourceSpec
    key: str = Field(default="structure", description="entry of meta, or id, source, task")
    fractions: dict[str, float] = Field(description="share of the keys per part, summing to 1")
    part: str
    salt: str = Field(default="", description="another text gives another split")

    @model_validator(mode="after")
    def _weight_is_mine(self) -> Self:
        if self.of.weight is not None:
            raise ValueError("the weight belongs to the split, not to its source ('of')")
        return self

    def build(self, base: Path) -> list[Prompt]:
        """The prompts of the part."""
        if self.part not in self.fractions:
            raise ConfigError(
                f"split: part {self.part!r} is none of {', '.join(self.fractions)}")
        parts = split_by_key(self.of.build(base), self.key, self.fractions, self.salt)
        return self.finish(parts[self.part])


class TraceAnswersSource(Source):
    """Right answers of an earlier run as demonstrations (rejection sampling)."""

    type: Literal["trace_answers"]
    path: str | tuple[str, ...] = Field(
        description="trace files (runs/x/traces/rl-train-*.parquet), or several")
    keep: Literal["shortest", "all"] = Field(
        default="shortest", description="of each prompt's right answers")
    minimum: float | None = Field(
        default=None, allow_inf_nan=False, description="reward that makes an answer right; "
        "default: a deciding verdict of the class correct, and none that says otherwise")
    split: str = Field(
        default="train", description="rows of other splits are left out: tests are not to train on")
    prompts: tuple[SourceSpec, ...] | None = Field(
        default=None, min_length=1, description="the sources of that run, where its prompts have "
        "images, which a trace does not hold; default: the messages in the trace")

    def build(self, base: Path) -> list[Prompt]:
        """The demonstrations, in the order in which the run met their prompts.

        Raises:
            DataError: no such file, a row that cannot be used, or no right answer.
        """
        paths = [self.path] if isinstance(self.path, str) else self.path
        answers = read_answers(
            [file for path in paths for file in find_files(path, base)], self.split)
        right = [answer for answer in answers if answer.is_right(self.minimum)]
        if not right:
            wanted = "of the class correct" if self.minimum is None else (
                f"with a reward of at least {self.minimum:g}")
            raise DataError(f"{', '.join(paths)}: {len(answers)} answers of the split "
                            f"{self.split!r}, none completed and {wanted}")
        prompts = None if self.prompts is None else load_sources(self.prompts, base)
        kept = shortest(right) if self.keep == "shortest" else right
        return self.finish(_with_own_ids(demonstrations(kept, prompts)))


class OwnAnswersSource(Source):
    """Right answers that an earlier rung of the same climb sampled: rehearsal of what the policy
    does, where a teacher's answers would bring back what reinforcement learning left behind. They
    are the rung's whether or not a gate held it back.
    """

    type: Literal["own_answers"]
    rung: str = Field(description="the RL rung whose training answers these are")
    keep: Literal["shortest", "all"] = Field(
        default="all", description="of each prompt's right answers")
    minimum: float | None = Field(
        default=None, allow_inf_nan=False, description="as in trace_answers")
    last: int | None = Field(
        default=None, gt=0, description="the last so many traced steps of the rung; default: all")

    def build(self, base: Path) -> list[Prompt]:
        """Raises ConfigError: only a climb knows its rungs."""
        raise ConfigError(f"own_answers of {self.rung!r} are there in a climb alone; trace_answers "
                          "reads those of a finished run")

    def traced(self, traces: Path, prompts: Sequence[SourceSpec]) -> TraceAnswersSource:
        """The same answers in the files of a run's ``traces``; ``prompts`` are the rung's data.

        Raises:
            DataError: the rung left no traces.
        """
        files = sorted(map(str, traces.glob(f"{self.rung}-train-*.parquet")))
        if not files:
            raise DataError(f"own_answers: rung {self.rung!r} left no answers in {traces}")
        settings = self.model_dump(exclude={"type", "rung", "last"})
        return TraceAnswersSource(type="trace_answers", prompts=tuple(prompts), **settings,
                                  path=tuple(files[-(self.last or len(files)):]))


def traced_answers(
    sources: Sequence[SourceSpec], traces: Path, prompts: Mapping[str, Sequence[SourceSpec]],
) -> list[SourceSpec]:
    """The sources, the answers of the rungs in ``prompts`` as what lies in a run's ``traces``.

    Args:
        sources: of a rung.
        traces: folder of the run in which those rungs were trained.
        prompts: rung name -> its data.

    Raises:
        DataError: a rung left no answers.
    """
    return [source.traced(traces, prompts[source.rung])
            if isinstance(source, OwnAnswersSource) and source.rung in prompts else source
            for source in sources]


SourceSpec = Annotated[
    JsonlSource | ParquetSource | HuggingFaceSource | PythonSource | KnightsKnavesSource
    | FreshKnightsKnavesSource | CompactPuzzles | CompactChains | CompactWalks
    | MicroworldSource | MicroworldCorpus | SearchQuestions | SearchDemonstrations
    | ReadingExercises
    | ResponsesSource | ReasoningGymSource | SplitSource | TraceAnswersSource
    | OwnAnswersSource,
    Field(discriminator="type"),
]
SplitSource.model_rebuild()
TraceAnswersSource.model_rebuild()


class _Holder(StrictModel):
    data: SourceSpec


def build_source(spec: Source | Mapping[str, Any], base: Path | None = None) -> list[Prompt]:
    """The prompts of a source, given as a model or as the mapping of a recipe.

    Relative paths start at ``base`` (default: the working directory).

    Raises:
        ConfigError: the mapping is no source.
        DataError: the data cannot be used; file and line are named.
        MissingExtra: an optional package is needed.
    """
    if not isinstance(spec, Source):
        spec = validate(_Holder, {"data": dict(spec)}, "source").data
    prompts = spec.build(base or Path())
    if not prompts:
        raise DataError(f"source {spec.model_dump(exclude_defaults=True)} has no rows")
    return prompts


def load_sources(specs: Sequence[Source], base: Path | None = None) -> list[Prompt]:
    """The prompts of several sources, one after the other; raises as :func:`build_source`."""
    return [prompt for spec in specs for prompt in build_source(spec, base)]


def prompts_from_iterable(
    rows: Iterable[Mapping[str, Any] | Prompt], name: str, form: RowSource | None = None,
    base: Path | None = None,
) -> list[Prompt]:
    """Make prompts of any Python iterable of rows (or of finished Prompts).

    Raises:
        DataError: a row cannot be used; ``name`` and the row's number are named.
    """
    form = form or RowSource()
    iterator = iter(rows)
    first = next(iterator, None)
    if isinstance(first, Prompt):
        finished = list(islice(chain([first], iterator), form.limit))
        if not all(isinstance(row, Prompt) for row in finished):
            raise DataError(f"{name}: yields both Prompts and rows; choose one")
        return form.finish(cast(list[Prompt], finished))

    def placed() -> Iterator[PlacedRow]:
        for number, row in enumerate(chain([] if first is None else [first], iterator)):
            where = f"{name}, row {number}"
            if not isinstance(row, Mapping):
                raise DataError(f"{where}: expected a mapping of columns, got "
                                f"{type(row).__name__}")
            yield PlacedRow(where, row, base or Path())

    return form.prompts_of(placed(), name)
