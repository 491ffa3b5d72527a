"""Prompts with images: on the fast path beside text rows, or through the model's own forward."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_decoders import (
    EOS,
    IMAGE_TOKENS,
    VOCAB,
    PatchProcessor,
    prompts,
    tiny,
    tiny_with_images,
)

from safeladder.engine.base import Capability, SamplingParams
from safeladder.engine.local.compute import Compute
from safeladder.engine.local.decoder import FastDecoder
from safeladder.engine.local.families import DecoderSpec, near
from safeladder.engine.local.media import expand_row, media_inputs
from safeladder.engine.local.models import LoadedModel
from safeladder.engine.local.sampler import LocalSampler, SamplingEngine, SamplingOptions
from safeladder.engine.local.scorer import LocalChoices
from safeladder.engine.local.vision import ImageEncoder
from safeladder.errors import ModelError
from safeladder.types import Datum, Media

FORWARDS = pytest.mark.parametrize("fast", [True, False], ids=["fast", "own"])
GREEDY = SamplingParams(max_tokens=10, temperature=0.0, stop_token_ids=(EOS,))
IMAGES = [Media(pixels=np.random.default_rng(i).integers(0, 255, (8, 16, 3), np.uint8))
          for i in range(2)]
# 2 x 2 and 3 x 2 tokens of Qwen-VL, after which positions are 2 and 3 behind the tokens
LARGE = [Media(pixels=np.random.default_rng(i).integers(0, 255, shape, np.uint8))
         for i, shape in enumerate([(16, 16, 3), (24, 16, 3)])]


@pytest.fixture(scope="module", params=IMAGE_TOKENS)
def loaded(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny_with_images(request.param)


def row_with_image(loaded: LoadedModel, seed: int) -> list[int]:
    ids = prompts(7, seed=seed)[0]
    ids[2] = loaded.processor.image_token_id  # type: ignore[union-attr]  # image models have one
    return ids


def row_with_two_images(loaded: LoadedModel, seed: int) -> list[int]:
    ids = prompts(12, seed=seed)[0]
    ids[2] = ids[7] = loaded.processor.image_token_id  # type: ignore[union-attr]  # as above
    return ids


def generate(loaded: LoadedModel, row: list[int], *media: Media) -> list[int]:
    inputs = media_inputs(loaded, row, media)
    made = loaded.model.generate(  # type: ignore[operator]  # a Module to the checker
        **inputs, max_new_tokens=10, do_sample=False, eos_token_id=EOS, pad_token_id=0)
    return list(made[0, inputs["input_ids"].shape[1]:].tolist())


@FORWARDS
def test_greedy_tokens_are_those_of_generate(loaded: LoadedModel, fast: bool) -> None:
    sampler = SamplingEngine(loaded, fast=fast).sampler()
    assert sampler.is_fast == sampler.is_fast_with_images == fast
    assert Capability.MEDIA in sampler.capabilities
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


@FORWARDS
def test_sampled_logprobs_are_those_of_scoring_and_of_forward(
    loaded: LoadedModel, fast: bool,
) -> None:
    sampler = SamplingEngine(loaded, fast=fast).sampler()
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


@FORWARDS
def test_images_side_by_side_need_a_token_between_them_where_positions_follow_a_grid(
    loaded: LoadedModel, fast: bool,
) -> None:
    row = row_with_image(loaded, 1)
    row.insert(2, row[2])
    sampler = SamplingEngine(loaded, fast=fast).sampler()
    if "Qwen" not in type(loaded.model).__name__:
        assert asyncio.run(sampler.sample(row, GREEDY, 1, LARGE))
        return
    with pytest.raises(ModelError, match="a token between them"):
        asyncio.run(sampler.sample(row, GREEDY, 1, LARGE))
    last = (np.arange(len(row)) == len(row) - 1).astype(np.float32)
    with pytest.raises(ModelError, match="a token between them"):
        Compute(loaded, 1000, 1, False).forward([
            Datum(np.array(row), last, last, last, media=tuple(LARGE))])


def test_a_text_model_takes_no_images() -> None:
    sampler = SamplingEngine(tiny("qwen3")).sampler()
    with pytest.raises(ModelError, match="takes no images"):
        asyncio.run(sampler.sample([5, 6], GREEDY, media=IMAGES[:1]))


@pytest.mark.parametrize("native", ["1", "0"])
def test_rows_with_images_join_and_leave_a_common_batch(
    loaded: LoadedModel, native: str, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two images of different sizes, one image and none; five rows at a time, of three lengths."""
    if native == "0":
        monkeypatch.setattr("safeladder.engine.local.decoder.kernels", lambda: None)
    sampler = SamplingEngine(loaded, SamplingOptions(max_rows=5)).sampler()
    asked: list[tuple[list[int], list[Media]]] = []
    for seed in range(4):
        asked += [(row_with_two_images(loaded, seed), LARGE[:: 1 if seed % 2 else -1]),
                  (row_with_image(loaded, seed), LARGE[seed % 2:][:1]),
                  (prompts(5 + seed)[0], [])]
    lengths = [4 + 3 * (i % 3) for i in range(len(asked))]

    async def run() -> list[list[int]]:
        made = await asyncio.gather(*(
            sampler.sample(row, SamplingParams(lengths[i], 0.0, stop_token_ids=(EOS,)), 1, media)
            for i, (row, media) in enumerate(asked)))
        return [list(one.token_ids) for (one,) in made]
    for i, tokens in enumerate(asyncio.run(run())):
        assert tokens == generate(loaded, asked[i][0], *asked[i][1])[: lengths[i]], i


