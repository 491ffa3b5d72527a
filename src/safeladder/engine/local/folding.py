"""Weights in the form in which the packed products take them, and gradients back from it.

Three exact rewritings, done once per optimizer step:

* ``rmsnorm(x) W^T = (x / rms(x)) (W diag(g))^T``: a norm's gain g is multiplied into the weight
  that follows it; its gradient falls out of the weight's.
* Rotary embedding turns the pairs (x_i, x_{i + D/2}) of a head. With the rows of W_q and W_k
  interleaved, the pairs are neighbours and the rotation is one complex product; q.k stays.
* ``head_dim ** -0.5`` is multiplied into W_q, or into the gain of the queries' norm.

Shapes: E hidden, H query heads, K key-value heads, D head_dim, F intermediate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from safeladder.engine.local.families import Affine, DecoderSpec, LayerSpec

GradientOf = Callable[[Tensor], Tensor | None]
"""Where the gradient of a parameter is summed up; None when it is not trained."""


@dataclass(frozen=True)
class LayerTensors:
    """The weights of one layer as the products take them, or their gradients."""

    qkv: Tensor
    """((H + 2K) D, E)"""
    qkv_bias: Tensor | None
    head_norm: Tensor | None
    """(H + K, D)"""
    o: Tensor
    """(E, H D)"""
    o_bias: Tensor | None
    gate_up: Tensor
    """(2F, E)"""
    gate_up_bias: Tensor | None
    down: Tensor
    """(E, F)"""
    down_bias: Tensor | None

    def zeros_like(self) -> LayerTensors:
        """A gradient of nothing."""
        return LayerTensors(
            torch.zeros_like(self.qkv), _zeros_like(self.qkv_bias), _zeros_like(self.head_norm),
            torch.zeros_like(self.o), _zeros_like(self.o_bias),
            torch.zeros_like(self.gate_up), _zeros_like(self.gate_up_bias),
            torch.zeros_like(self.down), _zeros_like(self.down_bias))


@dataclass(frozen=True)
class DecoderTensors:
    """All weights as the products take them, or their gradients."""

    embedding: Tensor
    """(vocabulary, E)"""
    layers: tuple[LayerTensors, ...]
    head: Tensor
    """(vocabulary, E)"""
    head_bias: Tensor | None

    def zeros_like(self) -> DecoderTensors:
        """A gradient of nothing."""
        return DecoderTensors(
            torch.zeros_like(self.embedding), tuple(layer.zeros_like() for layer in self.layers),
            torch.zeros_like(self.head), _zeros_like(self.head_bias))

    def tensors(self) -> list[Tensor]:
        """All that are there, in a fixed order."""
        every = [self.embedding, self.head, self.head_bias]
        every += [getattr(layer, f.name) for layer in self.layers for f in fields(layer)]
        return [tensor for tensor in every if tensor is not None]


class Folding:
    """Folds the parameters of one decoder and unfolds its gradients."""

    def __init__(self, spec: DecoderSpec) -> None:
        self.spec = spec
        pairs = torch.arange(spec.head_dim, device=spec.device).view(2, -1)
        self._interleave = pairs.t().reshape(-1)
        self._restore = torch.argsort(self._interleave)
        self._qkv_sizes = [heads * spec.head_dim for heads in
                           (spec.num_heads, spec.num_kv_heads, spec.num_kv_heads)]

    @torch.no_grad()
    def fold(self) -> DecoderTensors:
        """Read the model's parameters as they are now."""
        spec = self.spec
        return DecoderTensors(
            embedding=spec.embedding.detach(),
            layers=tuple(self._fold_layer(layer) for layer in spec.layers),
            head=spec.lm_head.weight * spec.final_norm, head_bias=_detached(spec.lm_head.bias))

    @torch.no_grad()
    def unfold(self, gradients: DecoderTensors, gradient_of: GradientOf) -> None:
        """Add gradients of the folded weights to those of the model's parameters."""
        spec = self.spec
        for layer, grads in zip(spec.layers, gradients.layers, strict=True):
            self._unfold_attention(layer, grads, gradient_of)
            self._unfold_mlp(layer, grads, gradient_of)
        _add(gradient_of(spec.final_norm), (gradients.head * spec.lm_head.weight).sum(0))
        _add(gradient_of(spec.lm_head.weight), gradients.head * spec.final_norm)
        _add_bias(spec.lm_head, gradients.head_bias, gradient_of)
        _add(gradient_of(spec.embedding), gradients.embedding)

    def _fold_layer(self, layer: LayerSpec) -> LayerTensors:
        return LayerTensors(
            qkv=self._stacked_qkv(layer) * layer.input_norm,
            qkv_bias=self._stacked_qkv_bias(layer), head_norm=self._stacked_norm(layer),
            o=layer.o.weight.detach(), o_bias=_detached(layer.o.bias),
            gate_up=torch.cat([layer.gate.weight, layer.up.weight]) * layer.post_norm,
            gate_up_bias=None if layer.gate.bias is None or layer.up.bias is None
            else torch.cat([layer.gate.bias, layer.up.bias]),
            down=layer.down.weight.detach(), down_bias=_detached(layer.down.bias))

    def _query_scale(self, layer: LayerSpec) -> float:
        """Factor on W_q; a norm after it would undo one, so there it goes into the norm."""
        return self.spec.scaling if layer.q_norm is None else 1.0

    def _stacked_qkv(self, layer: LayerSpec) -> Tensor:
        return torch.cat([self._paired(layer.q.weight) * self._query_scale(layer),
                          self._paired(layer.k.weight), layer.v.weight])

    def _stacked_qkv_bias(self, layer: LayerSpec) -> Tensor | None:
        if layer.q.bias is None or layer.k.bias is None or layer.v.bias is None:
            return None
        return torch.cat([self._paired(layer.q.bias) * self._query_scale(layer),
                          self._paired(layer.k.bias), layer.v.bias])

    def _stacked_norm(self, layer: LayerSpec) -> Tensor | None:
        if layer.q_norm is None or layer.k_norm is None:
            return None
        return torch.cat([
            (layer.q_norm[self._interleave] * self.spec.scaling).expand(self.spec.num_heads, -1),
            layer.k_norm[self._interleave].expand(self.spec.num_kv_heads, -1)])

    def _paired(self, weight: Tensor) -> Tensor:
        """Interleave the two halves of each head's rows."""
        return self._by_head(weight)[:, self._interleave].flatten(0, 1)

    def _unpaired(self, weight: Tensor) -> Tensor:
        return self._by_head(weight)[:, self._restore].flatten(0, 1)

    def _by_head(self, weight: Tensor) -> Tensor:
        return weight.view(-1, self.spec.head_dim, *weight.shape[1:])

    def _unfold_attention(self, layer: LayerSpec, grads: LayerTensors,
                          gradient_of: GradientOf) -> None:
        spec, scale = self.spec, self._query_scale(layer)
        if layer.q_norm is not None and layer.k_norm is not None and grads.head_norm is not None:
            query, key = grads.head_norm.split([spec.num_heads, spec.num_kv_heads])
            _add(gradient_of(layer.q_norm), query.sum(0)[self._restore] * spec.scaling)
            _add(gradient_of(layer.k_norm), key.sum(0)[self._restore])
        _add(gradient_of(layer.input_norm), (grads.qkv * self._stacked_qkv(layer)).sum(0))
        q, k, v = (grads.qkv * layer.input_norm).split(self._qkv_sizes)
        _add(gradient_of(layer.q.weight), self._unpaired(q) * scale)
        _add(gradient_of(layer.k.weight), self._unpaired(k))
        _add(gradient_of(layer.v.weight), v)
        if grads.qkv_bias is not None:
            q, k, v = grads.qkv_bias.split(self._qkv_sizes)
            _add_bias(layer.q, self._unpaired(q) * scale, gradient_of)
            _add_bias(layer.k, self._unpaired(k), gradient_of)
            _add_bias(layer.v, v, gradient_of)
        _add(gradient_of(layer.o.weight), grads.o)
        _add_bias(layer.o, grads.o_bias, gradient_of)

    def _unfold_mlp(self, layer: LayerSpec, grads: LayerTensors, gradient_of: GradientOf) -> None:
        stacked = torch.cat([layer.gate.weight, layer.up.weight])
        _add(gradient_of(layer.post_norm), (grads.gate_up * stacked).sum(0))
        gate, up = (grads.gate_up * layer.post_norm).chunk(2)
        _add(gradient_of(layer.gate.weight), gate)
        _add(gradient_of(layer.up.weight), up)
        if grads.gate_up_bias is not None:
            gate, up = grads.gate_up_bias.chunk(2)
            _add_bias(layer.gate, gate, gradient_of)
            _add_bias(layer.up, up, gradient_of)
        _add(gradient_of(layer.down.weight), grads.down)
        _add_bias(layer.down, grads.down_bias, gradient_of)


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()


def _zeros_like(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else torch.zeros_like(tensor)


def _add(target: Tensor | None, value: Tensor) -> None:
    if target is not None:
        target.add_(value)


def _add_bias(affine: Affine, value: Tensor | None, gradient_of: GradientOf) -> None:
    if affine.bias is not None and value is not None:
        _add(gradient_of(affine.bias), value)
