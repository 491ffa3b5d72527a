"""GSPO: group sequence policy optimization (arXiv 2507.18071 eq. 5 and 7).

    s_i = ( pi_theta(y_i) / pi_old(y_i) )^(1 / |y_i|) = exp( mean_t d_t )
    l_i = -min( s_i A_i, clip(s_i, 1 - eps_low, 1 + eps_high) A_i ),   mean over rows

with GRPO's advantages, eps_low = 3e-4 and eps_high = 4e-4, and no KL term. Each token of a row
carries l_i; its gradient with respect to each log pi_theta(y_t) is -s_i A_i / |y_i|.

Departures: none known, besides the clamp of log s_i to +-20 nats. verl uses the paper's GSPO-token
form, which has the same gradient when all tokens of a row share one advantage.
"""

from __future__ import annotations

from dataclasses import dataclass

from safeladder.algos.base import Algorithm, LossInputs, LossOutput, Need, policy_metrics, ratio
from safeladder.algos.grpo import GRPOAdvantage
from safeladder.algos.ppo_clip import clipped_surrogate, require_clip_range


@dataclass(frozen=True)
class GSPOLoss:
    """Clipped surrogate on the length-normalised sequence ratio."""

    eps_low: float = 3e-4
    eps_high: float = 4e-4

    def __post_init__(self) -> None:
        require_clip_range(self.eps_low, self.eps_high)

    @property
    def needs(self) -> frozenset[Need]:
        """The old log-probabilities."""
        return frozenset({"old"})

    def __call__(self, inputs: LossInputs) -> LossOutput:
        """(N,) each row's loss on all of its tokens. Extra metric ``sequence_ratio``: s_i."""
        s = inputs.per_token(ratio(inputs.row_mean(inputs.log_ratio)))
        loss, clipped = clipped_surrogate(s, inputs.advantages, self.eps_low, self.eps_high)
        metrics = policy_metrics(inputs, clipped)
        return LossOutput(loss, {**metrics, "sequence_ratio": s.detach()})


GSPO = Algorithm(GRPOAdvantage(), GSPOLoss())
