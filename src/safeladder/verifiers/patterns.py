"""Patterns of reasoning in a chain of thought, by stated rules: what diversity is measured over.

====================  ========================================================================
pattern               shown by a chain that
====================  ========================================================================
verify                checks something again
reflect               retracts a try, or goes on to another one after a contradiction
decompose             takes the problem apart and goes through the parts in order
backward              starts from the end, or puts the answer back in
enumerate             goes through cases or candidates, at least two
====================  ========================================================================

The rules are those of :mod:`safeladder.verifiers.behaviours` (phrases as whole words), for English
and for the microworld's words. They see what is written, not whether it is sound. The *profile* of
a chain is the set of patterns that it shows; profiles part the chains, so their entropy says how
varied a set of chains is::

    H = - sum_k p_k log2 p_k        p_k the share of profile k; 0 when all chains are alike
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from safeladder.verifiers.behaviours import ENGLISH, Rule, Rules, behaviours

PLAIN = "plain"
"""The profile of a chain that shows no pattern."""

ENGLISH_PATTERNS: Rules = {
    "verify": ENGLISH["verify"],
    "reflect": ENGLISH["reflect"],
    "decompose": (
        Rule(("break this down", "break it down", "break the problem", "step by step",
              "split this into", "split it into", "sub-problem", "subproblem",
              "one part at a time")),
        Rule(("first", "step 1", "to begin", "let's start"),
             then=("then", "next", "second", "step 2", "finally", "after that")),
    ),
    "backward": (
        Rule(("work backwards", "working backwards", "work backward", "working backward",
              "start from the end", "starting from the end", "from the answer", "in reverse",
              "plug it back", "plug back", "plugging back", "substitute back", "substituting back",
              "put it back", "for that we need", "for this we need", "suppose the answer is")),
    ),
    "enumerate": (
        Rule(("case 1",), then=("case 2",)), Rule(("first case",), then=("second case",)),
        Rule(("option a", "option 1"), then=("option b", "option 2")),
        Rule(("enumerate", "enumerating", "list all", "listing all", "all possible",
              "all the cases", "the possibilities are", "the options are", "possible cases",
              "each option", "each case", "one by one")),
    ),
}

_RELATIONS = ("the river of", "the ruler of", "the crop of", "the metal of")
MICROWORLD_PATTERNS: Rules = {
    "verify": (Rule(("check :", "ok check", "words ok")),),
    "reflect": (Rule(("no . try", "no try")),),
    "decompose": (Rule(("=",), then=("=",)), Rule(("is a risk with", "we may hurt", "place 1 to",
                                                   "in the image")),),
    "backward": (Rule(("check :",), then=("=",)), Rule(("a risk with",), then=("of them",)),
                 Rule(("a reason to hurt",), then=("of them",))),
    "enumerate": (Rule(("try",), then=("try",)), Rule(("1 .",), then=("2 .",)),
                  Rule(_RELATIONS, then=_RELATIONS), Rule(("things are", "check : of"))),
}
"""The same patterns in the words of :mod:`safeladder.data.microworld.chains`."""

PATTERNS: Mapping[str, Rules] = {"english": ENGLISH_PATTERNS, "microworld": MICROWORLD_PATTERNS}
"""Name in a recipe -> rules."""


def profile(thoughts: str, rules: Rules) -> str:
    """The patterns of one chain in the rules' order, as ``verify+enumerate``; or :data:`PLAIN`."""
    return "+".join(name for name, shown in behaviours(thoughts, rules).items() if shown) or PLAIN


def entropy_bits(counts: Iterable[int]) -> float | None:
    """The H of the formula above, of counts; None when there are none."""
    positive = [count for count in counts if count > 0]
    total = sum(positive)
    if not total:
        return None
    return -sum(count / total * math.log2(count / total) for count in positive) + 0.0
