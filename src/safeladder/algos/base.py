"""What an advantage estimator and a policy loss take and return.

An :class:`Algorithm` is a value made of two values: how rewards become advantages, and how
advantages and log-probabilities become a per-token loss. The normalisation of the loss is not
in here: it lives in ``Datum.weights`` (:meth:`safeladder.types.Batch.split`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safeladder.errors import ConfigError
from safeladder.types import Datum, FloatArray, Normalization

Need = Literal["old", "ref", "entropy"]

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to +-20 nats before exp, so that no ratio overflows and 0 * inf never
makes a NaN; beyond that the ratio's gradient is 0. TRL does not clamp, verl clamps likewise."""


@dataclass(frozen=True)
class LossInputs:
    """The trained tokens of one micro-batch, flat: N tokens of several rows, mask 1 only.

    All tensors are (N,); a wrong shape raises ``ValueError``. ``row`` gives the row of each token
    (0 .. num_rows-1), tokens of one row in their order, so that losses with a sequence-level ratio
    can reduce over it; a row is never split over micro-batches.
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

    def __post_init__(self) -> None:
        if self.logprobs.dim() != 1:
            raise ValueError(f"logprobs must be (N,), got {tuple(self.logprobs.shape)}")
        for name in ("old_logprobs", "advantages", "row", "ref_logprobs", "entropy"):
            value = getattr(self, name)
            if value is not None and value.shape != self.logprobs.shape:
                raise ValueError(f"{name} has shape {tuple(value.shape)}, logprobs has "
                                 f"{tuple(self.logprobs.shape)}")

    @property
    def log_ratio(self) -> Tensor:
        """(N,) log pi_theta - log pi_old, with gradient."""
        return self.logprobs - self.old_logprobs

    def row_sum(self, values: Tensor) -> Tensor:
        """(N,) values -> (num_rows,) sum over each row's trained tokens."""
        return values.new_zeros(self.num_rows).index_add(0, self.row, values)

    def row_mean(self, values: Tensor) -> Tensor:
        """(N,) values -> (num_rows,) mean over each row's trained tokens; 0 for an empty row."""
        return self.row_sum(values) / self.row_sum(torch.ones_like(values)).clamp(min=1)

    def per_token(self, values: Tensor) -> Tensor:
        """(num_rows,) values -> (N,), each row's value on all of its tokens."""
        # index_select, because the backward pass of values[row] adds in no fixed order.
        return values.index_select(0, self.row)

    def progress(self) -> Tensor:
        """(N,) i / |y|: the place of each token in its row, from 1 / n_i to 1."""
        order = torch.argsort(self.row, stable=True)
        lengths = torch.bincount(self.row, minlength=self.num_rows)
        starts = lengths.cumsum(0) - lengths
        place = torch.empty_like(self.row)
        place[order] = torch.arange(len(order), device=order.device) - starts[self.row[order]]
        return (place + 1).to(self.logprobs.dtype) / lengths[self.row]

    def reference(self) -> Tensor:
        """(N,) log pi_ref; ``ValueError`` when the caller gave none."""
        if self.ref_logprobs is None:
            raise ValueError("this loss compares with a reference: ref_logprobs are missing")
        return self.ref_logprobs


def flatten(
    datums_D: Sequence[Datum], logprobs_D: Sequence[Tensor],
    entropy_D: Sequence[Tensor] | None = None,
) -> tuple[LossInputs, Tensor]:
    """Select the trained tokens of some rows; return the inputs of a loss and (N,) weights.

    ``logprobs_D`` and ``entropy_D`` hold one live (T,) tensor per row, in the row's positions.
    The optional log-probabilities must be there on all rows or on none.
    """
    live = torch.cat(list(logprobs_D))
    trained = torch.from_numpy(np.concatenate([datum.mask for datum in datums_D]) > 0)
    trained = trained.to(live.device)
    row = torch.repeat_interleave(
        torch.arange(len(datums_D)), torch.tensor([datum.num_trained for datum in datums_D]))

    def column(values: Sequence[FloatArray | None]) -> Tensor | None:
        present = [value for value in values if value is not None]
        if not present:
            return None
        if len(present) < len(values):
            raise ValueError("log-probabilities must be given for all rows or for none")
        return torch.from_numpy(np.concatenate(present)).to(live)[trained]

    old = column([datum.old_logprobs for datum in datums_D])
    advantages = column([datum.advantages for datum in datums_D])
    weights = column([datum.weights for datum in datums_D])
    assert advantages is not None and weights is not None
    logprobs = live[trained]
    inputs = LossInputs(
        logprobs=logprobs,
        old_logprobs=logprobs.detach() if old is None else old,
        advantages=advantages, row=row.to(live.device), num_rows=len(datums_D),
        ref_logprobs=column([datum.ref_logprobs for datum in datums_D]),
        entropy=None if entropy_D is None else torch.cat(list(entropy_D))[trained])
    return inputs, weights


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


