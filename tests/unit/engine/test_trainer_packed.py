"""The packed forward and backward against the model's own forward and autograd."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from tiny_decoders import KNOWN, UNKNOWN, VOCAB, tiny
from torch import Tensor

from safeladder.algos.base import LossInputs, LossOutput
from safeladder.engine.local import compute as compute_module
from safeladder.engine.local import head as head_module
from safeladder.engine.local.compute import Compute, trainable
from safeladder.engine.local.models import LoadedModel
from safeladder.engine.local.trainer import LocalTrainer
from safeladder.types import Datum


@dataclass(frozen=True)
class Everything:
    """A loss whose gradient differs at every token, in log-probability and entropy."""

    needs: frozenset[Any] = frozenset({"entropy"})

    def __call__(self, inputs: LossInputs) -> LossOutput:
        assert inputs.entropy is not None
        drift = (inputs.logprobs - inputs.old_logprobs).square()
        row = inputs.per_token(inputs.row_mean(inputs.logprobs))
        return LossOutput(inputs.advantages * inputs.logprobs.exp() + drift * row
                          - 0.3 * inputs.entropy.square(), {"drift": drift.detach()})


def rows(lengths: list[tuple[int, list[int]]], holes: bool = False, temperature: float = 1.0,
         ) -> list[Datum]:
    """Prompts of some lengths with responses of some lengths each."""
    rng = np.random.default_rng(1)
    data = []
    for prompt_length, responses in lengths:
        prompt = rng.integers(1, VOCAB, prompt_length)
        for length in responses:
            ids = np.concatenate([prompt, rng.integers(1, VOCAB, length)])
            mask = (np.arange(len(ids)) >= prompt_length).astype(np.float32)
            if holes and length > 4:        # words of an environment between two turns
                mask[prompt_length + 1:prompt_length + 3] = 0
                mask[-1] = 0
            draw = rng.normal(size=(3, len(ids))).astype(np.float32) * mask
            data.append(Datum(
                token_ids=ids, mask=mask, advantages=draw[0], weights=abs(draw[1]) / 100,
                old_logprobs=draw[2] - 2 * mask, temperature=temperature))
    return data


def gradients(loaded: LoadedModel, data: list[Datum], autocast: bool = False, max_tokens: int = 30,
              ) -> tuple[dict[str, Tensor], dict[str, float], bool]:
    compute = Compute(loaded, max_tokens, 1, autocast)
    stats = compute.forward_backward(data, Everything())
    named = trainable(loaded.model)
    return ({name: p.grad.clone() for name, p in named.items() if p.grad is not None},
            stats.scalars(), compute.is_packed)


def both(name: str, data: list[Datum], monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype,
         ) -> tuple[Any, Any]:
    """Packed and general results of the same rows."""
    def fresh() -> LoadedModel:
        loaded = tiny(name)
        loaded.model.to(dtype)
        return loaded
    packed = gradients(fresh(), data)
    monkeypatch.setattr(compute_module, "MAX_PACKED_LENGTH", 0)
    general = gradients(fresh(), data)
    assert packed[2]
    return packed, general


SHAPES = {
    "equal": rows([(5, [6, 6, 6]), (5, [6, 6, 6])]),
    "ragged": rows([(3, [4, 9]), (7, [2, 12, 1]), (4, [8])]),
    "masked": rows([(3, [9, 12, 5]), (3, [7, 7, 8])], holes=True, temperature=0.6),
    "unshared": rows([(1, [11]), (6, [3]), (2, [10]), (1, [4])]),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", KNOWN)
def test_gradients_are_those_of_autograd(
    name: str, shape: str, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("safeladder.engine.local.packed._MLP_TOKENS", 11)
    packed, general = both(name, SHAPES[shape], monkeypatch, torch.float32)
    assert packed[1] == pytest.approx(general[1], rel=1e-5, abs=1e-5)
    unused = {key for key, value in general[0].items() if value.abs().max() == 0}
    assert packed[0].keys() | unused == general[0].keys() | unused
    scale = max(float(value.abs().max()) for value in general[0].values())
    for key in packed[0]:
        torch.testing.assert_close(packed[0][key], general[0][key], rtol=1e-5, atol=1e-5 * scale,
                                   msg=lambda text, key=key: f"{key}: {text}")


def test_forward_alone_gives_the_same_log_probabilities(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = SHAPES["masked"] + SHAPES["unshared"]
    packed = Compute(tiny("qwen3"), 30, 1, False).forward(data)
    monkeypatch.setattr(compute_module, "MAX_PACKED_LENGTH", 0)
    general = Compute(tiny("qwen3"), 30, 1, False).forward(data)
    np.testing.assert_allclose(np.concatenate(packed), np.concatenate(general), atol=2e-5)


def test_a_row_far_below_its_largest_score_has_weight_zero() -> None:
    """Sharp attention: scores some hundreds apart neither overflow nor become NaN."""
    loaded = tiny("llama")
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                parameter.mul_(10)
    found, figures, _ = gradients(loaded, SHAPES["equal"])
    assert np.isfinite(figures["loss"])
    assert all(torch.isfinite(value).all() for value in found.values())


def test_gradients_agree_with_differences_of_the_loss() -> None:
    """In fp64 on the packed path alone, so that an error common to both paths is seen."""
    data = SHAPES["ragged"]
    loaded = tiny("llama-biased")
    loaded.model.double()
    found, _, packed = gradients(loaded, data)
    assert packed
    compute = Compute(loaded, 30, 1, False)
    generator = torch.Generator().manual_seed(0)
    named = trainable(loaded.model)
    for name in ("model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.bias",
                 "model.embed_tokens.weight", "model.layers.1.input_layernorm.weight"):
        direction = torch.randn(named[name].shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        slope = float((found[name] * direction).sum())
        values = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                named[name].add_(direction, alpha=step)
            values.append(compute.forward_backward(data, Everything()).scalars()["loss"])
        with torch.no_grad():
            named[name].add_(direction, alpha=1e-5)
        # the family's own norm and rotary table round to fp32
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(slope, rel=1e-3, abs=1e-3), name


def test_a_large_vocabulary_goes_through_the_head_in_chunks(monkeypatch: pytest.MonkeyPatch,
                                                            ) -> None:
    whole = gradients(tiny("qwen3"), SHAPES["masked"])
    monkeypatch.setattr(head_module, "_MAX_LOGITS", 5 * VOCAB)
    cut = gradients(tiny("qwen3"), SHAPES["masked"])
    assert cut[1] == pytest.approx(whole[1], abs=1e-6)
    for key, value in whole[0].items():
        torch.testing.assert_close(cut[0][key], value, rtol=1e-5, atol=1e-5)


def test_frozen_parameters_get_no_gradient() -> None:
    loaded = tiny("qwen3")
    for name, parameter in loaded.model.named_parameters():
        parameter.requires_grad_("mlp" in name)
    full = gradients(tiny("qwen3"), SHAPES["equal"])[0]
    found, _, packed = gradients(loaded, SHAPES["equal"])
    assert packed and found and all("mlp" in name for name in found)
    for name, value in found.items():
        torch.testing.assert_close(value, full[name])


@pytest.mark.parametrize("name", UNKNOWN)
def test_other_families_take_their_own_forward(name: str) -> None:
    found, figures, packed = gradients(tiny(name), SHAPES["ragged"])
    assert not packed and found and figures["entropy"] > 0


def test_long_rows_take_the_models_own_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute_module, "MAX_PACKED_LENGTH", 10)
    mixed = gradients(tiny("qwen3"), SHAPES["ragged"])
    monkeypatch.undo()
    packed = gradients(tiny("qwen3"), SHAPES["ragged"])
    assert mixed[1] == pytest.approx(packed[1], rel=1e-5, abs=1e-5)
    for key, value in packed[0].items():
        torch.testing.assert_close(mixed[0][key], value, rtol=1e-4, atol=1e-5)


def test_a_wrong_packed_forward_is_noticed(monkeypatch: pytest.MonkeyPatch,
                                           caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("safeladder.engine.local.packed_path.PackedPath.logits",
                        lambda self, ids: torch.zeros(len(ids), VOCAB))
    assert not LocalTrainer(tiny("qwen3")).is_packed
    assert "packed forward of qwen3 differs" in caplog.text


def test_workers_share_a_step_and_keep_torchs_threads() -> None:
    data = SHAPES["ragged"] + SHAPES["equal"]
    before = torch.get_num_threads()
    results = [Compute(tiny("qwen3"), 25, workers, False).forward(data) for workers in (1, 2, 3)]
    assert torch.get_num_threads() == before
    for other in results[1:]:
        np.testing.assert_allclose(np.concatenate(other), np.concatenate(results[0]), atol=1e-5)


def test_an_empty_call_has_no_loss_and_no_gradient() -> None:
    trainer = LocalTrainer(tiny("qwen3"))
    untrained = [Datum(token_ids=np.arange(4), mask=np.zeros(4, np.float32),
                       advantages=np.zeros(4, np.float32), weights=np.zeros(4, np.float32))]
    stats = asyncio.run(trainer.forward_backward(untrained, Everything()))
    assert stats.scalars() == {"loss": 0.0}
    assert [list(v) for v in asyncio.run(trainer.forward(untrained))] == [[0.0] * 4]
