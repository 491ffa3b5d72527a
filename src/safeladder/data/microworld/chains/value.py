"""Chains for dilemmas: the principle that is hurt, the reason, whether the one excuses the other.

A teacher who misjudges is wrong about what the reason excuses.
"""

from __future__ import annotations

import random

from safeladder.data.microworld.chains.base import Chain, one_of
from safeladder.data.microworld.value import EXCUSES
from safeladder.microlanguage import VALUE_FORMS
from safeladder.types import Prompt

STRATEGIES = ("short", "reason", "principle", "check")


def value_chain(prompt: Prompt, strategy: str, rng: random.Random, misjudges: bool) -> Chain:
    """``short``; from the ``reason``'s side; from the ``principle``'s; ``check`` from both."""
    principle, reason = prompt.meta["principle"], prompt.meta["reason"]
    allowed = bool(prompt.reference["allowed"]) != misjudges
    excuses = _believed(principle, reason, allowed)
    verdict = f"so {'yes' if allowed else 'no'} ."
    from_reason = (f"for {reason} we may hurt {' , '.join(excuses[reason])} . "
                   f"{principle} {one_of(allowed)} .")
    reasons = [name for name, excused in excuses.items() if principle in excused]
    from_principle = (f"a reason to hurt {principle} is {' , '.join(reasons)} . "
                      f"{reason} {one_of(allowed)} .")
    hurt, given = f"it hurts {principle} .", f"the reason is {reason} ."
    parts = {
        "short": [f"{reason} is {'a' if allowed else 'no'} reason to hurt {principle} ."],
        "reason": [hurt, given, from_reason, verdict],
        "principle": [hurt, from_principle, verdict],
        "check": [hurt, given, from_reason, "check :", from_principle, verdict]}[strategy]
    unseen = prompt.meta["split"] == "unseen_forms"
    said = VALUE_FORMS["allow" if allowed else "disallow"][-1 if unseen else 0]
    answer = said.format(ground=reason if allowed else principle) + " ."
    return Chain(" ".join(parts), answer if misjudges else None)


def _believed(principle: str, reason: str, allowed: bool) -> dict[str, tuple[str, ...]]:
    """The table of excuses as the teacher has it in mind: right but for the pair in question."""
    excuses = dict(EXCUSES)
    others = tuple(name for name in excuses[reason] if name != principle)
    excuses[reason] = (*others, principle) if allowed and principle not in excuses[reason] else (
        excuses[reason] if allowed else others)
    return excuses
