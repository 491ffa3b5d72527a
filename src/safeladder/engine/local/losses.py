"""From log-probabilities of trained tokens to the loss, its gradient and the figures to log.

Both compute paths end here, so a loss meets the same flat tensors whichever of them ran.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from safeladder.algos.base import LossInputs
from safeladder.engine.base import Loss, Stats
from safeladder.engine.local.batching import Row
from safeladder.types import Datum

OPTIONAL_COLUMNS = ("sampler_logprobs", "old_logprobs", "ref_logprobs")


class NotFinite(ArithmeticError):
    """A loss or a gradient is NaN or infinite; carries the rows it came from."""

    def __init__(self, what: str, rows: Sequence[Datum]) -> None:
        super().__init__(f"the {what} is not finite")
        self.what = what
        self.rows = list(rows)


class LossGradient(NamedTuple):
    """What the backward starts from."""

    logprobs: Tensor
    """(n,) d sum(loss * weights) / d logprobs."""
    entropy: Tensor | None
    """(n,) or None where the loss does not read the entropy."""
    stats: Stats


def check_columns(data: Sequence[Datum]) -> None:
    """Raise ``ValueError`` unless each optional log-probability is there on all rows or on none."""
    for name in OPTIONAL_COLUMNS:
        present = sum(getattr(datum, name) is not None for datum in data)
        if present not in (0, len(data)):
            raise ValueError(f"{name} is set on {present} of {len(data)} rows: all or none")


def differentiate(
    rows: Sequence[Row], loss: Loss, logprobs: Tensor, entropy: Tensor,
) -> LossGradient:
    """Evaluate ``sum(loss_T * weights_T)`` over the trained tokens of one micro-batch.

    Args:
        rows: the rows of the micro-batch.
        loss: see :mod:`safeladder.algos.base`.
        logprobs: (n,) live log-probabilities, row after row.
        entropy: (n,) entropies in nats.

    Raises:
        NotFinite: the loss is NaN or infinite.
    """
    reads_entropy = "entropy" in loss.needs
    with torch.enable_grad():
        live = logprobs.detach().clone().requires_grad_()
        spread = entropy.detach().clone().requires_grad_(reads_entropy)
        inputs = _loss_inputs(rows, live, spread)
        output = loss(inputs)
        total = (output.loss * _required_column(rows, "weights", live)).sum()
        if not torch.isfinite(total):
            raise NotFinite("loss", [row.datum for row in rows])
        if total.requires_grad:
            total.backward()
    gradient = torch.zeros_like(logprobs) if live.grad is None else live.grad
    stats = _stats(rows, inputs, output.metrics, float(total.detach()))
    return LossGradient(gradient, spread.grad, stats)


def _loss_inputs(rows: Sequence[Row], logprobs: Tensor, entropy: Tensor) -> LossInputs:
    counts = torch.tensor([row.num_trained for row in rows])
    old = _column(rows, "old_logprobs", logprobs)
    return LossInputs(
        logprobs=logprobs, old_logprobs=logprobs.detach() if old is None else old,
        advantages=_required_column(rows, "advantages", logprobs),
        row=torch.arange(len(rows)).repeat_interleave(counts).to(logprobs.device),
        num_rows=len(rows), ref_logprobs=_column(rows, "ref_logprobs", logprobs),
        entropy=entropy)


@torch.no_grad()
def _stats(rows: Sequence[Row], inputs: LossInputs, metrics: dict[str, Tensor],
           total: float) -> Stats:
    """The loss's own metrics and those that every step logs.

    ``entropy`` of the live policy; ``kl_ref`` KL(live || reference), where there is one; and,
    where they are given, ``kl_old`` KL(old || live), ``mismatch_kl`` KL(sampler || live), and the
    maximum ``max_ratio_gap`` of |live / old - 1|. All KL are Schulman's k3 per token. The mismatch
    is the gap between two computations of one policy only until the first optimizer step after
    sampling; later it holds the policy's own movement too.
    """
    live = inputs.logprobs
    figures = dict(metrics)
    maxima = {}
    if inputs.entropy is not None:
        figures["entropy"] = inputs.entropy
    if inputs.ref_logprobs is not None:
        figures["kl_ref"] = _k3(inputs.ref_logprobs - live)
    old = _column(rows, "old_logprobs", live)
    if old is not None:
        figures["kl_old"] = _k3(live - old)
        maxima["max_ratio_gap"] = float((live - old).expm1().abs().max())
    sampled = _column(rows, "sampler_logprobs", live)
    if sampled is not None:
        figures["mismatch_kl"] = _k3(live - sampled)
    means = {name: (float(values.sum()), float(values.numel()))
             for name, values in figures.items()}
    return Stats(sums={"loss": total}, means=means, maxima=maxima)


def _k3(log_ratio: Tensor) -> Tensor:
    """E_p[q/p - 1 - log q/p] = KL(p || q) for tokens drawn from p; log_ratio = log q - log p."""
    return log_ratio.expm1() - log_ratio


def _column(rows: Sequence[Row], name: str, like: Tensor) -> Tensor | None:
    """(n,) the trained entries of one array of all rows; None where the rows do not have it."""
    if getattr(rows[0].datum, name) is None:
        return None
    values = [row.trained(getattr(row.datum, name)) for row in rows]
    return torch.from_numpy(np.concatenate(values)).to(like)


def _required_column(rows: Sequence[Row], name: str, like: Tensor) -> Tensor:
    column = _column(rows, name, like)
    assert column is not None, f"every Datum has {name}"
    return column
