from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from suite_trainer import CHECKS, TrainerCase, run_check
from tiny_decoders import VOCAB, tiny, tiny_with_images

from safeladder.engine.base import Trainer
from safeladder.engine.fake.trainer import FakeTrainer
from safeladder.engine.local.models import LoraParams, with_lora
from safeladder.engine.local.trainer import LocalTrainer


def local(name: str, packed: bool = True, **settings: Any) -> Callable[[], Trainer]:
    def make() -> Trainer:
        trainer = LocalTrainer(tiny(name), **settings)
        assert trainer.is_packed == packed
        return trainer
    return make


def packed_case(tmp: Path) -> TrainerCase:
    return TrainerCase((
        local("qwen3", failure_folder=tmp),
        local("qwen3", max_tokens_per_microbatch=9),
        local("qwen3", max_tokens_per_microbatch=20, workers=2)), VOCAB)


def general_case(tmp: Path) -> TrainerCase:
    return TrainerCase((
        local("gpt2", packed=False, failure_folder=tmp),
        local("gpt2", packed=False, max_tokens_per_microbatch=9)), VOCAB)


def lora_case(tmp: Path) -> TrainerCase:
    def make(**settings: Any) -> Callable[[], Trainer]:
        return lambda: LocalTrainer(
            with_lora(tiny("qwen2"), LoraParams(rank=4, alpha=32)), failure_folder=tmp, **settings)
    return TrainerCase((make(), make(max_tokens_per_microbatch=9)), VOCAB)


def image_case(tmp: Path) -> TrainerCase:
    def make() -> Trainer:
        return LocalTrainer(tiny_with_images("llava"), failure_folder=tmp)
    return TrainerCase((make,), VOCAB, image_token_id=60)


def fake_case(tmp: Path) -> TrainerCase:
    return TrainerCase((lambda: FakeTrainer(20, seed=1),), 20, learning_rate=0.5)


@pytest.mark.parametrize("case", [packed_case, general_case, lora_case, image_case, fake_case])
@pytest.mark.parametrize("entry", CHECKS)
def test_trainer_contract(entry: Any, case: Callable[[Path], TrainerCase], tmp_path: Path) -> None:
    (tmp_path / "check").mkdir()
    run_check(entry, case(tmp_path / "failures"), tmp_path / "check")
