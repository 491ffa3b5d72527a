"""Threads that share the micro-batches of the general path: equal gradients, equal bits."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from tiny_decoders import prompts, tiny_with_images

from safeladder.algos.sft import NegativeLogLikelihood
from safeladder.engine.base import OptimParams
from safeladder.engine.local.batching import rows_of
from safeladder.engine.local.general_path import GeneralPath
from safeladder.engine.local.models import freeze
from safeladder.engine.local.trainer import LocalTrainer
from safeladder.errors import ConfigError
from safeladder.train.sft import training_row
from safeladder.types import Datum, Media


def rows() -> list[Datum]:
    made = []
    for i, ids in enumerate(prompts(9, 12, 7, 15, 10, 8, seed=4)):
        ids[2] = 58
        image = np.random.default_rng(i).integers(0, 255, (8, 8, 3), np.uint8)
        made.append(training_row(ids, media=(Media(pixels=image),)))
    return made


def gradients(workers: int, max_tokens: int = 2048) -> dict[str, torch.Tensor]:
    loaded = tiny_with_images("qwen2.5-vl")
    path = GeneralPath(loaded, max_tokens, autocast=False, workers=workers)
    stats = path.forward_backward(rows_of(rows()), NegativeLogLikelihood())
    found = {name: p.grad.clone() for name, p in loaded.model.named_parameters()
             if p.grad is not None}
    return {**found, "loss": torch.tensor(stats.sums["loss"])}


def test_workers_change_a_gradient_by_rounding_only_and_always_give_the_same_bits() -> None:
    one, two, again, three = gradients(1), gradients(2), gradients(2), gradients(3, 24)
    assert set(one) == set(two) == set(three) and len(one) > 20
    for name, gradient in one.items():
        scale = float(gradient.abs().max()) + 1e-6
        for other in (two, three):
            assert float((other[name] - gradient).abs().max()) < 1e-4 * scale, name
        assert torch.equal(two[name], again[name]), name


def test_a_frozen_image_encoder_stays_and_the_rest_learns_from_images() -> None:
    loaded = freeze(tiny_with_images("qwen2.5-vl"), ["visual"])
    before = {name: p.clone() for name, p in loaded.model.named_parameters()}
    trainer = LocalTrainer(loaded)
    asyncio.run(trainer.forward_backward(rows(), NegativeLogLikelihood()))
    asyncio.run(trainer.optim_step(OptimParams(learning_rate=0.01)))
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, before[name]) == ("visual" in name), name
    with pytest.raises(ConfigError, match=r"no module 'vision'.*visual"):
        freeze(loaded, ["vision"])


def test_gradients_that_autograd_returns_as_views_of_each_other_are_summed_apart() -> None:
    """InternVL's class and position embeddings, over micro-batches of one image each."""
    def run(workers: int) -> dict[str, torch.Tensor]:
        loaded = tiny_with_images("internvl")
        path = GeneralPath(loaded, 24, autocast=False, workers=workers)
        path.forward_backward(rows_of(rows()), NegativeLogLikelihood())
        return {name: p.grad for name, p in loaded.model.named_parameters() if p.grad is not None}
    one, two = run(1), run(2)
    for name in ("cls_token", "position_embeddings"):
        key = f"model.vision_tower.embeddings.{name}"
        torch.testing.assert_close(two[key], one[key], rtol=1e-3, atol=1e-3)
