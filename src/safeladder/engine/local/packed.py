"""The packed forward and backward of known decoder families: no padding, no autograd graph.

The model is the pre-norm decoder of :class:`~safeladder.engine.local.families.DecoderSpec`. It is
differentiated by hand because in small models the arithmetic beside the matrix products decides
the speed: the backward uses what the forward had, writes into scratch memory, and adds straight
into the gradients. Prefixes shared by several rows are computed once (:mod:`.batching`), and in
the last layer only up to their keys and values.

Shapes: N tokens, n own tokens, E hidden, H query heads, K key-value heads, D head_dim,
F intermediate. x_hat is x / rms(x); gains are folded into weights (:mod:`.folding`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from safeladder.engine.local.arena import Arena
from safeladder.engine.local.attention import Attention, HeadCounts
from safeladder.engine.local.batching import PackedBatch
from safeladder.engine.local.families import DecoderSpec
from safeladder.engine.local.folding import DecoderTensors, LayerTensors

_MLP_TOKENS = 256
"""Tokens that go through an MLP at a time, so that its wide temporaries stay in the cache."""


@dataclass(frozen=True)
class _Normed:
    """x_hat (N, E) and 1 / rms(x) (N, 1)."""

    hat: Tensor
    rstd: Tensor


@dataclass(frozen=True)
class _SavedLayer:
    """What the backward of one layer needs."""

    attention_in: _Normed
    heads: _Normed | None
    """Queries and keys before their norm's gain, (N, H + K, D) and (N, H + K, 1)."""
    attention: Attention
    attended: Tensor
    mlp_in: _Normed
    gate_up: Tensor


@dataclass(frozen=True)
class Activations:
    """The result of :meth:`PackedDecoder.forward`."""

    hidden: Tensor
    """(n, E) x_hat of the final norm, one per own token."""
    final: _Normed
    layers: list[_SavedLayer]
    rotation: Tensor
    """(N, 1, D / 2) complex."""


