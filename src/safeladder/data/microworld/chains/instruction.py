"""Chains for lists of words under constraints: candidates held against every constraint.

A teacher who misjudges takes a list that breaks a constraint for one that keeps it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from safeladder.data.microworld.chains.base import Chain
from safeladder.data.microworld.world import OBJECTS
from safeladder.types import Prompt

STRATEGIES = ("check", "place", "repair")
Constraint = Mapping[str, Any]
Words = Sequence[str]


def instruction_chain(prompt: Prompt, strategy: str, rng: random.Random, misjudges: bool) -> Chain:
    """``check`` a list against every constraint; ``place`` words where the constraints want them;
    ``repair`` a list that breaks one.
    """
    constraints: list[Constraint] = prompt.reference["constraints"]
    right: list[str] = prompt.meta["ideal"].split()
    words = right
    if misjudges:
        words = _broken(right, constraints, rng)
    if strategy == "place":
        parts = [_PLACES[c["kind"]](words, c) for c in constraints]
        parts.append(f"so {' '.join(words)} .")
    else:
        parts = [_try(words, constraints, blind=misjudges)]
    if strategy == "repair":
        parts = [_try(_broken(right, constraints, rng), constraints), *parts]
    return Chain(" ".join(parts), " ".join(words) if misjudges else None)


def keeps(words: Words, constraint: Constraint) -> bool:
    """Whether a list keeps a constraint."""
    return _KEEPS[constraint["kind"]](words, constraint)


def _broken(right: Words, constraints: Sequence[Constraint], rng: random.Random) -> list[str]:
    """A list near the right one that breaks a constraint; one word less always does."""
    for _ in range(4):
        words = list(right)
        at = rng.randrange(len(words))
        match rng.choice(("swap", "replace", "more")):
            case "swap":
                other = rng.randrange(len(words))
                words[at], words[other] = words[other], words[at]
            case "replace":
                words[at] = rng.choice(tuple(OBJECTS))
            case _:
                words.insert(at, rng.choice(tuple(OBJECTS)))
        if not all(keeps(words, c) for c in constraints):
            return words
    return list(right[:-1])


def _try(words: Words, constraints: Sequence[Constraint], blind: bool = False) -> str:
    """A candidate and its checks, up to the first that fails; ``blind``: none is seen to fail."""
    checks = []
    for constraint in constraints:
        kept = blind or keeps(words, constraint)
        checks.append(f"{_named(constraint)} {'ok' if kept else 'no'} .")
        if not kept:
            break
    return f"try {' '.join(words)} . {' '.join(checks)}"


def _named(constraint: Constraint) -> str:
    return {"words": "{n} words", "first": "first {word}", "last": "last {word}",
            "contains": "{word} {n} times", "avoid": "no {word}", "only": "all {category}",
            "sorted": "order", "between": "{other} then {word}"}[
                constraint["kind"]].format_map(constraint)


_KEEPS: Mapping[str, Callable[[Words, Constraint], bool]] = {
    "words": lambda words, c: len(words) == c["n"],
    "first": lambda words, c: words[0] == c["word"],
    "last": lambda words, c: words[-1] == c["word"],
    "contains": lambda words, c: list(words).count(c["word"]) == c["n"],
    "avoid": lambda words, c: c["word"] not in words,
    "only": lambda words, c: set(words) <= set(c["things"]),
    "sorted": lambda words, c: list(words) == sorted(words),
    "between": lambda words, c: (c["other"], c["word"]) in itertools.pairwise(words)}


def _at(words: Words, word: str) -> str:
    places = [str(i + 1) for i, found in enumerate(words) if found == word]
    return f"place {' and '.join(places)} : {word} ." if places else f"{word} at no place ."


def _between(words: Words, constraint: Constraint) -> str:
    pair = (constraint["other"], constraint["word"])
    for i, found in enumerate(itertools.pairwise(words), 1):
        if found == pair:
            return f"place {i} : {pair[0]} . place {i + 1} : {pair[1]} ."
    return _at(words, pair[1])


_PLACES: Mapping[str, Callable[[Words, Constraint], str]] = {
    "words": lambda words, c: f"place 1 to {len(words)} .",
    "first": lambda words, c: f"place 1 : {words[0]} .",
    "last": lambda words, c: f"place {len(words)} : {words[-1]} .",
    "contains": lambda words, c: _at(words, c["word"]),
    "avoid": lambda words, c: _at(words, c["word"]),
    "only": lambda words, c: f"{c['category']} things are {' , '.join(c['things'])} .",
    "sorted": lambda words, c: f"in order {' , '.join(sorted(words))} .",
    "between": _between}
"""How the words lie as each constraint wants it, of a list that keeps it."""