@FORWARDS
def test_scores_of_rows_of_all_kinds_are_those_of_forward(loaded: LoadedModel, fast: bool) -> None:
    sampler = SamplingEngine(loaded, fast=fast).sampler()
    asked = [(row_with_two_images(loaded, 1), LARGE), (prompts(9)[0], []),
             (row_with_image(loaded, 2), IMAGES[:1]), (row_with_two_images(loaded, 3), IMAGES)]

    async def run() -> list[np.ndarray]:
        return await asyncio.gather(*(sampler.logprobs(*row, temperature=0.7) for row in asked))
    for (ids, media), scores in zip(asked, asyncio.run(run()), strict=True):
        with torch.no_grad():
            logits = loaded.model(**media_inputs(loaded, ids, media)).logits[0] / 0.7
        places = expand_row(loaded, ids, media).positions
        exact = logits.log_softmax(-1)[places[:-1], ids[1:]]
        np.testing.assert_allclose(scores[1:], exact, atol=2e-5, rtol=1e-5)


def test_each_different_image_goes_through_the_tower_once(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch,
) -> None:
    sampler = SamplingEngine(loaded).sampler()
    seen: list[int] = []
    embeddings = ImageEncoder.embeddings

    def counting(self: ImageEncoder, images: list[object]) -> object:
        seen.append(len(images))
        return embeddings(self, images)  # type: ignore[arg-type]  # passed on as they came
    monkeypatch.setattr(ImageEncoder, "embeddings", counting)

    async def run() -> None:
        await asyncio.gather(
            sampler.sample(row_with_two_images(loaded, 1), GREEDY, 3, [LARGE[0], LARGE[0]]),
            sampler.sample(row_with_image(loaded, 1), GREEDY, 2, [LARGE[0]]),
            sampler.sample(row_with_image(loaded, 2), GREEDY, 2, [LARGE[1]]),
            sampler.sample(row_with_image(loaded, 2), GREEDY, 2, [LARGE[1]]))
    asyncio.run(run())
    assert seen == [2]


def test_a_conversation_about_an_image_reuses_it_and_another_image_does_not(
    loaded: LoadedModel,
) -> None:
    sampler = SamplingEngine(loaded).sampler()
    first = prompts(20, seed=5)[0]
    first[2] = row_with_image(loaded, 1)[2]
    params = SamplingParams(4, 0.0)
    (reply,) = asyncio.run(sampler.sample(first, params, 1, [LARGE[0]]))
    longer = [*first, *reply.token_ids, *prompts(5)[0]]
    length = len(expand_row(loaded, first, [LARGE[0]]).token_ids) + 3
    for media, reused in ((LARGE[1], 0), (LARGE[0], length)):
        before = sampler.counters.reused_tokens
        (made,) = asyncio.run(sampler.sample(longer, params, 1, [media]))
        # the tokens before the image are the same in both
        assert sampler.counters.reused_tokens - before in ({2, 0} if not reused else {reused})
        assert list(made.token_ids) == generate(loaded, longer, media)[:4]


def test_a_frozen_sampler_keeps_its_vision_tower() -> None:
    loaded = tiny_with_images("qwen2.5-vl")
    engine = SamplingEngine(loaded)
    frozen, row = engine.frozen_sampler(), row_with_image(loaded, 1)
    before = asyncio.run(frozen.logprobs(row, LARGE[:1]))
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.mul_(1.3)
    np.testing.assert_array_equal(asyncio.run(frozen.logprobs(row, LARGE[:1])), before)
    assert np.abs(asyncio.run(engine.sampler().logprobs(row, LARGE[:1])) - before).max() > 1e-2


def test_a_model_whose_images_are_read_otherwise_goes_its_own_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    loaded = tiny_with_images("qwen2.5-vl")
    monkeypatch.setattr(ImageEncoder, "located", lambda self, row: row)  # positions as in text
    sampler = SamplingEngine(loaded).sampler()
    assert sampler.is_fast and not sampler.is_fast_with_images
    assert "with an image" in caplog.text
    row = row_with_image(loaded, 1)
    (made,) = asyncio.run(sampler.sample(row, GREEDY, 1, LARGE[:1]))
    assert list(made.token_ids) == generate(loaded, row, LARGE[0])


@pytest.mark.parametrize("error", [
    ValueError("Image features and image tokens do not match\nand more"), ImportError(),
    ModelError("no light"), RuntimeError("sizes"), TypeError("images")])
