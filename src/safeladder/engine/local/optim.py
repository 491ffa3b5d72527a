"""AdamW, and Muon for hidden matrices; hyper-parameters ride on every step.

AdamW (arXiv 1711.05101 alg. 2, with the learning rate as its schedule multiplier) is torch's fused
one; it decays all parameters alike, norms and biases too.

Muon (K. Jordan et al. 2024, kellerjordan.github.io/posts/muon) takes the matrices of the hidden
layers::

    M_t = mu M_{t-1} + (1 - mu) G_t                     momentum, mu = 0.95
    U_t = mu M_t + (1 - mu) G_t                         Nesterov
    O_t = NewtonSchulz5(U_t)                            U S V^T -> about U V^T
    W_t = (1 - eta lambda) W_{t-1} - eta sqrt(max(1, rows / columns)) O_t

Departures: the iteration runs in the weights' own precision instead of bf16; matrices of one
shape go through it together. Embeddings, the output layer, norms, biases and all that is no
matrix stay with AdamW.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from safeladder.engine.base import OptimParams

MOMENTUM = 0.95
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration on a stack (..., rows, columns) of matrices.

    ``X <- a X + b (X X^T) X + c (X X^T)^2 X`` from ``X = U / |U|_F``. Singular values end between
    about 0.7 and 1.2 (those that were near 0 lower), singular vectors stay.
    """
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Optimizer:
    """One step for all trainable parameters of a model.

    Args:
        parameters: by name.
        hidden: names of the matrices that Muon takes when a step asks for it.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], hidden: frozenset[str]) -> None:
        self._parameters = dict(parameters)
        self._hidden = {name: p for name, p in self._parameters.items() if name in hidden}
        rest = [p for name, p in self._parameters.items() if name not in hidden]
        # Two groups of moments, so that a switch between Muon and AdamW forgets none.
        self._adamw = {"rest": _adamw(rest), "hidden": _adamw(list(self._hidden.values()))}
        self._momentum: dict[str, Tensor] = {}

    @torch.no_grad()
    def step(self, params: OptimParams) -> float:
        """Clip, update and clear the gradients; return their global norm before clipping."""
        for parameter in self._parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters.values(), params.max_grad_norm)
        self._adamw_step("rest", params)
        if params.muon_learning_rate is None:
            self._adamw_step("hidden", params)
        else:
            self._muon_step(params.muon_learning_rate, params.weight_decay)
        self.clear()
        return float(norm)

    def clear(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Moments and momentum by name; :meth:`load_state` restores them to the bit."""
        state = {f"momentum/{name}": value for name, value in self._momentum.items()}
        moments = {**self._adamw["rest"].state, **self._adamw["hidden"].state}
        for name, parameter in self._parameters.items():
            for key, value in moments.get(parameter, {}).items():
                state[f"{key}/{name}"] = value
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace all moments and momentum; gradients are cleared.

        Raises:
            KeyError: the state names a parameter that is not here.
        """
        self.clear()
        self._momentum = {}
        for optimizer in self._adamw.values():
            optimizer.state.clear()
        for full_name, value in state.items():
            key, _, name = full_name.partition("/")
            parameter = self._parameters[name]
            if key == "momentum":
                self._momentum[name] = value.to(parameter.device, copy=True)
                continue
            group = self._adamw["hidden" if name in self._hidden else "rest"]
            # torch keeps the step count of its fused AdamW beside the parameter
            group.state[parameter][key] = value.to(parameter.device, copy=True)

    def _adamw_step(self, group: str, params: OptimParams) -> None:
        optimizer = self._adamw[group]
        for settings in optimizer.param_groups:
            settings.update(lr=params.learning_rate, betas=(params.beta1, params.beta2),
                            eps=params.eps, weight_decay=params.weight_decay)
        if optimizer.param_groups[0]["params"]:
            optimizer.step()

    def _muon_step(self, learning_rate: float, weight_decay: float) -> None:
        by_shape: dict[torch.Size, list[str]] = {}
        for name, parameter in self._hidden.items():
            by_shape.setdefault(parameter.shape, []).append(name)
        for shape, names in by_shape.items():
            updates = orthogonalize(torch.stack([self._nesterov(name) for name in names]))
            scale = learning_rate * max(1.0, shape[0] / shape[1]) ** 0.5
            for name, update in zip(names, updates, strict=True):
                self._hidden[name].mul_(1 - learning_rate * weight_decay).sub_(update * scale)

    def _nesterov(self, name: str) -> Tensor:
        gradient = self._hidden[name].grad
        assert gradient is not None
        momentum = self._momentum.setdefault(name, torch.zeros_like(gradient))
        momentum.lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(momentum, MOMENTUM)


def hidden_matrices(model: nn.Module) -> frozenset[str]:
    """Names of the matrices between embedding and output layer."""
    outside = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    output = getattr(model, "get_output_embeddings", lambda: None)()
    if output is not None:
        outside.add(id(output.weight))
    return frozenset(name for name, parameter in model.named_parameters()
                     if parameter.ndim == 2 and id(parameter) not in outside)


def _adamw(parameters: list[nn.Parameter]) -> torch.optim.AdamW:
    # torch refuses an empty list, but takes an empty group
    return torch.optim.AdamW([{"params": parameters}], lr=0.0, fused=True)
