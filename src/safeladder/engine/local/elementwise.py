"""Norm and gated activation of the packed path, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from safeladder.engine.local.arena import Arena


@dataclass(frozen=True)
class Normed:
    """x / rms(x), of the shape of x, and 1 / rms(x), whose last axis is 1."""

    hat: Tensor
    rstd: Tensor


def normalize(x: Tensor, eps: float, arena: Arena) -> Normed:
    """Divide by sqrt(mean(x^2) + eps) over the last axis (arXiv 1910.07467 eq. 4, no gain)."""
    hat, rstd = arena.empty(*x.shape), arena.empty(*x.shape[:-1], 1)
    torch.linalg.vector_norm(x, dim=-1, keepdim=True, out=rstd)
    rstd.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return Normed(torch.mul(x, rstd, out=hat), rstd)


def normalize_backward(grad: Tensor, normed: Normed, target: Tensor) -> None:
    """``target += rstd * (grad - hat * mean(grad * hat))``; ``grad`` is overwritten."""
    mean = (grad * normed.hat).sum(-1, keepdim=True)
    target.addcmul_(grad.addcmul_(normed.hat, mean, value=-1 / grad.shape[-1]), normed.rstd)


def swiglu(gate_up: Tensor, out: Tensor) -> None:
    """(N, 2F) -> (N, F): ``silu(gate) * up``, gate first."""
    gate, up = gate_up.chunk(2, dim=1)
    torch.ops.aten.silu.out(gate, out=out)
    out.mul_(up)


def swiglu_backward(gate_up: Tensor, grad: Tensor, grad_gate_up: Tensor, activated: Tensor) -> None:
    """Gradient of :func:`swiglu`, and in ``activated`` its result again.

    ``grad`` (N, F) is overwritten.
    """
    gate, up = gate_up.chunk(2, dim=1)
    grad_gate, grad_up = grad_gate_up.chunk(2, dim=1)
    torch.ops.aten.silu.out(gate, out=activated)
    torch.mul(grad, activated, out=grad_up)
    torch.ops.aten.silu_backward.grad_input(grad.mul_(up), gate, grad_input=grad_gate)
    activated.mul_(up)
