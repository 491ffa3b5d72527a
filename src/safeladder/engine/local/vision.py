"""The images of known image-text models as embeddings that a hand-written decoder takes.

Inside these models an image is a run of embeddings in the places of its image tokens. They come
from the model's own vision tower and projector (its ``get_image_features``); LLaVA and InternVL
count positions on as in text, Qwen-VL along three axes (its ``get_rope_index``): the text after
an image goes on at the largest position + 1, which is less than the number of tokens before it.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from safeladder.engine.local.families import DecoderSpec, near
from safeladder.engine.local.media import ExpandedImage, ExpandedRow, collate, expand_row
from safeladder.engine.local.models import LoadedModel
from safeladder.errors import ModelError
from safeladder.types import Media

_logger = logging.getLogger(__name__)

_MODELS = {"LlavaModel", "InternVLModel", "Qwen2VLModel", "Qwen2_5_VLModel"}
_PROBE_SIZE = (64, 96, 3)
_PROBE_PLACE = 3
_MAX_KNOWN_AXES = 4096


@dataclass(frozen=True)
class Seen:
    """What a decoder needs of a row with images beside its token ids."""

    places: Tensor
    """(n,) which of the row's tokens are of images."""
    embeddings: Tensor
    """(n, E) of these; empty where n is 0."""
    positions: Tensor | None
    """(3, T) of all tokens; None where they count on as in text."""


class ImageEncoder:
    """The vision half of one image-text model, and how the model counts positions.

    Args:
        loaded: the model.
        base: its part that joins images and text, of a class in ``_MODELS``.
    """

    def __init__(self, loaded: LoadedModel, base: nn.Module) -> None:
        self._loaded, self._base = loaded, base
        model: Any = base
        self._features: Callable[..., Any] = model.get_image_features
        self._known_axes: dict[tuple[bytes, bytes], Tensor] = {}
        self._rope_index: Callable[..., Any] | None = getattr(model, "get_rope_index", None)

    @classmethod
    def of(cls, loaded: LoadedModel) -> ImageEncoder | None:
        """The encoder of a known model; None where its own forward must be used."""
        base = getattr(loaded.model, "model", None)
        if loaded.processor is None or base is None or type(base).__name__ not in _MODELS or (
                not type(base).__module__.startswith("transformers.models.")):
            return None
        return cls(loaded, base)

    def frozen(self) -> ImageEncoder:
        """An encoder that keeps the current weights; the decoder's are not copied."""
        language_model = self._base.get_submodule("language_model")
        # what deepcopy finds in its memo it takes for a copy already made
        return ImageEncoder(
            self._loaded, copy.deepcopy(self._base, {id(language_model): language_model}))

    def trained(self) -> list[nn.Parameter]:
        """The parameters of the vision half that an optimizer moves, in a fixed order."""
        decoder = {id(p) for p in self._base.get_submodule("language_model").parameters()}
        return [p for p in self._base.parameters() if p.requires_grad and id(p) not in decoder]

    def embeddings(self, images: Sequence[ExpandedImage]) -> list[Tensor]:
        """(n, E) for each image, one row per image token; images of one shape share a call.

        Raises:
            ModelError: the processor made another number of image tokens than the model.
        """
        by_shape: dict[object, list[int]] = {}
        for number, image in enumerate(images):
            shape = tuple((name, value.shape[1:]) for name, value in image.tensors.items())
            by_shape.setdefault(shape, []).append(number)
        found: dict[int, Tensor] = {}
        for numbers in by_shape.values():
            tensors = {name: torch.cat([images[i].tensors[name] for i in numbers]).to(
                self._loaded.device) for name in images[numbers[0]].tensors}
            made = self._features(**tensors, return_dict=True).pooler_output
            flat = made.flatten(0, 1) if isinstance(made, Tensor) else torch.cat(list(made))
            sizes = [len(images[i].places) for i in numbers]
            if len(flat) != sum(sizes):
                raise ModelError(f"the processor makes {sum(sizes)} tokens of {len(sizes)} images, "
                                 f"the model {len(flat)}: they are of different checkpoints")
            found |= dict(zip(numbers, flat.split(sizes), strict=True))
        return [found[number] for number in range(len(images))]

    def located(self, row: ExpandedRow) -> ExpandedRow:
        """The row with its positions, where the model counts them along three axes."""
        if self._rope_index is None or not row.images:
            return row
        known = self._axes(row)
        rest = torch.arange(len(row.token_ids) - known.shape[1]) + int(known.max()) + 1
        return replace(row, axes=torch.cat([known, rest.expand(3, -1)], dim=1))

    def _axes(self, row: ExpandedRow) -> Tensor:
        """(3, n) positions up to the last token of the last image. They depend on where images
        stand and how large they are, which is alike in many rows.
        """
        assert self._rope_index is not None
        grids = torch.cat([image.tensors["image_grid_thw"] for image in row.images])
        key = (row.image_places.tobytes(), grids.numpy(force=True).tobytes())
        if key in self._known_axes:
            return self._known_axes[key]
        ids = torch.from_numpy(row.token_ids[: row.image_places[-1] + 1])
        asked = {"input_ids": ids[None], "image_grid_thw": grids}
        if "mm_token_type_ids" in inspect.signature(self._rope_index).parameters:
            kinds = torch.zeros_like(ids)
            kinds[torch.from_numpy(row.image_places)] = 1
            asked["mm_token_type_ids"] = kinds[None]
        axes: Tensor = self._rope_index(**asked)[0][:, 0]
        if len(self._known_axes) < _MAX_KNOWN_AXES:
            self._known_axes[key] = axes
        return axes

    def seen(self, rows: Sequence[ExpandedRow | None], starts: Sequence[int]) -> list[Seen | None]:
        """What a decoder needs of each row from its token ``start`` on; None for text.

        Each different image goes through the vision tower once, without a gradient.
        """
        wanted = {image.digest: image for row, start in zip(rows, starts, strict=True)
                  if row is not None for image in row.images if image.places[-1] >= start}
        # Modules may keep tensors that training meets again: none of inference mode
        with torch.inference_mode(False), torch.no_grad():
            made = dict(zip(wanted, self.embeddings(list(wanted.values())), strict=True))
        return [self._seen(row, start, made) if row is not None and row.images else None
                for row, start in zip(rows, starts, strict=True)]

    def behind(self, row: ExpandedRow, count: int) -> Seen | None:
        """What a decoder needs of ``count`` text tokens that follow a row; None where nothing."""
        if row.axes is None:
            return None
        start = len(row.token_ids) + row.offset
        nothing = torch.zeros(0, dtype=torch.int64, device=self._loaded.device)
        return Seen(nothing, nothing, torch.arange(
            start, start + count, device=self._loaded.device).expand(3, -1))

    def _seen(self, row: ExpandedRow, start: int, made: dict[str, Tensor]) -> Seen:
        shown = [image for image in row.images if image.places[-1] >= start]
        places = [image.places[image.places >= start] for image in shown]
        parts = [made[image.digest][len(image.places) - len(kept):]
                 for image, kept in zip(shown, places, strict=True)]
        device = self._loaded.device
        return Seen(
            torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *places]) - start).to(device),
            torch.cat(parts) if parts else torch.zeros(0, device=device),
            None if row.axes is None else row.axes[:, start:].to(device))


