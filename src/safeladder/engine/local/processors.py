"""Image processors for image-text models, also where torchvision is missing.

transformers' processor classes of video-capable families (Qwen2.5-VL) refuse to be made without
torchvision, because their video half needs it. Images alone do not: :class:`ImageTextProcessor`
pairs the family's stock image processor with the tokenizer and writes the files that the family's
own class reads, so a checkpoint saved here loads with plain ``AutoProcessor`` where torchvision is
installed.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import (
    AutoProcessor,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.utils.import_utils import is_torchvision_available

from safeladder.errors import ConfigError, import_extra

IMAGE_TOKENS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
"""What Qwen2.5-VL writes around and in place of images."""
_CONFIG = "processor_config.json"
_CLASSES = {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor"}


class ImageTextProcessor:
    """A stock image processor and a tokenizer, without the video half.

    Args:
        image_processor: ``Qwen2VLImageProcessor`` with the sizes of the model.
        tokenizer: has the image token.
        settings: the family's ``processor_config.json`` (``processor_class``, and
            ``video_processor`` where the family has one).
    """

    def __init__(
        self, image_processor: Any, tokenizer: PreTrainedTokenizerBase, settings: dict[str, Any],
    ) -> None:
        self.image_processor, self.tokenizer = image_processor, tokenizer
        self.image_token = str(getattr(tokenizer, "image_token", IMAGE_TOKENS[0]))
        self.image_token_id = int(cast(int, tokenizer.convert_tokens_to_ids(self.image_token)))
        self.chat_template = tokenizer.chat_template
        self._settings = settings

    def __call__(
        self, images: Sequence[np.ndarray[Any, Any]], text: Sequence[str], **_: object,
    ) -> dict[str, torch.Tensor]:
        """The ids and tensors of one image; ``text`` is the image token alone."""
        made = dict(self.image_processor(images=list(images), return_tensors="pt"))
        count = int(made["image_grid_thw"].prod()) // self.image_processor.merge_size ** 2
        made["input_ids"] = torch.full((1, count), self.image_token_id)
        return made

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``processor_config.json`` and ``preprocessor_config.json``."""
        own = json.loads(self.image_processor.to_json_string())
        own.pop("processor_class", None)
        settings = {**self._settings, "image_processor": own}
        (Path(folder) / _CONFIG).write_text(json.dumps(settings, indent=2))
        self.image_processor.save_pretrained(folder)


def make_processor(
    config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, max_pixels: int = 1280,
) -> ProcessorMixin:
    """The processor of a Qwen2-VL or Qwen2.5-VL model that was made from a config.

    Args:
        config: the model's; patch sizes come from its ``vision_config``.
        tokenizer: with :data:`IMAGE_TOKENS`.
        max_pixels: images are scaled down to at most this many patches of the merged size.

    Raises:
        ConfigError: another family.
        MissingExtra: pillow is not installed, which image processors are made with.
    """
    import_extra("PIL", "vision", "a model that takes images")
    if config.model_type not in _CLASSES:
        raise ConfigError(f"model.model_type: no processor is made here for {config.model_type!r} "
                          f"(known: {', '.join(_CLASSES)}); start from a checkpoint")
    vision: Any = config.vision_config
    unit = (vision.patch_size * vision.spatial_merge_size) ** 2
    sizes = {"patch_size": vision.patch_size, "merge_size": vision.spatial_merge_size,
             "temporal_patch_size": vision.temporal_patch_size,
             "size": {"shortest_edge": unit, "longest_edge": unit * max_pixels}}
    settings = {"processor_class": _CLASSES[config.model_type],
                "video_processor": {"video_processor_type": "Qwen2VLVideoProcessor", **sizes}}
    image_processor = _image_processor_class()(**sizes)
    return cast(ProcessorMixin, ImageTextProcessor(image_processor, tokenizer, settings))


def load_processor(name: str, tokenizer: PreTrainedTokenizerBase) -> ProcessorMixin:
    """The processor of a checkpoint; without torchvision its image half."""
    processors: Any = AutoProcessor
    if is_torchvision_available():
        return cast(ProcessorMixin, processors.from_pretrained(name))
    settings = _settings(name)
    if settings.get("processor_class") not in _CLASSES.values():
        return cast(ProcessorMixin, processors.from_pretrained(name))
    image_processor = _image_processor_class().from_pretrained(name)
    return cast(ProcessorMixin, ImageTextProcessor(image_processor, tokenizer, settings))


def _settings(name: str) -> dict[str, Any]:
    """``processor_config.json`` of a folder or hub id, or what older checkpoints have instead."""
    from transformers.utils.hub import cached_file

    found: dict[str, Any] = {}
    for file in ("preprocessor_config.json", _CONFIG):
        place = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
        if place is not None:
            found |= json.loads(Path(place).read_text(encoding="utf-8"))
    return {key: value for key, value in found.items()
            if key in ("processor_class", "video_processor")}


def _image_processor_class() -> Any:
    """The backend that needs pillow alone; before backends were told apart there was one class."""
    module = importlib.import_module("transformers")
    name = "Qwen2VLImageProcessor"
    return getattr(module, f"{name}Pil", None) or getattr(module, name)
