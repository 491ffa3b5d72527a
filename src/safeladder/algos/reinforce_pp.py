"""REINFORCE++ (arXiv 2501.03262) as Logic-RL uses it (arXiv 2502.14768), and its baseline variant.

    A_t = whiten( R - sum_{j >= t} coef k_j )             k in the reward, or none
    A_t = whiten( R - mean of the group )                 baseline variant
    whiten(x) = (x - m) / sqrt(v + 1e-8)

m and v are mean and variance (over N - 1) of all trained *tokens* of the rollout, so a long
response weighs more. The loss is PPO's clipped surrogate, mean over tokens.

- ``reinforce_pp``, Logic-RL's "modified REINFORCE++": KL out of the reward and into the loss as
  0.001 k3 clamped at 10, entropy bonus 0.001, eps 0.2. No group baseline.
- ``reinforce_pp_baseline``: 0.001 k2 as a separate loss (OpenRLHF's script), eps 0.2.

Departures and choices
- Logic-RL's paper prints a per-sequence mean; its code takes the token mean of the micro-batch. We
  take the token mean of the optimizer step. The entropy bonus is the code's only.
- The original REINFORCE++ has k1 in the reward: ``advantage: {kl: {coef: 0.001}}, kl: null``.
- Variance over N - 1 is Logic-RL's and verl's; OpenRLHF divides by N.
- ms-swift's "reinforce_plus_plus" is the baseline variant with every row weighing the same.
- All values equal, one token or none: exactly 0. gamma is 1, as in both papers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safeladder.algos.base import Algorithm, Need, PenalizedLoss, RewardTable, is_flat
from safeladder.algos.entropy import EntropyBonus
from safeladder.algos.kl import KLPenalty, KLReward
from safeladder.algos.ppo_clip import ClippedSurrogate
from safeladder.types import FloatArray

VARIANCE_EPS = 1e-8


def whiten(values: Sequence[NDArray[np.float64]]) -> list[FloatArray]:
    """Standardise over all tokens of all rows: one (n_i,) array in, one out."""
    if not values:
        return []
    tokens = np.concatenate(values).astype(np.float64)
    if is_flat(tokens):
        return [np.zeros(len(row), np.float32) for row in values]
    mean, scale = tokens.mean(), 1 / np.sqrt(tokens.var(ddof=1) + VARIANCE_EPS)
    return [((row - mean) * scale).astype(np.float32) for row in values]


@dataclass(frozen=True)
class ReinforcePPAdvantage:
    """Reward, less the KL still to come when it is in the reward, whitened over all tokens."""

    kl: KLReward | None = None

    @property
    def needs(self) -> frozenset[Need]:
        """Old and reference log-probabilities when KL is in the reward."""
        return self.kl.needs if self.kl else frozenset()

    def __call__(self, table: RewardTable) -> list[FloatArray]:
        """One (n_i,) array per row; constant along a row unless KL is in the reward."""
        returns = [np.full(n, r) for n, r in zip(table.lengths, table.rewards, strict=True)]
        if self.kl:
            returns = [row - penalty[::-1].cumsum()[::-1]
                       for row, penalty in zip(returns, self.kl(table), strict=True)]
        return whiten(returns)


@dataclass(frozen=True)
class ReinforcePPBaselineAdvantage:
    """Reward minus group mean, whitened over all tokens (the mean again by tokens)."""

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing."""
        return frozenset()

    def __call__(self, table: RewardTable) -> list[FloatArray]:
        """One (n_i,) array per row, the same value on each of its tokens."""
        return whiten([np.full(n, a) for n, a in zip(table.lengths, table.centred, strict=True)])


REINFORCE_PP = Algorithm(
    ReinforcePPAdvantage(),
    PenalizedLoss(ClippedSurrogate(), (
        KLPenalty(coef=0.001, estimator="k3", max_value=10.0), EntropyBonus(0.001))),
    normalization="token_mean")
REINFORCE_PP_BASELINE = Algorithm(
    ReinforcePPBaselineAdvantage(),
    PenalizedLoss(ClippedSurrogate(), (KLPenalty(coef=0.001, estimator="k2"),)),
    normalization="token_mean")
