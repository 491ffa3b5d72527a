"""Length as a cost that is taken off every reward: the plain baseline of shorter reasoning.

    R' = R - coef n / max_tokens

Ours, as the simplest form there is: right and wrong answers pay alike, and so do easy and hard
prompts. ``canon.py`` and ``efficient_reasoning.py`` charge success alone; DAPO's term (``dapo.py``)
charges the last stretch before the limit alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from safeladder.algos.base import require


@dataclass(frozen=True)
class LengthPenalty:
    """``coef`` is what a response of ``max_tokens`` costs, in units of the reward."""

    coef: float = 0.1

    def __post_init__(self) -> None:
        require(0 <= self.coef < float("inf"), f"coef must not be negative, got {self.coef}")

    def __call__(self, num_tokens: int, max_tokens: int) -> float:
        """The term to add to the reward, in [-coef, 0]."""
        return -self.coef * min(num_tokens / max_tokens, 1.0)
