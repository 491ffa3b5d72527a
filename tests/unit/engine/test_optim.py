from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_decoders import tiny
from torch import Tensor, nn

from safeladder.engine.base import OptimParams
from safeladder.engine.local.compute import trainable
from safeladder.engine.local.optim import Optimizer, hidden_matrices, orthogonalize

PARAMS = OptimParams(learning_rate=0.01, weight_decay=0.1, beta1=0.8, beta2=0.9, eps=1e-6,
                     max_grad_norm=float("inf"))


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"embed": nn.Embedding(7, 4), "tall": nn.Linear(4, 6),
                          "wide": nn.Linear(6, 4, bias=False), "same": nn.Linear(6, 4, bias=False)})


def optimizer(module: nn.Module) -> Optimizer:
    return Optimizer(trainable(module), hidden_matrices(module))


def give_gradients(module: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def assert_same(one: nn.Module, other: nn.Module, **tolerance: Any) -> None:
    for name, value in weights(one).items():
        torch.testing.assert_close(value, weights(other)[name], msg=name, **tolerance)


def test_adamw_is_torchs_even_when_its_settings_change_between_steps() -> None:
    ours, theirs = model(), model()
    own = optimizer(ours)
    reference = torch.optim.AdamW(theirs.parameters())
    for step in range(4):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        params = replace(PARAMS, learning_rate=0.01 / (step + 1))
        reference.param_groups[0].update(lr=params.learning_rate, betas=(0.8, 0.9), eps=1e-6,
                                         weight_decay=0.1)
        reference.step()
        own.step(params)
    assert_same(ours, theirs, rtol=1e-6, atol=1e-7)


def test_clipping_scales_by_the_global_norm() -> None:
    ours, theirs = model(), model()
    give_gradients(ours, 0)
    give_gradients(theirs, 0)
    norm = float(torch.cat([p.grad.flatten() for p in ours.parameters()  # type: ignore[union-attr]
                            ]).norm())
    for parameter in theirs.parameters():
        assert parameter.grad is not None
        parameter.grad *= 0.5 / norm
    params = replace(PARAMS, eps=1.0)     # so that the size of a gradient matters
    assert optimizer(ours).step(replace(params, max_grad_norm=0.5)) == pytest.approx(norm)
    optimizer(theirs).step(params)
    assert_same(ours, theirs, rtol=1e-4, atol=1e-6)
    assert all(p.grad is None for p in ours.parameters())


def plain_muon(w: Tensor, gradients: list[Tensor], rate: float, decay: float) -> Tensor:
    """One matrix at a time, with the polynomial written on singular values."""
    momentum = torch.zeros_like(w)
    for g in gradients:
        momentum = 0.95 * momentum + 0.05 * g
        u = 0.95 * momentum + 0.05 * g
        left, s, right = torch.linalg.svd(u.double() / u.double().norm(), full_matrices=False)
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        direction = (left @ torch.diag(s) @ right).float()
        scale = max(1.0, w.shape[0] / w.shape[1]) ** 0.5
        w = (1 - rate * decay) * w - rate * scale * direction
    return w


def test_muon_takes_hidden_matrices_and_adamw_the_rest() -> None:
    ours, theirs, start = model(), model(), weights(model())
    own, reference = optimizer(ours), optimizer(theirs)
    gradients: dict[str, list[Tensor]] = {}
    for step in range(3):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        for name, parameter in ours.named_parameters():
            assert parameter.grad is not None
            gradients.setdefault(name, []).append(parameter.grad.clone())
        own.step(replace(PARAMS, muon_learning_rate=0.05))
        reference.step(PARAMS)
    for name, value in weights(ours).items():
        if name in ("tall.weight", "wide.weight", "same.weight"):
            expected = plain_muon(start[name], gradients[name], 0.05, 0.1)
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5, msg=name)
        else:
            torch.testing.assert_close(value, weights(theirs)[name], msg=name)


@pytest.mark.parametrize("shape", [(8, 8), (16, 4), (3, 12), (2, 5, 9)])
def test_orthogonalize_brings_singular_values_near_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    x = torch.randn(shape)
    values = torch.linalg.svdvals(orthogonalize(x))
    assert values.max() < 1.25
    assert values.median() > 0.6
    cosine = (orthogonalize(x) * x).sum() / orthogonalize(x).norm() / x.norm()
    assert cosine > 0.7


def test_a_switch_to_muon_and_back_forgets_no_moments() -> None:
    module = model()
    own = optimizer(module)
    give_gradients(module, 0)
    own.step(PARAMS)
    before = {name: value.clone() for name, value in own.state().items()}
    give_gradients(module, 1)
    own.step(replace(PARAMS, muon_learning_rate=0.05))
    after = own.state()
    assert torch.equal(after["exp_avg/tall.weight"], before["exp_avg/tall.weight"])
    assert not torch.equal(after["exp_avg/embed.weight"], before["exp_avg/embed.weight"])
    assert "momentum/tall.weight" in after and "momentum/tall.weight" not in before


@pytest.mark.parametrize("muon", [None, 0.05])
def test_state_comes_back_to_the_bit(muon: float | None) -> None:
    params = replace(PARAMS, muon_learning_rate=muon)
    ours, theirs = model(), model()
    own = optimizer(ours)
    for step in range(2):
        give_gradients(ours, step)
        own.step(params)
    theirs.load_state_dict(ours.state_dict())
    other = optimizer(theirs)
    give_gradients(theirs, 9)
    other.step(params)                      # to be overwritten
    theirs.load_state_dict(ours.state_dict())
    other.load_state({name: value.clone() for name, value in own.state().items()})
    for step in range(2, 4):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        own.step(params)
        other.step(params)
    assert_same(ours, theirs, rtol=0, atol=0)


def test_hidden_matrices_leave_out_embedding_head_norms_and_biases() -> None:
    for name in ("qwen3", "qwen2", "gpt2"):
        module = tiny(name).model
        hidden = hidden_matrices(module)
        named = dict(module.named_parameters())
        assert hidden and all(named[key].ndim == 2 for key in hidden)
        assert not any("embed" in key or "lm_head" in key or "wte" in key or "wpe" in key
                       for key in hidden)
        layers = [key for key in named if ".layers." in key or ".h." in key]
        assert {key for key in layers if named[key].ndim == 2} == hidden
