"""Tiny models with random weights, sharp enough that the most probable token is not a toss-up."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    CLIPImageProcessor,
    CLIPVisionConfig,
    GPT2Config,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MambaConfig,
    MistralConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3Config,
)

from safeladder.engine.local.models import LoadedModel

VOCAB = 61
EOS = 3
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": 0,
}
_LLAMA3_ROPE = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0,
                "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32}


def _llava() -> LlavaForConditionalGeneration:
    vision = CLIPVisionConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                              image_size=8, patch_size=4, intermediate_size=32)
    return LlavaForConditionalGeneration(LlavaConfig(
        text_config=Qwen3Config(**_SHAPE, head_dim=16), vision_config=vision, image_token_id=60))


def _internvl() -> InternVLForConditionalGeneration:
    vision = InternVLVisionConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                                  image_size=16, patch_size=4, intermediate_size=32)
    return InternVLForConditionalGeneration(InternVLConfig(
        text_config=Qwen2Config(**_SHAPE), vision_config=vision, image_token_id=58))


def _qwen2_vl() -> Qwen2VLForConditionalGeneration:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 1,
              "patch_size": 4, "spatial_merge_size": 2}
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(
        text_config={**_SHAPE, "rope_parameters": rope}, vision_config=vision,
        image_token_id=58, video_token_id=59, vision_start_token_id=57, vision_end_token_id=60))


def _qwen_vl() -> Qwen2_5_VLForConditionalGeneration:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    vision = {"depth": 1, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 2,
              "intermediate_size": 32, "patch_size": 4, "spatial_merge_size": 2,
              "window_size": 16, "fullatt_block_indexes": [0]}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(
        text_config={**_SHAPE, "rope_parameters": rope}, vision_config=vision,
        image_token_id=58, video_token_id=59, vision_start_token_id=57, vision_end_token_id=60))


_CONFIGS = {
    "llama": lambda: LlamaConfig(**_SHAPE),
    "llama-biased": lambda: LlamaConfig(**_SHAPE, attention_bias=True, mlp_bias=True),
    "llama3-rope": lambda: LlamaConfig(**_SHAPE, rope_parameters=_LLAMA3_ROPE),
    "mistral": lambda: MistralConfig(**_SHAPE, sliding_window=None),
    "qwen2": lambda: Qwen2Config(**_SHAPE),
    "qwen3": lambda: Qwen3Config(**_SHAPE, head_dim=16, tie_word_embeddings=True),
    "qwen3-mha": lambda: Qwen3Config(**(_SHAPE | {"num_key_value_heads": 4}), head_dim=8),
    # not computed by hand:
    "mistral-window": lambda: MistralConfig(**_SHAPE, sliding_window=8),
    "gpt2": lambda: GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=2, n_positions=256,
                               bos_token_id=1, eos_token_id=EOS, pad_token_id=0),
    "mamba": lambda: MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2,
                                 state_size=8, bos_token_id=1, eos_token_id=EOS, pad_token_id=0),
}
KNOWN = ("llama", "llama-biased", "llama3-rope", "mistral", "qwen2", "qwen3", "qwen3-mha",
         "llava-text", "internvl-text", "qwen2-vl-text", "qwen2.5-vl-text")
_IMAGE_MODELS = {"llava-text": _llava, "internvl-text": _internvl, "qwen2-vl-text": _qwen2_vl,
                 "qwen2.5-vl-text": _qwen_vl}
UNKNOWN = ("mistral-window", "gpt2", "mamba")


def tiny(name: str, seed: int = 0) -> LoadedModel:
    """The model ``name`` with its random weights, evaluation mode, without a tokenizer."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name in _IMAGE_MODELS:
            model: PreTrainedModel = _IMAGE_MODELS[name]()
        else:
            model = AutoModelForCausalLM.from_config(_CONFIGS[name]())
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if key.startswith("vision") or "A_log" in key:
                    continue
                # as initialised (0, 1 or N(0, 0.02)) the layers add next to nothing to the
                # embeddings, and every row ends in repeating one token
                if parameter.dim() == 1:
                    parameter.add_((0.05 if "bias" in key else 0.3) * torch.randn_like(parameter))
                else:
                    parameter.mul_(4 if "embed" in key or "wte" in key else 10)
    return LoadedModel(model.eval(), tokenizer=None)  # type: ignore[arg-type]  # ids only here


def prompts(*lengths: int, seed: int = 0) -> list[list[int]]:
    """Random prompts of these lengths, without special tokens."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, 55, (n,), generator=generator).tolist() for n in lengths]


class PatchProcessor:
    """What Qwen2.5-VL's processor makes of one image (it cannot be had without torchvision)."""

    image_token, image_token_id = "<|image_pad|>", 58

    def __call__(self, images: list[np.ndarray], **_: object) -> dict[str, torch.Tensor]:
        (image,) = images
        rows, columns = image.shape[0] // 4, image.shape[1] // 4
        pixels = torch.from_numpy(image).float().permute(2, 0, 1) / 255
        patches = pixels.reshape(3, rows // 2, 2, 4, columns // 2, 2, 4)
        # order of patches: blocks of 2 x 2 that are merged into one token
        patches = patches.permute(1, 4, 2, 5, 0, 3, 6)[..., None, :, :].expand(
            -1, -1, -1, -1, -1, 2, -1, -1)
        return {"input_ids": torch.full((1, rows * columns // 4), self.image_token_id),
                "pixel_values": patches.reshape(rows * columns, 3 * 2 * 4 * 4),
                "image_grid_thw": torch.tensor([[1, rows, columns]])}


class TileProcessor:
    """As InternVL's: an image is cut into tiles (here of 8 x 8 pixels, shown twice as large), and
    its image tokens stand between two others.
    """

    image_token, image_token_id = "<IMG_CONTEXT>", 58

    def __call__(self, images: list[np.ndarray], **_: object) -> dict[str, torch.Tensor]:
        (image,) = images
        rows, columns = image.shape[0] // 8, image.shape[1] // 8
        pixels = torch.from_numpy(image.copy()).float().permute(2, 0, 1) / 255
        tiles = pixels.reshape(3, rows, 8, columns, 8).permute(1, 3, 0, 2, 4).flatten(0, 1)
        large = tiles.repeat_interleave(2, -1).repeat_interleave(2, -2)
        # 4 x 4 patches of a tile, four of which become one token
        ids = [57, *[self.image_token_id] * (4 * rows * columns), 59]
        return {"input_ids": torch.tensor([ids]), "pixel_values": large}


IMAGE_TOKENS = {"llava": 60, "internvl": 58, "qwen2-vl": 58, "qwen2.5-vl": 58}
"""The models with images, and their image tokens."""


def tiny_with_images(name: str) -> LoadedModel:
    """One of ``IMAGE_TOKENS`` with random weights and a processor for 8 x 8 images."""
    processor: Any = TileProcessor() if name == "internvl" else PatchProcessor()
    if name == "llava":
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(
            {f"w{i}": i for i in range(60)} | {"<image>": 60}, unk_token="w0")),
            unk_token="w0", pad_token="w0")
        tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
        size = {"height": 8, "width": 8}
        processor = LlavaProcessor(
            CLIPImageProcessor(size=size, crop_size=size), tokenizer, patch_size=4,
            vision_feature_select_strategy="default", image_token="<image>",
            num_additional_image_tokens=1)
    return replace(tiny(f"{name}-text"), processor=processor)
