"""Norm and gated activation of the packed path, forward and backward, by torch's operators.

:class:`~safeladder.engine.local.native_train.TrainKernels` does the same in C, in one pass each.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Elementwise(Protocol):
    """What both implementations offer; results go into tensors that are given."""

    def normalize(self, x: Tensor, hat: Tensor, rstd: Tensor, eps: float) -> None:
        """``rstd = 1 / sqrt(mean(x^2) + eps)`` (N,), ``hat = x * rstd``, rows of x (N, E)."""
        ...

    def normalize_backward(self, grad: Tensor, hat: Tensor, rstd: Tensor, target: Tensor) -> None:
        """``target += rstd * (grad - hat * mean(grad * hat))``; ``grad`` may be overwritten."""
        ...

    def swiglu(self, gate_up: Tensor, activated: Tensor) -> None:
        """``activated = silu(gate) * up``, (N, 2F) -> (N, F)."""
        ...

    def swiglu_backward(self, gate_up: Tensor, grad: Tensor, grad_gate_up: Tensor,
                        activated: Tensor) -> None:
        """Gradient of :meth:`swiglu`, and its result again; ``grad`` may be overwritten."""
        ...


class TorchElementwise:
    """Implements :class:`Elementwise` for any dtype and device."""

    def normalize(self, x: Tensor, hat: Tensor, rstd: Tensor, eps: float) -> None:
        """See :class:`Elementwise`."""
        torch.linalg.vector_norm(x, dim=-1, out=rstd)
        rstd.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        torch.mul(x, rstd[..., None], out=hat)

    def normalize_backward(self, grad: Tensor, hat: Tensor, rstd: Tensor, target: Tensor) -> None:
        """See :class:`Elementwise`."""
        mean = (grad * hat).sum(-1, keepdim=True)
        target.addcmul_(grad.addcmul_(hat, mean, value=-1 / grad.shape[-1]), rstd[..., None])

    def swiglu(self, gate_up: Tensor, activated: Tensor) -> None:
        """See :class:`Elementwise`."""
        gate, up = gate_up.chunk(2, dim=1)
        torch.ops.aten.silu.out(gate, out=activated)
        activated.mul_(up)

    def swiglu_backward(self, gate_up: Tensor, grad: Tensor, grad_gate_up: Tensor,
                        activated: Tensor) -> None:
        """See :class:`Elementwise`."""
        gate, up = gate_up.chunk(2, dim=1)
        grad_gate, grad_up = grad_gate_up.chunk(2, dim=1)
        torch.ops.aten.silu.out(gate, out=activated)
        torch.mul(grad, activated, out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grad.mul_(up), gate, grad_input=grad_gate)
        activated.mul_(up)
