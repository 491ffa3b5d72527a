"""Which rows take which path, and what both do alike."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from safeladder.engine.base import Loss, Stats
from safeladder.engine.local.batching import Row, rows_of
from safeladder.engine.local.families import DecoderSpec, agrees
from safeladder.engine.local.general_path import GeneralPath
from safeladder.engine.local.losses import NotFinite, check_columns
from safeladder.engine.local.media import expand_row
from safeladder.engine.local.models import LoadedModel
from safeladder.engine.local.packed_path import PackedPath
from safeladder.engine.local.vision import ImageEncoder, images_agree
from safeladder.types import Datum, FloatArray

_logger = logging.getLogger(__name__)

MAX_PACKED_LENGTH = 2048
"""Tokens of a row. The packed path keeps attention weights, whose size grows with the square;
longer rows take the model's own forward with torch's fused attention."""


class Compute:
    """Log-probabilities and gradients of training rows.

    Rows of a known family, with images or without, take the packed path when the weights are fp32
    (or fp64), no autocast is asked for and they are not too long; all others take the model's own
    forward. Both give the same numbers to rounding.

    Args:
        loaded: the model.
        max_tokens: per micro-batch.
        workers: threads that share the micro-batches of a step.
        autocast: bf16.
    """

    def __init__(self, loaded: LoadedModel, max_tokens: int, workers: int, autocast: bool) -> None:
        self._loaded = loaded
        self._general = GeneralPath(loaded, max_tokens, autocast, workers)
        self._packed = None if autocast else _packed_path(loaded, max_tokens, workers)
        self._images = None if self._packed is None else self._packed.images

    @property
    def is_packed(self) -> bool:
        """Whether rows of plain text take the packed path."""
        return self._packed is not None

    @property
    def is_packed_with_images(self) -> bool:
        """Whether rows with images do, too."""
        return self._images is not None

    def forward(self, data: Sequence[Datum]) -> list[FloatArray]:
        """One (T,) array per datum, 0 where mask is 0."""
        result: list[FloatArray] = [np.zeros(len(datum.token_ids), np.float32) for datum in data]

        def store(row: Row, logprobs: Tensor) -> None:
            result[row.index][row.datum.mask != 0] = logprobs.float().numpy(force=True)

        packed, general = self._divide(data)
        if packed and self._packed is not None:
            self._packed.forward(packed, store)
        if general:
            self._general.forward(general, store)
        return result

    def forward_backward(self, data: Sequence[Datum], loss: Loss) -> Stats:
        """Add the gradient of ``sum(loss_T * weights_T)`` to the parameters' ``grad``.

        Raises:
            NotFinite: the loss or a gradient is.
            ValueError: a log-probability is set on some rows only.
        """
        check_columns(data)
        packed, general = self._divide(data)
        stats = Stats(sums={"loss": 0.0})
        if packed and self._packed is not None:
            stats += self._packed.forward_backward(packed, loss, gradient_of)
        if general:
            stats += self._general.forward_backward(general, loss)
        for parameter in self._loaded.model.parameters():
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                raise NotFinite("gradient", data)
        return stats

    def _divide(self, data: Sequence[Datum]) -> tuple[list[Row], list[Row]]:
        packed: list[Row] = []
        general: list[Row] = []
        for row in rows_of(data):
            shown = self._shown(row) if row.datum.media else row
            if self._packed is None or shown is None or shown.stop > MAX_PACKED_LENGTH:
                general.append(row)
            else:
                packed.append(shown)
        return packed, general

    def _shown(self, row: Row) -> Row | None:
        """The row with its images at their full length; None where nobody packs images."""
        if self._images is None:
            return None
        return row.with_images(self._images.located(
            expand_row(self._loaded, row.datum.token_ids, row.datum.media)))


def gradient_of(parameter: Tensor) -> Tensor | None:
    """Where the gradient of a parameter is added up; None when it is not trained."""
    if not parameter.requires_grad:
        return None
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that an optimizer moves, by name; tied ones once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _packed_path(loaded: LoadedModel, max_tokens: int, workers: int) -> PackedPath | None:
    """The packed path where the model's family is known, compared once with its own forward."""
    spec = DecoderSpec.from_model(loaded.model)
    if spec is None or spec.dtype not in (torch.float32, torch.float64):
        return None
    images = ImageEncoder.of(loaded)
    path = PackedPath(spec, max_tokens, workers, images)
    if not agrees(spec, loaded.model, path.logits):
        _logger.warning("the packed forward of %s differs from the model's own: training goes "
                        "through the model's own, which is slower", spec.family)
        return None
    if images is not None and not images_agree(loaded, spec, path.image_logits):
        return PackedPath(spec, max_tokens, workers)
    return path
