import asyncio
from typing import Any

import pytest
from suite_sampler import CHECKS, SamplerCase, run_check
from tiny_decoders import tiny

from safeladder.engine.local.sampler import SamplingEngine
from safeladder.engine.local.trainer import LocalTrainer


def known_family() -> SamplerCase:
    return SamplerCase(SamplingEngine(tiny("qwen3")).sampler(), (3, 1, 4), stop_token_id=7)


def own_forward() -> SamplerCase:
    return SamplerCase(SamplingEngine(tiny("gpt2")).sampler(), (3, 1, 4), stop_token_id=7)


def of_a_trainer() -> SamplerCase:
    sampler = asyncio.run(LocalTrainer(tiny("qwen3")).sampler())
    return SamplerCase(sampler, (3, 1, 4), stop_token_id=7)


@pytest.mark.parametrize("make", [known_family, own_forward, of_a_trainer])
@pytest.mark.parametrize("entry", CHECKS)
def test_sampler_contract(entry: Any, make: Any) -> None:
    run_check(entry, make())
