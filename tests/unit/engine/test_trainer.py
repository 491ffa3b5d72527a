from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_decoders import tiny
from transformers import AutoModelForCausalLM

from safeladder.algos.base import LossInputs, LossOutput
from safeladder.algos.sft import NegativeLogLikelihood
from safeladder.engine.base import Capability, OptimParams, Stats
from safeladder.engine.local.models import LoraParams, with_lora
from safeladder.engine.local.trainer import LocalTrainer
from safeladder.errors import CheckpointError, NonFiniteLoss, StorageError
from safeladder.types import Datum, FloatArray

NLL = NegativeLogLikelihood()
STEP = OptimParams(learning_rate=0.01)


def row(*ids: int, prompt: int = 2, **more: Any) -> Datum:
    mask = np.float32([0] * prompt + [1] * (len(ids) - prompt))
    return Datum(**{"token_ids": np.array(ids), "mask": mask, "advantages": mask,
                    "weights": mask / 4} | more)


DATA = [row(3, 1, 4, 1), row(5, 9, 2, 6, 5), row(3, 5, 8)]


def forward(trainer: LocalTrainer, data: list[Datum] = DATA) -> list[FloatArray]:
    return asyncio.run(trainer.forward(data))


def update(trainer: LocalTrainer, data: list[Datum] = DATA, loss: Any = NLL) -> Stats:
    async def run() -> Stats:
        stats = await trainer.forward_backward(data, loss)
        return stats + await trainer.optim_step(STEP)
    return asyncio.run(run())


def test_every_call_reports_the_figures_that_steps_log() -> None:
    trainer = LocalTrainer(tiny("qwen3"))
    (live,) = forward(trainer, [DATA[0]])
    shift = np.float32([0, 0, 0.3, -0.2])
    datum = replace(DATA[0], old_logprobs=live - shift, ref_logprobs=live + 2 * shift,
                    sampler_logprobs=live + shift)
    found = update(trainer, [datum]).scalars()

    def mean_k3(*log_ratios: float) -> float:
        return sum(math.exp(r) - 1 - r for r in log_ratios) / len(log_ratios)
    assert found["kl_old"] == pytest.approx(mean_k3(0.3, -0.2), abs=1e-5)
    assert found["kl_ref"] == pytest.approx(mean_k3(0.6, -0.4), abs=1e-5)
    assert found["mismatch_kl"] == pytest.approx(mean_k3(-0.3, 0.2), abs=1e-5)
    assert found["max_ratio_gap"] == pytest.approx(math.exp(0.3) - 1, abs=1e-5)
    assert found["loss"] == pytest.approx(-live.sum() / 4, abs=1e-5)
    assert found["learning_rate"] == 0.01 and found["grad_norm"] > 0
    assert {"entropy"} < found.keys()
    plain = update(trainer, [DATA[0]]).scalars()
    assert not {"kl_old", "kl_ref", "mismatch_kl", "max_ratio_gap"} & plain.keys()


def test_columns_are_for_all_rows_or_for_none() -> None:
    trainer = LocalTrainer(tiny("qwen3"))
    some = [DATA[0], replace(DATA[1], old_logprobs=DATA[1].mask * -1)]
    with pytest.raises(ValueError, match="old_logprobs is set on 1 of 2"):
        asyncio.run(trainer.forward_backward(some, NLL))


