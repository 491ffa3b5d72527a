"""From logits to tokens: temperature, top-k, top-p, minimum length, one random stream per row.

A token is drawn by inverting the cumulative distribution at one uniform number. It costs one
number per token, so a row's stream depends on nothing but ``(seed, row)`` and the draw is exact:
probabilities are summed in fp64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safeladder.engine.base import SamplingParams
from safeladder.engine.local.native import NOT_FINITE, Kernels
from safeladder.errors import SamplingError


def uniforms(seed: int, row: int, count: int) -> NDArray[np.float64]:
    """The first ``count`` numbers in [0, 1) of the stream ``(seed, row)`` (Philox, counter 0)."""
    key = np.array([seed & 0xFFFF_FFFF_FFFF_FFFF, row], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(count)


class Chosen(NamedTuple):
    """One token per row."""

    tokens: Tensor
    """(R,) int64."""
    logprobs: Tensor
    """(R,) fp32, under softmax(logits / temperature) without truncation."""


@dataclass(frozen=True)
class ChoiceSettings:
    """The sampling parameters of a batch of rows, as tensors where rows differ."""

    temperature: Tensor
    """(R,); 0: greedy."""
    top_k: Tensor | None
    """(R,) int64, vocabulary size where off; None: off everywhere."""
    top_p: Tensor | None
    """(R, 1) fp64; None: off everywhere."""
    stop_token_ids: Sequence[tuple[int, ...]]
    """For each row; they matter here only while a row is shorter than its minimum."""

    @classmethod
    def of(
        cls, rows: Sequence[SamplingParams], vocab_size: int, device: torch.device,
    ) -> ChoiceSettings:
        """Collect the parameters of the rows of a batch."""
        temperature = torch.tensor([row.temperature for row in rows], device=device)
        top_k = torch.tensor([min(row.top_k or vocab_size, vocab_size) for row in rows],
                             device=device)
        top_p = torch.tensor([row.top_p for row in rows], dtype=torch.float64, device=device)
        return cls(
            temperature=temperature,
            top_k=None if bool((top_k == vocab_size).all()) else top_k,
            top_p=None if bool((top_p == 1).all()) else top_p[:, None],
            stop_token_ids=[row.stop_token_ids for row in rows],
        )


def choose(
    logits: Tensor, settings: ChoiceSettings, uniform: Tensor, too_short: Sequence[int] = (),
    kernels: Kernels | None = None,
) -> Chosen:
    """Draw one token for each row.

    Greedy rows (temperature 0) take the most probable token; their log-probabilities are those
    at temperature 1. Otherwise the order is the usual one: temperature, top-k, then top-p among
    what is left; equal logits at the k-th place all stay.

    Args:
        logits: (R, vocabulary) fp32.
        settings: of the same rows.
        uniform: (R,) fp64 in [0, 1).
        too_short: rows that may not stop yet: their stop tokens are not drawn. The
            log-probability stays that of the full distribution, which is what a trainer computes.
        kernels: used on the CPU where nothing is excluded.

    Raises:
        SamplingError: the logits of a row are not finite.
    """
    plain = settings.top_k is None and settings.top_p is None
    allowed = _without_stops(logits, settings, too_short)
    if kernels is not None and plain and allowed is logits and logits.device.type == "cpu":
        return Chosen(*kernels.draw(logits.contiguous(), settings.temperature, uniform))
    greedy = settings.temperature == 0
    divisor = torch.where(greedy, 1.0, settings.temperature)[:, None]
    scaled = logits / divisor
    top = scaled.amax(-1, keepdim=True)
    cumulative = (scaled - top).exp_().cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    if not bool(torch.isfinite(total).all()):
        raise SamplingError(NOT_FINITE)
    if allowed is not logits or not plain:
        cumulative = _truncated(allowed / divisor, settings).cumsum(-1, dtype=torch.float64)
    tokens = torch.where(greedy, allowed.argmax(-1), _invert(cumulative, uniform))
    chosen = scaled.gather(-1, tokens[:, None])
    return Chosen(tokens, (chosen - top - total.log())[:, 0].float())


def _invert(cumulative: Tensor, uniform: Tensor) -> Tensor:
    """Smallest index whose cumulative weight exceeds ``uniform * total``, so never of weight 0."""
    total = cumulative[:, -1]
    # u * total may round up to total, which nothing exceeds.
    below = torch.nextafter(total, torch.zeros_like(total))
    target = torch.minimum(uniform * total, below)
    return torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]


def _without_stops(logits: Tensor, settings: ChoiceSettings, too_short: Sequence[int]) -> Tensor:
    pairs = [(row, token) for row in too_short for token in settings.stop_token_ids[row]]
    if not pairs:
        return logits
    rows, tokens = torch.tensor(pairs, device=logits.device).T
    return logits.index_put((rows, tokens), logits.new_tensor(float("-inf")))


def _truncated(logits: Tensor, settings: ChoiceSettings) -> Tensor:
    """Unnormalised probabilities with what top-k and top-p exclude set to 0."""
    weights = (logits - logits.amax(-1, keepdim=True)).exp_()
    if settings.top_k is not None:
        largest = logits.topk(int(settings.top_k.max()), dim=-1).values
        threshold = largest.gather(-1, settings.top_k[:, None] - 1)
        weights = weights.masked_fill(logits < threshold, 0)
    if settings.top_p is not None:
        ordered, order = weights.sort(dim=-1, descending=True, stable=True)
        cumulative = ordered.cumsum(-1, dtype=torch.float64)
        before = cumulative - ordered
        outside = before >= settings.top_p * cumulative[:, -1:]
        # The most probable token always stays, whatever rounding says.
        outside[:, 0] = False
        weights = weights.masked_fill(outside.gather(-1, order.argsort(-1)), 0)
    return weights
