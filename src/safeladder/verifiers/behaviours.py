"""How often a chain of thought verifies, reflects and summarises: counted by stated rules.

Logic-RL (arXiv 2502.14768, section 4) reports such behaviours as they emerge during training.
The rules are data: phrases matched as whole words, upper and lower case alike, any whitespace
between their words. A world with its own words passes its own rules. They count surface words,
not quality: a high rate says that the model writes "let me check", not that it checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Rule:
    """Holds if one of ``phrases`` occurs and, if ``then`` is given, one of those after it."""

    phrases: tuple[str, ...]
    then: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.phrases or not all(phrase.split() for phrase in self.phrases + self.then):
            raise ValueError("a Rule needs phrases, and none of them empty")


Rules = Mapping[str, tuple[Rule, ...]]
"""Behaviour -> rules; it is shown when any of its rules holds."""

ENGLISH: Rules = {
    "verify": (
        Rule(("let me check", "let's check", "let us check", "double-check", "double check",
              "recheck", "re-check", "verify", "verifies", "verifying", "verification",
              "let me confirm", "to confirm", "make sure", "check whether", "check if",
              "check that", "check each", "check all", "check the", "checks out")),
    ),
    "reflect": (
        Rule(("wait", "hold on", "hmm", "on second thought", "i made a mistake",
              "that is not right", "that's not right", "that can't be right", "that is wrong",
              "that's wrong", "let me reconsider", "reconsider", "let me rethink", "re-evaluate",
              "re-examine", "let me re-think", "go back", "start over", "try again", "no, that")),
        Rule(("contradiction", "contradicts", "contradictory", "impossible", "inconsistent",
              "cannot be true", "can't be true", "does not hold", "doesn't hold", "fails"),
             then=("assume", "suppose", "instead", "try", "consider", "other case",
                   "second case", "case 2", "what if", "now let")),
    ),
    "summarise": (
        Rule(("in summary", "to summarize", "to summarise", "summarizing", "summarising",
              "summary", "in conclusion", "to conclude", "we conclude", "i conclude",
              "summing up", "putting it together", "putting it all together",
              "putting this together", "putting everything together", "final answer",
              "the solution is", "the final identities", "so the identities are",
              "therefore, the identities", "the answer is")),
    ),
}
"""Verify: checks something again. Reflect: retracts a try, or goes on to another one after a
contradiction. Summarise: states the outcome of the whole chain."""


def behaviours(text: str, rules: Rules = ENGLISH) -> dict[str, bool]:
    """Say which behaviours the text of one chain of thought shows. Linear time.

    ``text`` is the think text alone (:func:`safeladder.verifiers.format.think_text`).
    """
    plain = " ".join(text.casefold().split())
    return {name: any(_holds(rule, plain) for rule in group) for name, group in rules.items()}


def behaviour_rates(texts: Iterable[str], rules: Rules = ENGLISH) -> dict[str, float]:
    """Share of the texts that show each behaviour; empty when there are no texts."""
    counts = dict.fromkeys(rules, 0)
    total = 0
    for text in texts:
        total += 1
        for name, shown in behaviours(text, rules).items():
            counts[name] += shown
    return {name: count / total for name, count in counts.items()} if total else {}


def _holds(rule: Rule, text: str) -> bool:
    end = _first_end(rule.phrases, text, 0)
    return end >= 0 and (not rule.then or _first_end(rule.then, text, end) >= 0)


def _first_end(phrases: tuple[str, ...], text: str, start: int) -> int:
    """Where the first of the phrases ends; -1 if none occurs. Plain searches, not one pattern:
    they are linear for any text and some ten times faster than an alternation.
    """
    ends = (_end_of(phrase, text, start) for phrase in _plain(phrases))
    return min((end for end in ends if end >= 0), default=-1)


def _end_of(phrase: str, text: str, start: int) -> int:
    """Whole words only: a border is asked for where the phrase begins or ends in a word."""
    place = text.find(phrase, start)
    while place >= 0:
        end = place + len(phrase)
        if not (place and _is_word(phrase[0]) and _is_word(text[place - 1])) and not (
                end < len(text) and _is_word(phrase[-1]) and _is_word(text[end])):
            return end
        place = text.find(phrase, place + 1)
    return -1


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


@lru_cache(maxsize=256)
def _plain(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(" ".join(text.casefold().split()) for text in texts)
