"""All 25 instruction types, and how a response is held against them (strictly and loosely)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from safeladder.config import near_miss
from safeladder.errors import DataError
from safeladder.verifiers.ifeval import case, detectable, keywords, length, whole
from safeladder.verifiers.ifeval.arguments import Arguments, Check, Instruction

INSTRUCTIONS: dict[str, Instruction] = {
    **keywords.INSTRUCTIONS, **case.INSTRUCTIONS, **length.INSTRUCTIONS,
    **detectable.INSTRUCTIONS, **whole.INSTRUCTIONS}
"""Instruction id -> what reads its arguments and returns the check."""


class Followed(NamedTuple):
    """One instruction of one response."""

    instruction: str
    strict: bool
    loose: bool
    """Also when a first or last line, or the asterisks, have to be taken away for it."""


def build_checks(reference: Mapping[str, Any]) -> list[tuple[str, Check]]:
    """Read a row's ``instruction_id_list`` and ``kwargs``.

    Raises:
        DataError: a list is missing or empty, they differ in length, an instruction is unknown,
            or an argument is missing, unknown or wrong; the message names it.
    """
    ids, kwargs = _list(reference, "instruction_id_list"), _list(reference, "kwargs")
    if len(ids) != len(kwargs):
        raise DataError(f"ifeval: {len(ids)} instructions but {len(kwargs)} kwargs")
    return [(str(name), _build(str(name), given))
            for name, given in zip(ids, kwargs, strict=True)]


def follow(text: str, checks: Sequence[tuple[str, Check]]) -> list[Followed]:
    """Hold a text against its instructions; a blank text follows none."""
    if not text.strip():
        return [Followed(name, False, False) for name, _ in checks]
    found = [(name, check, check(text)) for name, check in checks]
    if all(strict for *_, strict in found):
        return [Followed(name, True, True) for name, *_ in found]
    variants = list(loose_variants(text))
    return [Followed(name, strict, strict or any(map(check, variants)))
            for name, check, strict in found]


def loose_variants(text: str) -> Iterator[str]:
    """The text without first line, last line, both, and all of these without asterisks.

    The text itself is not among them, nor is what is blank or has come before.
    """
    lines = text.split("\n")
    cut = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    plain = [one.replace("*", "") for one in (text, *cut)]
    for variant in dict.fromkeys([*cut, *plain]):
        if variant.strip() and variant != text:
            yield variant


def _build(name: str, given: Any) -> Check:
    if name not in INSTRUCTIONS:
        raise DataError(f"ifeval: no instruction {name!r}{near_miss(name, list(INSTRUCTIONS))}")
    arguments = Arguments(name, given)
    check = INSTRUCTIONS[name](arguments)
    arguments.finish()
    return check


def _list(reference: Mapping[str, Any], key: str) -> Sequence[Any]:
    value = reference.get(key)
    if not isinstance(value, list | tuple) or not value:
        raise DataError(f"ifeval: {key} must be a list with something in it, found {value!r:.60}")
    return value
