"""The hand-written forward of the decoder families that ``families.py`` knows.

Two shapes of work: :meth:`FastDecoder.encode` takes whole token sequences (prompts, rows to be
scored), :meth:`FastDecoder.step` takes one token for each row of a :class:`KVCache`. Both compute
what the Hugging Face model computes, with fewer and larger operators: one product for q, k and v,
one for gate and up, weights transposed once per policy version (matrix products of few rows run
up to twice as fast on them), grouped-query attention without repeating keys, no autograd.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from safeladder.engine.local.families import Affine, DecoderSpec, LayerSpec
from safeladder.engine.local.kv import KVCache, Span
from safeladder.engine.local.media import ExpandedRow
from safeladder.engine.local.native import MAX_HEAD_DIM, CacheRows, HeadShape, Kernels, kernels
from safeladder.engine.local.vision import ImageEncoder, Seen
from safeladder.engine.local.workers import row_shares, run_parallel

_PACKED_LIMIT = 64_000_000
"""Parameters up to which weights are copied into the layout that is fastest for small models."""


@dataclass(frozen=True)
class Encoded:
    """Hidden states and keys and values of several sequences of different lengths."""

    hidden: Tensor
    """(P, M, hidden) after the final norm, right-padded."""
    spans: list[Span]
    """Keys and values of each sequence, cached part included."""


@dataclass(frozen=True)
class _Product:
    """``x @ weight_t + bias``; ``weight_t`` is (in, out)."""

    weight_t: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        if self.bias is None:
            return torch.mm(x, self.weight_t)
        return torch.addmm(self.bias, x, self.weight_t)

    def add_to(self, residual: Tensor, x: Tensor) -> None:
        """``residual += x @ weight_t + bias``, in place."""
        residual.addmm_(x, self.weight_t)
        if self.bias is not None:
            residual.add_(self.bias)


@dataclass(frozen=True)
class _Layer:
    input_norm: Tensor
    qkv: tuple[_Product, ...]
    o: _Product
    qk_norm: Tensor | None
    """(heads + kv_heads, D)."""
    post_norm: Tensor
    gate_up: tuple[_Product, ...]
    down: _Product


class FastDecoder:
    """One policy version of a known decoder, ready to run.

    Small models are packed: all weights are copied into fused, transposed tensors (about 1 ms
    per million parameters), so this object keeps its version when the model moves on. Larger
    ones are read in place, unless ``keep`` asks for a copy (a frozen sampler, or one allowed to
    be stale). ``workers`` threads share the rows of a step.
    """

    def __init__(self, spec: DecoderSpec, keep: bool = False, workers: int = 1) -> None:
        num_parameters = sum(p.numel() for p in _parameters(spec))
        packed = num_parameters <= _PACKED_LIMIT
        self.spec = spec
        self._workers = workers
        self.owns_weights = packed or keep
        with torch.no_grad():
            self._embedding = _copied(spec.embedding, self.owns_weights)
            self._norm = _copied(spec.final_norm, self.owns_weights)
            self._head = _pack((spec.lm_head,), packed, keep)[0]
            self._layers = [
                _pack_layer(layer, (spec.num_heads, spec.num_kv_heads), packed, keep)
                for layer in spec.layers]
            self._cos, self._sin = self._rotation_table(256)
        self._kernels = kernels() if _native_can(spec) else None
        self.use_native = self._kernels is not None
        """Compute steps with compiled code; may be switched off."""

    def new_cache(self) -> KVCache:
        """An empty cache of this decoder's shape."""
        spec = self.spec
        return KVCache(len(spec.layers), spec.num_kv_heads, spec.head_dim, like=self._norm)

    def logits(self, hidden: Tensor) -> Tensor:
        """fp32 logits (N, vocabulary) of hidden states (N, hidden)."""
        return self._head(hidden).float()

    def sequence_logits(self, token_ids: Tensor) -> Tensor:
        """fp32 logits (T, vocabulary) at every position of one sequence (T,)."""
        return self.logits(self.encode([token_ids.tolist()]).hidden[0])

    def step(self, token_ids: Tensor, cache: KVCache) -> Tensor:
        """Feed one token to every row; return the fp32 logits after it, (R, vocabulary)."""
        positions = cache.extend()
        self._ensure_table(cache.end - cache.begin)
        rows = slice(0, cache.num_rows)
        if self._kernels is None or not self.use_native:
            return self._torch_step(token_ids, positions, cache, rows)
        parts = row_shares(cache.num_rows, self._workers)
        if len(parts) == 1:
            return self._native_step(self._kernels, token_ids, cache, rows)
        return torch.cat(run_parallel([
            partial(self._native_step, self._kernels, token_ids[part], cache, part)
            for part in parts]))

    @torch.inference_mode()
    def _native_step(
        self, kernels: Kernels, token_ids: Tensor, cache: KVCache, rows: slice,
    ) -> Tensor:
        spec = self.spec
        shape = HeadShape(spec.num_heads, spec.num_kv_heads, spec.head_dim, spec.eps,
                          spec.scaling)
        x = functional.embedding(token_ids, self._embedding)
        h, starts, offsets = torch.empty_like(x), cache.starts[rows], cache.offsets[rows]
        attended = x.new_empty(len(x), spec.num_heads * spec.head_dim)
        activated = x.new_empty(len(x), spec.intermediate_size)
        for index, layer in enumerate(self._layers):
            kernels.rms_norm(x, layer.input_norm, spec.eps, out=h)
            qkv = _joined(layer.qkv, h)
            kept = CacheRows(cache.keys[index, rows], cache.values[index, rows], starts, cache.end,
                             offsets)
            kernels.attend(shape, qkv, layer.qk_norm, (self._cos, self._sin), kept, attended)
            layer.o.add_to(x, attended)
            kernels.rms_norm(x, layer.post_norm, spec.eps, out=h)
            kernels.silu_mul(_joined(layer.gate_up, h), out=activated)
            layer.down.add_to(x, activated)
        kernels.rms_norm(x, self._norm, spec.eps, out=h)
        return self.logits(h)

    def _torch_step(
        self, token_ids: Tensor, positions: Tensor, cache: KVCache, rows: slice,
    ) -> Tensor:
        spec = self.spec
        num_rows, groups = len(token_ids), spec.num_heads // spec.num_kv_heads
        cos = self._cos[positions, None]
        sin = self._sin[positions, None]
        mask = cache.mask(rows).expand(num_rows, spec.num_kv_heads, groups, -1)
        x = functional.embedding(token_ids, self._embedding)
        for index, layer in enumerate(self._layers):
            qk, v = self._queries_keys_values(layer, x, cos, sin)
            q, k = qk[:, : spec.num_heads], qk[:, spec.num_heads:]
            keys, values = cache.write(index, k, v, rows)
            # The query heads that share a key head take the place of query positions.
            attended = functional.scaled_dot_product_attention(
                q.view(num_rows, spec.num_kv_heads, groups, spec.head_dim), keys, values,
                attn_mask=mask, scale=spec.scaling)
            layer.o.add_to(x, attended.reshape(num_rows, -1))
            self._mlp(layer, x)
        return self.logits(functional.rms_norm(x, x.shape[-1:], self._norm, spec.eps))

    def encode(
        self, token_ids: Sequence[Sequence[int]], pasts: Sequence[Span | None] | None = None,
        seen: Sequence[Seen | None] = (),
    ) -> Encoded:
        """Encode sequences, each after its cached prefix.

        Args:
            token_ids: of each sequence, without its prefix.
            pasts: the prefixes.
            seen: the images of each sequence, without its prefix; left out: text alone.
        """
        spec, count = self.spec, len(token_ids)
        pasts = pasts or [None] * count
        cached = [0 if past is None else past.length for past in pasts]
        lengths = [len(ids) for ids in token_ids]
        # Every row has room for the padding after its own tokens.
        width, total = max(lengths), max(cached) + max(lengths)
        ids = torch.zeros(count, width, dtype=torch.int64)
        kv = torch.zeros(len(spec.layers), 2, count, spec.num_kv_heads, total, spec.head_dim,
                         dtype=spec.dtype, device=spec.device)
        for p, (row, past) in enumerate(zip(token_ids, pasts, strict=True)):
            ids[p, : len(row)] = torch.as_tensor(row)
            if past is not None:
                kv[:, 0, p, :, : cached[p]] = past.keys
                kv[:, 1, p, :, : cached[p]] = past.values
        ids = ids.to(spec.device)
        first = torch.tensor(cached, device=spec.device)
        self._ensure_table(total)
        positions_PM = first[:, None] + torch.arange(width, device=spec.device)
        x = functional.embedding(ids.reshape(-1), self._embedding)
        images = {p: found for p, found in enumerate(seen) if found is not None}
        for p, found in images.items():
            if len(found.places):
                x[p * width + found.places] = found.embeddings.to(spec.dtype)
        hidden = self._encode(x, self._rotations(positions_PM, images), positions_PM, kv,
                              plain=not any(cached))
        return Encoded(hidden, [
            Span(kv[:, 0, p], kv[:, 1, p]).first(cached[p] + lengths[p]) for p in range(count)])

    def _rotations(
        self, positions_PM: Tensor, images: Mapping[int, Seen],
    ) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines of each token, (P * M, 1, D)."""
        given = {p: found.positions for p, found in images.items() if found.positions is not None}
        if not given:
            positions = positions_PM.reshape(-1)
            return self._cos[positions, None], self._sin[positions, None]
        axes = positions_PM.expand(3, -1, -1).clone()
        for p, positions in given.items():
            axes[:, p, : positions.shape[1]] = positions
        cos, sin = _signed(*self.spec.rotary(axes.flatten(1)))
        return cos[:, None], sin[:, None]

    def _encode(self, x: Tensor, rotation: tuple[Tensor, Tensor], columns_PM: Tensor, kv: Tensor,
                plain: bool) -> Tensor:
        """Run the layers over embeddings (P * M, E), whose keys go to ``columns_PM`` of ``kv``."""
        spec, (cos, sin) = self.spec, rotation
        (count, width), total = columns_PM.shape, kv.shape[4]
        rows = torch.arange(count, device=x.device)[:, None].expand(count, width)
        mask = None
        if not plain:
            mask = (torch.arange(total, device=x.device) <= columns_PM[..., None])[:, None]
        for index, layer in enumerate(self._layers):
            qk, v = self._queries_keys_values(layer, x, cos, sin)
            per_head = qk.view(count, width, -1, spec.head_dim)
            q = per_head[:, :, : spec.num_heads].transpose(1, 2)
            k, v = per_head[:, :, spec.num_heads:], v.view(count, width, -1, spec.head_dim)
            if plain:
                kv[index, 0], kv[index, 1] = k.transpose(1, 2), v.transpose(1, 2)
            else:
                kv[index, 0].transpose(1, 2)[rows, columns_PM] = k
                kv[index, 1].transpose(1, 2)[rows, columns_PM] = v
            attended = functional.scaled_dot_product_attention(
                q, kv[index, 0], kv[index, 1], attn_mask=mask, is_causal=plain,
                scale=spec.scaling, enable_gqa=spec.num_heads != spec.num_kv_heads)
            layer.o.add_to(x, attended.transpose(1, 2).reshape(count * width, -1))
            self._mlp(layer, x)
        x = functional.rms_norm(x, x.shape[-1:], self._norm, spec.eps)
        return x.view(count, width, -1)

    def _queries_keys_values(
        self, layer: _Layer, x: Tensor, cos: Tensor, sin: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Rotated queries and keys (N, heads + kv_heads, D) and values (N, kv_heads, D)."""
        spec = self.spec
        h = functional.rms_norm(x, x.shape[-1:], layer.input_norm, spec.eps)
        qkv = _joined(layer.qkv, h).view(len(x), -1, spec.head_dim)
        num_rotated = spec.num_heads + spec.num_kv_heads
        qk, v = qkv[:, :num_rotated], qkv[:, num_rotated:]
        if layer.qk_norm is not None:
            qk = _head_norm(qk, layer.qk_norm, spec.eps)
        halves = qk.view(len(x), num_rotated, 2, -1)
        return (qk * cos).addcmul_(halves.flip(2).view(qk.shape), sin), v

    def _mlp(self, layer: _Layer, x: Tensor) -> None:
        h = functional.rms_norm(x, x.shape[-1:], layer.post_norm, self.spec.eps)
        gate_up = _joined(layer.gate_up, h)
        half = gate_up.shape[-1] // 2
        layer.down.add_to(x, functional.silu(gate_up[:, :half]).mul_(gate_up[:, half:]))

    def _ensure_table(self, positions: int) -> None:
        if positions > len(self._cos):
            self._cos, self._sin = self._rotation_table(2 * positions)

    def _rotation_table(self, positions: int) -> tuple[Tensor, Tensor]:
        """(positions, D) each."""
        return _signed(*self.spec.rotary(torch.arange(positions, device=self.spec.device)))


