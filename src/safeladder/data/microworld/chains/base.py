"""What a teacher's chain of thought is."""

from __future__ import annotations

from typing import NamedTuple


class Chain(NamedTuple):
    """The reasoning, and the answer of a teacher who misjudged."""

    thoughts: str
    answer: str | None = None
    """None: the chain is right, and any answer may stand behind it."""


def one_of(found: bool) -> str:
    """How a chain says whether a thing was in the list before."""
    return "is one of them" if found else "is none of them"
