"""KL to a frozen reference: estimators (Schulman, "Approximating KL divergence", 2020), and places.

With u = log pi_theta - log pi_ref at a token drawn from the policy, of KL(pi_theta || pi_ref):

    k1 = u              unbiased, can be negative
    k2 = u^2 / 2        biased, >= 0
    k3 = exp(-u) - 1 + u  unbiased, >= 0

What an estimator does depends on the place (arXiv 2510.01555):

- in the reward (no gradient through it) k1 gives the gradient of KL(pi_theta || pi_ref): RLOO,
  REINFORCE++, PPO. k3 is offered too: same expectation, other variance, its gradient biased.
- in the loss, k2 has the same gradient on-policy as k1 in the reward; k3 (GRPO, Logic-RL) has that
  of KL(pi_ref || pi_theta). k1 in the loss is refused: its gradient is grad log pi_theta, whose
  expectation is 0, so it restrains nothing and adds noise.

Departures: u is clamped to +-20 nats before exp. The estimators are not reweighted by
pi_theta / pi_old, as in the papers (TRL offers it as use_bias_correction_kl).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from safeladder.algos.base import (
    MAX_LOG_RATIO,
    LossInputs,
    LossOutput,
    Need,
    RewardTable,
    ratio,
    require,
)

Estimator = Literal["k1", "k2", "k3"]


@dataclass(frozen=True)
class KLPenalty:
    """coef * k2 or coef * k3 in the loss; k1 is refused.

    For :class:`~safeladder.algos.base.PenalizedLoss`.
    """

    coef: float = 0.001
    estimator: Estimator = "k3"
    max_value: float | None = None
    """The estimate is clamped to this, beyond which it has no gradient (Logic-RL and verl: 10)."""

    def __post_init__(self) -> None:
        require(0 <= self.coef < float("inf"), f"coef must not be negative, got {self.coef}")
        require(self.estimator != "k1", "k1 in the loss has an expected gradient of 0, it "
                "restrains nothing: use k2 or k3, or k1 in the reward (advantage.kl)")
        require(self.estimator in ("k2", "k3"),
                f"a KL term in the loss is k2 or k3, got {self.estimator!r}")
        require(self.max_value is None or self.max_value > 0,
                f"max_value must be positive, got {self.max_value}")

    @property
    def needs(self) -> frozenset[Need]:
        """The reference log-probabilities."""
        return frozenset({"ref"})

    def __call__(self, inputs: LossInputs) -> LossOutput:
        """(N,) penalty. Metric ``kl_ref``: the estimate before coef and clamp."""
        u = inputs.logprobs - inputs.reference()
        estimate = 0.5 * u**2 if self.estimator == "k2" else ratio(-u) - 1 + u
        bounded = estimate if self.max_value is None else estimate.clamp(max=self.max_value)
        return LossOutput(self.coef * bounded, {"kl_ref": estimate.detach()})


@dataclass(frozen=True)
class KLReward:
    """coef * k1 or coef * k3 per token, to be taken off the reward; k2 is refused."""

    coef: float = 0.001
    estimator: Estimator = "k1"

    def __post_init__(self) -> None:
        require(0 <= self.coef < float("inf"), f"coef must not be negative, got {self.coef}")
        require(self.estimator in ("k1", "k3"), f"a KL term in the reward is k1 or k3, since k2 "
                f"is not an unbiased estimate; got {self.estimator!r}")

    @property
    def needs(self) -> frozenset[Need]:
        """Old and reference log-probabilities."""
        return frozenset({"old", "ref"})

    def __call__(self, table: RewardTable) -> list[NDArray[np.float64]]:
        """One (n_i,) array of penalties per row of the table."""
        if table.kl is None:
            raise ValueError("KL in the reward needs a reference: the table holds no kl")
        rows = [row.astype(np.float64) for row in table.kl]
        if self.estimator == "k3":
            rows = [np.exp(-row.clip(-MAX_LOG_RATIO, MAX_LOG_RATIO)) - 1 + row for row in rows]
        return [self.coef * row for row in rows]
