"""A teacher's chains of thought for every family: several honest strategies, of different length.

Every sentence of a chain derives or checks something, in the words of the world. ``check`` reaches
the answer and then holds it against something else.

===========  =============================================================================
family       strategies
===========  =============================================================================
logic        sight, list, work, check (:func:`safeladder.data.knights_knaves.compact.chain_text`)
arithmetic   direct: the outcome; totals: every step; check: and back to the start
instruction  check: a list against every constraint; place: words where constraints want them;
             repair: a list that breaks a constraint, then one that keeps all
knowledge    recall; check: is the value of the kind asked for; survey: what is known of the town
vision       name; look: at its parts; check: and at what it is not
safety       short: the hazard; work: action, object, hazard, guard; list: all that is a risk with
             such things; check: the work with the list
value        short; reason: what it excuses; principle: what excuses it; check: both
===========  =============================================================================

A teacher can also *misjudge*: one belief of it is wrong (a word misread, a step off, a fact
confused), the rest of the chain and the answer follow from that (but ``place`` describes each
constraint by itself, and there the wrong list follows from nothing). Such rows say so in their
meta.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

from safeladder.config import near_miss
from safeladder.data.microworld.chains import (
    arithmetic,
    instruction,
    knowledge,
    logic,
    safety,
    value,
    vision,
)
from safeladder.data.microworld.chains.base import Chain
from safeladder.errors import ConfigError
from safeladder.render.think import split_think
from safeladder.types import Message, Prompt

STRATEGIES: Mapping[str, tuple[str, ...]] = {
    "logic": logic.STRATEGIES, "arithmetic": arithmetic.STRATEGIES,
    "instruction": instruction.STRATEGIES, "knowledge": knowledge.STRATEGIES,
    "vision": vision.STRATEGIES, "safety": safety.STRATEGIES, "value": value.STRATEGIES}
"""Family -> the names of its strategies."""
_CHAINS: Mapping[str, Callable[[Prompt, str, random.Random, bool], Chain]] = {
    "logic": logic.logic_chain, "arithmetic": arithmetic.arithmetic_chain,
    "instruction": instruction.instruction_chain, "knowledge": knowledge.knowledge_chain,
    "vision": vision.vision_chain, "safety": safety.safety_chain, "value": value.value_chain}


def check_strategies(family: str, names: Mapping[str, float]) -> None:
    """Refuse names that the family does not have.

    Raises:
        ConfigError: the first such name.
    """
    for name in names:
        if name not in STRATEGIES[family]:
            raise ConfigError(f"microworld: family {family!r} has no strategy {name!r}"
                              f"{near_miss(name, STRATEGIES[family])}")


def with_chain(
    prompt: Prompt, strategy: str, rng: random.Random, misjudges: bool = False,
) -> Prompt:
    """A demonstration with its reasoning replaced by a chain of the strategy.

    Its answer stays, but for a teacher who misjudges: that one answers as its chain has it, and
    the row's ``behaviour`` becomes ``misjudged``. ``meta`` also receives ``strategy`` and
    ``misjudged``.

    Raises:
        ConfigError: the family has no such strategy.
    """
    family = prompt.meta["family"]
    check_strategies(family, {strategy: 1.0})
    chain = _CHAINS[family](prompt, strategy, rng, misjudges)
    said = split_think(prompt.messages[-1].text).answer.strip()
    if chain.answer is not None:
        said = chain.answer
    meta = {**prompt.meta, "strategy": strategy, "misjudged": misjudges}
    if misjudges:
        meta["behaviour"] = "misjudged"
    text = f"<think> {chain.thoughts} </think> {said}"
    return replace(prompt, messages=(*prompt.messages[:-1], Message("assistant", text)), meta=meta)
