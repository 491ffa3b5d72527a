"""Equal rows, and nearly equal responses to one prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

from safeladder.data.responses import LabelledResponse
from safeladder.types import Prompt
from safeladder.verifiers.words import words as words_of

SHINGLE = 5
"""Words of the n-grams that nearness is measured by."""


class Duplicate(NamedTuple):
    """The row that a row repeats (None: it is the first of its kind), and how."""

    first: int | None
    kind: str = ""


def duplicates(
    rows: Sequence[LabelledResponse], of: Literal["pair", "response", "prompt"],
    near: float | None = None,
) -> list[Duplicate]:
    """What every row repeats; time linear in the rows, but for ``near``, which compares each
    response with the ones kept before it for the same prompt.
    """
    seen: dict[Hashable, int] = {}
    kept: dict[str, list[tuple[int, frozenset[str]]]] = {}
    found = []
    for i, row in enumerate(rows):
        prompt, response = _prompt_key(row.prompt), _plain(row.response)
        key: Hashable = {"pair": (prompt, response), "response": response, "prompt": prompt}[of]
        first = seen.setdefault(key, i)
        if first != i:
            found.append(Duplicate(first, f"the same {of}"))
            continue
        place = None
        if near is not None:
            grams = _shingles(response)
            others = kept.setdefault(prompt, [])
            place = next((j for j, other in others if _overlap(grams, other) >= near), None)
            if place is None:
                others.append((i, grams))
        found.append(Duplicate(place, "nearly the same response" if place is not None else ""))
    return found


def _prompt_key(prompt: Prompt) -> str:
    texts = [f"{m.role}\n{_plain(m.text)}" for m in prompt.messages]
    digests = [media.digest for media in prompt.media]
    return hashlib.sha256("\x00".join([*texts, *digests]).encode(errors="replace")).hexdigest()


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _shingles(text: str) -> frozenset[str]:
    words = words_of(text)
    return frozenset(" ".join(words[i:i + SHINGLE])
                     for i in range(max(1, len(words) - SHINGLE + 1)))


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)
