import asyncio
from typing import Any

import numpy as np
import pytest
import torch
from suite_scorer import CHECKS, CHOICE_CHECKS, ChoiceCase, ScorerCase
from tiny_decoders import prompts, tiny, tiny_with_images

from safeladder.engine.local.classifier import with_head
from safeladder.engine.local.media import media_inputs
from safeladder.engine.local.models import LoadedModel
from safeladder.engine.local.sampler import SamplingEngine
from safeladder.engine.local.scorer import LocalChoices, LocalScorer
from safeladder.types import Media

TEXT = [(ids, []) for ids in prompts(9, 4, 17, 5)]
# of 4 or 6 tokens, after which Qwen-VL's positions are 2 or 3 behind the tokens
IMAGES = [Media(pixels=np.random.default_rng(i).integers(
    0, 255, (16, 16 + 8 * (i % 2), 3), np.uint8)) for i in range(3)]
CHOICES = [[7], [9, 11], [12, 9, 30]]


def with_images(loaded: LoadedModel) -> list[tuple[list[int], list[Media]]]:
    rows = []
    for ids, media in zip(prompts(7, 6, 11, seed=3), IMAGES, strict=True):
        ids[2] = loaded.processor.image_token_id  # type: ignore[union-attr]
        rows.append((ids, [media]))
    return [*rows, *TEXT]


def known_family() -> tuple[LoadedModel, Any]:
    return tiny("qwen3"), TEXT


def own_forward() -> tuple[LoadedModel, Any]:
    return tiny("gpt2"), TEXT


def images() -> tuple[LoadedModel, Any]:
    loaded = tiny_with_images("qwen2.5-vl")
    return loaded, with_images(loaded)


@pytest.mark.parametrize("make", [known_family, own_forward, images])
@pytest.mark.parametrize("check", CHECKS)
def test_scorer_contract(check: Any, make: Any) -> None:
    loaded, rows = make()
    classifier = with_head(loaded, ("a", "b", "c"), seed=1)
    asyncio.run(check(ScorerCase(LocalScorer(classifier.loaded, max_tokens=48), 3, rows)))


@pytest.mark.parametrize("make", [known_family, own_forward, images])
@pytest.mark.parametrize("check", CHOICE_CHECKS)
def test_choice_scorer_contract(check: Any, make: Any) -> None:
    loaded, rows = make()
    own = SamplingEngine(loaded, fast=False).sampler()
    asyncio.run(check(ChoiceCase(LocalChoices(loaded, max_tokens=48), own, rows, CHOICES)))


def test_class_outputs_of_rows_with_images_are_those_of_the_models_own_forward() -> None:
    loaded, rows = images()
    classifier = with_head(loaded, ("a", "b", "c"), seed=1).loaded
    scorer = LocalScorer(classifier)

    async def run() -> list[np.ndarray]:
        return await asyncio.gather(*(scorer.score(*row) for row in rows))
    for (ids, media), outputs in zip(rows, asyncio.run(run()), strict=True):
        with torch.no_grad():
            logits = classifier.model(**media_inputs(classifier, ids, media)).logits
        np.testing.assert_allclose(outputs, logits[0, -1], rtol=1e-4, atol=1e-4)
