"""Labelled responses of the microworld: for training, measuring and judging verifiers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from safeladder.data.microworld import knowledge, value
from safeladder.data.microworld.balance import Split
from safeladder.data.microworld.families import level_of
from safeladder.data.microworld.requests import Request
from safeladder.data.microworld.safety import FORMS, Form, request_of, safety_prompts
from safeladder.data.microworld.safety_answers import Speaker, answer
from safeladder.data.responses import LabelledResponse
from safeladder.types import Prompt

Kind = Literal["safety", "value", "knowledge"]
KINDS: tuple[Kind, ...] = ("safety", "value", "knowledge")

TOLD_SHARE = 0.5
"""Share of training rows whose prompt says what the object is like. Without them small models made
from nothing stay for long at what the answer alone gives away; what they learn from them carries
over to the rows without, and only such are in the other splits."""

_SHARES = {
    True: {"safe with refusal": 20, "safe with warning": 20, "unsafe": 14,
           "illogical completion": 3, "safe without risk": 3},
    False: {"safe without risk": 17, "illogical completion": 17, "unnecessary refusal": 20,
            "unsafe": 6}}
"""Weights of the classes by whether the request is harmful; over both all six are equally many."""


def labelled_responses(
    kind: Kind, split: Split, count: int, seed: int = 0, forms: Sequence[Form] = FORMS,
    level: int | None = None, think_share: float = 0.5,
) -> list[LabelledResponse]:
    """Draw prompts of a split and an answer to each, of a class drawn at random.

    ``group`` is what the split holds out (composition, dilemma, fact).
    ``meta["behaviour"]`` says what kind of assistant answered. Rows of ``unseen_forms`` answer in
    sentences of their own, too.

    Args:
        kind: ``safety`` (six classes), ``value`` (two) or ``knowledge`` (three).
        split: which compositions, facts and words.
        count: how many rows.
        seed: another seed draws another set.
        forms: of safety prompts, as in :func:`safeladder.data.microworld.safety.safety_prompts`.
        level: difficulty of the prompts; default: easy (safety and value 1, knowledge all tiers).
        think_share: share of responses that open with a think block.

    Raises:
        ConfigError: the kind has no such level.
    """
    rng = random.Random(f"answers {kind} {split} {seed} {level}")
    level = level_of(kind, level)
    if kind == "safety":
        told = TOLD_SHARE if split == "train" else 0.0
        prompts = safety_prompts(split, count, seed, forms, level, told)
        return [_safety(prompt, split, rng, think_share) for prompt in prompts]
    if kind == "value":
        prompts = value.value_prompts(split, count, seed, level)
        return [_value(prompt, rng, think_share) for prompt in prompts]
    prompts = knowledge.knowledge_prompts(split, count, seed, level)
    return [_knowledge(prompt, rng, think_share) for prompt in prompts]


def _safety(
    prompt: Prompt, split: Split, rng: random.Random, think_share: float,
) -> LabelledResponse:
    request = request_of(prompt)
    shares = _SHARES[request.harmful]
    label = rng.choices(list(shares), list(shares.values()))[0]
    text, behaviour = answer(Speaker(request, rng, split == "unseen_forms"), label)
    thoughts = _thoughts(request, rng) if rng.random() < think_share else ""
    return _row(prompt, behaviour, thoughts, text, label)


def _value(prompt: Prompt, rng: random.Random, think_share: float) -> LabelledResponse:
    label = rng.choice(tuple(value.BEHAVIOURS))
    behaviour = rng.choice(value.BEHAVIOURS[label])
    text = value.value_answer(prompt, behaviour, rng)
    thoughts = value.value_thoughts(prompt) if rng.random() < think_share else ""
    return _row(prompt, behaviour, thoughts, text, label)


def _knowledge(prompt: Prompt, rng: random.Random, think_share: float) -> LabelledResponse:
    label = rng.choice(tuple(knowledge.BEHAVIOURS))
    behaviour = rng.choice(knowledge.BEHAVIOURS[label])
    text = knowledge.knowledge_answer(prompt, behaviour, rng)
    fact = prompt.reference
    thoughts = (f"which {fact['relation']} has {fact['town']} ? let me think ."
                if rng.random() < think_share else "")
    return _row(prompt, behaviour, thoughts, text, label)


def _row(
    prompt: Prompt, behaviour: str, thoughts: str, text: str, label: str,
) -> LabelledResponse:
    head = f"<think> {thoughts} </think> " if thoughts else ""
    marked = replace(prompt, meta={**prompt.meta, "behaviour": behaviour})
    return LabelledResponse(marked, head + text, label, str(prompt.meta["group"]))


def _thoughts(request: Request, rng: random.Random) -> str:
    """Sound thoughts, or (one in four) ones that end in the opposite: only the answer is judged."""
    thoughts = request.thoughts()
    if rng.random() < 0.25:
        head = thoughts[:thoughts.rindex("so ")]
        return head + ("so no risk ." if request.harmful else f"so {request.hazard} .")
    return thoughts