def test_a_probe_image_that_cannot_be_taken_leaves_text_as_it_was(
    error: Exception, caplog: pytest.LogCaptureFixture,
) -> None:
    class Refusing(PatchProcessor):
        def __call__(self, images: list[np.ndarray], **_: object) -> dict[str, torch.Tensor]:
            raise error
    text = prompts(6)[0]
    (expected,) = asyncio.run(SamplingEngine(tiny_with_images("qwen2.5-vl")).sampler().sample(
        text, GREEDY))
    for open_one in (lambda it: SamplingEngine(it).sampler(), LocalChoices,
                     lambda it: Compute(it, 1000, 1, False)):
        caplog.clear()
        opened = open_one(replace(tiny_with_images("qwen2.5-vl"), processor=Refusing()))
        (record,) = caplog.records
        said = record.getMessage()
        assert "\n" not in said and (str(error).partition("\n")[0] or "ImportError") in said
        if isinstance(opened, LocalSampler):
            assert opened.is_fast and not opened.is_fast_with_images
            assert asyncio.run(opened.sample(text, GREEDY))[0].token_ids == expected.token_ids
        if isinstance(opened, Compute):
            assert opened.is_packed and not opened.is_packed_with_images


def test_what_follows_an_image_is_compared_and_no_more(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch,
) -> None:
    shapes: list[tuple[int, ...]] = []

    def recording(spec: DecoderSpec, ours: torch.Tensor, theirs: torch.Tensor) -> bool:
        shapes.extend((tuple(ours.shape), tuple(theirs.shape)))
        return near(spec, ours, theirs)
    monkeypatch.setattr("safeladder.engine.local.vision.near", recording)
    assert SamplingEngine(loaded).sampler().is_fast_with_images
    LocalChoices(loaded)
    assert Compute(loaded, 1000, 1, False).is_packed_with_images
    # the last position of the image and the three tokens behind it
    assert shapes == [(4, VOCAB)] * 6


def test_an_image_that_is_read_in_another_order_is_found_from_behind_it(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch,
) -> None:
    embeddings = ImageEncoder.embeddings
    monkeypatch.setattr(ImageEncoder, "embeddings", lambda self, images: [
        made.roll(1, 0) for made in embeddings(self, images)])
    assert not SamplingEngine(loaded).sampler().is_fast_with_images
    assert not Compute(loaded, 1000, 1, False).is_packed_with_images


def test_choices_say_that_images_are_read_otherwise_and_give_the_numbers_of_forward(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    loaded = tiny_with_images("qwen2.5-vl")
    row = row_with_image(loaded, 1)
    with torch.no_grad():
        exact = loaded.model(**media_inputs(loaded, row, LARGE[:1])).logits[0, -1].log_softmax(-1)
    monkeypatch.setattr(ImageEncoder, "located", lambda self, row: row)  # positions as in text
    choices = LocalChoices(loaded)
    (record,) = caplog.records
    assert "with an image" in record.getMessage()
    found = asyncio.run(choices.choice_logprobs(row, [[5], [9]], LARGE[:1]))
    np.testing.assert_allclose(found, exact[[5, 9]], atol=2e-5)


def test_an_error_of_the_vision_tower_reaches_everyone_who_waits(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch,
) -> None:
    sampler = SamplingEngine(loaded).sampler()

    def broken(self: ImageEncoder, images: object) -> object:
        raise ModelError("no light")
    monkeypatch.setattr(ImageEncoder, "embeddings", broken)

    async def run() -> list[object]:
        return await asyncio.wait_for(asyncio.gather(
            sampler.sample(row_with_image(loaded, 1), GREEDY, 2, LARGE[:1]),
            sampler.sample(row_with_image(loaded, 2), GREEDY, 2, LARGE[:1]),
            return_exceptions=True), timeout=5)
    assert [str(error) for error in asyncio.run(run())] == ["no light"] * 2


def test_encoding_may_go_on_inside_an_image(loaded: LoadedModel) -> None:
    spec, images = DecoderSpec.from_model(loaded.model), ImageEncoder.of(loaded)
    assert spec is not None and images is not None
    decoder = FastDecoder(spec)
    row = images.located(expand_row(loaded, row_with_two_images(loaded, 1), LARGE))
    ids = row.token_ids.tolist()
    with torch.inference_mode():
        whole = decoder.encode([ids], seen=images.seen([row], [0]))
        for start in (int(row.images[0].places[1]), int(row.images[1].places[2]), len(ids) - 1):
            rest = decoder.encode([ids[start:]], [whole.spans[0].first(start)],
                                  images.seen([row], [start]))
            torch.testing.assert_close(rest.hidden, whole.hidden[:, start:], atol=1e-4, rtol=1e-4)


def test_a_check_with_an_image_leaves_no_offset_behind() -> None:
    loaded = tiny_with_images("qwen2.5-vl")
    assert SamplingEngine(loaded).sampler().is_fast_with_images
    assert loaded.model.model.rope_deltas is None  # type: ignore[union-attr]  # Qwen-VL's
