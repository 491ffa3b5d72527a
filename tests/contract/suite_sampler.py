"""What every Sampler must do. One case per engine; checks are chosen by declared capability."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from safeladder.engine.base import Capability, Sampler, SamplingParams

PARAMS = SamplingParams(max_tokens=12, seed=5)


@dataclass(frozen=True)
class SamplerCase:
    """An engine's sampler, and what the checks need to know of it."""

    sampler: Sampler
    prompt_ids: tuple[int, ...]
    stop_token_id: int
    """One that is drawn now and then within 12 tokens, and not always at once."""
    temperatures: tuple[float, ...] = (1.0, 0.5)
    """At which log-probabilities are exact."""


Check = Callable[[SamplerCase], Awaitable[None]]
CHECKS: list[Any] = []


def check(*needs: Capability) -> Callable[[Check], Check]:
    def register(function: Check) -> Check:
        CHECKS.append(pytest.param((function, frozenset(needs)), id=function.__name__))
        return function
    return register


def run_check(entry: tuple[Check, frozenset[Capability]], case: SamplerCase) -> None:
    function, needs = entry
    if not needs <= case.sampler.capabilities:
        pytest.skip(f"does not declare {', '.join(needs - case.sampler.capabilities)}")
    asyncio.run(function(case))  # type: ignore[arg-type]


@check()
async def completions_have_the_declared_form(case: SamplerCase) -> None:
    completions = await case.sampler.sample(case.prompt_ids, PARAMS, 3)
    assert len(completions) == 3
    for completion in completions:
        assert len(completion.token_ids) == PARAMS.max_tokens
        assert completion.finish_reason == "length"
        assert completion.sampler_logprobs.dtype == np.float32
        assert (completion.sampler_logprobs <= 0).all()
        assert completion.policy_version == case.sampler.policy_version


@check()
async def a_stop_token_ends_a_row_and_is_part_of_it(case: SamplerCase) -> None:
    params = replace(PARAMS, stop_token_ids=(case.stop_token_id,))
    completions = await case.sampler.sample(case.prompt_ids, params, 64)
    stopped = [c for c in completions if c.finish_reason == "stop"]
    assert stopped and len(stopped) < 64
    for completion in completions:
        ended = completion.token_ids[-1] == case.stop_token_id
        assert ended == (completion.finish_reason == "stop")
        assert case.stop_token_id not in completion.token_ids[:-1]


@check()
async def stop_tokens_wait_for_min_tokens(case: SamplerCase) -> None:
    params = replace(PARAMS, stop_token_ids=(case.stop_token_id,), min_tokens=6)
    for completion in await case.sampler.sample(case.prompt_ids, params, 32):
        assert len(completion.token_ids) > 6 and case.stop_token_id not in completion.token_ids[:6]


@check(Capability.LOGPROBS)
async def sampled_logprobs_are_those_of_scoring(case: SamplerCase) -> None:
    start = len(case.prompt_ids)
    for temperature in case.temperatures:
        params = replace(PARAMS, temperature=temperature, top_p=0.9 if temperature == 1 else 1.0)
        for completion in await case.sampler.sample(case.prompt_ids, params, 2):
            ids = case.prompt_ids + completion.token_ids
            scored = await case.sampler.logprobs(ids, temperature=temperature)
            assert scored.shape == (len(ids),) and scored[0] == 0
            np.testing.assert_allclose(scored[start:], completion.sampler_logprobs, atol=1e-4)


@check(Capability.LOGPROBS)
async def tokens_come_as_often_as_their_probability_says(case: SamplerCase) -> None:
    count = 1200
    completions = await case.sampler.sample(case.prompt_ids, replace(PARAMS, max_tokens=1), count)
    drawn = Counter(c.token_ids[0] for c in completions)
    probabilities = {c.token_ids[0]: float(np.exp(c.sampler_logprobs[0])) for c in completions}
    assert len(drawn) > 1
    for token_id, p in probabilities.items():
        deviation = (count * p * (1 - p)) ** 0.5
        assert abs(drawn[token_id] - count * p) < 4.5 * deviation + 1


@check()
async def greedy_rows_are_equal_and_take_the_most_probable_token(case: SamplerCase) -> None:
    greedy = await case.sampler.sample(case.prompt_ids, replace(PARAMS, temperature=0.0), 3)
    assert len({c.token_ids for c in greedy}) == 1
    (single,) = await case.sampler.sample(case.prompt_ids, replace(PARAMS, top_k=1, seed=9))
    assert single.token_ids == greedy[0].token_ids
    first = await case.sampler.sample(case.prompt_ids, replace(PARAMS, max_tokens=1), 50)
    assert greedy[0].sampler_logprobs[0] >= max(c.sampler_logprobs[0] for c in first) - 1e-4


@check(Capability.SEEDED)
async def a_row_depends_on_seed_and_number_alone(case: SamplerCase) -> None:
    many = await case.sampler.sample(case.prompt_ids, PARAMS, 8)
    few = await case.sampler.sample(case.prompt_ids, PARAMS, 3)
    assert [c.token_ids for c in few] == [c.token_ids for c in many[:3]]
    assert len({c.token_ids for c in many}) > 1
    other = await case.sampler.sample(case.prompt_ids, replace(PARAMS, seed=6), 8)
    assert [c.token_ids for c in other] != [c.token_ids for c in many]


@check()
async def truncation_keeps_the_likeliest(case: SamplerCase) -> None:
    one = replace(PARAMS, max_tokens=1)
    free = await case.sampler.sample(case.prompt_ids, one, 400)
    ranked = sorted({(-float(c.sampler_logprobs[0]), c.token_ids[0]) for c in free})
    top_2 = await case.sampler.sample(case.prompt_ids, replace(one, top_k=2), 40)
    assert {c.token_ids[0] for c in top_2} <= {token for _, token in ranked[:2]}
    smallest = await case.sampler.sample(case.prompt_ids, replace(one, top_p=1e-6), 10)
    assert {c.token_ids[0] for c in smallest} == {ranked[0][1]}


@check(Capability.LOGPROBS)
async def calls_side_by_side_do_not_disturb_each_other(case: SamplerCase) -> None:
    prompts = [case.prompt_ids[:k] for k in range(1, len(case.prompt_ids) + 1)] * 3
    many = await asyncio.gather(*(case.sampler.sample(p, PARAMS, 2) for p in prompts))
    for prompt, completions in zip(prompts, many, strict=True):
        ids = prompt + completions[1].token_ids
        scored = await case.sampler.logprobs(ids)
        np.testing.assert_allclose(
            scored[len(prompt):], completions[1].sampler_logprobs, atol=1e-4)


@check(Capability.SEEDED)
async def a_stream_is_row_0(case: SamplerCase) -> None:
    stream = getattr(case.sampler, "stream", None)
    if stream is None:
        pytest.skip("does not stream")
    params = replace(PARAMS, stop_token_ids=(case.stop_token_id,))
    streamed = [token_id async for token_id in stream(case.prompt_ids, params)]
    (completion,) = await case.sampler.sample(case.prompt_ids, params)
    assert tuple(streamed) == completion.token_ids