def require(condition: bool, message: str) -> None:
    """Check a setting when a loss or an estimator is made; ``ConfigError`` if it is wrong."""
    if not condition:
        raise ConfigError(message)


def ratio(log_ratio: Tensor) -> Tensor:
    """exp(log-ratio), clamped as :data:`MAX_LOG_RATIO` says."""
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


@torch.no_grad()
def policy_metrics(inputs: LossInputs, clipped: Tensor) -> dict[str, Tensor]:
    """What every policy loss reports, per token.

    ``clip_fraction``: 1 where clipping holds back the gradient. ``kl_old``: r - 1 - log r with
    r = pi_theta / pi_old, the k3 estimate of the *forward* KL(pi_old || pi_theta), unbiased since
    the tokens were drawn from pi_old. ``ratio``: r itself.
    """
    log_ratio = inputs.log_ratio
    r = ratio(log_ratio)
    return {"clip_fraction": clipped.to(r.dtype), "kl_old": r - 1 - log_ratio, "ratio": r}


@dataclass(frozen=True)
class PenalizedLoss:
    """A policy loss plus penalties, token by token: l_t + sum_k p_kt.

    A penalty is itself a :class:`PolicyLoss` (:class:`safeladder.algos.kl.KLPenalty`,
    :class:`safeladder.algos.entropy.EntropyBonus`), so all terms share ``Datum.weights``.
    """

    policy: PolicyLoss
    penalties: tuple[PolicyLoss, ...]

    @property
    def needs(self) -> frozenset[Need]:
        """What any of the terms needs."""
        return self.policy.needs.union(*(penalty.needs for penalty in self.penalties))

    def __call__(self, inputs: LossInputs) -> LossOutput:
        """Return the sum; metrics of all terms side by side."""
        loss, metrics = self.policy(inputs)
        for penalty in self.penalties:
            term, more = penalty(inputs)
            loss, metrics = loss + term, {**metrics, **more}
        return LossOutput(loss, metrics)


@dataclass(frozen=True)
class RewardTable:
    """The judged trajectories of one rollout: R rows, unjudged ones already left out.

    ``lengths`` counts trained tokens. ``kl`` holds per row the per-token k1 values
    log pi_old - log pi_ref (n_i,), or is None without a reference. R may be 0.
    """

    rewards: NDArray[np.float64]
    """(R,)"""
    groups: NDArray[np.int64]
    """(R,) prompt of each row."""
    lengths: NDArray[np.int64]
    """(R,)"""
    kl: Sequence[FloatArray] | None = None

    def __post_init__(self) -> None:
        shape = self.rewards.shape
        if len(shape) != 1 or self.groups.shape != shape or self.lengths.shape != shape:
            raise ValueError("rewards, groups and lengths must be (R,), got "
                             f"{shape}, {self.groups.shape}, {self.lengths.shape}")
        if not np.isfinite(self.rewards).all():
            raise ValueError("a reward is not finite; leave unjudged rows out of the table")
        if self.kl is not None and [len(row) for row in self.kl] != self.lengths.tolist():
            raise ValueError("kl must hold one (n_i,) array per row")

    def group_rows(self) -> list[NDArray[np.int64]]:
        """Row numbers of each group, in order of first appearance."""
        order = dict.fromkeys(self.groups.tolist())
        return [np.flatnonzero(self.groups == g) for g in order]

    @cached_property
    def centred(self) -> NDArray[np.float64]:
        """(R,) reward - mean of its group; exactly 0 in a group of one or of equal rewards."""
        values = np.zeros_like(self.rewards)
        for rows in self.group_rows():
            if not is_flat(self.rewards[rows]):
                values[rows] = self.rewards[rows] - self.rewards[rows].mean()
        return values

    @cached_property
    def group_std(self) -> NDArray[np.float64]:
        """(R,) standard deviation of the row's group over n - 1, as all public code has it.

        Exactly 0 in a group of one or of equal rewards.
        """
        values = np.zeros_like(self.rewards)
        for rows in self.group_rows():
            if not is_flat(self.rewards[rows]):
                values[rows] = self.rewards[rows].std(ddof=1)
        return values


def is_flat(values: NDArray[np.float64]) -> bool:
    """Whether all values are equal: then rounding must not pose as a signal."""
    return values.size == 0 or bool(values.max() == values.min())


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


class RewardShaping(Protocol):
    """A frozen dataclass, callable: a term that the response's length adds to the reward (of
    several turns, that of the longest).
    """

    def __call__(self, num_tokens: int, max_tokens: int) -> float:
        """Return the term to add (0 or negative)."""
        ...


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

    @property
    def needs(self) -> frozenset[Need]:
        """What the loss or the advantages need beside the live log-probabilities."""
        return self.loss.needs | self.advantage.needs
