"""What an advantage estimator and a policy loss take and return.

An :class:`Algorithm` is a value made of two values: how rewards become advantages, and how
advantages and log-probabilities become a per-token loss. The normalisation of the loss is not
in here: it lives in ``Datum.weights`` (:meth:`safeladder.types.Batch.split`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safeladder.types import FloatArray, Normalization

Need = Literal["old", "ref", "entropy"]


@dataclass(frozen=True)
class LossInputs:
    """The trained tokens of one micro-batch, flat: N tokens of several rows, mask 1 only.

    All tensors are (N,). ``row`` gives the row of each token (0 .. num_rows-1), so that losses
    with a sequence-level ratio can reduce over it; a row is never split over micro-batches.
    """

    logprobs: Tensor
    """log pi_theta(y_t), with gradient."""
    old_logprobs: Tensor
    """log pi_old(y_t); equal to ``logprobs.detach()`` when the caller gave none (on-policy)."""
    advantages: Tensor
    row: Tensor
    """int64."""
    num_rows: int
    ref_logprobs: Tensor | None = None
    entropy: Tensor | None = None
    """H(pi_theta(. | context)) in nats; with gradient if the loss needs it."""

    def row_mean(self, values: Tensor) -> Tensor:
        """(N,) values -> (num_rows,) mean over each row's trained tokens."""
        zeros = values.new_zeros(self.num_rows)
        total = zeros.index_add(0, self.row, values)
        count = zeros.index_add(0, self.row, torch.ones_like(values))
        return total / count.clamp(min=1)


class LossOutput(NamedTuple):
    """A per-token loss and per-token metrics (no gradient), averaged by the engine."""

    loss: Tensor
    """(N,) to be minimised."""
    metrics: dict[str, Tensor]
    """name -> (N,) values; the engine logs their mean over trained tokens."""


class PolicyLoss(Protocol):
    """A frozen dataclass, callable: ``LossInputs -> LossOutput``."""

    @property
    def needs(self) -> frozenset[Need]:
        """Which optional inputs it reads: ``old``, ``ref``, ``entropy`` (with gradient)."""
        ...

    def __call__(self, inputs: LossInputs) -> LossOutput:
        """Return the per-token loss."""
        ...


@dataclass(frozen=True)
class RewardTable:
    """The judged trajectories of one rollout: R rows, unjudged ones already left out.

    ``lengths`` counts trained tokens. ``kl`` holds per row the per-token k1 values
    log pi_old - log pi_ref (n_i,), or is None without a reference.
    """

    rewards: NDArray[np.float64]
    """(R,)"""
    groups: NDArray[np.int64]
    """(R,) prompt of each row."""
    lengths: NDArray[np.int64]
    """(R,)"""
    kl: Sequence[FloatArray] | None = None

    def group_rows(self) -> list[NDArray[np.int64]]:
        """Row numbers of each group, in order of first appearance."""
        order = dict.fromkeys(self.groups.tolist())
        return [np.flatnonzero(self.groups == g) for g in order]


class AdvantageEstimator(Protocol):
    """A frozen dataclass, callable: rewards of a whole rollout -> per-token advantages."""

    @property
    def needs(self) -> frozenset[Need]:
        """``{"old", "ref"}`` when it puts a KL term into the reward, else empty."""
        ...

    def __call__(self, table: RewardTable) -> list[FloatArray]:
        """Return one (n_i,) array per row of the table."""
        ...


def broadcast(values: NDArray[np.float64], table: RewardTable) -> list[FloatArray]:
    """One scalar per row -> the same value on each of its tokens."""
    return [np.full(n, v, np.float32) for v, n in zip(values, table.lengths, strict=True)]


@dataclass(frozen=True)
class Algorithm:
    """An advantage estimator, a policy loss, and how the loss is normalised.

    ``dynamic_sampling`` drops groups whose rewards are all equal and samples further prompts
    until the batch is full (DAPO); ``overlong`` shapes the reward by length.
    """

    advantage: AdvantageEstimator
    loss: PolicyLoss
    normalization: Normalization = "sequence_mean"
    dynamic_sampling: bool = False
    overlong: RewardShaping | None = None
    mask_truncated: bool = False
    """Rows cut at max_tokens train with weight 0 (DAPO's overlong filtering)."""
    needs: frozenset[Need] = field(default=frozenset(), init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", self.loss.needs | self.advantage.needs)


class RewardShaping(Protocol):
    """A frozen dataclass, callable: adds a term to the reward from the response's length."""

    def __call__(self, num_tokens: int, max_tokens: int) -> float:
        """Return the term to add (0 or negative)."""
        ...
