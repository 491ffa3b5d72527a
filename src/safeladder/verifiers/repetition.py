r"""Repetition: the share of repeated n-grams, and loops at the end of the text.

With N n-grams of words, D of them distinct, r = 1 - D / N, a the share ``allowed`` and l the
``limit`` (n-grams of characters, where a text of more than ``MIN_PROSE`` characters has fewer than
one word to ``CHARS_PER_WORD`` characters: "* * * *", "9e7e9e7e")::

    score = 0                    if the text is empty or ends in a loop
          = 1                    if r <= a
          = (l - r) / (l - a)    if a < r < l
          = 0                    if r >= l

A loop: the last characters are one block, said at least ``loop_repeats`` times without a break,
over at least ``loop_chars`` characters ("so so so so", "aaaa", a sentence for ever). White space
at the end is left out.

Linear time: n-grams of the last ``MAX_WORDS`` words, loops in the last ``MAX_TAIL`` characters (so
a loop of blocks longer than ``MAX_TAIL / loop_repeats`` is left to the n-grams).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field, FiniteFloat, model_validator

from safeladder.config import StrictModel
from safeladder.types import Trajectory, Verdict
from safeladder.verifiers.cases import HOSTILE_TEXTS, Case
from safeladder.verifiers.words import CHARS_PER_WORD, words

MAX_WORDS = 50_000
MAX_CHARS = 400_000
MAX_TAIL = 4096
MIN_PROSE = 60


class Loop(NamedTuple):
    """How a text ends: ``block`` said ``repeats`` times (once and a bit is 1.5)."""

    block: str
    repeats: float


def repeated_share(text: str, n: int) -> float:
    """The r of the formula above; 0 without any n-gram."""
    found = _units(text[-MAX_CHARS:])
    total = len(found) - n + 1
    if total < 1:
        return 0.0
    distinct = len(set(zip(*(islice(found, i, None) for i in range(n)), strict=False)))
    return 1.0 - distinct / total


def _units(text: str) -> Sequence[str]:
    """The last ``MAX_WORDS`` words; characters, where a text of some length has hardly a word."""
    found = words(text)[-MAX_WORDS:]
    if len(text) > MIN_PROSE and len(found) * CHARS_PER_WORD < len(text):
        return text[-MAX_WORDS:]
    return found


def final_loop(text: str, min_repeats: float, min_chars: int) -> Loop | None:
    """The loop a text ends in, or None.

    The prefix function of the reversed tail gives the smallest period of each of its prefixes
    (Knuth, Morris and Pratt); the longest prefix with enough periods is the loop.
    """
    end = text.rstrip()[-MAX_TAIL:]
    # A loop of L characters with a period of at most L / min_repeats has its last L - period
    # characters twice. Few texts have, and this search is much faster than the one below.
    again = int(min_chars * (1 - 1 / min_repeats))
    if end.rfind(end[-again:], 0, -1) < 0:
        return None
    tail = end[::-1]
    borders = [0] * len(tail)
    best: Loop | None = None
    border = 0
    for i in range(1, len(tail)):
        while border and tail[i] != tail[border]:
            border = borders[border - 1]
        if tail[i] == tail[border]:
            border += 1
        borders[i] = border
        length = i + 1
        period = length - border
        if length >= min_chars and length >= min_repeats * period:
            best = Loop(tail[:period][::-1], length / period)
    return best


class Repetition(StrictModel):
    """1 for a text that does not repeat itself; see the module for the formula.

    The whole response is read, thinking included. Classes: ``varied``, ``repetitive`` (score
    below 1), ``loop``, ``empty``. Parts: ``repeated`` is r, ``loop`` 1 or 0.
    """

    type: Literal["repetition"] = "repetition"
    name: str = "repetition"
    n: int = Field(default=6, ge=1, le=20, description="words of an n-gram")
    allowed: FiniteFloat = Field(default=0.2, ge=0, lt=1, description="share that still earns 1")
    limit: FiniteFloat = Field(default=0.6, gt=0, le=1, description="share that earns 0")
    loop_repeats: FiniteFloat = Field(default=4.0, ge=2, description="blocks that make a loop")
    loop_chars: int = Field(default=60, ge=4, description="characters a loop has at least")

    cases: ClassVar[tuple[Case, ...]]

    @model_validator(mode="after")
    def _ordered(self) -> Repetition:
        if self.limit <= self.allowed:
            raise ValueError(f"limit ({self.limit}) must be above allowed ({self.allowed})")
        return self

    def verify(self, trajectory: Trajectory) -> Verdict:
        """Measure and score."""
        text = trajectory.response
        if not text.strip():
            return Verdict(self.name, 0.0, "empty", reason="no text")
        share = repeated_share(text, self.n)
        loop = final_loop(text, self.loop_repeats, self.loop_chars)
        parts = {"repeated": share, "loop": float(loop is not None)}
        if loop is not None:
            said = f"ends with {loop.block[:60]!r} {loop.repeats:.1f} times"
            return Verdict(self.name, 0.0, "loop", reason=said, parts=parts)
        score = min(1.0, max(0.0, (self.limit - share) / (self.limit - self.allowed)))
        return Verdict(self.name, score, "varied" if score == 1 else "repetitive",
                       reason=f"{share:.3f} of the {self.n}-grams are repeated", parts=parts)


_SAYING = "To be, or not to be, that is the question."
Repetition.cases = (
    Case("good", f"<think>Whose words are they?</think>{_SAYING}", 1.0, verdict_class="varied"),
    Case("good", "4", 1.0, verdict_class="varied"),
    Case("good", "a 100000000000000000000", 1.0, verdict_class="varied"),
    Case("bad", "Fine. " + "I think so. " * 10, 0.0, verdict_class="loop"),
    Case("bad", "\u6211\u4e0d\u77e5\u9053\u3002" * 20, 0.0, verdict_class="loop"),
    Case("bad", "It is " + "a" * 100, 0.0, verdict_class="loop"),
    Case("bad", f"{_SAYING * 10} The end.", 0.0, verdict_class="repetitive"),
    Case("bad", "* " * 5000 + "x", 0.0, verdict_class="repetitive"),
    Case("bad", "9e7e8e7e5e3" * 5000 + " so", 0.0, verdict_class="repetitive"),
    Case("bad", "", 0.0, verdict_class="empty"),
    *(Case("hostile", text, 0.0 if len(text) > 60 or not text.strip() else 1.0)
      for text in HOSTILE_TEXTS),
)
