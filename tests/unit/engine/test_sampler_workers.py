"""Rows of a step shared between threads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import torch
from tiny_decoders import EOS, prompts, tiny

from safeladder.engine.base import SamplingParams
from safeladder.engine.local.sampler import SamplingEngine, SamplingOptions
from safeladder.engine.local.workers import row_shares, run_parallel


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_shares_cover_all_rows_and_are_worth_a_thread() -> None:
    assert row_shares(100, 1) == [slice(0, 100)]
    assert row_shares(47, 4) == [slice(0, 47)]
    assert row_shares(48, 4) == [slice(0, 24), slice(24, 48)]
    assert row_shares(129, 4) == [slice(0, 32), slice(32, 64), slice(64, 96), slice(96, 129)]
    assert row_shares(0, 2) == [slice(0, 0)]


def test_tasks_run_with_one_torch_thread_each_and_in_order(two_threads: None) -> None:
    assert run_parallel([lambda i=i: (i, torch.get_num_threads()) for i in range(2)]) == [
        (0, 1), (1, 1)]
    assert torch.get_num_threads() == 2


def test_an_error_of_a_share_is_raised(two_threads: None) -> None:
    with pytest.raises(ZeroDivisionError):
        run_parallel([lambda: 1, lambda: 1 // 0])


def test_two_workers_sample_what_one_does() -> None:
    rows, params = prompts(*range(3, 13)), SamplingParams(30, stop_token_ids=(EOS,))

    async def run(workers: int) -> list[tuple[int, ...]]:
        options = SamplingOptions(max_rows=128, workers=workers)
        sampler = SamplingEngine(tiny("qwen3"), options).sampler()
        groups = await asyncio.gather(*(sampler.sample(row, params, 8) for row in rows))
        return [c.token_ids for group in groups for c in group]
    assert asyncio.run(run(2)) == asyncio.run(run(1))
