"""Supervised fine-tuning: maximum likelihood on demonstrations.

    l_t = -log pi_theta(y_t | y_<t)

With ``token_mean`` weights this is the usual cross-entropy over the step's trained tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from safeladder.algos.base import LossInputs, LossOutput, Need


@dataclass(frozen=True)
class NegativeLogLikelihood:
    """Negative log-likelihood per token, in nats. Advantages play no part."""

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing beside the live log-probabilities."""
        return frozenset()

    def __call__(self, inputs: LossInputs) -> LossOutput:
        """(N,) -log p. Metric ``nll``: the same without gradient."""
        loss = -inputs.logprobs
        return LossOutput(loss, {"nll": loss.detach()})
