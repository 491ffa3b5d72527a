"""The arguments of an instruction, read once and completely: nothing missing, nothing unread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from safeladder.errors import DataError

Check = Callable[[str], bool]
"""Whether a text follows one instruction."""

LESS_THAN, AT_LEAST = "less than", "at least"


class Arguments:
    """One item of ``kwargs``. A value of None counts as absent (tables have every column).

    Every method raises DataError that names instruction and argument when it is missing or of
    another kind. :meth:`finish` raises it for what was given and not read: an argument that is
    ignored is an instruction that is not checked.
    """

    def __init__(self, instruction: str, given: Any) -> None:
        if not isinstance(given, Mapping):
            raise DataError(f"ifeval: {instruction}: kwargs must be a mapping, "
                            f"found {type(given).__name__}")
        self.instruction = instruction
        self._given = {key: value for key, value in given.items() if value is not None}
        self._read: set[str] = set()

    def text(self, name: str) -> str:
        """A string with something in it."""
        value = self._take(name)
        if not isinstance(value, str) or not value.strip():
            raise self._wrong(name, "a text", value)
        return value

    def single_character(self, name: str) -> str:
        """One character that is no white space."""
        value = self.text(name)
        if len(value) != 1:
            raise self._wrong(name, "a single character", value)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of at least one such string."""
        value = self._take(name)
        if (not isinstance(value, list | tuple) or not value
                or not all(isinstance(one, str) and one.strip() for one in value)):
            raise self._wrong(name, "a list of texts", value)
        return tuple(value)

    def count(self, name: str, at_least: int = 0) -> int:
        """A whole number; 3.0 is one, True is none."""
        value = self._take(name)
        is_int = isinstance(value, int) and not isinstance(value, bool)
        is_whole = is_int or (isinstance(value, float) and value.is_integer())
        if not is_whole:
            raise self._wrong(name, "a whole number", value)
        if value < at_least:
            raise self._wrong(name, f"at least {at_least}", value)
        return int(value)

    def bound(self, relation: str, number: str) -> Callable[[int], bool]:
        """The comparison that two arguments state: "less than" or "at least", and a number."""
        wanted = self._take(relation)
        if wanted not in (LESS_THAN, AT_LEAST):
            raise self._wrong(relation, f"{LESS_THAN!r} or {AT_LEAST!r}", wanted)
        limit = self.count(number)
        if wanted == LESS_THAN:
            return lambda found: found < limit
        return lambda found: found >= limit

    def finish(self) -> None:
        """Everything that was given has been read."""
        unread = sorted(set(self._given) - self._read)
        if unread:
            raise DataError(f"ifeval: {self.instruction} has no argument {unread[0]!r}")

    def _take(self, name: str) -> Any:
        if name not in self._given:
            raise DataError(f"ifeval: {self.instruction} lacks its argument {name!r}")
        self._read.add(name)
        return self._given[name]

    def _wrong(self, name: str, expected: str, value: Any) -> DataError:
        return DataError(f"ifeval: {self.instruction}: {name} must be {expected}, "
                         f"found {value!r:.60}")


Instruction = Callable[[Arguments], Check]
"""Reads its arguments and returns the check; reading first means that a broken row is an error
whatever the response is.
"""
