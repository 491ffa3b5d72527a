"""From token ids with one placeholder per image to the tensors an image-text model takes.

Token ids that cross the engine's border hold ONE image token per :class:`Media`. How many
positions an image fills inside the model (its patches, row breaks, ...) is known to the
processor alone, so the placeholder is expanded here, once, and nowhere else.
"""

from __future__ import annotations

import inspect
import itertools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from transformers import ProcessorMixin

from safeladder.engine.local.models import LoadedModel
from safeladder.errors import MissingExtra, ModelError
from safeladder.types import IntArray, Media


@dataclass(frozen=True, eq=False)
class ExpandedImage:
    """One image of a row."""

    media: Media
    tensors: dict[str, Tensor]
    """``pixel_values`` and what else the processor makes; first axis counts images or patches."""
    places: IntArray
    """(n,) where its image tokens are in the row; row breaks and the like are no image tokens."""

    @property
    def digest(self) -> str:
        """Equal for images of equal content."""
        return self.media.digest


@dataclass(frozen=True)
class ExpandedRow:
    """One row as the model sees it."""

    token_ids: IntArray
    """(S,) ids with every image at its full length."""
    positions: IntArray
    """(T,) for each token id given, where it (of an image: its last position) is in the row."""
    images: tuple[ExpandedImage, ...] = ()
    axes: Tensor | None = None
    """(3, S) positions in a model that counts them along three axes, once
    :meth:`~safeladder.engine.local.vision.ImageEncoder.located` has set them; None: 0, 1, 2, ..."""

    @property
    def offset(self) -> int:
        """Position of the token after the row, less the row's length: 0 or less."""
        return 0 if self.axes is None else int(self.axes.max()) + 1 - self.axes.shape[1]

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Those of all images, joined.

        Raises:
            ModelError: they do not fit together.
        """
        return concatenate([image.tensors for image in self.images])

    @cached_property
    def image_places(self) -> IntArray:
        """(n,) where the image tokens are."""
        return np.concatenate([np.zeros(0, np.int64), *(image.places for image in self.images)])


def expand_row(
    loaded: LoadedModel, token_ids: Sequence[int] | IntArray, media: Sequence[Media] = (),
) -> ExpandedRow:
    """Expand the image tokens of one row.

    Raises:
        ModelError: the model takes no images, the ids do not hold one image token per image, or
            images stand side by side in a model that cannot tell where one ends.
    """
    ids = np.asarray(token_ids, dtype=np.int64)
    if not media and (loaded.processor is None or _image_token(loaded.processor)[1] not in ids):
        return ExpandedRow(ids, np.arange(len(ids)))
    if loaded.processor is None:
        raise ModelError(f"{loaded.config.model_type} takes no images: use an image-text model")
    token, token_id = _image_token(loaded.processor)
    found = int((ids == token_id).sum())
    if found != len(media):
        raise ModelError(f"{found} image tokens ({token}) in the ids of {len(media)} images: "
                         "give exactly one per image; the engine expands them")
    pieces: list[IntArray] = []
    images: list[ExpandedImage] = []
    lengths = np.ones(len(ids), dtype=np.int64)
    start = 0
    for place, item in zip(np.flatnonzero(ids == token_id).tolist(), media, strict=True):
        image_ids, image_tensors = _processed(loaded.processor, token, item)
        pieces += [ids[start:place], image_ids]
        first = place + int((lengths[:place] - 1).sum())
        images.append(ExpandedImage(
            item, image_tensors, first + np.flatnonzero(image_ids == token_id)))
        lengths[place] = len(image_ids)
        start = place + 1
    _check_apart(images)
    expanded = np.concatenate([*pieces, ids[start:]])
    return ExpandedRow(expanded, np.cumsum(lengths) - 1, tuple(images))


def _check_apart(images: Sequence[ExpandedImage]) -> None:
    """Models that count positions by an image's grid (Qwen-VL) take a run of image tokens for one
    image.
    """
    for image, following in itertools.pairwise(images):
        if "image_grid_thw" in image.tensors and image.places[-1] + 1 == following.places[0]:
            raise ModelError("two images stand side by side: this model needs a token between "
                             "them, such as those with which its template surrounds an image")


def media_inputs(
    loaded: LoadedModel, token_ids: Sequence[int] | IntArray, media: Sequence[Media] = (),
) -> dict[str, Tensor]:
    """The keyword arguments of the model's ``forward`` for one row, on the model's device.

    ``input_ids`` is (1, S) with image tokens expanded.
    """
    return collate(loaded, [expand_row(loaded, token_ids, media)])


def collate(loaded: LoadedModel, rows: Sequence[ExpandedRow]) -> dict[str, Tensor]:
    """Pad rows on the right to (B, S): ``input_ids``, ``attention_mask`` and the media tensors."""
    width = max(len(row.token_ids) for row in rows)
    input_ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros_like(input_ids)
    for i, row in enumerate(rows):
        input_ids[i, : len(row.token_ids)] = torch.from_numpy(row.token_ids)
        mask[i, : len(row.token_ids)] = 1
    inputs = {"input_ids": input_ids, "attention_mask": mask}
    inputs |= concatenate([row.tensors for row in rows if row.tensors])
    if loaded.processor is not None and _takes(loaded, "mm_token_type_ids"):
        inputs["mm_token_type_ids"] = (input_ids == _image_token(loaded.processor)[1]).long() * mask
    return {name: tensor.to(loaded.device) for name, tensor in inputs.items()}


def concatenate(tensors: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Join the media tensors of several images or rows along their first axis.

    Raises:
        ModelError: they do not fit together (images of different sizes in a model that needs one).
    """
    if not tensors:
        return {}
    try:
        return {name: torch.cat([part[name] for part in tensors]) for name in tensors[0]}
    except RuntimeError as error:
        shapes = sorted({str(tuple(part["pixel_values"].shape[1:])) for part in tensors})
        raise ModelError(f"images of one batch differ in shape ({', '.join(shapes)}): "
                         "resize them, or train with one row per micro-batch") from error


