"""Chains for knowledge: what is recalled. A teacher who misjudges recalls another value.

Of facts that are *unknown* (they stand in no pretraining text) the honest chain says so. ``survey``
goes through what is known of the town; it tells no fact that is rare, or held out from training.
"""

from __future__ import annotations

import random

from safeladder.data.microworld.chains.base import Chain
from safeladder.data.microworld.knowledge import VALUES, facts
from safeladder.microlanguage import KNOWLEDGE_FORMS
from safeladder.types import Prompt

STRATEGIES = ("recall", "check", "survey")


def knowledge_chain(prompt: Prompt, strategy: str, rng: random.Random, misjudges: bool) -> Chain:
    """``recall``; ``check`` also whether the value is of the kind asked for; ``survey``."""
    relation, town, right = (prompt.reference[key] for key in ("relation", "town", "answer"))
    value = None if prompt.meta["tier"] == "unknown" else right
    if misjudges:
        value = rng.choice([other for other in VALUES[relation] if other != right])
    recalled = f"the {relation} of {town} is {value or 'not known to me'} ."
    parts = [recalled]
    if strategy == "survey":
        parts = [fact.sentence for fact in facts() if fact.town == town
                 and fact.relation != relation and fact.tier == "known" and fact.split == "train"]
        parts += [recalled]
    if strategy == "check":
        values = " , ".join(VALUES[relation])
        parts += [f"check : {value} is a {relation} ." if value else
                  f"check : of {values} none is known to me to be it ."]
    unseen = prompt.meta["split"] == "unseen_forms"
    said = KNOWLEDGE_FORMS["certain"][-1 if unseen else 0]
    answer = said.format(relation=relation, town=town, value=value) + " ."
    return Chain(" ".join(parts), answer if misjudges else None)