class PackedDecoder:
    """Hidden states of one micro-batch and gradients back from theirs.

    Stateless but for a table of rotations: several threads may call it at a time, each with its
    own arena and gradients.
    """

    def __init__(self, spec: DecoderSpec) -> None:
        self._spec = spec
        self._heads = HeadCounts(spec.num_heads, spec.num_kv_heads, spec.head_dim)
        self._rotary_width = (spec.num_heads + spec.num_kv_heads) * spec.head_dim
        self._rotations = torch.empty(0, spec.head_dim // 2, dtype=torch.complex64)

    @torch.no_grad()
    def forward(self, weights: DecoderTensors, batch: PackedBatch, arena: Arena,
                keep: bool) -> Activations:
        """Run the decoder; ``keep`` holds what :meth:`backward` needs on the arena."""
        x = arena.empty(len(batch.token_ids), self._spec.hidden_size)
        torch.index_select(weights.embedding, 0, batch.token_ids, out=x)
        rotation = self._rotation(batch.positions)
        saved = []
        mark = arena.height
        for number, layer in enumerate(weights.layers):
            last = number == len(weights.layers) - 1
            kept, x = self._layer_forward(layer, batch, x, rotation, arena, last)
            if keep:
                saved.append(kept)
            else:
                arena.release(mark)
        final = self._normalize(x, arena)
        return Activations(final.hat, final, saved, rotation)

    @torch.no_grad()
    def backward(self, weights: DecoderTensors, batch: PackedBatch, activations: Activations,
                 grad_hidden: Tensor, gradients: DecoderTensors, arena: Arena) -> None:
        """Add the gradients of ``sum(hidden * grad_hidden)`` to ``gradients``.

        ``grad_hidden`` (n, E) is overwritten.
        """
        grad = arena.zeros(len(batch.token_ids), self._spec.hidden_size)
        own = grad[batch.num_prefix :]
        self._normalize_backward(grad_hidden, activations.final, own, arena)
        layers = zip(weights.layers, activations.layers, gradients.layers, strict=True)
        for number, (layer, saved, grads) in enumerate(reversed(list(layers))):
            self._mlp_backward(layer, saved, own if number == 0 else grad, grads, arena)
            self._attention_backward(layer, saved, own if number == 0 else grad, grad, grads,
                                     activations.rotation, arena)
        gradients.embedding.add_(torch.ops.aten.embedding_dense_backward(
            grad, batch.token_ids, len(weights.embedding), -1, False))

    # ------------------------------------------------------------------ forward

    def _layer_forward(self, layer: LayerTensors, batch: PackedBatch, x: Tensor, rotation: Tensor,
                       arena: Arena, last: bool) -> tuple[_SavedLayer, Tensor]:
        attention_in = self._normalize(x, arena)
        qkv = _affine_into(arena.empty(len(x), len(layer.qkv)), attention_in.hat, layer.qkv,
                           layer.qkv_bias)
        qkv, heads = self._rotate(qkv, layer.head_norm, rotation, arena)
        attention = Attention(batch, self._heads, arena, skip_prefix=last)
        attended = attention.forward(qkv)
        if last:
            x = x[batch.num_prefix :]
        _add_affine(x, attended, layer.o, layer.o_bias)
        mlp_in = self._normalize(x, arena)
        gate_up = self._mlp_forward(layer, mlp_in.hat, x, arena)
        return _SavedLayer(attention_in, heads, attention, attended, mlp_in, gate_up), x

    def _mlp_forward(self, layer: LayerTensors, hat: Tensor, x: Tensor, arena: Arena) -> Tensor:
        """Add down(silu(gate) * up) to ``x``; return (N, 2F) gate and up."""
        width = layer.down.shape[1]
        gate_up = arena.empty(len(x), 2 * width)
        mark = arena.height
        scratch = arena.empty(_MLP_TOKENS, width)
        for start in range(0, len(x), _MLP_TOKENS):
            part = slice(start, min(start + _MLP_TOKENS, len(x)))
            _affine_into(gate_up[part], hat[part], layer.gate_up, layer.gate_up_bias)
            gate, up = gate_up[part, :width], gate_up[part, width:]
            activated = scratch[: len(gate)]
            torch.ops.aten.silu.out(gate, out=activated)
            _add_affine(x[part], activated.mul_(up), layer.down, layer.down_bias)
        arena.release(mark)
        return gate_up

    def _normalize(self, x: Tensor, arena: Arena) -> _Normed:
        """Compute x / sqrt(mean(x^2) + eps) over the last axis (arXiv 1910.07467 eq. 4)."""
        rstd = torch.linalg.vector_norm(x, dim=-1, keepdim=True, out=arena.empty(*x.shape[:-1], 1))
        rstd.square_().div_(x.shape[-1]).add_(self._spec.eps).rsqrt_()
        return _Normed(torch.mul(x, rstd, out=arena.empty(*x.shape)), rstd)

    def _rotate(self, qkv: Tensor, gain: Tensor | None, rotation: Tensor, arena: Arena,
                ) -> tuple[Tensor, _Normed | None]:
        """Norm (where the family has one) and rotary embedding of queries and keys."""
        normed = None
        if gain is not None:
            heads = self._heads_of(qkv)
            normed = self._normalize(heads, arena)
            torch.mul(normed.hat, gain, out=heads)
        pairs = _as_complex(self._heads_of(qkv))
        pairs.mul_(rotation)
        return qkv, normed

    def _heads_of(self, qkv: Tensor) -> Tensor:
        """(N, (H + 2K) D) -> a view (N, H + K, D) of queries and keys."""
        return qkv[:, : self._rotary_width].view(len(qkv), -1, self._spec.head_dim)

    def _rotation(self, positions: Tensor) -> Tensor:
        """Return cos + i sin at ``positions``; the family's own table, both halves being equal."""
        needed = int(positions.max()) + 1
        if needed > len(self._rotations):
            count = max(needed, 2 * len(self._rotations), 256)
            cos, sin = self._spec.rotary(torch.arange(count, device=positions.device))
            half = self._spec.head_dim // 2
            self._rotations = torch.complex(cos[:, :half].contiguous(), sin[:, :half].contiguous())
        return self._rotations[positions][:, None]

    # ------------------------------------------------------------------ backward

    def _mlp_backward(self, layer: LayerTensors, saved: _SavedLayer, grad: Tensor,
                      grads: LayerTensors, arena: Arena) -> None:
        """Turn ``grad`` (gradient after the MLP's residual sum) into that before it.

        silu(gate) and its product with up are computed again: in the cache that is cheaper than
        reading them back from memory.
        """
        mark = arena.height
        width = layer.down.shape[1]
        grad_hat = arena.empty(*grad.shape)
        scratch = [arena.empty(_MLP_TOKENS, size) for size in (width, width, width, 2 * width)]
        for start in range(0, len(grad), _MLP_TOKENS):
            part = slice(start, min(start + _MLP_TOKENS, len(grad)))
            gate, up = saved.gate_up[part, :width], saved.gate_up[part, width:]
            silu, activated, inner, both = (tensor[: len(gate)] for tensor in scratch)
            torch.ops.aten.silu.out(gate, out=silu)
            torch.mul(silu, up, out=activated)
            _affine_backward(activated, grad[part], grads.down, grads.down_bias)
            torch.mm(grad[part], layer.down, out=inner)
            torch.mul(inner, silu, out=both[:, width:])
            torch.ops.aten.silu_backward.grad_input(inner.mul_(up), gate,
                                                    grad_input=both[:, :width])
            _affine_backward(saved.mlp_in.hat[part], both, grads.gate_up, grads.gate_up_bias)
            torch.mm(both, layer.gate_up, out=grad_hat[part])
        self._normalize_backward(grad_hat, saved.mlp_in, grad, arena)
        arena.release(mark)

    def _attention_backward(self, layer: LayerTensors, saved: _SavedLayer, grad_out: Tensor,
                            grad_in: Tensor, grads: LayerTensors, rotation: Tensor,
                            arena: Arena) -> None:
        """``grad_out`` is the gradient after the residual sum, ``grad_in`` that of all N tokens;
        one tensor, or in the last layer the first a part of the second.
        """
        mark = arena.height
        _affine_backward(saved.attended, grad_out, grads.o, grads.o_bias)
        grad_attended = torch.mm(grad_out, layer.o, out=arena.empty(*saved.attended.shape))
        grad_qkv = saved.attention.backward(grad_attended)
        heads = self._heads_of(grad_qkv)
        _as_complex(heads).mul_(rotation.conj())
        if saved.heads is not None:
            assert layer.head_norm is not None and grads.head_norm is not None
            self._head_norm_backward(heads, saved.heads, layer.head_norm, grads.head_norm, arena)
        _affine_backward(saved.attention_in.hat, grad_qkv, grads.qkv, grads.qkv_bias)
        grad_hat = torch.mm(grad_qkv, layer.qkv, out=arena.empty(*grad_in.shape))
        self._normalize_backward(grad_hat, saved.attention_in, grad_in, arena)
        arena.release(mark)

    def _head_norm_backward(self, grad: Tensor, normed: _Normed, gain: Tensor, grad_gain: Tensor,
                            arena: Arena) -> None:
        """In place: gradient of hat * gain -> gradient of what was normalised."""
        product = torch.mul(grad, normed.hat, out=arena.empty(*grad.shape))
        grad_gain.add_(product.sum(0))
        mean = product.mul_(gain).sum(-1, keepdim=True).div_(-grad.shape[-1])
        grad.mul_(gain).addcmul_(normed.hat, mean).mul_(normed.rstd)

    def _normalize_backward(self, grad_hat: Tensor, normed: _Normed, target: Tensor,
                            arena: Arena) -> None:
        """Add to ``target`` the gradient of x, (g - x_hat mean(g x_hat)) / rms; overwrites
        ``grad_hat`` (g).
        """
        mark = arena.height
        product = torch.mul(grad_hat, normed.hat, out=arena.empty(*grad_hat.shape))
        mean = product.sum(-1, keepdim=True).div_(-grad_hat.shape[-1])
        grad_hat.addcmul_(normed.hat, mean)
        target.addcmul_(grad_hat, normed.rstd)
        arena.release(mark)


def _as_complex(heads: Tensor) -> Tensor:
    """(..., D) -> a complex view (..., D / 2) of neighbouring pairs."""
    return torch.view_as_complex(heads.view(*heads.shape[:-1], -1, 2))


def _affine_into(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    torch.mm(x, weight.t(), out=out)
    return out if bias is None else out.add_(bias)


def _add_affine(target: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    target.addmm_(x, weight.t())
    if bias is not None:
        target.add_(bias)


def _affine_backward(x: Tensor, grad: Tensor, grad_weight: Tensor,
                     grad_bias: Tensor | None) -> None:
    grad_weight.addmm_(grad.t(), x)
    if grad_bias is not None:
        grad_bias.add_(grad.sum(0))
