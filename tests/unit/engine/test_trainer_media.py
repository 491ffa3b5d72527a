"""Training rows with images on the packed path, against the model's own forward and autograd."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from test_trainer_packed import Everything
from tiny_decoders import IMAGE_TOKENS, VOCAB, tiny_with_images
from torch import Tensor

from safeladder.engine.local import compute as compute_module
from safeladder.engine.local.batching import plan_packed, rows_of
from safeladder.engine.local.compute import Compute
from safeladder.engine.local.media import expand_row
from safeladder.engine.local.models import LoadedModel, freeze
from safeladder.engine.local.trainer import LocalTrainer
from safeladder.engine.local.vision import ImageEncoder
from safeladder.types import Datum, Media

MODELS = pytest.mark.parametrize("name", IMAGE_TOKENS)
IMAGES = [Media(pixels=np.random.default_rng(i).integers(0, 255, shape, np.uint8))
          for i, shape in enumerate([(16, 16, 3), (24, 16, 3), (8, 8, 3)])]


def model(name: str, dtype: torch.dtype = torch.float64) -> LoadedModel:
    loaded = tiny_with_images(name)
    loaded.model.to(dtype)
    return loaded


def rows(name: str) -> list[Datum]:
    """Two groups of three that share a prompt with an image, and with two; text; one row with an
    image behind its first trained token.
    """
    token = IMAGE_TOKENS[name]
    rng = np.random.default_rng(3)
    data: list[Datum] = []

    def add(prompt: list[int], media: list[Media], lengths: list[int], late: bool = False) -> None:
        for length in lengths:
            ids = np.array([*prompt, *rng.integers(5, 55, length)])
            mask = (np.arange(len(ids)) >= len(prompt)).astype(np.float32)
            if late:
                ids[len(prompt) + 2], mask[len(prompt) + 2] = token, 0
            draw = rng.normal(size=(3, len(ids))).astype(np.float32) * mask
            data.append(Datum(token_ids=ids, mask=mask, advantages=draw[0],
                              weights=abs(draw[1]) / 100, old_logprobs=draw[2] - 2 * mask,
                              media=tuple(media)))
    add([5, 6, token, 7, 8], IMAGES[:1], [4, 7, 4])
    add([9, token, 10, token, 11], IMAGES[:2], [3, 3, 6])
    add([9, token, 10, token, 11], [IMAGES[1], IMAGES[1]], [5])
    add([5, 6, 7], [], [6, 2])
    add([12, 13], IMAGES[2:], [9], late=True)
    return data


def run(loaded: LoadedModel, data: list[Datum], workers: int = 1, max_tokens: int = 60,
        ) -> tuple[dict[str, Tensor], list[np.ndarray], float]:
    compute = Compute(loaded, max_tokens, workers, False)
    assert compute.is_packed_with_images
    logprobs = compute.forward(data)
    stats = compute.forward_backward(data, Everything())
    found = {name: p.grad.clone() for name, p in loaded.model.named_parameters()
             if p.grad is not None}
    return found, logprobs, stats.scalars()["loss"]


@MODELS
@pytest.mark.parametrize("max_tokens", [1000, 40])
def test_gradients_of_all_parameters_are_those_of_autograd(
    name: str, max_tokens: int, monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed = run(model(name), rows(name), 1, max_tokens)
    monkeypatch.setattr(compute_module, "MAX_PACKED_LENGTH", 0)
    own = run(model(name), rows(name))
    # the figures of a step are stored in fp32, and the family's norms and tables round to it
    np.testing.assert_allclose(np.concatenate(packed[1]), np.concatenate(own[1]), atol=2e-6)
    assert packed[2] == pytest.approx(own[2], rel=1e-6)
    assert packed[0].keys() == own[0].keys()
    assert sum("vis" in key for key in own[0]) > 8
    for key, value in own[0].items():
        scale = float(value.abs().max())
        torch.testing.assert_close(packed[0][key], value, rtol=1e-5, atol=1e-5 * scale + 1e-12,
                                   msg=lambda text, key=key: f"{key}: {text}")


@MODELS
def test_two_workers_give_the_same_bits_each_time(name: str) -> None:
    one, two, again = (run(model(name, torch.float32), rows(name), workers, 60)
                       for workers in (1, 2, 2))
    assert two[2] == again[2]
    scale = max(float(value.abs().max()) for value in one[0].values())
    for key, value in two[0].items():
        assert torch.equal(value, again[0][key]), key
        assert float((value - one[0][key]).abs().max()) < 1e-6 * scale, key


def test_frozen_vision_weights_get_no_gradient_and_the_others_do() -> None:
    loaded = freeze(model("qwen2.5-vl"), ["visual"])
    found, _, _ = run(loaded, rows("qwen2.5-vl"))
    assert found and not any("visual" in key for key in found)
    half = freeze(model("qwen2.5-vl"), ["blocks"])
    partly, _, _ = run(half, rows("qwen2.5-vl"))
    assert not any("blocks" in key for key in partly)
    assert any("merger" in key for key in partly)
    torch.testing.assert_close(partly["lm_head.weight"], found["lm_head.weight"])


def test_the_embedding_of_the_image_token_gets_no_gradient_where_an_image_stands() -> None:
    loaded = model("qwen2.5-vl")
    found, _, _ = run(loaded, rows("qwen2.5-vl"))
    assert float(found["model.language_model.embed_tokens.weight"][58].abs().max()) == 0.0
    assert VOCAB > 58


def test_prompts_are_shared_by_tokens_and_images_and_a_tower_runs_once_per_micro_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded, data = model("qwen2.5-vl"), rows("qwen2.5-vl")
    encoder = ImageEncoder.of(loaded)
    assert encoder is not None
    shown = [row.with_images(encoder.located(
        expand_row(loaded, row.datum.token_ids, row.datum.media))) if row.datum.media else row
        for row in rows_of(data)]
    (plan,) = plan_packed(shown, 10000)
    # prompt with image 0; with 0 and 1; the same tokens with 1 and 1; text; the late image
    assert sorted(len(family.rows) for family in plan) == [1, 1, 2, 3, 3]
    seen: list[int] = []
    embeddings = ImageEncoder.embeddings

    def counting(self: ImageEncoder, images: list[object]) -> object:
        seen.append(len(images))
        return embeddings(self, images)  # type: ignore[arg-type]  # passed on as they came
    compute = Compute(loaded, 10000, 1, False)
    monkeypatch.setattr(ImageEncoder, "embeddings", counting)
    compute.forward_backward(data, Everything())
    assert seen == [3]


def test_a_model_whose_images_are_read_otherwise_trains_its_own_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ImageEncoder, "located", lambda self, row: row)  # positions as in text
    trainer = LocalTrainer(model("qwen2.5-vl"))
    assert trainer.is_packed and "with an image" in caplog.text
    stats = asyncio.run(trainer.forward_backward(rows("qwen2.5-vl"), Everything()))
    assert np.isfinite(stats.scalars()["loss"])
