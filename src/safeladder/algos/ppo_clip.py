"""PPO's clipped surrogate (arXiv 1707.06347 eq. 7), the loss of the GRPO family.

    l_t = -min( r_t A_t, clip(r_t, 1 - eps_low, 1 + eps_high) A_t ),  r_t = pi_theta / pi_old

The gradient with respect to log pi_theta(y_t) is -r_t A_t, and 0 where r_t is past the bound that
A_t favours (A > 0: above 1 + eps_high; A < 0: below 1 - eps_low). With A < 0 and large r_t it is
unbounded; CPGD and CISPO are two answers to that.

Departures: two bounds instead of one (DAPO, arXiv 2503.14476 eq. 10; equal by default), and
log-ratios clamped to +-20 nats before exp. Public code: TRL is the same without the clamp; verl
adds a third bound for A < 0 (dual clip, arXiv 1912.09729) at r = 3 by default, which we do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from safeladder.algos.base import (
    LossInputs,
    LossOutput,
    Need,
    policy_metrics,
    ratio,
    require,
)


class Surrogate(NamedTuple):
    """The clipped surrogate and where it clips."""

    loss: Tensor
    clipped: Tensor
    """bool: past the bound that the advantage favours, so without gradient."""


def clipped_surrogate(
    r: Tensor, advantages: Tensor, eps_low: float, eps_high: float,
) -> Surrogate:
    """-min(r A, clip(r) A) for ratios of tokens or of sequences, same shape in and out."""
    bounded = r.clamp(1 - eps_low, 1 + eps_high)
    loss = -torch.minimum(r * advantages, bounded * advantages)
    too_high = (advantages > 0) & (r > 1 + eps_high)
    too_low = (advantages < 0) & (r < 1 - eps_low)
    return Surrogate(loss, too_high | too_low)


@dataclass(frozen=True)
class ClippedSurrogate:
    """PPO's clip on the ratio of each token."""

    eps_low: float = 0.2
    eps_high: float = 0.2

    def __post_init__(self) -> None:
        require_clip_range(self.eps_low, self.eps_high)

    @property
    def needs(self) -> frozenset[Need]:
        """The old log-probabilities."""
        return frozenset({"old"})

    def __call__(self, inputs: LossInputs) -> LossOutput:
        """(N,) clipped surrogate; metrics of :func:`~safeladder.algos.base.policy_metrics`."""
        loss, clipped = clipped_surrogate(
            ratio(inputs.log_ratio), inputs.advantages, self.eps_low, self.eps_high)
        return LossOutput(loss, policy_metrics(inputs, clipped))


def require_clip_range(eps_low: float, eps_high: float) -> None:
    """0 < eps_low <= 1 and 0 < eps_high < inf."""
    require(0 < eps_low <= 1, f"eps_low must be in (0, 1], got {eps_low}")
    require(0 < eps_high < float("inf"), f"eps_high must be positive, got {eps_high}")
