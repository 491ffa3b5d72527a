"""Arithmetic prompts: a number of coins through several steps, ``level`` of them."""

from __future__ import annotations

import random
from typing import NamedTuple

from safeladder.data.microworld.balance import Split, in_split
from safeladder.types import Message, Prompt

NAMES = ("Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal")
LIMIT = 60
"""No number on the way is larger."""
_WORDS = {"+": "finds {n} coins", "-": "loses {n} coins", "*": "gets {n} times as many",
          "/": "keeps one of {n} parts"}
_UNSEEN_WORDS = {"+": "gets {n} more coins", "-": "gives {n} coins to a friend",
                 "*": "makes them {n} times as many", "/": "keeps only one of {n} parts"}


class Step(NamedTuple):
    """One step: the operation, its number, and the coins after it."""

    operation: str
    number: int
    result: int


def arithmetic_prompts(split: Split, count: int, seed: int = 0, level: int = 2) -> list[Prompt]:
    """Draw problems whose chain of numbers belongs to the split (by its SHA-256)."""
    rng = random.Random(f"arithmetic {split} {seed} {level}")
    rows: list[Prompt] = []
    words = _UNSEEN_WORDS if split == "unseen_forms" else _WORDS
    while len(rows) < count:
        start = rng.randint(2, 20)
        steps = _draw(rng, start, level)
        key = f"{start} " + " ".join(f"{s.operation} {s.number}" for s in steps)
        if not in_split(key, split):
            continue
        name = rng.choice(NAMES)
        told = " ".join(f"then {name} {words[s.operation].format(n=s.number)} ." for s in steps)
        text = f"{name} has {start} coins . {told} how many coins has {name} ?"
        rows.append(Prompt(
            id=f"arithmetic-{split}-{seed}-{level}-{len(rows)}", messages=(Message("user", text),),
            reference={"family": "arithmetic", "answer": steps[-1].result},
            source="microworld_arithmetic", task="arithmetic",
            meta={"family": "arithmetic", "split": split, "level": level, "group": key,
                  "thoughts": _thoughts(start, steps)}))
    return rows


def _draw(rng: random.Random, start: int, count: int) -> list[Step]:
    steps: list[Step] = []
    value = start
    while len(steps) < count:
        operation = rng.choice("++--*/")
        number = rng.randint(2, 4) if operation in "*/" else rng.randint(1, 12)
        match operation:
            case "+":
                result = value + number
            case "-":
                result = value - number
            case "*":
                result = value * number
            case _:
                result = value // number if value % number == 0 else -1
        if 0 < result <= LIMIT:
            steps.append(Step(operation, number, result))
            value = result
    return steps


def _thoughts(start: int, steps: list[Step]) -> str:
    parts, value = [], start
    for operation, number, result in steps:
        parts.append(f"{value} {operation} {number} = {result} .")
        value = result
    return " ".join(parts)


def arithmetic_answer(prompt: Prompt, behaviour: str, rng: random.Random) -> str:
    """``ideal``: the number; ``wrong``: another one near it."""
    right = int(prompt.reference["answer"])
    if behaviour == "ideal":
        return str(right)
    return str(rng.choice([n for n in range(max(0, right - 4), right + 5) if n != right]))
