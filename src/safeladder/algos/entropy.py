"""Entropy bonus: keeps the policy from becoming deterministic too early.

    l_t = -coef H(pi_theta(. | y_<t)),   as in A3C (arXiv 1602.01783)

Logic-RL's code has it at 0.001; its paper does not mention it.
"""

from __future__ import annotations

from dataclasses import dataclass

from safeladder.algos.base import LossInputs, LossOutput, Need, require


@dataclass(frozen=True)
class EntropyBonus:
    """A penalty of minus the entropy, for :class:`~safeladder.algos.base.PenalizedLoss`."""

    coef: float = 0.001

    def __post_init__(self) -> None:
        require(0 <= self.coef < float("inf"), f"coef must not be negative, got {self.coef}")

    @property
    def needs(self) -> frozenset[Need]:
        """The entropy, with gradient."""
        return frozenset({"entropy"})

    def __call__(self, inputs: LossInputs) -> LossOutput:
        """(N,) -coef H; the engine logs the entropy itself."""
        if inputs.entropy is None:
            raise ValueError("the entropy bonus needs the entropy, with gradient")
        return LossOutput(-self.coef * inputs.entropy, {})
