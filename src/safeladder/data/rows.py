"""Dataset rows to Prompts: which column means what.

The conventions of TRL (``prompt`` as text or messages, further columns for the rewards), of verl
(``prompt``, ``data_source``, ``ability``, ``reward_model.ground_truth``, ``extra_info``) and of
common benchmark files (``question``, ``problem``, ``answer``, ``solution``) are understood as they
are; :class:`Columns` names others. Every column that is not one of these goes to ``Prompt.meta``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from safeladder.config import StrictModel
from safeladder.data.files import PlacedRow
from safeladder.data.messages import place_images, read_message
from safeladder.data.rendered import rendered_turns
from safeladder.errors import DataError
from safeladder.types import Message, Prompt

PROMPT_COLUMNS = ("prompt", "messages", "question", "problem")
REFERENCE_COLUMNS = ("reference", "ground_truth", "answer", "solution")
IMAGE_COLUMNS = ("images", "image")
OWN_EXTRA_INFO = frozenset({"id", "index", "split", "meta"})
"""The fields of ``extra_info`` in the verl files that SafeLadder writes."""


class Columns(StrictModel):
    """Names of columns. A column named here must be in every row; the rest is found by itself."""

    prompt: str | None = Field(default=None, description="text, or a list of messages")
    reference: str | None = Field(
        default=None, description="what verifiers compare with; any JSON value")
    id: str | None = Field(
        default=None, description="tells rows apart in traces; default: id, or the row's number")
    task: str | None = Field(
        default=None, description="routes to verifiers; default: task or ability")
    images: str | None = Field(
        default=None, description="one image or a list; default: images or image")
    drop: tuple[str, ...] = Field(
        default=(), description="columns to treat as if they were not there")


@dataclass(frozen=True)
class RowFormat:
    """How the rows of one source are read."""

    source: str
    """Prompt.source where the row has no ``data_source`` or ``source``, and the head of ids."""
    columns: Columns = field(default_factory=Columns)
    task: str | None = None
    """Task of every row; None: the row's own, else "general"."""
    system_prompt: str | None = None
    """System message for rows that have none."""
    rendered: Literal["auto", "always", "never"] = "auto"
    """Whether a prompt given as one text already went through a chat template."""
    keep_demonstration: bool = True
    """Whether the assistant's last message, or the completion column, stays."""


def to_prompt(row: PlacedRow, number: int, form: RowFormat) -> Prompt:
    """Make a Prompt of one row, the ``number``-th of its source.

    Raises:
        DataError: the prompt or a named column is missing, or a value cannot be used.
    """
    where = row.where
    taken = _Cells(row, form.columns.drop)
    prompt_cell = taken.required("prompt", form.columns.prompt, PROMPT_COLUMNS)
    verl = taken.verl()
    reference = (verl.reference if verl else
                 taken.optional(form.columns.reference, REFERENCE_COLUMNS, "reference"))
    task = taken.optional(form.columns.task, ("task", "ability"), "task")
    source = taken.optional(None, ("data_source", "source"), "source")
    name = taken.optional(form.columns.id, ("id",), "id")
    images = taken.optional(form.columns.images, IMAGE_COLUMNS, "images")

    messages, rendered = _read_prompt(prompt_cell.value, where, form)
    completion = taken.optional(None, ("completion",), "completion")
    if completion is not None and rendered is None:
        messages = (*messages, Message("assistant", _completion_text(completion, where)))
    if not form.keep_demonstration and rendered is None and messages[-1].role == "assistant":
        messages = messages[:-1]
    if not messages:
        raise DataError(f"{where}: nothing but the assistant's message")
    messages, media = place_images(messages, images, where, row.folder)
    meta = taken.rest()
    if verl and verl.meta is not None:
        meta = verl.meta | meta
        name = verl.id
    if completion is not None and rendered is not None:
        meta["completion"] = _completion_text(completion, where)
    return Prompt(
        id=name if verl and verl.id else f"{form.source}:{number if name is None else name}",
        messages=messages,
        reference=reference,
        source=str(source) if source is not None else form.source,
        task=form.task or (str(task) if task is not None else "general"),
        media=media,
        meta=meta,
        rendered=rendered,
    )


def check_references(prompts: Iterable[tuple[str, Prompt]]) -> None:
    """Within one task either every prompt has a reference or none.

    Raises:
        DataError: naming the first row without one.
    """
    first_without: dict[str, str] = {}
    with_reference: set[str] = set()
    for where, prompt in prompts:
        if prompt.reference is None:
            first_without.setdefault(prompt.task, where)
        else:
            with_reference.add(prompt.task)
    for task, where in first_without.items():
        if task in with_reference:
            raise DataError(
                f"{where}: no reference (one of the columns {', '.join(REFERENCE_COLUMNS)}), "
                f"though other rows of task {task!r} have one; set reference: optional if it "
                "may be missing")


