"""AdamW, and Muon for hidden matrices, with hyper-parameters that ride on every step.

AdamW (arXiv 1711.05101) is torch's own. Muon (K. Jordan et al. 2024, "Muon: an optimizer for hidden
layers in neural networks") takes the matrices of the hidden layers::

    M_t = mu M_{t-1} + (1 - mu) G_t            momentum, mu = 0.95
    U_t = (1 - mu) G_t + mu M_t                Nesterov
    O_t = NewtonSchulz5(U_t)                   U S V^T -> about U V^T
    W_t = (1 - eta lambda) W_{t-1} - eta sqrt(max(1, rows / columns)) O_t

Embeddings, output layer, norms, biases and other tensors that are no matrix stay with AdamW.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from safeladder.engine.base import OptimParams

MOMENTUM = 0.95
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the odd polynomial a x + b x^3 + c x^5 that pushes singular values towards 1."""


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration on a stack (..., rows, columns) of matrices.

    Singular values end between about 0.7 and 1.2, singular vectors stay.
    """
    a, b, c = _NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def gradient_of(parameter: Tensor) -> Tensor:
    """Where the gradient of a parameter is added up."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


class Optimizer:
    """One step for all parameters of a model.

    Args:
        named: the trainable parameters.
        hidden: names of the matrices that Muon may take.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], hidden: frozenset[str]) -> None:
        self._named = dict(named)
        self._matrices = [name for name in self._named if name in hidden]
        self._momentum: dict[str, Tensor] = {}
        self._adamw: torch.optim.AdamW | None = None
        self._with_muon: bool | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All trainable parameters."""
        return list(self._named.values())

    @torch.no_grad()
    def step(self, params: OptimParams) -> float:
        """Clip, update and clear the gradients; return their norm before clipping."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, params.max_grad_norm)
        self._choose(params.muon_learning_rate is not None)
        if params.muon_learning_rate is not None:
            self._muon(params.muon_learning_rate, params.weight_decay)
        assert self._adamw is not None
        for group in self._adamw.param_groups:
            group.update(lr=params.learning_rate, betas=(params.beta1, params.beta2),
                         eps=params.eps, weight_decay=params.weight_decay)
        self._adamw.step()
        self.clear()
        return float(norm)

    def clear(self) -> None:
        """Forget the gradients."""
        for parameter in self._named.values():
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` restores."""
        return {"with_muon": self._with_muon, "momentum": self._momentum,
                "adamw": None if self._adamw is None else self._adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore moments and momentum, to the bit."""
        self._adamw, self._with_muon = None, None
        self._momentum = {name: value.clone() for name, value in state["momentum"].items()}
        if state["adamw"] is not None:
            self._choose(bool(state["with_muon"]))
            assert self._adamw is not None
            self._adamw.load_state_dict(state["adamw"])

    def _choose(self, with_muon: bool) -> None:
        """Make AdamW for the parameters that are its own; a change of split starts it anew."""
        if self._with_muon == with_muon:
            return
        taken = set(self._matrices) if with_muon else set()
        rest = [p for name, p in self._named.items() if name not in taken]
        self._adamw = torch.optim.AdamW(rest, lr=0.0, fused=True)
        self._with_muon = with_muon

    def _muon(self, learning_rate: float, weight_decay: float) -> None:
        by_shape: dict[torch.Size, list[str]] = {}
        for name in self._matrices:
            by_shape.setdefault(self._named[name].shape, []).append(name)
        for shape, names in by_shape.items():
            update = orthogonalize(torch.stack([self._nesterov(name) for name in names]))
            scale = learning_rate * max(1.0, shape[0] / shape[1]) ** 0.5
            for name, direction in zip(names, update, strict=True):
                parameter = self._named[name]
                parameter.mul_(1 - learning_rate * weight_decay)
                parameter.add_(direction, alpha=-scale)

    def _nesterov(self, name: str) -> Tensor:
        gradient = gradient_of(self._named[name])
        momentum = self._momentum.setdefault(name, torch.zeros_like(gradient))
        momentum.lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(momentum, MOMENTUM)


def hidden_matrices(model: nn.Module, trainable: Sequence[str]) -> frozenset[str]:
    """Names of the matrices inside the layers: two axes, and neither embedding nor output layer."""
    outside = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    getter = getattr(model, "get_output_embeddings", None)
    head = getter() if callable(getter) else None
    if head is not None:
        outside.add(id(head.weight))
    named = dict(model.named_parameters())
    return frozenset(name for name in trainable
                     if named[name].ndim == 2 and id(named[name]) not in outside)
