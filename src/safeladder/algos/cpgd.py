"""CPGD: clipped policy gradient with policy drift (arXiv 2505.12504).

Loss per token (minimise; eq. 2), with d_t = log pi_theta - log pi_old and sg = stop-gradient:

    l_t   = -Phi_t + alpha E_t
    Phi_t = A min(d_t, log(1 + eps_t))   if A > 0
            A max(d_t, log(1 - eps_t))   otherwise          (the one-sided form of the clip)
    E_t   = min( sg(exp d_t) - 1, c ) log pi_theta(y_t)

The gradient of Phi_t is A, with no ratio in front, and 0 past the bound that A favours. The
gradient of E_t is that of r - 1 - log r, the forward KL(pi_old || pi_theta), with its weight capped
at c: capping the estimator itself would turn the gradient round beyond the cap. At
pi_theta = pi_old the drift has no gradient. There is no reference model.

Advantages: A = omega (R - mean of the group), with omega one of

    equal        1
    std          1 / (std of the group)
    clip_filter  min( c_omega, prompts / prompts whose rewards are not all equal )

eps_t is constant, or goes from tight to loose along the response (the paper's option):
eps_t = lambda eps + (1 - lambda) eps t / |y|.

Departures and choices
- Values: eq. 2 as written. The authors' code (MM-EUREKA) leaves out the constant A log pi_old, so
  its values differ by that and its gradients are these.
- The paper gives no numbers for eps, alpha, c; the defaults are the authors' code's (a later README
  says c = 0.2, the code says 2.0). It averages tokens over the micro-batch, which is eq. 2 for one
  row; we follow eq. 2 (``sequence_mean``) for any micro-batching.
- clip_filter counts over the whole rollout, as the paper says; the authors' code counts per rank
  and multiplies the weight onto advantages already divided by the group's std.
- With several epochs over one rollout the paper suggests one more factor on A; not built, since a
  rollout is used once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from safeladder.algos.base import (
    Algorithm,
    LossInputs,
    LossOutput,
    Need,
    RewardTable,
    broadcast,
    is_flat,
    policy_metrics,
    ratio,
    require,
)
from safeladder.types import FloatArray


@dataclass(frozen=True)
class CPGDAdvantage:
    """Reward minus group mean, weighted. Groups of one and equal rewards give exactly 0."""

    weight: Literal["equal", "std", "clip_filter"] = "std"
    weight_cap: float = 3.0
    """c_omega of clip_filter."""
    std_eps: float = 1e-9

    def __post_init__(self) -> None:
        require(self.weight in ("equal", "std", "clip_filter"),
                f"weight must be equal, std or clip_filter, got {self.weight!r}")
        require(self.weight_cap >= 1, f"weight_cap must be at least 1, got {self.weight_cap}")
        require(self.std_eps >= 0, f"std_eps must not be negative, got {self.std_eps}")

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing."""
        return frozenset()

    def __call__(self, table: RewardTable) -> list[FloatArray]:
        """One (n_i,) array per row, the same value on each of its tokens."""
        match self.weight:
            case "equal":
                return broadcast(table.centred, table)
            case "std":
                std = np.where(table.group_std > 0, table.group_std + self.std_eps, 1.0)
                return broadcast(table.centred / std, table)
            case "clip_filter":
                return broadcast(table.centred * self._filter_weight(table), table)

    def _filter_weight(self, table: RewardTable) -> float:
        groups = table.group_rows()
        with_signal = sum(not is_flat(table.rewards[rows]) for rows in groups)
        return min(self.weight_cap, len(groups) / with_signal) if with_signal else 1.0


@dataclass(frozen=True)
class CPGDLoss:
    """One-sided log-ratio clip plus forward-KL drift (eq. 2)."""

    eps: float = 0.2
    drift_coef: float = 0.01
    """alpha; 0 gives the paper's CPG."""
    drift_cap: float = 2.0
    """c"""
    first_eps_share: float = 1.0
    """lambda: below 1 the bound starts near lambda eps and is eps at the last token."""

    def __post_init__(self) -> None:
        require(0 < self.eps < 1, f"eps must be in (0, 1), got {self.eps}")
        require(0 <= self.drift_coef < float("inf"),
                f"drift_coef must not be negative, got {self.drift_coef}")
        require(self.drift_cap > 0, f"drift_cap must be positive, got {self.drift_cap}")
        require(0 <= self.first_eps_share <= 1,
                f"first_eps_share must be in [0, 1], got {self.first_eps_share}")

    @property
    def needs(self) -> frozenset[Need]:
        """The old log-probabilities."""
        return frozenset({"old"})

    def __call__(self, inputs: LossInputs) -> LossOutput:
        """(N,) eq. 2. Extra metric ``drift_capped``: share of tokens whose drift weight is c."""
        log_ratio, advantages = inputs.log_ratio, inputs.advantages
        eps = self._eps(inputs)
        upper, lower = torch.log1p(eps), torch.log1p(-eps)
        phi = advantages * torch.where(
            advantages > 0, log_ratio.clamp(max=upper), log_ratio.clamp(min=lower))
        uncapped = ratio(log_ratio.detach()) - 1
        drift = uncapped.clamp(max=self.drift_cap) * inputs.logprobs
        clipped = (((advantages > 0) & (log_ratio > upper))
                   | ((advantages < 0) & (log_ratio < lower)))
        metrics = policy_metrics(inputs, clipped)
        metrics["drift_capped"] = (uncapped > self.drift_cap).to(uncapped.dtype)
        return LossOutput(-phi + self.drift_coef * drift, metrics)

    def _eps(self, inputs: LossInputs) -> Tensor:
        """(N,) eps_t."""
        if self.first_eps_share == 1:
            return torch.full_like(inputs.old_logprobs, self.eps)
        share = self.first_eps_share
        return self.eps * (share + (1 - share) * inputs.progress())


CPGD_STD = Algorithm(CPGDAdvantage("std"), CPGDLoss())
"""The setting with the paper's best overall result and the one its ablations vary."""
CPGD_CLIP_FILTER = Algorithm(CPGDAdvantage("clip_filter"), CPGDLoss())
