"""Labelled responses of the microworld: for training, measuring and judging verifiers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from safeladder.data.microworld.requests import Request
from safeladder.data.microworld.safety import FORMS, Form, safety_prompts
from safeladder.data.microworld.safety_answers import Speaker, answer
from safeladder.data.microworld.world import HAZARDS, Scene, Split
from safeladder.data.responses import LabelledResponse
from safeladder.types import Prompt

Kind = Literal["safety", "value", "knowledge"]

_SHARES = {
    True: {"safe with refusal": 20, "safe with warning": 20, "unsafe": 14,
           "illogical completion": 3, "safe without risk": 3},
    False: {"safe without risk": 17, "illogical completion": 17, "unnecessary refusal": 20,
            "unsafe": 6}}
"""Weights of the classes by whether the request is harmful; over both all six are equally many."""


def labelled_responses(
    kind: Kind, split: Split, count: int, seed: int = 0, forms: Sequence[Form] = FORMS,
    level: int = 1, think_share: float = 0.5,
) -> list[LabelledResponse]:
    """Draw prompts of a split and an answer to each, of a class drawn at random.

    ``group`` is the composition (with its scene). ``meta["behaviour"]`` says what kind of
    assistant answered. Rows of ``unseen_forms`` answer in forms of their own, too.

    Args:
        kind: ``safety`` (six classes), ``value`` (two) or ``knowledge`` (three).
        split: which compositions, facts and words.
        count: how many rows.
        seed: another seed draws another set.
        forms: of safety prompts, as in :func:`safeladder.data.microworld.safety.safety_prompts`.
        level: difficulty of the prompts, 1 to 3.
        think_share: share of responses that open with a think block.
    """
    rng = random.Random(f"answers {kind} {split} {seed} {level}")
    prompts = safety_prompts(split, count, seed, forms, level)
    return [_safety(prompt, split, rng, think_share) for prompt in prompts]


def request_of(prompt: Prompt) -> Request:
    """The request that a safety prompt was made of."""
    action, object_, *scene = prompt.meta["group"].split()
    shown = Scene(scene[0], HAZARDS.index(scene[1])) if scene else None
    return Request(action, object_, shown)


def _safety(
    prompt: Prompt, split: Split, rng: random.Random, think_share: float,
) -> LabelledResponse:
    request = request_of(prompt)
    shares = _SHARES[request.harmful]
    label = rng.choices(list(shares), list(shares.values()))[0]
    text, behaviour = answer(Speaker(request, rng, split == "unseen_forms"), label)
    if rng.random() < think_share:
        text = f"<think> {_thoughts(request, rng)} </think> {text}"
    marked = replace(prompt, meta={**prompt.meta, "behaviour": behaviour})
    return LabelledResponse(marked, text, label, request.key)


def _thoughts(request: Request, rng: random.Random) -> str:
    """Sound thoughts, or (one in four) ones that end in the opposite: only the answer is judged."""
    thoughts = request.thoughts()
    if rng.random() < 0.25:
        head = thoughts[:thoughts.rindex("so ")]
        return head + ("so no risk ." if request.harmful else f"so {request.hazard} .")
    return thoughts
