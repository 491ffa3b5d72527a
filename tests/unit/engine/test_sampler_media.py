"""Images: through the model's own forward, beside text rows that take the fast path."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from tiny_decoders import EOS, prompts, tiny, tiny_with_images

from safeladder.engine.base import Capability, SamplingParams
from safeladder.engine.local.media import media_inputs
from safeladder.engine.local.models import LoadedModel
from safeladder.engine.local.sampler import SamplingEngine
from safeladder.errors import ModelError
from safeladder.types import Media

GREEDY = SamplingParams(max_tokens=10, temperature=0.0, stop_token_ids=(EOS,))
IMAGES = [Media(pixels=np.random.default_rng(i).integers(0, 255, (8, 16, 3), np.uint8))
          for i in range(2)]


@pytest.fixture(scope="module", params=["llava", "qwen2.5-vl"])
def loaded(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny_with_images(request.param)


def row_with_image(loaded: LoadedModel, seed: int) -> list[int]:
    ids = prompts(7, seed=seed)[0]
    ids[2] = loaded.processor.image_token_id  # type: ignore[union-attr]  # image models have one
    return ids


def generate(loaded: LoadedModel, row: list[int], media: Media) -> list[int]:
    inputs = media_inputs(loaded, row, [media])
    made = loaded.model.generate(  # type: ignore[operator]  # a Module to the checker
        **inputs, max_new_tokens=10, do_sample=False, eos_token_id=EOS, pad_token_id=0)
    return list(made[0, inputs["input_ids"].shape[1]:].tolist())


def test_greedy_tokens_are_those_of_generate(loaded: LoadedModel) -> None:
    sampler = SamplingEngine(loaded).sampler()
    assert sampler.is_fast and Capability.MEDIA in sampler.capabilities
    rows = [row_with_image(loaded, seed) for seed in range(3)]
    text = prompts(6)[0]

    async def run() -> list[tuple[int, ...]]:
        calls = [sampler.sample(row, GREEDY, 2, [media]) for row in rows for media in IMAGES]
        groups = await asyncio.gather(*calls, sampler.sample(text, GREEDY, 2))
        assert all(a.token_ids == b.token_ids for a, b in groups)
        return [group[0].token_ids for group in groups]
    *with_images, plain = asyncio.run(run())
    expected = [generate(loaded, row, media) for row in rows for media in IMAGES]
    assert [list(ids) for ids in with_images] == expected
    own = SamplingEngine(loaded, fast=False).sampler()
    assert asyncio.run(own.sample(text, GREEDY))[0].token_ids == plain


def test_sampled_logprobs_are_those_of_scoring_and_of_forward(loaded: LoadedModel) -> None:
    sampler = SamplingEngine(loaded).sampler()
    row = row_with_image(loaded, 1)
    completions = asyncio.run(sampler.sample(row, SamplingParams(8), 16, IMAGES[:1]))
    completion = next(c for c in completions if row[2] not in c.token_ids)
    ids = [*row, *completion.token_ids]
    scored = asyncio.run(sampler.logprobs(ids, IMAGES[:1]))
    assert scored.shape == (len(ids),)
    np.testing.assert_allclose(scored[len(row):], completion.sampler_logprobs, atol=5e-5)
    inputs = media_inputs(loaded, ids, IMAGES[:1])
    with torch.no_grad():
        logits = loaded.model(**inputs).logits[0].log_softmax(-1)
    exact = [logits[-9 + i, token].item() for i, token in enumerate(completion.token_ids)]
    np.testing.assert_allclose(completion.sampler_logprobs, exact, atol=5e-5)
    other = asyncio.run(sampler.logprobs(ids, IMAGES[1:]))
    assert np.abs(other - scored)[3:].max() > 1e-3


def test_a_wrong_image_is_its_own_callers_error(loaded: LoadedModel) -> None:
    sampler = SamplingEngine(loaded).sampler()
    row = row_with_image(loaded, 1)

    async def run() -> list[object]:
        return await asyncio.gather(
            sampler.sample(row, GREEDY, media=IMAGES),
            sampler.sample(row, GREEDY, media=IMAGES[:1]),
            return_exceptions=True)
    wrong, right = asyncio.run(run())
    assert isinstance(wrong, ModelError) and "1 image tokens" in str(wrong)
    assert isinstance(right, list)


def test_an_image_token_needs_its_image(loaded: LoadedModel) -> None:
    sampler = SamplingEngine(loaded).sampler()
    with pytest.raises(ModelError, match="1 image tokens"):
        asyncio.run(sampler.sample(row_with_image(loaded, 1), GREEDY))


def test_a_text_model_takes_no_images() -> None:
    sampler = SamplingEngine(tiny("qwen3")).sampler()
    with pytest.raises(ModelError, match="takes no images"):
        asyncio.run(sampler.sample([5, 6], GREEDY, media=IMAGES[:1]))