class _Processed:
    """What one processor made of the images seen last, by their content.

    An image comes back: with every row of its group, from sampling to training, in the next epoch.
    """

    max_bytes = 1 << 26

    def __init__(self) -> None:
        self._images: OrderedDict[str, tuple[IntArray, dict[str, Tensor]]] = OrderedDict()
        self._bytes = 0

    def get(self, digest: str) -> tuple[IntArray, dict[str, Tensor]] | None:
        if digest in self._images:
            self._images.move_to_end(digest)
        return self._images.get(digest)

    def keep(self, digest: str, made: tuple[IntArray, dict[str, Tensor]]) -> None:
        self._images[digest] = made
        self._bytes += self._size(made)
        while self._bytes > self.max_bytes:
            self._bytes -= self._size(self._images.popitem(last=False)[1])

    def _size(self, made: tuple[IntArray, dict[str, Tensor]]) -> int:
        return made[0].nbytes + sum(value.nbytes for value in made[1].values())


_PROCESSED: WeakKeyDictionary[Any, _Processed] = WeakKeyDictionary()


def _processed(
    processor: ProcessorMixin, token: str, item: Media,
) -> tuple[IntArray, dict[str, Tensor]]:
    """As :func:`_process`, but made once for images of equal content that come again soon."""
    try:
        digest = item.digest
    except OSError as error:
        raise ModelError(f"cannot read the image {item.path}: {error}") from error
    known = _PROCESSED.setdefault(processor, _Processed())
    made = known.get(digest)
    if made is None:
        made = _process(processor, token, item)
        known.keep(digest, made)
    return made


def _process(
    processor: ProcessorMixin, token: str, item: Media,
) -> tuple[IntArray, dict[str, Tensor]]:
    """The ids one image stands for and its tensors, as the processor makes them."""
    made = processor(images=[pixels(item)], text=[token], add_special_tokens=False,
                     return_tensors="pt")
    ids: IntArray = made.pop("input_ids")[0].numpy()
    unwanted = {"attention_mask", "token_type_ids", "mm_token_type_ids"}
    return ids, {name: value for name, value in made.items() if name not in unwanted}


def pixels(item: Media) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(height, width, 3) RGB of an image, read from its file where needed.

    Raises:
        MissingExtra: the image is a file and pillow is not installed.
        ModelError: the file is no image.
    """
    if item.pixels is not None:
        return item.pixels
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtra("pillow", "vision", "reading an image") from error
    assert item.path is not None
    try:
        with Image.open(item.path) as image:
            return np.asarray(image.convert("RGB"), dtype=np.uint8)
    except (OSError, UnidentifiedImageError) as error:
        raise ModelError(f"cannot read the image {item.path}: {error}") from error


def _image_token(processor: ProcessorMixin) -> tuple[str, int]:
    # every image-text processor sets both; their base class does not declare them
    known: Any = processor
    return str(known.image_token), int(known.image_token_id)


def _takes(loaded: LoadedModel, name: str) -> bool:
    return name in inspect.signature(loaded.model.forward).parameters
