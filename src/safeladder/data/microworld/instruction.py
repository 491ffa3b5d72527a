"""Instruction prompts: a list of words under ``level`` + 1 constraints that can be checked.

Every prompt is made from a list that keeps its constraints, so all can be kept at once.
"""

from __future__ import annotations

import random
from typing import Any

from safeladder.data.microworld.balance import Split, in_split
from safeladder.data.microworld.world import ADJECTIVES, OBJECTS
from safeladder.types import Message, Prompt

KINDS = ("first", "last", "contains", "avoid", "only", "sorted", "between")
_TEXTS = {
    "words": ("write {n} words .", "write just {n} words ."),
    "first": ("start with {word} .", "let {word} come first ."),
    "last": ("end with {word} .", "let {word} come last ."),
    "contains": ("use {word} {n} times .", "{word} must come {n} times ."),
    "avoid": ("do not use {word} .", "leave out {word} ."),
    "only": ("use {category} things only .", "all things must be {category} ."),
    "sorted": ("put them in order of the letters .", "go from a to z ."),
    "between": ("put {word} right after {other} .", "{other} and then {word} must come .")}
"""Kind -> its wording, and the one of ``unseen_forms``."""


def instruction_prompts(split: Split, count: int, seed: int = 0, level: int = 1) -> list[Prompt]:
    """Draw prompts: a number of words, and ``level`` further constraints of different kinds."""
    rng = random.Random(f"instruction {split} {seed} {level}")
    rows: list[Prompt] = []
    while len(rows) < count:
        words, constraints = _draw(rng, level)
        key = "; ".join(" ".join(f"{v}" for k, v in sorted(c.items()) if k != "things")
                        for c in constraints)
        if not in_split(key, split):
            continue
        which = 1 if split == "unseen_forms" else 0
        text = " ".join(_TEXTS[c["kind"]][which].format_map(c) for c in constraints)
        rows.append(Prompt(
            id=f"instruction-{split}-{seed}-{level}-{len(rows)}", messages=(Message("user", text),),
            reference={"family": "instruction", "constraints": constraints},
            source="microworld_instruction", task="instruction",
            meta={"family": "instruction", "split": split, "level": level, "group": key,
                  "ideal": " ".join(words)}))
    return rows


def _draw(rng: random.Random, level: int) -> tuple[list[str], list[dict[str, Any]]]:
    kinds = rng.sample(KINDS, level)
    category = rng.randrange(len(ADJECTIVES))
    pool = [o for o in OBJECTS if "only" not in kinds or category in OBJECTS[o]]
    words = rng.sample(pool, rng.randint(3, 6))
    if "contains" in kinds and rng.random() < 0.5:
        words[rng.randrange(len(words))] = words[rng.randrange(len(words))]
    if "sorted" in kinds:
        words.sort()
    constraints: list[dict[str, Any]] = [{"kind": "words", "n": len(words)}]
    for kind in kinds:
        match kind:
            case "first":
                detail: dict[str, Any] = {"word": words[0]}
            case "last":
                detail = {"word": words[-1]}
            case "contains":
                word = rng.choice(words)
                detail = {"word": word, "n": words.count(word)}
            case "avoid":
                detail = {"word": rng.choice([o for o in OBJECTS if o not in words])}
            case "only":
                things = [o for o in OBJECTS if category in OBJECTS[o]]
                detail = {"category": ADJECTIVES[category], "things": things}
            case "between":
                at = rng.randrange(1, len(words))
                detail = {"word": words[at], "other": words[at - 1]}
            case _:
                detail = {}
        constraints.append({"kind": kind, **detail})
    return words, constraints


def instruction_answer(prompt: Prompt, behaviour: str, rng: random.Random) -> str:
    """``ideal``: keeps all constraints; ``wrong``: one word more than asked for."""
    ideal: str = prompt.meta["ideal"]
    return ideal if behaviour == "ideal" else f"{ideal} {rng.choice(tuple(OBJECTS))}"
