"""GRPO: group relative policy optimization (DeepSeekMath, arXiv 2402.03300 eq. 3).

    A_i = (R_i - mean of the group) / (std of the group),   the same on every token of row i
    l_t = PPO's clipped surrogate + beta k3(pi_theta, pi_ref),   mean over tokens, then over rows

beta = 0.04 as in the paper. Set ``kl: null`` to train without a reference, as TRL (since 0.19),
DAPO and Dr. GRPO do.

Departures and choices
- eps is not in the paper; 0.2 is PPO's and every library's.
- ``std_eps`` = 1e-4 beside the std is TRL's; the paper has none, verl has 1e-6, OpenRLHF 1e-9. It
  keeps groups whose rewards differ by noise from being blown up to unit size.
- Groups of one and groups of equal rewards give exactly 0. verl gives a group of one its raw
  reward (mean 0, std 1); one response is relative to nothing, so it has no advantage here.
"""

from __future__ import annotations

from dataclasses import dataclass

from safeladder.algos.base import (
    Algorithm,
    Need,
    PenalizedLoss,
    RewardTable,
    broadcast,
    require,
)
from safeladder.algos.kl import KLPenalty
from safeladder.algos.ppo_clip import ClippedSurrogate
from safeladder.types import FloatArray


@dataclass(frozen=True)
class GRPOAdvantage:
    """Reward standardised within its group."""

    std_eps: float = 1e-4

    def __post_init__(self) -> None:
        require(self.std_eps > 0, f"std_eps must be positive, got {self.std_eps}")

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing."""
        return frozenset()

    def __call__(self, table: RewardTable) -> list[FloatArray]:
        """One (n_i,) array per row, the same value on each of its tokens."""
        return broadcast(table.centred / (table.group_std + self.std_eps), table)


GRPO = Algorithm(
    GRPOAdvantage(), PenalizedLoss(ClippedSurrogate(), (KLPenalty(coef=0.04, estimator="k3"),)))
