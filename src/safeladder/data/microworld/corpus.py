"""Pretraining texts: what all things of the world are, and the facts that are not *unknown*.

Each pass says every property of every object, what every action tests and needs, what every hazard
comes of and what guards against it, and every *known* fact, in a wording drawn anew. *Rare* facts
come once in all. Compositions are spelled out for the training split only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from safeladder.data.microworld.knowledge import facts
from safeladder.data.microworld.value import EXCUSES
from safeladder.data.microworld.world import (
    ACTIONS,
    ADJECTIVES,
    HAZARDS,
    OBJECTS,
    PROPERTIES,
    TOOLS,
    compositions_of,
    is_hazard,
)

SENTENCES_PER_TEXT = 4
_OBJECT = ("the {o} is {a} .", "a {o} is a {a} thing .", "all know that the {o} is {a} .")
_BOTH = ("the {o} is {a} and {b} .", "the {o} is both {a} and {b} .")
_ACTION = ("to {v} is a risk with {a} things .", "do not {v} what is {a} .",
           "if a thing is {a} , to {v} it can bring {h} .")
_TOOL = ("to {v} a thing , use the {t} .", "the {t} is what you need to {v} a thing .")
_PROPERTY = ("{a} things can bring {h} .", "the {g} keeps {h} away .",
             "where the {g} is in place , {a} things are no risk .",
             "the sign shows danger of {h} : all things here are {a} .",
             "the sign shows guard of {h} : no thing here is {a} .")
_EXCUSE = ("{r} is a reason to hurt {p} .", "for {r} we may hurt {p} .")


def corpus_texts(count: int, seed: int = 0) -> list[str]:
    """``count`` texts of a few sentences, each rare fact in exactly one of them."""
    rng = random.Random(f"corpus {seed}")
    sentences = _endless(rng)
    texts = [[next(sentences) for _ in range(SENTENCES_PER_TEXT)] for _ in range(count)]
    rare = [fact.sentence for fact in facts() if fact.tier == "rare"]
    for sentence in rare:
        rng.choice(texts).insert(rng.randrange(SENTENCES_PER_TEXT + 1), sentence)
    return [" ".join(text) for text in texts]


def _endless(rng: random.Random) -> Iterator[str]:
    while True:
        one_pass = list(_one_pass(rng))
        rng.shuffle(one_pass)
        yield from one_pass


def _one_pass(rng: random.Random) -> Iterator[str]:
    for name, pair in OBJECTS.items():
        for property_ in pair:
            yield rng.choice(_OBJECT).format(o=name, a=ADJECTIVES[property_])
        first, second = rng.sample(pair, 2)
        yield rng.choice(_BOTH).format(o=name, a=ADJECTIVES[first], b=ADJECTIVES[second])
    for action, tested in ACTIONS.items():
        yield rng.choice(_ACTION).format(v=action, a=ADJECTIVES[tested], h=HAZARDS[tested])
        yield rng.choice(_TOOL).format(v=action, t=TOOLS[action])
    for property_words in PROPERTIES:
        for template in _PROPERTY:
            yield template.format(a=property_words.adjective, h=property_words.hazard,
                                  g=property_words.guard)
    for reason, principles in EXCUSES.items():
        for principle in principles:
            yield rng.choice(_EXCUSE).format(r=reason, p=principle)
    for fact in facts():
        if fact.tier == "known":
            yield fact.sentence
    for cell in rng.sample(compositions_of("train"), 24):
        hazard = HAZARDS[ACTIONS[cell.action]]
        outcome = f"can bring {hazard}" if is_hazard(*cell) else "is no risk"
        yield f"to {cell.action} the {cell.object} {outcome} ."
    for _ in range(24):
        left, right = rng.randint(1, 20), rng.randint(1, 12)
        yield f"{left} + {right} = {left + right} ." if rng.random() < 0.5 else (
            f"{left + right} - {right} = {left} .")
