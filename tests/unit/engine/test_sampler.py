"""The sampler against plain transformers: tokens of ``generate``, log-probabilities of forward."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from tiny_decoders import EOS, KNOWN, UNKNOWN, VOCAB, prompts, tiny
from torch import nn

from safeladder.engine.base import Capability, SamplingParams
from safeladder.engine.local.sampler import LocalSampler, SamplingEngine, SamplingOptions
from safeladder.errors import SamplingError, StaleSampler
from safeladder.types import Completion

GREEDY = SamplingParams(max_tokens=16, temperature=0.0, stop_token_ids=(EOS,))


def sample_all(
    sampler: LocalSampler, rows: Sequence[Sequence[int]], params: SamplingParams, n: int = 1,
) -> list[list[Completion]]:
    """All prompts at once, prompt i with seed i."""
    async def run() -> list[list[Completion]]:
        return await asyncio.gather(*(
            sampler.sample(row, replace(params, seed=i), n) for i, row in enumerate(rows)))
    return asyncio.run(run())


def tokens(completions: list[list[Completion]]) -> list[list[tuple[int, ...]]]:
    return [[c.token_ids for c in group] for group in completions]


@torch.no_grad()
def forward_logprobs(model: nn.Module, ids: Sequence[int], temperature: float = 1.0) -> np.ndarray:
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float() / temperature
    chosen = logits[:-1].log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    return np.concatenate(([0.0], chosen.numpy()))


def generate(model: nn.Module, row: list[int], params: SamplingParams) -> list[int]:
    ids = torch.tensor([row])
    made = model.generate(  # type: ignore[operator]  # a Module to the checker
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=params.max_tokens,
        do_sample=False, eos_token_id=list(params.stop_token_ids) or None, pad_token_id=0)
    return list(made[0, len(row):].tolist())


CASES = [(name, True) for name in KNOWN] + [(name, False) for name in ("qwen3", *UNKNOWN)]


@pytest.mark.parametrize(("name", "fast"), CASES)
def test_greedy_tokens_are_those_of_generate(name: str, fast: bool) -> None:
    loaded = tiny(name)
    sampler = SamplingEngine(loaded, fast=fast).sampler()
    assert sampler.is_fast == (fast and name not in UNKNOWN)
    rows = prompts(5, 17, 2)
    free = replace(GREEDY, stop_token_ids=())
    # a token that the first row comes to, so that it stops there
    stop = sample_all(sampler, rows, free)[0][0].token_ids[9]
    for params in (free, replace(GREEDY, stop_token_ids=(stop,))):
        completions = [group[0] for group in sample_all(sampler, rows, params)]
        assert len({c.token_ids for c in completions}) > 1
        assert (completions[0].finish_reason == "stop") == bool(params.stop_token_ids)
        for row, completion in zip(rows, completions, strict=True):
            ended = completion.token_ids[-1] in params.stop_token_ids
            assert ended == (completion.finish_reason == "stop")
            assert list(completion.token_ids) == generate(loaded.model, row, params)
            exact = forward_logprobs(loaded.model, [*row, *completion.token_ids])
            np.testing.assert_allclose(completion.sampler_logprobs, exact[len(row):], atol=5e-5)


@pytest.mark.parametrize(("name", "fast"), [("qwen3", True), ("qwen2", True), ("qwen3", False),
                                            ("gpt2", False)])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_logprobs_are_those_of_forward(name: str, fast: bool, temperature: float) -> None:
    loaded = tiny(name)
    sampler = SamplingEngine(loaded, fast=fast).sampler()
    rows = prompts(4, 21, 11)
    params = SamplingParams(max_tokens=30, temperature=temperature, stop_token_ids=(EOS, 4, 5))
    for row, group in zip(rows, sample_all(sampler, rows, params, n=3), strict=True):
        for completion in group:
            ids = [*row, *completion.token_ids]
            exact = forward_logprobs(loaded.model, ids, temperature)
            np.testing.assert_allclose(
                completion.sampler_logprobs, exact[len(row):], atol=2e-5)
            scored = asyncio.run(sampler.logprobs(ids, temperature=temperature))
            np.testing.assert_allclose(scored, exact, atol=2e-5)


def test_concurrent_scores_keep_their_rows_apart() -> None:
    loaded = tiny("qwen3")
    rows = prompts(*range(2, 30))
    for fast in (True, False):
        sampler = SamplingEngine(loaded, fast=fast).sampler()

        async def score(sampler: LocalSampler = sampler) -> list[np.ndarray]:
            return await asyncio.gather(*(sampler.logprobs(row) for row in rows))
        for row, scored in zip(rows, asyncio.run(score()), strict=True):
            np.testing.assert_allclose(scored, forward_logprobs(loaded.model, row), atol=2e-5)
            assert scored.dtype == np.float32
    assert sampler.counters.scored_tokens == sum(map(len, rows))


@pytest.mark.parametrize("fast", [True, False])
def test_a_row_does_not_depend_on_the_batch_around_it(fast: bool) -> None:
    """Other rows change logits by rounding (1e-6), and a token only if its uniform is that near
    the border of two tokens: not among these few hundred.
    """
    engine = SamplingEngine(tiny("qwen3"), SamplingOptions(max_rows=64), fast=fast)
    rows = prompts(6, 15, 3, 8, 24)
    params = SamplingParams(max_tokens=20, stop_token_ids=(EOS, 4))
    together = tokens(sample_all(engine.sampler(), rows, params, n=4))
    for limit in (1, 3):
        narrow = SamplingEngine(engine.loaded, SamplingOptions(max_rows=limit), fast=fast)
        assert tokens(sample_all(narrow.sampler(), rows, params, n=4)) == together
    fewer = tokens(sample_all(engine.sampler(), rows, params, n=2))
    assert fewer == [group[:2] for group in together]


def test_the_same_calls_give_the_same_bits() -> None:
    engine = SamplingEngine(tiny("qwen3"), SamplingOptions(max_rows=6))
    rows, params = prompts(6, 15, 3, 8, 24), SamplingParams(max_tokens=20, stop_token_ids=(EOS,))
    first = sample_all(engine.sampler(), rows, params, n=3)
    second = sample_all(engine.sampler(), rows, params, n=3)
    for one, two in zip(chain(*first), chain(*second), strict=True):
        assert one.token_ids == two.token_ids
        assert np.array_equal(one.sampler_logprobs, two.sampler_logprobs)


def test_a_group_is_encoded_once_and_finished_rows_cost_nothing() -> None:
    sampler = SamplingEngine(tiny("qwen3")).sampler()
    (row,) = prompts(30)
    (group,) = sample_all(sampler, [row], SamplingParams(max_tokens=40, stop_token_ids=(EOS, 4)), 8)
    lengths = [len(c.token_ids) for c in group]
    assert sampler.counters.encoded_tokens == 30
    assert sampler.counters.sampled_tokens == sum(lengths)
    assert sampler.counters.steps == max(lengths) - 1
    assert len(set(lengths)) > 3


def test_calls_for_the_same_prompt_share_its_encoding() -> None:
    sampler = SamplingEngine(tiny("qwen3")).sampler()
    one, two = prompts(30, 8)
    rows = [one, two, one, one]
    apart = [sample_all(SamplingEngine(tiny("qwen3")).sampler(), [two] * i + [row], GREEDY)[-1]
             for i, row in enumerate(rows)]
    assert tokens(sample_all(sampler, rows, GREEDY)) == tokens(apart)
    assert sampler.counters.encoded_tokens == 38


@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_a_continued_prefix_is_not_encoded_again(name: str) -> None:
    loaded = tiny(name)
    sampler = SamplingEngine(loaded).sampler()
    first, follow = prompts(20, 5)
    (group,) = sample_all(sampler, [first], SamplingParams(max_tokens=12), n=2)
    assert sampler.counters.encoded_tokens == 20
    turns = [[*first, *completion.token_ids, *follow] for completion in group]
    continued = sample_all(sampler, turns, GREEDY)
    # of each turn only the last sampled token, which was never fed, and the five that follow
    assert sampler.counters.encoded_tokens == 20 + 2 * 6
    assert sampler.counters.reused_tokens == 2 * 31
    afresh = sample_all(SamplingEngine(loaded).sampler(), turns, GREEDY)
    assert tokens(continued) == tokens(afresh)
    for one, two in zip(chain(*continued), chain(*afresh), strict=True):
        np.testing.assert_allclose(one.sampler_logprobs, two.sampler_logprobs, atol=1e-5)


def test_completions_are_kept_only_while_they_are_continued() -> None:
    engine = SamplingEngine(tiny("qwen3"), SamplingOptions(max_rows=4))
    sampler = engine.sampler()

    def encoded_by_continuing(row: list[int]) -> int:
        ((completion,),) = sample_all(sampler, [row], SamplingParams(12))
        before = sampler.counters.encoded_tokens
        sample_all(sampler, [[*row, *completion.token_ids, 7]], SamplingParams(1))
        return sampler.counters.encoded_tokens - before
    rows = prompts(*[20] * 12)
    assert encoded_by_continuing(rows[0]) == 2
    sample_all(sampler, rows[1:10], SamplingParams(12))     # nine that nobody continues
    assert encoded_by_continuing(rows[10]) == 13            # it was not kept; its prompt was
    assert encoded_by_continuing(rows[11]) == 2


def test_new_weights_share_buffers_but_no_prefixes() -> None:
    loaded = tiny("qwen3")
    engine = SamplingEngine(loaded)
    rows = prompts(20)
    before = tokens(sample_all(engine.sampler(0), rows, GREEDY))
    (buffers,) = engine.idle_caches
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    sampler = engine.sampler(1)
    after = tokens(sample_all(sampler, rows, GREEDY))
    assert engine.idle_caches == [buffers] and sampler.counters.encoded_tokens == 20
    assert after != before
    assert after == tokens(sample_all(SamplingEngine(loaded).sampler(), rows, GREEDY))


@pytest.mark.parametrize("fast", [True, False])
def test_a_frozen_sampler_keeps_its_weights(fast: bool) -> None:
    loaded = tiny("qwen3")
    engine = SamplingEngine(loaded, fast=fast)
    rows = prompts(8, 5)
    frozen = engine.frozen_sampler(policy_version=4)
    before = sample_all(frozen, rows, GREEDY)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.mul_(0.3)
    again = sample_all(frozen, rows, GREEDY)
    assert tokens(again) == tokens(before)
    np.testing.assert_array_equal(again[0][0].sampler_logprobs, before[0][0].sampler_logprobs)
    assert frozen.policy_version == before[0][0].policy_version == 4
    assert tokens(sample_all(engine.sampler(5), rows, GREEDY)) != tokens(before)


def test_a_stale_sampler_refuses() -> None:
    version = 3
    engine = SamplingEngine(tiny("qwen3"))
    sampler = engine.sampler(3, lambda: version)
    patient = engine.sampler(3, lambda: version, max_staleness=1)
    rows = prompts(4)
    sample_all(sampler, rows, GREEDY)
    version = 4
    with pytest.raises(StaleSampler, match=r"version 3.*at 4"):
        sample_all(sampler, rows, GREEDY)
    with pytest.raises(StaleSampler):
        asyncio.run(sampler.logprobs(rows[0]))
    assert sample_all(patient, rows, GREEDY)[0][0].policy_version == 3
    version = 5
    with pytest.raises(StaleSampler):
        sample_all(patient, rows, GREEDY)


def test_weights_that_move_during_a_call_end_it() -> None:
    version = 0
    sampler = SamplingEngine(tiny("qwen3")).sampler(0, lambda: version)

    async def run() -> None:
        nonlocal version
        call = asyncio.ensure_future(sampler.sample(prompts(4)[0], SamplingParams(200)))
        for _ in range(10):
            await asyncio.sleep(0)
        version = 1
        await call
    with pytest.raises(StaleSampler):
        asyncio.run(run())


@pytest.mark.parametrize("fast", [True, False])
def test_stream_equals_sample(fast: bool) -> None:
    sampler = SamplingEngine(tiny("qwen3"), fast=fast).sampler()
    (row,) = prompts(7)
    params = SamplingParams(max_tokens=30, stop_token_ids=(EOS, 4), seed=2)

    async def run() -> tuple[list[int], list[int], Completion]:
        seen_early: list[int] = []
        streamed = []
        async for token in sampler.stream(row, params):
            streamed.append(token)
            seen_early.append(sampler.counters.sampled_tokens)
        return streamed, seen_early, (await sampler.sample(row, params))[0]
    streamed, seen_early, completion = asyncio.run(run())
    assert tuple(streamed) == completion.token_ids and len(streamed) > 3
    # tokens arrive as they are drawn, not at the end
    assert seen_early[0] < len(streamed)


def test_a_stream_that_is_left_frees_its_row() -> None:
    sampler = SamplingEngine(tiny("qwen3")).sampler()

    async def run() -> int:
        stream = sampler.stream(prompts(7)[0], SamplingParams(200))
        async for _ in stream:
            break
        await stream.aclose()
        before = sampler.counters.sampled_tokens
        await sampler.sample(prompts(5)[0], SamplingParams(6))
        return sampler.counters.sampled_tokens - before
    assert asyncio.run(run()) == 6


def test_cancelled_calls_leave_the_others_alone() -> None:
    sampler = SamplingEngine(tiny("qwen3"), SamplingOptions(max_rows=4)).sampler()
    rows = prompts(7, 6, 5)
    alone = tokens(sample_all(sampler, rows[:1], SamplingParams(30), n=2))

    async def run() -> tuple[int, ...]:
        calls = [asyncio.ensure_future(sampler.sample(row, SamplingParams(30), 2)) for row in rows]
        for _ in range(8):
            await asyncio.sleep(0)
        calls[1].cancel()   # running
        calls[2].cancel()   # waiting
        return tuple(c.token_ids for c in await calls[0])
    assert list(asyncio.run(run())) == alone[0]


def test_an_interrupted_loop_leaves_a_usable_sampler() -> None:
    sampler = SamplingEngine(tiny("qwen3")).sampler()
    rows = prompts(7)

    async def interrupted() -> None:
        asyncio.ensure_future(sampler.sample(rows[0], SamplingParams(200)))  # noqa: RUF006
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    expected = tokens(sample_all(SamplingEngine(tiny("qwen3")).sampler(), rows, GREEDY))
    asyncio.run(interrupted())
    assert tokens(sample_all(sampler, rows, GREEDY)) == expected


def test_diverged_weights_are_an_error_and_not_a_token() -> None:
    loaded = tiny("qwen3")
    engine = SamplingEngine(loaded)
    rows = prompts(20)
    expected = tokens(sample_all(engine.sampler(), rows, GREEDY))
    norm = loaded.model.get_submodule("model.norm").weight
    assert isinstance(norm, torch.Tensor)
    kept = norm.detach().clone()
    with torch.no_grad():
        norm[0] = float("nan")
    with pytest.raises(SamplingError, match="not finite"):
        sample_all(engine.sampler(), rows, GREEDY)
    with torch.no_grad():
        norm.copy_(kept)
    assert tokens(sample_all(engine.sampler(), rows, GREEDY)) == expected


@pytest.mark.parametrize(("row", "params", "message"), [
    ([], GREEDY, "at least one token"),
    ([VOCAB], GREEDY, "token ids must be in"),
    ([5] * 10, SamplingParams(max_tokens=250), "256 positions"),
])
def test_what_cannot_be_sampled_is_said_before(
    row: list[int], params: SamplingParams, message: str,
) -> None:
    sampler = SamplingEngine(tiny("qwen3")).sampler()
    with pytest.raises(SamplingError, match=message):
        asyncio.run(sampler.sample(row, params))


def test_capabilities_follow_the_dtype() -> None:
    loaded = tiny("qwen3")
    assert SamplingEngine(loaded).sampler().capabilities == {
        Capability.LOGPROBS, Capability.EXACT_LOGPROBS, Capability.SEEDED}
    loaded.model.to(torch.bfloat16)
    sampler = SamplingEngine(loaded).sampler()
    assert sampler.is_fast and Capability.EXACT_LOGPROBS not in sampler.capabilities


def test_a_forward_that_differs_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    loaded = tiny("llama")
    rows = prompts(5, 9)
    monkeypatch.setattr("safeladder.engine.local.sampler.agrees", lambda *_: False)
    engine = SamplingEngine(loaded)
    for _ in range(2):
        sampler = engine.sampler()
        assert not sampler.is_fast
        for row, (completion,) in zip(rows, sample_all(sampler, rows, GREEDY), strict=True):
            assert list(completion.token_ids) == generate(loaded.model, row, GREEDY)
    assert caplog.text.count("differs from the model's own") == 1


def test_adapters_are_sampled_with_a_cache() -> None:
    peft = pytest.importorskip("peft")
    loaded = tiny("qwen3")
    plain = tokens(sample_all(SamplingEngine(loaded).sampler(), prompts(9), GREEDY))
    loaded.model = peft.get_peft_model(loaded.model, peft.LoraConfig(
        r=4, target_modules="all-linear", init_lora_weights=False))
    loaded.model.eval()
    sampler = SamplingEngine(loaded).sampler()
    assert not sampler.is_fast
    (row,) = prompts(9)
    ((completion,),) = sample_all(sampler, [row], GREEDY)
    assert list(completion.token_ids) == generate(loaded.model, row, GREEDY)
    assert tokens([[completion]]) != plain
    ids = [*row, *completion.token_ids]
    np.testing.assert_allclose(completion.sampler_logprobs,
                               forward_logprobs(loaded.model, ids)[len(row):], atol=5e-5)
    # a cache was filled: the conversation goes on without encoding it again
    sample_all(sampler, [[*ids, 7]], GREEDY)
    assert sampler.counters.encoded_tokens == len(row) + 2