def test_calls_take_their_place_when_made_whichever_is_awaited_first() -> None:
    data, expected = DATA, LocalTrainer(tiny("qwen3"))
    update(expected)
    trainer = LocalTrainer(tiny("qwen3"))

    async def run() -> list[FloatArray]:
        update_call, step_call = trainer.forward_backward(data, NLL), trainer.optim_step(STEP)
        scores = await trainer.forward(data)
        await step_call
        await update_call
        return scores
    for one, other in zip(asyncio.run(run()), forward(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_error_belongs_to_its_own_call() -> None:
    trainer = LocalTrainer(tiny("qwen3"))

    async def run() -> None:
        bad = trainer.load_state(Path("nowhere"))
        await trainer.optim_step(STEP)
        with pytest.raises(CheckpointError):
            await bad
    asyncio.run(run())
    assert trainer.policy_version == 1


class Overflow:
    """Finite where the row's first token is not 5."""

    needs: frozenset[Any] = frozenset()

    def __call__(self, inputs: LossInputs) -> LossOutput:
        return LossOutput(inputs.logprobs / inputs.advantages, {})


@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_the_rows_of_a_broken_loss_are_saved(name: str, tmp_path: Path) -> None:
    trainer = LocalTrainer(tiny(name), failure_folder=tmp_path / "failures",
                           max_tokens_per_microbatch=3)
    before = forward(trainer)
    broken = replace(DATA[1], advantages=DATA[1].mask * 0, temperature=0.5,
                     ref_logprobs=DATA[1].mask * -3)
    data = [replace(DATA[0], ref_logprobs=DATA[0].mask), broken,
            replace(DATA[2], ref_logprobs=DATA[2].mask)]
    with pytest.raises(NonFiniteLoss, match=r"loss of update 0.*1 rows are in .*not-finite-0-"):
        asyncio.run(trainer.forward_backward(data, Overflow()))
    (file,) = (tmp_path / "failures").iterdir()
    with np.load(file) as saved:
        assert list(saved["0/token_ids"]) == [5, 9, 2, 6, 5]
        assert saved["0/temperature"] == 0.5 and list(saved["0/ref_logprobs"]) == [0, 0, -3, -3, -3]
        assert "0/old_logprobs" not in saved
    stats = asyncio.run(trainer.optim_step(STEP))
    assert stats.scalars()["grad_norm"] == 0
    for one, other in zip(forward(trainer), before, strict=True):
        np.testing.assert_array_equal(one, other)


class Steep:
    """A finite loss with an infinite gradient."""

    needs: frozenset[Any] = frozenset()

    def __call__(self, inputs: LossInputs) -> LossOutput:
        return LossOutput((inputs.logprobs - inputs.logprobs.detach()).abs().sqrt(), {})


def test_a_broken_gradient_stops_too_and_the_line_survives_a_read_only_folder(tmp_path: Path,
                                                                              ) -> None:
    place = tmp_path / "file"
    place.write_text("not a folder")
    trainer = LocalTrainer(tiny("qwen3"), failure_folder=place)
    with pytest.raises(NonFiniteLoss, match=r"gradient of update 0 .* in no file \("):
        asyncio.run(trainer.forward_backward(DATA, Steep()))


def test_a_checkpoint_is_loaded_by_plain_transformers(tmp_path: Path) -> None:
    for lora in (False, True):
        loaded = tiny("qwen2")
        loaded.tokenizer = _NoTokenizer()  # type: ignore[assignment]  # only saved here
        if lora:
            loaded = with_lora(loaded, LoraParams(rank=4))
        trainer = LocalTrainer(loaded)
        update(trainer)
        update(trainer)
        path = tmp_path / f"checkpoint-{lora}"
        asyncio.run(trainer.save_checkpoint(path))
        model = AutoModelForCausalLM.from_pretrained(path).eval()
        ids = torch.tensor([[3, 1, 4, 1, 5]])
        with torch.no_grad():
            torch.testing.assert_close(model(ids).logits, loaded.model(ids).logits, rtol=1e-5,
                                       atol=1e-4 if lora else 0)
            moved = (model(ids).logits - tiny("qwen2").model(ids).logits).abs().max()
        assert moved > 0.01
        assert not any("lora" in name for name, _ in model.named_parameters())
        update(trainer)     # goes on unmerged
        with pytest.raises(StorageError, match="there already"):
            asyncio.run(trainer.save_checkpoint(path))


class _NoTokenizer:
    def save_pretrained(self, path: Path) -> None:
        pass


def test_adapters_alone_are_trained_and_saved(tmp_path: Path) -> None:
    trainer = LocalTrainer(with_lora(tiny("qwen2"), LoraParams(rank=2)))
    assert not trainer.is_packed
    frozen = {n: p.clone() for n, p in trainer.loaded.model.named_parameters() if "lora" not in n}
    start = forward(trainer)
    np.testing.assert_allclose(start[0], forward(LocalTrainer(tiny("qwen2")))[0], atol=1e-6)
    update(trainer)
    assert abs(np.concatenate(forward(trainer)) - np.concatenate(start)).max() > 1e-3
    for name, parameter in trainer.loaded.model.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name])
    asyncio.run(trainer.save_state(tmp_path / "state"))
    assert sum(f.stat().st_size for f in (tmp_path / "state").iterdir()) < 60_000


def test_bf16_is_close_and_says_that_it_is_not_exact() -> None:
    exact, rough = LocalTrainer(tiny("qwen3")), LocalTrainer(tiny("qwen3"), precision="bf16")
    assert Capability.EXACT_LOGPROBS in exact.capabilities
    assert Capability.EXACT_LOGPROBS not in rough.capabilities
    gap = abs(np.concatenate(forward(exact)) - np.concatenate(forward(rough))).max()
    assert 1e-5 < gap < 0.3
    update(rough)
    assert next(rough.loaded.model.parameters()).dtype == torch.float32


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors", "trainer.json"])
def test_a_damaged_state_is_one_line(file: str, tmp_path: Path) -> None:
    trainer = LocalTrainer(tiny("qwen3"))
    update(trainer)
    asyncio.run(trainer.save_state(tmp_path / "state"))
    assert {f.name for f in (tmp_path / "state").iterdir()} == {
        "weights.safetensors", "optimizer.safetensors", "trainer.json"}
    content = (tmp_path / "state" / file).read_bytes()
    for damaged in (content[:5], b""):
        (tmp_path / "state" / file).write_bytes(damaged)
        with pytest.raises(CheckpointError, match="no whole trainer state"):
            asyncio.run(trainer.load_state(tmp_path / "state"))
    (tmp_path / "state" / file).unlink()
    with pytest.raises(CheckpointError, match="no whole trainer state"):
        asyncio.run(trainer.load_state(tmp_path / "state"))


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    trainer = LocalTrainer(tiny("qwen3"))
    asyncio.run(trainer.save_state(tmp_path / "state"))
    with pytest.raises(CheckpointError, match="another model"):
        asyncio.run(LocalTrainer(tiny("qwen2")).load_state(tmp_path / "state"))


def test_a_state_that_cannot_be_written_leaves_nothing(tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = LocalTrainer(tiny("qwen3"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("safeladder.engine.local.trainer.save_file", full)
    with pytest.raises(StorageError, match="disk is full"):
        asyncio.run(trainer.save_state(tmp_path / "state"))
    assert list(tmp_path.iterdir()) == []


def test_rewards_move_the_policy_where_they_point() -> None:
    """Tokens with advantage +1 become likelier, with -1 less likely."""
    trainer = LocalTrainer(tiny("qwen3"))
    good, bad = row(3, 1, 4), row(3, 1, 7, advantages=np.float32([0, 0, -1]))
    before = forward(trainer, [good, bad])

    class Surrogate:
        needs: frozenset[Any] = frozenset()

        def __call__(self, inputs: LossInputs) -> LossOutput:
            return LossOutput(-inputs.advantages * inputs.logprobs, {})
    for _ in range(3):
        update(trainer, [good, bad], Surrogate())
    after = forward(trainer, [good, bad])
    assert after[0][2] > before[0][2] + 0.1 and after[1][2] < before[1][2] - 0.1
