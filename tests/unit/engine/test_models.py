from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_decoders import tiny_with_images
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from safeladder.engine.local import media as media_module
from safeladder.engine.local.media import expand_row, media_inputs
from safeladder.engine.local.models import (
    LoadedModel,
    build_model,
    load_model,
    require_chat_template,
    save_checkpoint,
)
from safeladder.errors import CheckpointError, ConfigError, ModelError, StorageError
from safeladder.types import Media

CONFIG = {"model_type": "qwen3", "hidden_size": 16, "num_hidden_layers": 2, "head_dim": 8,
          "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24,
          "tie_word_embeddings": True}


def tokenizer() -> PreTrainedTokenizerFast:
    words = {f"w{i}": i for i in range(30)} | {"<eos>": 30, "<pad>": 31}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="w0")), unk_token="w0",
        eos_token="<eos>", pad_token="<pad>")


def logits(loaded: LoadedModel | torch.nn.Module) -> torch.Tensor:
    model: Any = loaded.model if isinstance(loaded, LoadedModel) else loaded
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([[1, 2, 3, 4]])).logits
    return found


def test_a_model_from_a_config_follows_tokenizer_and_seed() -> None:
    state = torch.random.get_rng_state()
    loaded = build_model(CONFIG, tokenizer(), seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (loaded.config.vocab_size, loaded.config.eos_token_id, loaded.config.pad_token_id) == (
        32, 30, 31)
    assert not loaded.model.training and loaded.dtype == torch.float32
    assert torch.equal(logits(loaded), logits(build_model(CONFIG, tokenizer(), seed=1)))
    assert not torch.equal(logits(loaded), logits(build_model(CONFIG, tokenizer(), seed=2)))


@pytest.mark.parametrize(("change", "message"), [
    ({"hiden_size": 3}, "model.hiden_size is not a setting of qwen3; did you mean 'hidden_size'"),
    ({"model_type": "qwn"}, "model.model_type 'qwn' is not an architecture"),
    ({"vocab_size": 31}, "vocab_size 31 is less than the tokenizer's 32"),
    ({"model_type": "llava", "text_config": {"model_type": "qwen3", "heads": 1}},
     "model.text_config.heads is not a setting of qwen3"),
])
def test_a_wrong_config_is_one_line(change: dict[str, Any], message: str) -> None:
    settings = CONFIG | change if "text_config" not in change else change
    with pytest.raises(ConfigError, match=message):
        build_model(settings, tokenizer(), seed=0)


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    loaded = build_model(CONFIG, tokenizer(), seed=1)
    loaded.tokenizer.chat_template = "{{ messages[0]['content'] }}"
    save_checkpoint(loaded, tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert torch.equal(logits(again), logits(loaded))
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "model")),
                       logits(loaded))
    assert AutoTokenizer.from_pretrained(tmp_path / "model").chat_template == (
        loaded.tokenizer.chat_template)
    assert load_model(tmp_path / "model", dtype=torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(StorageError, match="there already"):
        save_checkpoint(loaded, tmp_path / "model")


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])


def _remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _drop_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _grow(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 25}))


def _break_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _remove_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


@pytest.mark.parametrize(("damage", "message"), [
    (_cut, "the weights are damaged"),
    (_remove_weights, "cannot load the model"),
    (_drop_a_tensor, "1 weights are missing.*up_proj"),
    (_grow, "cannot load the model|another shape"),
    (_break_config, "cannot load the model"),
    (_remove_tokenizer, "tokenizer files are missing"),
])
def test_a_damaged_checkpoint_is_one_line(damage: Callable[[Path], None], message: str,
                                          tmp_path: Path) -> None:
    save_checkpoint(build_model(CONFIG, tokenizer(), seed=1), tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(tmp_path / "model")
    assert "\n" not in str(caught.value) and "model" in str(caught.value)


def test_a_missing_folder_is_not_looked_for_on_a_hub(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no model folder"):
        load_model(tmp_path / "nothing")


def test_a_missing_chat_template_is_said() -> None:
    with pytest.raises(ModelError, match="base-model has no chat template"):
        require_chat_template(tokenizer(), "base-model")
    filled = tokenizer()
    filled.chat_template = "x"
    require_chat_template(filled, "base-model")


IMAGE = Media(pixels=np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8))


def test_images_are_expanded_exactly_once() -> None:
    loaded = tiny_with_images("llava")
    row = expand_row(loaded, [5, 60, 6, 60, 7], [IMAGE, IMAGE])
    assert row.token_ids.tolist() == [5, *[60] * 4, 6, *[60] * 4, 7]
    assert row.positions.tolist() == [0, 4, 5, 9, 10]
    assert row.tensors["pixel_values"].shape[0] == 2
    inputs = media_inputs(loaded, [5, 60, 6], [IMAGE])
    assert inputs["input_ids"].shape == (1, 6)
    with pytest.raises(ModelError, match=r"4 image tokens .* 1 images: give exactly one"):
        expand_row(loaded, [5, *[60] * 4, 6], [IMAGE])
    with pytest.raises(ModelError, match=r"1 image tokens .* 0 images"):
        expand_row(loaded, [5, 60, 6])


def test_images_for_a_model_of_text_are_refused() -> None:
    with pytest.raises(ModelError, match="takes no images"):
        expand_row(build_model(CONFIG, tokenizer(), seed=0), [1, 2], [IMAGE])


def test_a_missing_image_file_is_named() -> None:
    with pytest.raises(ModelError, match=r"cannot read the image /nowhere/sign\.png"):
        expand_row(tiny_with_images("qwen2.5-vl"), [5, 58, 6], [Media(path="/nowhere/sign.png")])


def test_what_a_processor_made_is_kept_by_content_up_to_a_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = tiny_with_images("qwen2.5-vl")
    calls: list[str] = []
    process = media_module._process

    def counting(processor: Any, token: str, item: Media) -> Any:
        calls.append(item.digest[:4])
        return process(processor, token, item)
    monkeypatch.setattr(media_module, "_process", counting)
    # 8 x 8 pixels: 4 patches of 96 numbers, a grid and one token are 1,568 bytes
    monkeypatch.setattr(media_module._Processed, "max_bytes", 4000)
    one, two, three = (Media(pixels=np.full((8, 8, 3), value, np.uint8)) for value in (1, 2, 3))
    same = Media(pixels=np.full((8, 8, 3), 1, np.uint8))
    for item in (one, two, same, three, one, two):
        expand_row(loaded, [5, 58, 6], [item])
    a, b, c = (item.digest[:4] for item in (one, two, three))
    assert calls == [a, b, c, b]


def test_an_image_file_is_read_like_pixels(tmp_path: Path) -> None:
    from PIL import Image
    assert IMAGE.pixels is not None
    Image.fromarray(IMAGE.pixels).save(tmp_path / "sign.png")
    loaded = tiny_with_images("qwen2.5-vl")
    one = expand_row(loaded, [5, 58, 6], [IMAGE])
    other = expand_row(loaded, [5, 58, 6], [Media(path=str(tmp_path / "sign.png"))])
    assert torch.equal(one.tensors["pixel_values"], other.tensors["pixel_values"])
    (tmp_path / "sign.png").write_bytes(b"no image")
    with pytest.raises(ModelError, match="cannot read the image"):
        expand_row(loaded, [5, 58, 6], [Media(path=str(tmp_path / "sign.png"))])
