r"""A budget for the length of a response: full score within it, none beyond a hard limit.

With n the length, b the ``budget`` and l the ``limit``::

    score = 0                  if there is no text (n = 0)
          = 1                  if n <= b
          = (l - n) / (l - b)  if b < n < l
          = 0                  if n >= l

``unit: words`` counts n = max(words, ceil(characters / 16)): a run of 10,000 letters without a
space is one word and still no short text. A Chinese character is a word. ``unit: tokens`` counts
the sampled tokens of all turns.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from safeladder.config import StrictModel
from safeladder.types import Trajectory, Verdict
from safeladder.verifiers.base import abstention
from safeladder.verifiers.cases import HOSTILE_TEXTS, Case
from safeladder.verifiers.format import after_think, think_text
from safeladder.verifiers.words import CHARS_PER_WORD, WORD


def length_score(length: float, budget: float, limit: float) -> float:
    """The formula above for n > 0."""
    if length <= budget:
        return 1.0
    return max(0.0, (limit - length) / (limit - budget))


def count_words(text: str) -> int:
    """The n of the formula above, in words; 0 for a text without any visible character."""
    if not text.strip():
        return 0
    found = sum(1 for _ in WORD.finditer(text))
    return max(found, -(-len(text) // CHARS_PER_WORD))


class Length(StrictModel):
    """1 within the budget, falling linearly to 0 at the limit; see the module for the formula.

    Classes: ``within``, ``over`` (between budget and limit), ``too_long``, ``empty``. Tokens are
    known of sampled trajectories only: a response that came as text abstains.
    """

    type: Literal["length"] = "length"
    name: str = "length"
    budget: int = Field(default=512, ge=1, description="length that still earns 1, in units")
    limit: int = Field(default=1024, ge=2, description="length that earns 0, in units")
    unit: Literal["words", "tokens"] = "words"
    part: Literal["response", "thinking", "answer"] = Field(
        default="response", description="what is measured; tokens are counted of all turns only")

    cases: ClassVar[tuple[Case, ...]]

    @model_validator(mode="after")
    def _possible(self) -> Length:
        if self.limit <= self.budget:
            raise ValueError(f"limit ({self.limit}) must be above budget ({self.budget})")
        if self.unit == "tokens" and self.part != "response":
            raise ValueError("tokens are counted of the whole response: part must be 'response'")
        return self

    def verify(self, trajectory: Trajectory) -> Verdict:
        """Measure and score."""
        if self.unit == "words":
            length = count_words(self._text(trajectory.response))
        else:
            length = trajectory.num_tokens
            if length == 0 and trajectory.response:
                return abstention(self.name, "no tokens were recorded; count words instead")
        if length == 0:
            return Verdict(self.name, 0.0, "empty", reason="no text")
        score = length_score(length, self.budget, self.limit)
        judged = "within" if length <= self.budget else "over" if score > 0 else "too_long"
        return Verdict(self.name, score, judged, reason=f"{length} {self.unit}")

    def _text(self, response: str) -> str:
        if self.part == "thinking":
            return think_text(response)
        return response if self.part == "response" else after_think(response)


Length.cases = (
    Case("good", "<think>2 + 2</think>4", 1.0, verdict_class="within"),
    Case("good", "word " * 512, 1.0, verdict_class="within"),
    Case("bad", "word " * 768, 0.5, verdict_class="over"),
    Case("bad", "word " * 1024, 0.0, verdict_class="too_long"),
    Case("bad", "", 0.0, verdict_class="empty"),
    Case("bad", "a" * 100_000, 0.0, verdict_class="too_long"),
    *(Case("hostile", text, 0.0) for text in HOSTILE_TEXTS if len(text) > 16 * 1024),
    *(Case("hostile", text, 1.0) for text in HOSTILE_TEXTS if len(text) <= 16 * 1024),
)
