"""Chains for images: what is seen, and what follows from it.

A teacher who misjudges sees something else, and reasons soundly about that.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from safeladder.data.microworld.chains.base import Chain
from safeladder.data.microworld.drawing import COLOURS, looks
from safeladder.data.microworld.vision import vision_answer
from safeladder.data.microworld.world import HAZARDS
from safeladder.types import Prompt

STRATEGIES = ("name", "look", "check")
GLYPHS = dict(zip(HAZARDS, ("flame", "bolt", "skull", "lock"), strict=True))
"""Hazard -> what its sign shows."""
SIGNS = {"danger": "yellow triangle", "guard": "green disk"}
"""Kind of sign -> how it looks."""


def vision_chain(prompt: Prompt, strategy: str, rng: random.Random, misjudges: bool) -> Chain:
    """``name`` what is there; ``look`` at its parts; ``check`` also against what it is not."""
    seen = vision_answer(prompt, "wrong" if misjudges else "ideal", rng)
    looked, checked = _LOOKS[prompt.reference["kind"]](seen, prompt.meta["group"])
    if strategy == "name":
        thing = f" {prompt.meta['group'].split()[2]}" if seen.isdigit() else ""
        looked = f"the image shows {seen}{thing} ."
    thoughts = f"{looked} check : {checked}" if strategy == "check" else looked
    return Chain(thoughts, seen if misjudges else None)


def _object(seen: str, _group: str) -> tuple[str, str]:
    shape, colour = looks()[seen]
    names = {look: name for name, look in looks().items()}
    others = [f"the {other} {shape} is a {names[shape, other]} ."
              for other in COLOURS if other != colour]
    return (f"in the image I see a {colour} {shape} . the {colour} {shape} is a {seen} .",
            " ".join(others) + f" so it is the {seen} .")


def _count(seen: str, group: str) -> tuple[str, str]:
    _, _, thing, *others = group.split()
    counted = [f"{thing} {i + 1} ." for i in range(int(seen))]
    counted += [f"{other} no ." for other in others]
    rest = f" and {len(others)} other" if others else ""
    return (f"in the image I see {' '.join(counted)} so {seen} {thing} .",
            f"{seen} {thing}{rest} , {int(seen) + len(others)} in all .")


def _sign(seen: str, _group: str) -> tuple[str, str]:
    kind, _, hazard = seen.split()
    other = "guard" if kind == "danger" else "danger"
    return (f"in the image I see a {SIGNS[kind]} . so {kind} . on it is a {GLYPHS[hazard]} . "
            f"so {hazard} .", f"no {SIGNS[other]} , so no {other} .")


def _text(seen: str, _group: str) -> tuple[str, str]:
    words = seen.split()
    lines = [f"line {i + 1} is {' '.join(word)} . so {word} ." for i, word in enumerate(words)]
    counts = [f"{word} has {len(word)} letters ." for word in words]
    return "in the image " + " ".join(lines), " ".join(counts)


_LOOKS: Mapping[str, Callable[[str, str], tuple[str, str]]] = {
    "object": _object, "count": _count, "sign": _sign, "text": _text}
