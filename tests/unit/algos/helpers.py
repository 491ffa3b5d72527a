"""Inputs for hand-computed losses: float64, so that the comparison is with the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from safeladder.algos.base import LossInputs, PolicyLoss, RewardTable

OLD = -2.0


def inputs(
    ratios: Sequence[float], advantages: Sequence[float], row: Sequence[int] | None = None,
    ref: Sequence[float] | None = None, entropy: Sequence[float] | None = None,
) -> LossInputs:
    """Tokens with log pi_old = -2 and the given pi_theta / pi_old; one row unless said."""
    old = torch.full((len(ratios),), OLD, dtype=torch.float64)
    rows = torch.tensor([0] * len(ratios) if row is None else row)

    def column(values: Sequence[float] | None) -> torch.Tensor | None:
        return None if values is None else torch.tensor(values, dtype=torch.float64)

    h = column(entropy)
    return LossInputs(
        logprobs=(old + torch.tensor(ratios, dtype=torch.float64).log()).requires_grad_(),
        old_logprobs=old, advantages=torch.tensor(advantages, dtype=torch.float64), row=rows,
        num_rows=int(rows.max()) + 1 if len(ratios) else 0, ref_logprobs=column(ref),
        entropy=None if h is None else h.requires_grad_())


def evaluate(
    loss: PolicyLoss, given: LossInputs, weights: Sequence[float] | None = None,
) -> tuple[list[float], list[float]]:
    """Per-token values, and the gradient of their (weighted) sum by log pi_theta."""
    values = loss(given).loss
    scale = torch.ones_like(values) if weights is None else torch.tensor(weights).to(values)
    (gradient,) = torch.autograd.grad((values * scale).sum(), given.logprobs)
    return values.tolist(), gradient.tolist()


def table(
    rewards: Sequence[float], groups: Sequence[int] | None = None,
    lengths: Sequence[int] | None = None, kl: Sequence[Sequence[float]] | None = None,
) -> RewardTable:
    """One group and one token per row unless said."""
    return RewardTable(
        rewards=np.array(rewards, np.float64),
        groups=np.array([0] * len(rewards) if groups is None else groups, np.int64),
        lengths=np.array([1] * len(rewards) if lengths is None else lengths, np.int64),
        kl=None if kl is None else [np.array(row, np.float32) for row in kl])


def as_lists(advantages: Sequence[np.ndarray]) -> list[list[float]]:
    return [row.tolist() for row in advantages]