def images_agree(
    loaded: LoadedModel, spec: DecoderSpec, logits_fn: Callable[[ExpandedRow, int], Tensor],
) -> bool:
    """Compare a hand-written forward with the model's own on one short row with an image.

    A processor or model that cannot take the row must not end work with text alone, so whatever
    it raises is an answer too. The log says why rows with images will take the slower path.

    Args:
        loaded: the model, with its processor.
        spec: of the model's decoder.
        logits_fn: maps a row and n to the logits (n, vocabulary) of its last n positions.

    Returns:
        True if no log-probability behind the image differs by more than
        :func:`~safeladder.engine.local.families.agrees` allows.
    """
    try:
        if _probe_agrees(loaded, spec, logits_fn):
            return True
        reason = "with an image, the hand-written forward differs from the model's own"
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        reason = f"the check with an image failed ({said or type(error).__name__})"
    _logger.warning("%s: %s; rows with images go through the model's own forward, which is slower",
                    spec.family, reason)
    return False


@torch.no_grad()
def _probe_agrees(
    loaded: LoadedModel, spec: DecoderSpec, logits_fn: Callable[[ExpandedRow, int], Tensor],
) -> bool:
    processor: Any = loaded.processor
    ids = (np.arange(7) * 7919 + 1) % spec.vocab_size
    ids[ids == processor.image_token_id] = 0
    ids[_PROBE_PLACE] = processor.image_token_id
    pixels = (np.arange(np.prod(_PROBE_SIZE)) * 7919 % 256).astype(np.uint8).reshape(_PROBE_SIZE)
    row = expand_row(loaded, ids, (Media(pixels=pixels),))
    model: Any = loaded.model
    # Qwen-VL keeps an offset of the last images that it saw
    training, offset = model.training, getattr(model.model, "rope_deltas", None)
    model.eval()
    try:
        # All of the image is seen from behind it, and the logits of a long one would not fit
        behind = len(row.token_ids) - int(row.positions[_PROBE_PLACE])
        theirs = model(**collate(loaded, [row]), use_cache=False,
                       logits_to_keep=behind).logits[0]
        ours = logits_fn(row, behind)
    finally:
        model.train(training)
        if hasattr(model.model, "rope_deltas"):
            model.model.rope_deltas = offset
    return near(spec, ours, theirs)
