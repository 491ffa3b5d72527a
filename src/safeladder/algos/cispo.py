"""CISPO: clipped importance-sampling-weight policy optimization (MiniMax-M1, arXiv 2506.13585).

    l_t = -sg( clip(r_t, 0, max_ratio) ) A_t log pi_theta(y_t),   mean over tokens (eq. 4, 5)

The weight is clipped, not the update: every token keeps a gradient, -min(r_t, max_ratio) A_t.
Advantages are GRPO's; no KL term.

Departures and choices
- ``max_ratio`` is the bound itself. The paper and verl write it 1 + eps_high, TRL calls the bound
  itself epsilon_high: TRL's 5.0 is our 5.0 and verl's 4.0. The paper gives no number; 5.0 is the
  value recommended with the ScaleRL recipe (arXiv 2510.13786).
- No lower bound: the paper sets eps_low so large that it never acts.
- The paper's sum runs over the tokens of one group (``prompt_mean``); TRL averages over the tokens
  of the step, and so do we.
"""

from __future__ import annotations

from dataclasses import dataclass

from safeladder.algos.base import (
    Algorithm,
    LossInputs,
    LossOutput,
    Need,
    policy_metrics,
    ratio,
    require,
)
from safeladder.algos.grpo import GRPOAdvantage


@dataclass(frozen=True)
class CISPOLoss:
    """Policy gradient weighted with the clipped, detached ratio."""

    max_ratio: float = 5.0

    def __post_init__(self) -> None:
        require(self.max_ratio >= 1,
                f"max_ratio is the bound of the ratio itself, at least 1; got {self.max_ratio}")

    @property
    def needs(self) -> frozenset[Need]:
        """The old log-probabilities."""
        return frozenset({"old"})

    def __call__(self, inputs: LossInputs) -> LossOutput:
        """(N,) loss. ``clip_fraction`` counts weights at the bound, whatever the advantage."""
        r = ratio(inputs.log_ratio.detach())
        loss = -r.clamp(max=self.max_ratio) * inputs.advantages * inputs.logprobs
        return LossOutput(loss, policy_metrics(inputs, r > self.max_ratio))


CISPO = Algorithm(GRPOAdvantage(), CISPOLoss(), normalization="token_mean")
