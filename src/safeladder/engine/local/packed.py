"""The packed forward and backward of known decoder families: no padding, no autograd graph.

The model is the pre-norm decoder of :class:`~safeladder.engine.local.families.DecoderSpec`. It is
differentiated by hand because in small models the arithmetic beside the matrix products decides
the speed: the backward uses what the forward had, writes into scratch memory, and adds straight
into the gradients. Prefixes shared by several rows are computed once (:mod:`.batching`), and in
the last layer only up to their keys and values.

Shapes: N tokens, n own tokens, E hidden, H query heads, K key-value heads, D head_dim,
F intermediate. x_hat is x / rms(x) (arXiv 1910.07467 eq. 4); gains are folded into weights
(:mod:`.folding`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from safeladder.engine.local.arena import Arena
from safeladder.engine.local.attention import Attention, HeadCounts, HeadSettings
from safeladder.engine.local.batching import PackedBatch
from safeladder.engine.local.elementwise import (
    Normed,
    normalize,
    normalize_backward,
    swiglu,
    swiglu_backward,
)
from safeladder.engine.local.families import DecoderSpec
from safeladder.engine.local.folding import DecoderTensors, LayerTensors

_MLP_TOKENS = 512
"""Tokens that go through an MLP at a time, so that its wide temporaries stay in the cache."""


@dataclass(frozen=True)
class _SavedLayer:
    """What the backward of one layer needs."""

    attention_in: Normed
    attention: Attention
    attended: Tensor
    mlp_in: Normed
    gate_up: Tensor


@dataclass(frozen=True)
class Activations:
    """The result of :meth:`PackedDecoder.forward`."""

    hidden: Tensor
    """(n, E) x_hat of the final norm, one per own token."""
    final: Normed
    layers: list[_SavedLayer]


class PackedDecoder:
    """Hidden states of one micro-batch and gradients back from theirs.

    Stateless but for a table of rotations: several threads may call it at a time, each with its
    own arena and gradients.
    """

    def __init__(self, spec: DecoderSpec) -> None:
        self._spec = spec
        self._heads = HeadCounts(spec.num_heads, spec.num_kv_heads, spec.head_dim)
        self._rotations = torch.empty(0, spec.head_dim // 2, dtype=torch.complex64)

    @torch.no_grad()
    def forward(self, weights: DecoderTensors, batch: PackedBatch, arena: Arena, keep: bool,
                embeddings: Tensor | None = None) -> Activations:
        """Run the decoder; ``keep`` holds what :meth:`backward` needs on the arena.

        ``embeddings`` (U, E) are those of the micro-batch's images.
        """
        x = arena.empty(len(batch.token_ids), self._spec.hidden_size)
        torch.index_select(weights.embedding, 0, batch.token_ids, out=x)
        if batch.images is not None and embeddings is not None:
            x.index_copy_(0, batch.images.places, embeddings[batch.images.sources])
        rotation = self._rotation(batch.positions)
        saved = []
        mark = arena.height
        for number, layer in enumerate(weights.layers):
            last = number == len(weights.layers) - 1
            settings = HeadSettings(self._heads, layer.head_norm, self._spec.eps, rotation, last)
            kept, x = self._layer_forward(layer, Attention(batch, settings, arena), x, arena)
            if keep:
                saved.append(kept)
            else:
                arena.release(mark)
        final = normalize(x, self._spec.eps, arena)
        return Activations(final.hat, final, saved)

    @torch.no_grad()
    def backward(self, weights: DecoderTensors, batch: PackedBatch, activations: Activations,
                 grad_hidden: Tensor, gradients: DecoderTensors, arena: Arena) -> Tensor | None:
        """Add the gradients of ``sum(hidden * grad_hidden)`` to ``gradients``.

        ``grad_hidden`` (n, E) is overwritten. Returns the gradient of the images' embeddings,
        (U, E), which the embeddings of the image tokens do not get.
        """
        grad = arena.zeros(len(batch.token_ids), self._spec.hidden_size)
        # the last layer has outputs for own tokens only
        part = grad[batch.num_prefix :]
        normalize_backward(grad_hidden, activations.final, part)
        for layer, saved, grads in reversed(list(zip(
                weights.layers, activations.layers, gradients.layers, strict=True))):
            self._mlp_backward(layer, saved, part, grads, arena)
            self._attention_backward(layer, saved, part, grad, grads, arena)
            part = grad
        grad_images = None
        if batch.images is not None:
            grad_images = grad.new_zeros(batch.images.num_embeddings, grad.shape[1])
            grad_images.index_add_(0, batch.images.sources, grad[batch.images.places])
            grad.index_fill_(0, batch.images.places, 0)
        gradients.embedding.add_(torch.ops.aten.embedding_dense_backward(
            grad, batch.token_ids, len(weights.embedding), -1, False))
        return grad_images

    # ------------------------------------------------------------------ forward

    def _layer_forward(self, layer: LayerTensors, attention: Attention, x: Tensor,
                       arena: Arena) -> tuple[_SavedLayer, Tensor]:
        attention_in = normalize(x, self._spec.eps, arena)
        qkv = _affine(arena.empty(len(x), len(layer.qkv)), attention_in.hat, layer.qkv,
                      layer.qkv_bias)
        attended = attention.forward(qkv)
        x = x[len(x) - len(attended) :]
        _add_affine(x, attended, layer.o, layer.o_bias)
        mlp_in = normalize(x, self._spec.eps, arena)
        gate_up = self._mlp_forward(layer, mlp_in.hat, x, arena)
        return _SavedLayer(attention_in, attention, attended, mlp_in, gate_up), x

    def _mlp_forward(self, layer: LayerTensors, hat: Tensor, x: Tensor, arena: Arena) -> Tensor:
        """Add down(silu(gate) * up) to ``x``; return (N, 2F) gate and up."""
        gate_up = arena.empty(len(x), len(layer.gate_up))
        mark = arena.height
        scratch = arena.empty(_MLP_TOKENS, layer.down.shape[1])
        for start in range(0, len(x), _MLP_TOKENS):
            part = slice(start, min(start + _MLP_TOKENS, len(x)))
            activated = scratch[: part.stop - start]
            _affine(gate_up[part], hat[part], layer.gate_up, layer.gate_up_bias)
            swiglu(gate_up[part], activated)
            _add_affine(x[part], activated, layer.down, layer.down_bias)
        arena.release(mark)
        return gate_up

    def _rotation(self, positions: Tensor) -> Tensor:
        """(N, D / 2) cos + i sin of each token."""
        if positions.dim() > 1:
            return self._rotations_at(positions)
        table, needed = self._rotations, int(positions.max()) + 1
        if needed > len(table):
            table = self._rotations_at(torch.arange(max(needed, 2 * len(table), 256),
                                                    device=self._spec.device))
            self._rotations = table
        return table[positions]

    def _rotations_at(self, positions: Tensor) -> Tensor:
        """Both halves of the family's own cosines and sines are equal: one is enough."""
        cos, sin = self._spec.rotary(positions)
        half = self._spec.head_dim // 2
        return torch.complex(cos[:, :half].contiguous(), sin[:, :half].contiguous())

    # ------------------------------------------------------------------ backward

    def _mlp_backward(self, layer: LayerTensors, saved: _SavedLayer, grad: Tensor,
                      grads: LayerTensors, arena: Arena) -> None:
        """Turn ``grad`` (gradient after the MLP's residual sum) into that before it.

        silu(gate) * up is computed again: in the cache that is cheaper than reading it back from
        memory.
        """
        mark = arena.height
        width = layer.down.shape[1]
        grad_hat = arena.empty(*grad.shape)
        scratch = [arena.empty(_MLP_TOKENS, size) for size in (width, width, 2 * width)]
        for start in range(0, len(grad), _MLP_TOKENS):
            part = slice(start, min(start + _MLP_TOKENS, len(grad)))
            activated, inner, both = (tensor[: part.stop - start] for tensor in scratch)
            torch.mm(grad[part], layer.down, out=inner)
            swiglu_backward(saved.gate_up[part], inner, both, activated)
            _affine_backward(activated, grad[part], grads.down, grads.down_bias)
            _affine_backward(saved.mlp_in.hat[part], both, grads.gate_up, grads.gate_up_bias)
            torch.mm(both, layer.gate_up, out=grad_hat[part])
        normalize_backward(grad_hat, saved.mlp_in, grad)
        arena.release(mark)

    def _attention_backward(self, layer: LayerTensors, saved: _SavedLayer, grad_out: Tensor,
                            grad_in: Tensor, grads: LayerTensors, arena: Arena) -> None:
        """``grad_out`` is the gradient after the residual sum, ``grad_in`` that of all N tokens;
        one tensor, or in the last layer the first a part of the second.
        """
        mark = arena.height
        _affine_backward(saved.attended, grad_out, grads.o, grads.o_bias)
        grad_attended = torch.mm(grad_out, layer.o, out=arena.empty(*saved.attended.shape))
        grad_qkv = saved.attention.backward(grad_attended, grads.head_norm)
        _affine_backward(saved.attention_in.hat, grad_qkv, grads.qkv, grads.qkv_bias)
        grad_hat = torch.mm(grad_qkv, layer.qkv, out=arena.empty(*grad_in.shape))
        normalize_backward(grad_hat, saved.attention_in, grad_in)
        arena.release(mark)


def _affine(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
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
