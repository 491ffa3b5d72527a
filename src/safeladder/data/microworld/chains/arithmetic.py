"""Chains for arithmetic. A teacher who misjudges gets one step wrong and goes on from there."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from safeladder.data.microworld.chains.base import Chain
from safeladder.types import Prompt

STRATEGIES = ("direct", "totals", "check")
_INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}


class _Step(NamedTuple):
    before: int
    operation: str
    number: int
    after: int


def arithmetic_chain(prompt: Prompt, strategy: str, rng: random.Random, misjudges: bool) -> Chain:
    """``direct`` the outcome; ``totals`` every running total; ``check`` also back to the start."""
    start, *told = prompt.meta["group"].split()
    asked = list(zip(told[::2], map(int, told[1::2]), strict=True))
    steps = _steps(int(start), asked)
    if misjudges:
        steps = _misjudged(int(start), asked, rng)
    last = steps[-1].after
    parts = [f"so {last} ."]
    if strategy != "direct":
        parts = [f"{s.before} {s.operation} {s.number} = {s.after} ." for s in steps]
    if strategy == "check":
        back = [f"{s.after} {_INVERSE[s.operation]} {s.number} = {s.before} ."
                for s in reversed(steps) if s.after == _apply(*s[:3])]
        parts += ["check :", *back] if back else []
    return Chain(" ".join(parts), str(last) if misjudges else None)


def _steps(
    start: int, asked: Sequence[tuple[str, int]], slip: int = -1, by: int = 0,
) -> list[_Step]:
    """The steps; the one numbered ``slip`` is ``by`` off. Ends early at what cannot be done."""
    steps: list[_Step] = []
    value = start
    for i, (operation, number) in enumerate(asked):
        after = _apply(value, operation, number)
        if after is None:
            break
        after += by if i == slip else 0
        steps.append(_Step(value, operation, number, after))
        value = after
    return steps


def _misjudged(start: int, asked: Sequence[tuple[str, int]], rng: random.Random) -> list[_Step]:
    slips = [(i, by) for i in range(len(asked)) for by in (-2, -1, 1, 2)]
    rng.shuffle(slips)
    for slip, by in slips:
        steps = _steps(start, asked, slip, by)
        if len(steps) == len(asked) and min(step.after for step in steps) > 0:
            return steps
    raise ValueError("no step of this problem can be misjudged")


def _apply(value: int, operation: str, number: int) -> int | None:
    match operation:
        case "+":
            return value + number
        case "-":
            return value - number
        case "*":
            return value * number
    return value // number if value % number == 0 else None
