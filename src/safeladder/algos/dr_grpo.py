"""Dr. GRPO: GRPO done right (arXiv 2503.20783).

    A_i = R_i - mean of the group
    l_t = PPO's clipped surrogate,   sum over tokens / (rows * L), L a constant

It drops GRPO's two biases: dividing by the group's std (which favours prompts that are too easy or
too hard) and by the response's length (which favours short right and long wrong answers). No KL
term. L is the recipe's ``max_tokens`` (``constant`` normalisation), as in TRL.

Where public code differs: verl's seq-mean-token-sum-norm divides by L but not by the number of
rows, so its loss is larger by that factor.
"""

from __future__ import annotations

from dataclasses import dataclass

from safeladder.algos.base import Algorithm, Need, RewardTable, broadcast
from safeladder.algos.ppo_clip import ClippedSurrogate
from safeladder.types import FloatArray


@dataclass(frozen=True)
class DrGRPOAdvantage:
    """Reward minus group mean. Groups of one and equal rewards give exactly 0."""

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing."""
        return frozenset()

    def __call__(self, table: RewardTable) -> list[FloatArray]:
        """One (n_i,) array per row, the same value on each of its tokens."""
        return broadcast(table.centred, table)


DR_GRPO = Algorithm(DrGRPOAdvantage(), ClippedSurrogate(), normalization="constant")
