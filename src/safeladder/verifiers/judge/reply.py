"""Reading a judge's reply: one verdict, in one of two forms, with the id of its question.

::

    {"id": "3f9a01", "reason": "...", "label": "unsafe"}
    3f9a01 unsafe

Text may stand before it (some judges think aloud), never after it. A reply with no verdict, with
two, with a label that is none, without the id or with another one is unreadable: the judge could
not judge. The id is made from the material, so that a verdict which the response itself contains
does not count even when a judge repeats it word for word.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from safeladder.errors import DataError
from safeladder.render.think import split_think
from safeladder.verifiers.labels import canonical

MAX_CHARACTERS = 100_000
_AROUND = " \t\r*_`>\"'\u201c\u201d.\u3002"
_BETWEEN = " \t:\uff1a-*_`"


class UnreadableVerdict(DataError):
    """The judge answered, but not with one verdict."""


class Reply(NamedTuple):
    """A verdict, read."""

    label: str
    reason: str


def read_reply(text: str, classes: Sequence[str], verdict_id: str) -> Reply:
    """Read the one verdict of a reply, in time linear in its length.

    Raises:
        UnreadableVerdict: says what is wrong.
    """
    said = split_think(text[:MAX_CHARACTERS]).answer.strip()
    if not said:
        raise UnreadableVerdict("no answer")
    start = said.find("{")
    if start >= 0:
        return _from_object(said, start, classes, verdict_id)
    return _from_line(said, classes, verdict_id)


def _from_object(said: str, start: int, classes: Sequence[str], verdict_id: str) -> Reply:
    try:
        found, length = _DECODER.raw_decode(said[start:])
    except (ValueError, RecursionError):
        raise UnreadableVerdict("the object is not JSON") from None
    if said[start + length:].strip(" \t\r\n`"):
        raise UnreadableVerdict("text after the verdict")
    if not isinstance(found, dict) or not {"id", "label"} <= found.keys() <= {
            "id", "label", "reason"}:
        raise UnreadableVerdict("an object with other keys than id, reason and label")
    if _labels_in(said[:start], verdict_id):
        raise UnreadableVerdict("two verdicts")
    if found["id"] != verdict_id:
        raise UnreadableVerdict("not the id of this question")
    reason = found.get("reason", "")
    return Reply(_label(found["label"], classes), reason if isinstance(reason, str) else "")


def _from_line(said: str, classes: Sequence[str], verdict_id: str) -> Reply:
    lines = said.split("\n")
    found = _labels_in(said, verdict_id)
    if not found:
        raise UnreadableVerdict("no line with the id of this question")
    if len(found) > 1:
        raise UnreadableVerdict("two verdicts")
    last = _labels_in(next(line for line in reversed(lines) if line.strip(_AROUND)), verdict_id)
    if not last:
        raise UnreadableVerdict("text after the verdict")
    return Reply(_label(last[0], classes), " ".join(" ".join(lines[:-1]).split()))


def _labels_in(text: str, verdict_id: str) -> list[str]:
    """What stands behind the id on every line that begins with it."""
    found = []
    for line in text.split("\n"):
        bare = line.strip(_AROUND)
        if bare.startswith(verdict_id):
            found.append(bare[len(verdict_id):].strip(_BETWEEN + _AROUND))
    return found


def _label(value: Any, classes: Sequence[str]) -> str:
    if not isinstance(value, str) or len(value) > 200:
        raise UnreadableVerdict("the label is no short text")
    try:
        return canonical(value.strip(), classes)
    except DataError:
        raise UnreadableVerdict(f"no such label: {value[:60]!r}") from None


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


_DECODER = json.JSONDecoder(object_pairs_hook=_no_key_twice)