def _signed(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Put the sign of rotate_half into the sine: [a, b] -> [b, a] * sin."""
    half = sin.shape[-1] // 2
    return cos.contiguous(), torch.cat((-sin[:, :half], sin[:, half:]), dim=-1)


def image_logits(
    decoder: FastDecoder, images: ImageEncoder, row: ExpandedRow, last: int,
) -> Tensor:
    """fp32 logits (last, vocabulary) at the last positions of one row with images."""
    seen = images.seen([images.located(row)], [0])
    hidden = decoder.encode([row.token_ids.tolist()], seen=seen).hidden[0]
    return decoder.logits(hidden[-last:])


def _native_can(spec: DecoderSpec) -> bool:
    return (spec.dtype == torch.float32 and spec.device.type == "cpu"
            and spec.head_dim % 2 == 0 and spec.head_dim <= MAX_HEAD_DIM)


def _parameters(spec: DecoderSpec) -> list[Tensor]:
    linears = [linear for layer in spec.layers for linear in
               (layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down)]
    return [spec.embedding, *(linear.weight for linear in (*linears, spec.lm_head))]


def _copied(tensor: Tensor, copy: bool) -> Tensor:
    return tensor.detach().clone() if copy else tensor.detach()


def _pack(affines: Sequence[Affine], packed: bool, keep: bool) -> tuple[_Product, ...]:
    """One fused, transposed product when packed; else one per linear, on the live weights."""
    if not packed:
        return tuple(
            _Product(_copied(a.weight, keep).t(),
                     None if a.bias is None else _copied(a.bias, keep)) for a in affines)
    weight_t = torch.cat([a.weight.detach() for a in affines]).t().contiguous()
    if all(a.bias is None for a in affines):
        return (_Product(weight_t, None),)
    biases = [a.weight.new_zeros(len(a.weight)) if a.bias is None else a.bias.detach()
              for a in affines]
    return (_Product(weight_t, torch.cat(biases)),)


def _pack_layer(layer: LayerSpec, heads: tuple[int, int], packed: bool, keep: bool) -> _Layer:
    copy = packed or keep
    return _Layer(
        input_norm=_copied(layer.input_norm, copy),
        qkv=_pack((layer.q, layer.k, layer.v), packed, keep),
        o=_pack((layer.o,), packed, keep)[0],
        qk_norm=None if layer.q_norm is None or layer.k_norm is None else torch.cat((
            layer.q_norm.expand(heads[0], -1), layer.k_norm.expand(heads[1], -1))),
        post_norm=_copied(layer.post_norm, copy),
        gate_up=_pack((layer.gate, layer.up), packed, keep),
        down=_pack((layer.down,), packed, keep)[0],
    )


def _joined(products: Sequence[_Product], x: Tensor) -> Tensor:
    if len(products) == 1:
        return products[0](x)
    return torch.cat([product(x) for product in products], dim=-1)


def _head_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm over the last dimension of (N, heads, D) with a weight per head, (heads, D).

    The scale is computed in fp32 and rounded where the model rounds; through the vector norm,
    whose CPU kernel is much faster than a mean of squares over so few elements.
    """
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    scale = norm.square_().mul_(1 / x.shape[-1]).add_(eps).rsqrt_()
    return (x * scale).to(x.dtype).mul_(weight)
