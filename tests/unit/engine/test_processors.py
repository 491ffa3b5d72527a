"""The image half of Qwen2.5-VL's processor, without torchvision."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_classifier_head import IMAGE, image_model
from tiny_decoders import PatchProcessor
from transformers import AutoConfig

from safeladder.engine.local.models import load_model, save_checkpoint
from safeladder.engine.local.processors import ImageTextProcessor, make_processor
from safeladder.errors import ConfigError, MissingExtra


def test_patches_are_those_of_the_definition() -> None:
    processor = image_model().processor
    assert isinstance(processor, ImageTextProcessor)
    made = processor(images=[IMAGE.pixels], text=["x"])
    assert made["input_ids"].tolist() == [[processor.image_token_id] * 16]
    assert made["image_grid_thw"].tolist() == [[1, 8, 8]]
    expected = PatchProcessor()(images=[IMAGE.pixels])["pixel_values"]
    expected = expected.reshape(64, 3, 2, 4, 4)[:, :, 0]  # it repeats the image over time
    mean = torch.tensor(processor.image_processor.image_mean)[:, None, None]
    std = torch.tensor(processor.image_processor.image_std)[:, None, None]
    torch.testing.assert_close(made["pixel_values"].reshape(64, 3, 4, 4), (expected - mean) / std,
                               atol=1e-5, rtol=1e-5)


def test_a_checkpoint_brings_its_processor_back(tmp_path: Path) -> None:
    loaded = image_model()
    save_checkpoint(loaded, tmp_path / "m")
    settings = json.loads((tmp_path / "m" / "processor_config.json").read_text())
    assert settings["processor_class"] == "Qwen2_5_VLProcessor"
    assert {"image_processor", "video_processor"} <= set(settings)
    again = load_model(tmp_path / "m")
    one, other = (model.processor(images=[IMAGE.pixels], text=["x"])  # type: ignore[misc]
                  for model in (loaded, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_large_images_are_scaled_down() -> None:
    loaded = image_model()
    small = make_processor(loaded.config, loaded.tokenizer, max_pixels=16)
    image = np.zeros((128, 128, 3), np.uint8)
    assert small(images=[image], text=["x"])["input_ids"].shape == (1, 16)


def test_other_families_have_none() -> None:
    with pytest.raises(ConfigError, match="no processor is made here for 'qwen3'"):
        make_processor(AutoConfig.for_model("qwen3"), image_model().tokenizer)


def test_without_pillow_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = image_model()
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtra, match=r"needs PIL: pip install 'safeladder\[vision\]'"):
        make_processor(loaded.config, loaded.tokenizer)