class _Cell(NamedTuple):
    column: str
    value: Any


class _Verl(NamedTuple):
    """What only verl's schema holds."""

    reference: Any
    id: str | None = None
    meta: dict[str, Any] | None = None
    """Set for files that write_verl_parquet wrote: the meta of the original prompt."""


class _Cells:
    """The cells of one row; remembers which were read, so that the rest becomes meta."""

    def __init__(self, row: PlacedRow, dropped: Sequence[str]) -> None:
        self.row = {name: value for name, value in row.cells.items() if name not in dropped}
        self.where = row.where
        self.read: set[str] = set()

    def required(self, what: str, column: str | None, usual: Sequence[str]) -> _Cell:
        for name in [column] if column else usual:
            if _is_present(self.row.get(name)):
                self.read.add(name)
                return _Cell(name, self.row[name])
        expected = f"column {column!r}" if column else f"one of the columns {', '.join(usual)}"
        raise DataError(f"{self.where}: no {what}; expected {expected} "
                        f"(found: {', '.join(map(str, self.row)) or 'nothing'}); "
                        f"columns.{what} names another")

    def optional(self, column: str | None, usual: Sequence[str], what: str) -> Any:
        if column:
            return jsonable(self.required(what, column, ()).value, self.where, column, what)
        for name in usual:
            if name not in self.read and _is_present(self.row.get(name)):
                self.read.add(name)
                return jsonable(self.row[name], self.where, name, what)
        return None

    def verl(self) -> _Verl | None:
        """The columns of verl's schema, if the row has them."""
        model = self.row.get("reward_model")
        if not isinstance(model, Mapping):
            return None
        reference = jsonable(model.get("ground_truth"), self.where, "reward_model.ground_truth")
        if reference is None and model.get("style", "rule") == "rule":
            raise DataError(f"{self.where}: reward_model has no ground_truth")
        self.read.add("reward_model")
        extra = self.row.get("extra_info")
        if isinstance(extra, Mapping) and set(extra) == OWN_EXTRA_INFO:
            self.read.add("extra_info")
            return _Verl(reference, str(extra["id"]), json.loads(extra["meta"]))
        return _Verl(reference)

    def rest(self) -> dict[str, Any]:
        return {name: jsonable(value, self.where, name) for name, value in self.row.items()
                if name not in self.read}


def _is_present(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def jsonable(value: Any, where: str, column: str, what: str = "") -> Any:
    """``value`` as plain JSON types: arrays and tuples become lists, NaN becomes None.

    Image cells pass as they are.

    Raises:
        DataError: a value that JSON cannot hold.
    """
    if what == "images" or value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Mapping):
        return {str(k): jsonable(v, where, column) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item, where, column) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((jsonable(item, where, column) for item in value), key=repr)
    if isinstance(value, np.ndarray | np.generic):
        return jsonable(value.tolist(), where, column)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise DataError(f"{where}: column {column!r} holds a {type(value).__name__}, which is no JSON "
                    "value; leave it out with columns.drop")


def _read_prompt(
    value: Any, where: str, form: RowFormat
) -> tuple[tuple[Message, ...], str | None]:
    value = value.tolist() if isinstance(value, np.ndarray) else value
    text = value if isinstance(value, str) else _only_text(value)
    turns = None
    if text is not None and form.rendered != "never":
        turns = rendered_turns(text)
        if turns is None and form.rendered == "always":
            turns = (Message("user", text),)
    if turns is not None:
        if form.system_prompt:
            raise DataError(f"{where}: the prompt already went through a chat template, so "
                            "system_prompt cannot be added")
        return turns, text
    if isinstance(value, str):
        if not value.strip():
            raise DataError(f"{where}: the prompt is empty")
        messages = [Message("user", value)]
    elif isinstance(value, list | tuple) and value:
        messages = [read_message(item, where) for item in value]
    else:
        raise DataError(f"{where}: the prompt must be text or a list of messages, got {value!r}")
    if form.system_prompt and all(message.role != "system" for message in messages):
        messages.insert(0, Message("system", form.system_prompt))
    return tuple(messages), None


def _only_text(value: Any) -> str | None:
    """The content of a list of one message, if it is text."""
    if isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], Mapping):
        content = value[0].get("content")
        return content if isinstance(content, str) else None
    return None


def _completion_text(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and len(value) == 1:
        return read_message(value[0], where).text
    raise DataError(f"{where}: completion must be text or one assistant message")
