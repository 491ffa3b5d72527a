"""One evaluated answer, reduced to what figures and intervals are made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EvalItem:
    """One answer to one prompt. ``None`` = could not be judged; it enters no mean.

    ``cluster`` names what makes two items depend on each other: the structure of a puzzle (two
    puzzles with the same statements up to names and order are one structure), otherwise the
    prompt. Intervals are taken over clusters.
    """

    prompt_id: str
    cluster: str
    correct: float | None
    """1 right, 0 wrong."""
    format: float | None
    """1 well formed, 0 not."""
    tokens: int | None
    """Sampled tokens of the answer; None when no answer came."""
    response: str = ""
    people: int | None = None
    """Number of people of a Knights and Knaves puzzle; None for other prompts."""
    source: str = ""
    verdict_class: str | None = None

    @property
    def answered(self) -> bool:
        """Whether an answer came at all (a failed rollout has none)."""
        return self.tokens is not None
