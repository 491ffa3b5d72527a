"""RLOO: REINFORCE leave-one-out (arXiv 2402.14740).

    R'_i = R_i - beta sum_t k1_t                                  (KL in the reward)
    A_i  = R'_i - mean of the other K - 1 rewards of the group  = K / (K - 1) (R'_i - mean)
    l_i  = -min( s_i A_i, clip(s_i, 1 - eps, 1 + eps) A_i ),  s_i = exp( sum_t d_t )

The whole response is one action: s_i is the ratio of *sequence* probabilities (the sum of the
token log-ratios, not their mean as in GSPO). Each token of a row carries l_i, so that
``sequence_mean`` weights give the mean over rows; other normalisations would weigh rows by length.

Departures and choices
- The paper takes one on-policy step, where s_i = 1 and the gradient is -A_i; the clip is TRL's
  extension for several, and beta = 0.05 and eps = 0.2 are TRL's defaults.
- A group of one has no others to compare with: advantage 0 (TRL; verl's loop keeps the reward).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from safeladder.algos.base import (
    Algorithm,
    LossInputs,
    LossOutput,
    Need,
    RewardTable,
    broadcast,
    policy_metrics,
    ratio,
)
from safeladder.algos.kl import KLReward
from safeladder.algos.ppo_clip import clipped_surrogate, require_clip_range
from safeladder.types import FloatArray


@dataclass(frozen=True)
class RLOOAdvantage:
    """Reward minus the mean of the group's other rewards."""

    kl: KLReward | None = None

    @property
    def needs(self) -> frozenset[Need]:
        """Old and reference log-probabilities when KL is in the reward."""
        return self.kl.needs if self.kl else frozenset()

    def __call__(self, table: RewardTable) -> list[FloatArray]:
        """One (n_i,) array per row, the same value on each of its tokens."""
        if self.kl:
            penalties = [row.sum() for row in self.kl(table)]
            table = replace(table, rewards=table.rewards - np.array(penalties, np.float64))
        values = np.zeros_like(table.rewards)
        for rows in table.group_rows():
            if len(rows) > 1:
                values[rows] = table.centred[rows] * len(rows) / (len(rows) - 1)
        return broadcast(values, table)


@dataclass(frozen=True)
class RLOOLoss:
    """Clipped surrogate on the ratio of whole sequences."""

    eps_low: float = 0.2
    eps_high: float = 0.2

    def __post_init__(self) -> None:
        require_clip_range(self.eps_low, self.eps_high)

    @property
    def needs(self) -> frozenset[Need]:
        """The old log-probabilities."""
        return frozenset({"old"})

    def __call__(self, inputs: LossInputs) -> LossOutput:
        """(N,) each row's loss on all of its tokens. Extra metric ``sequence_ratio``: s_i."""
        s = inputs.per_token(ratio(inputs.row_sum(inputs.log_ratio)))
        loss, clipped = clipped_surrogate(s, inputs.advantages, self.eps_low, self.eps_high)
        metrics = policy_metrics(inputs, clipped)
        return LossOutput(loss, {**metrics, "sequence_ratio": s.detach()})


RLOO = Algorithm(RLOOAdvantage(KLReward(coef=0.05, estimator="k1")), RLOOLoss())
