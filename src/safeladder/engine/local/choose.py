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

    temperature: Tensor | None
    """(R, 1); None: 1 everywhere. Greedy rows have 1."""
    greedy: Tensor | None
    """(R,) bool; None: no row is greedy."""
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
        temperature = torch.tensor([row.temperature or 1.0 for row in rows], device=device)
        greedy = torch.tensor([row.temperature == 0 for row in rows], device=device)
        top_k = torch.tensor([min(row.top_k or vocab_size, vocab_size) for row in rows],
                             device=device)
        top_p = torch.tensor([row.top_p for row in rows], dtype=torch.float64, device=device)
        return cls(
            temperature=None if bool((temperature == 1).all()) else temperature[:, None],
            greedy=greedy if bool(greedy.any()) else None,
            top_k=None if bool((top_k == vocab_size).all()) else top_k,
            top_p=None if bool((top_p == 1).all()) else top_p[:, None],
            stop_token_ids=[row.stop_token_ids for row in rows],
        )


def choose(
    logits: Tensor, settings: ChoiceSettings, uniform: Tensor, too_short: Sequence[int] = (),
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

    Raises:
        SamplingError: the logits of a row are not finite.
    """
    if settings.temperature is not None:
        logits = logits / settings.temperature
    top = logits.amax(-1, keepdim=True)
    weights = (logits - top).exp_()
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    if not bool(torch.isfinite(total).all()):
        raise SamplingError("the model's logits are not finite: its weights have diverged")
    allowed = _without_stops(logits, settings, too_short)
    if allowed is not logits or settings.top_k is not None or settings.top_p is not None:
        weights = _truncated(allowed, settings)
        cumulative = weights.cumsum(-1, dtype=torch.float64)
    tokens = _invert(cumulative, uniform)
    if settings.greedy is not None:
        tokens = torch.where(settings.greedy, allowed.argmax(-1), tokens)
    chosen = logits.gather(-1, tokens[:, None])
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
