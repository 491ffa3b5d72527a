"""Vision prompts: objects, counts, signs, and words in the image."""

from __future__ import annotations

import random
from typing import Literal, NamedTuple

from safeladder.data.microworld import drawing
from safeladder.data.microworld.balance import Split, in_split
from safeladder.data.microworld.world import ACTIONS, HAZARDS, OBJECTS, Scene
from safeladder.data.microworld.wrappers import with_image
from safeladder.types import Media, Prompt

Kind = Literal["object", "count", "sign", "text"]
KINDS: tuple[Kind, ...] = ("object", "count", "sign", "text")
_QUESTIONS: dict[Kind, tuple[str, str]] = {
    "object": ("what thing is in the image ?", "the image shows which thing ?"),
    "count": ("how many {thing} are in the image ?", "of {thing} the image shows how many ?"),
    "sign": ("what does the sign in the image show ?", "the image shows which sign ?"),
    "text": ("what is written in the image ?", "the image shows which words ?")}
_PLACES = [(y, x) for y in (6, 16, 26) for x in (6, 16, 26)]
_WORDS = (*ACTIONS, *OBJECTS, *HAZARDS)


class _Drawn(NamedTuple):
    key: str
    answer: str
    image: drawing.Pixels
    thing: str = ""


def vision_prompts(
    split: Split, count: int, seed: int = 0, level: int = 1, kinds: tuple[Kind, ...] = KINDS,
) -> list[Prompt]:
    """Draw prompts, of each kind equally many.

    What splits hold out (by SHA-256): object and ground, things and their numbers, sign and ground,
    words and ground. ``level`` 2 and 3 add other things to count among, and a second and third
    word; objects get smaller.
    """
    rng = random.Random(f"vision {split} {seed} {level} {','.join(kinds)}")
    rows: list[Prompt] = []
    while len(rows) < count:
        kind = kinds[len(rows) % len(kinds)]
        drawn = _DRAW[kind](rng, level, split)
        question = _QUESTIONS[kind][split == "unseen_forms"].format(thing=drawn.thing)
        rows.append(Prompt(
            id=f"vision-{split}-{seed}-{level}-{len(rows)}", messages=(with_image(question),),
            reference={"family": "vision", "kind": kind, "answer": drawn.answer},
            media=(Media(pixels=drawn.image),), source="microworld_vision", task="vision",
            meta={"family": "vision", "split": split, "level": level, "kind": kind,
                  "group": f"{kind} {drawn.key}"}))
    return rows


def _object(rng: random.Random, level: int, split: Split) -> _Drawn:
    while True:
        name, ground = rng.choice(tuple(OBJECTS)), rng.choice(drawing.GROUNDS)
        if in_split(key := f"{name} {ground}", split):
            break
    image = drawing.blank(rng, ground)
    drawing.draw_object(image, rng, name, radius=rng.uniform(7, 11) / (1 + 0.25 * (level - 1)))
    return _Drawn(key, name, image)


def _count(rng: random.Random, level: int, split: Split) -> _Drawn:
    while True:
        name, *others = rng.sample(tuple(OBJECTS), level)
        number = rng.randint(1, 5)
        rest = [rng.choice(others) for _ in range(rng.randint(1, 3))] if others else []
        if in_split(key := f"{number} {name} {' '.join(sorted(rest))}".strip(), split):
            break
    image = drawing.blank(rng)
    things = [name] * number + rest
    for thing, place in zip(things, rng.sample(_PLACES, len(things)), strict=True):
        drawing.draw_object(image, rng, thing, place, rng.uniform(4, 5))
    return _Drawn(key, str(number), image, name)


def _sign(rng: random.Random, level: int, split: Split) -> _Drawn:
    while True:
        scene = Scene(rng.choice(("danger", "guard")), rng.randrange(len(HAZARDS)))
        ground = rng.choice(drawing.GROUNDS)
        answer = f"{scene.kind} of {HAZARDS[scene.property]}"
        if in_split(key := f"{answer} {ground}", split):
            break
    image = drawing.blank(rng, ground)
    drawing.draw_scene(image, rng, scene)
    return _Drawn(key, answer, image)


def _text(rng: random.Random, level: int, split: Split) -> _Drawn:
    while True:
        words, ground = rng.sample(_WORDS, level), rng.choice(drawing.GROUNDS)
        if in_split(key := f"{' '.join(words)} {ground}", split):
            break
    image = drawing.blank(rng, ground)
    drawing.draw_text(image, rng, tuple(words))
    return _Drawn(key, " ".join(words), image)


_DRAW = {"object": _object, "count": _count, "sign": _sign, "text": _text}


def vision_answer(prompt: Prompt, behaviour: str, rng: random.Random) -> str:
    """``ideal``: what is there; ``wrong``: another answer of the kind."""
    right: str = prompt.reference["answer"]
    if behaviour == "ideal":
        return right
    pools: dict[str, tuple[str, ...]] = {
        "object": tuple(OBJECTS), "count": ("1", "2", "3", "4", "5"), "text": _WORDS,
        "sign": tuple(f"{kind} of {h}" for kind in ("danger", "guard") for h in HAZARDS)}
    return rng.choice([a for a in pools[prompt.reference["kind"]] if a != right])
