"""Causal grouped-query attention over rows of which several may share a prefix.

    prefix tokens:  softmax(Q_p K_p^T + causal) V_p                      per family
    own tokens:     softmax(Q_o [K_p, K_o]^T + causal) [V_p, V_o]        per row

Scores are plain batched products and a softmax whose result is kept for the backward. For rows
of up to some hundred tokens this takes 0.6 of the time of torch's fused CPU kernel, forward and
backward together; memory grows with the square of the length, so long rows take another path.

The query heads of one key-value head stand under each other as rows of one matrix, so that
grouped-query attention needs neither copies of keys nor a sum over their gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from safeladder.engine.local.arena import Arena
from safeladder.engine.local.batching import PackedBatch, Padding
from safeladder.engine.local.elementwise import Normed, normalize


@dataclass(frozen=True)
class HeadCounts:
    """H query heads and K key-value heads of D dimensions."""

    query: int
    key_value: int
    dim: int

    @property
    def width(self) -> int:
        """Of queries, keys and values of one token side by side: (H + 2K) D."""
        return (self.query + 2 * self.key_value) * self.dim


@dataclass(frozen=True)
class HeadSettings:
    """How one layer treats queries and keys."""

    counts: HeadCounts
    gain: Tensor | None
    """(H + K, D) of the heads' norm, or None where the family has none."""
    eps: float
    rotation: Tensor
    """(N, D / 2) complex, of each token."""
    skip_prefix: bool
    """Prefixes' own outputs are not needed (the last layer)."""


@dataclass(frozen=True)
class _Block:
    """One rectangle of attention, kept for its backward. B = rows * K, M = H / K * queries."""

    queries: Tensor
    """(B, M, D)"""
    keys: Tensor
    """(B, L, D)"""
    values: Tensor
    """(B, L, D)"""
    weights: Tensor
    """(B, M, L) after the softmax."""


class Attention:
    """The attention of one layer over one micro-batch; keeps what its backward needs.

    Args:
        batch: the micro-batch.
        settings: of the layer.
        arena: scratch memory.
    """

    def __init__(self, batch: PackedBatch, settings: HeadSettings, arena: Arena) -> None:
        self._batch, self._settings, self._arena = batch, settings, arena
        self._heads = settings.counts
        self._rotation = settings.rotation[:, None]
        self._attend_prefix = batch.num_prefix > 0 and not settings.skip_prefix
        self._normed: Normed | None = None
        self._prefix: _Block | None = None
        self._own: _Block | None = None

    def forward(self, qkv: Tensor) -> Tensor:
        """(N, (H + 2K) D) projections -> (N or own tokens, H D).

        Queries and keys are normalised where the family does that, and rotated. ``qkv`` is
        overwritten.
        """
        batch, heads = self._batch, self._heads
        self._normalize_and_rotate(self._rotated_part(qkv))
        start = batch.num_prefix if not self._attend_prefix else 0
        out = self._arena.empty(len(qkv) - start, heads.query * heads.dim)
        shared = None
        if batch.num_prefix:
            shared = self._split(qkv[: batch.num_prefix], batch.prefixes, 0)
            if self._attend_prefix:
                self._prefix = self._attend(shared, None, batch.prefixes.width)
                self._join(self._prefix, batch.prefixes, out[: batch.num_prefix])
        own = self._split(qkv[batch.num_prefix :], batch.own, batch.prefixes.width)
        if shared is not None:
            self._lay_prefix_under(own, shared)
        self._own = self._attend(own, batch.prefix_bias, batch.own.width)
        self._join(self._own, batch.own, out[batch.num_prefix - start :])
        return out

    def backward(self, grad: Tensor, grad_gain: Tensor | None) -> Tensor:
        """Gradient of the result -> gradient of the projections, over all N tokens; that of the
        heads' gain (H + K, D) is added to ``grad_gain``.
        """
        batch, heads, arena = self._batch, self._heads, self._arena
        assert self._own is not None
        start = batch.num_prefix if not self._attend_prefix else 0
        result = arena.empty(len(batch.token_ids), heads.width)
        mark = arena.height
        own = self._attend_backward(self._own, grad[batch.num_prefix - start :], batch.own)
        self._merge(own, batch.own, batch.prefixes.width, result[batch.num_prefix :])
        if batch.num_prefix:
            keys, values = (self._sum_over_rows(part) for part in own[1:])
            queries = None
            if self._prefix is not None:
                queries, more_keys, more_values = self._attend_backward(
                    self._prefix, grad[: batch.num_prefix], batch.prefixes)
                keys, values = keys.add_(more_keys), values.add_(more_values)
            self._merge((queries, keys, values), batch.prefixes, 0, result[: batch.num_prefix])
        arena.release(mark)
        self._normalize_and_rotate_backward(self._rotated_part(result), grad_gain)
        return result

    # ------------------------------------------------------------------ norm and rotation

    def _rotated_part(self, qkv: Tensor) -> Tensor:
        """A view (N, H + K, D) of queries and keys."""
        heads = self._heads
        width = (heads.query + heads.key_value) * heads.dim
        return qkv[:, :width].view(len(qkv), -1, heads.dim)

    def _normalize_and_rotate(self, heads: Tensor) -> None:
        gain = self._settings.gain
        if gain is not None:
            self._normed = normalize(heads, self._settings.eps, self._arena)
            torch.mul(self._normed.hat, gain, out=heads)
        _as_complex(heads).mul_(self._rotation)

    def _normalize_and_rotate_backward(self, grad: Tensor, grad_gain: Tensor | None) -> None:
        _as_complex(grad).mul_(self._rotation.conj())
        gain, normed = self._settings.gain, self._normed
        if gain is None or normed is None or grad_gain is None:
            return
        product = grad * normed.hat
        grad_gain.add_(product.sum(0))
        mean = product.mul_(gain).sum(-1, keepdim=True).div_(-grad.shape[-1])
        grad.mul_(gain).addcmul_(normed.hat, mean).mul_(normed.rstd)

    # ------------------------------------------------------------------ layout

    def _split(self, qkv: Tensor, padding: Padding, room: int) -> tuple[Tensor, Tensor, Tensor]:
        """Flat tokens -> (R K, G T, D) queries and (R K, room + T, D) keys and values."""
        heads, arena = self._heads, self._arena
        rows, width, kv = padding.num_rows, padding.width, heads.key_value
        if padding.pad is not None:
            padded = arena.empty(len(padding.pad), heads.width)
            qkv = torch.index_select(qkv, 0, padding.pad, out=padded)
        cells = qkv.view(rows, width, heads.query + 2 * kv, heads.dim)
        query, key, value = cells.split([heads.query, kv, kv], dim=2)
        queries = arena.empty(rows, heads.query, width, heads.dim)
        queries.copy_(query.transpose(1, 2))
        keys = arena.empty(rows, kv, room + width, heads.dim)
        keys[:, :, room:].copy_(key.transpose(1, 2))
        values = arena.empty(rows, kv, room + width, heads.dim)
        values[:, :, room:].copy_(value.transpose(1, 2))
        return (queries.view(rows * kv, -1, heads.dim), keys.view(rows * kv, -1, heads.dim),
                values.view(rows * kv, -1, heads.dim))

    def _lay_prefix_under(self, own: tuple[Tensor, ...], shared: tuple[Tensor, ...]) -> None:
        """Copy each family's keys and values to the front of its rows'."""
        batch, kv = self._batch, self._heads.key_value
        width = batch.prefixes.width
        for target, source in zip(own[1:], shared[1:], strict=True):
            family = source.view(batch.prefixes.num_rows, kv, width, -1)
            rows = target.view(batch.own.num_rows, kv, -1, self._heads.dim)
            if batch.rows_per_family is not None:
                rows.unflatten(0, (-1, batch.rows_per_family))[..., :width, :] = family[:, None]
            else:
                rows[:, :, :width] = family[batch.family_of_row]

    def _sum_over_rows(self, grad: Tensor) -> Tensor:
        """(rows K, P + T, D) -> (families K, P, D): a shared prefix collects from its rows."""
        batch, kv = self._batch, self._heads.key_value
        width = batch.prefixes.width
        rows = grad.view(batch.own.num_rows, kv, -1, self._heads.dim)[:, :, :width]
        if batch.rows_per_family is not None:
            total: Tensor = rows.unflatten(0, (-1, batch.rows_per_family)).sum(1)
        else:
            total = rows.new_zeros(batch.prefixes.num_rows, *rows.shape[1:])
            total.index_add_(0, batch.family_of_row, rows)
        return total.view(-1, width, self._heads.dim)

    def _join(self, block: _Block, padding: Padding, out: Tensor) -> None:
        """Weights times values, back in the order of the flat tokens, into ``out`` (n, H D)."""
        heads, arena = self._heads, self._arena
        mark = arena.height
        product = arena.empty(*block.queries.shape)
        torch.bmm(block.weights, block.values, out=product)
        cells = product.view(padding.num_rows, heads.query, padding.width, heads.dim)
        if padding.unpad is None:
            out.view(padding.num_rows, padding.width, heads.query, heads.dim).copy_(
                cells.transpose(1, 2))
        else:
            padded = arena.empty(padding.num_rows, padding.width, heads.query, heads.dim)
            padded.copy_(cells.transpose(1, 2))
            torch.index_select(padded.view(-1, heads.query * heads.dim), 0, padding.unpad, out=out)
        arena.release(mark)

    def _merge(self, parts: tuple[Tensor | None, Tensor, Tensor], padding: Padding, room: int,
               out: Tensor) -> None:
        """Gradients of queries, keys and values -> flat tokens; the inverse of :meth:`_split`."""
        heads, arena = self._heads, self._arena
        rows, width = padding.num_rows, padding.width
        cells = out if padding.unpad is None else arena.empty(rows * width, heads.width)
        view = cells.view(rows, width, heads.query + 2 * heads.key_value, heads.dim)
        places = view.split([heads.query, heads.key_value, heads.key_value], dim=2)
        for place, part, skipped in zip(places, parts, (0, room, room), strict=True):
            if part is None:
                place.zero_()
            else:
                heads_first = part.view(rows, place.shape[2], -1, heads.dim)[:, :, skipped:]
                place.copy_(heads_first.transpose(1, 2))
        if padding.unpad is not None:
            torch.index_select(cells, 0, padding.unpad, out=out)

    # ------------------------------------------------------------------ arithmetic

    def _attend(self, qkv: tuple[Tensor, Tensor, Tensor], prefix_bias: Tensor | None,
                width: int) -> _Block:
        """Scores and softmax; ``width`` own positions stand behind any prefix."""
        queries, keys, values = qkv
        scores = self._arena.empty(*queries.shape[:2], keys.shape[1])
        torch.bmm(queries, keys.transpose(1, 2), out=scores)
        by_head = scores.view(-1, self._heads.query, width, keys.shape[1])
        by_head[..., keys.shape[1] - width :].add_(_causal(width, scores))
        if prefix_bias is not None:
            by_head[..., : prefix_bias.shape[1]].add_(prefix_bias[:, None, None])
        torch.softmax(scores, -1, out=scores)
        return _Block(queries, keys, values, scores)

    def _attend_backward(self, block: _Block, grad: Tensor, padding: Padding,
                         ) -> tuple[Tensor, Tensor, Tensor]:
        """With P the weights and S the scores: dV = P^T dO, dP = dO V^T,
        dS = P * (dP - rowsum(P * dP)), dQ = dS K, dK = dS^T Q.
        """
        heads, arena = self._heads, self._arena
        rows, width = padding.num_rows, padding.width
        grad_heads = arena.empty(rows, heads.query, width, heads.dim)
        if padding.unpad is None:
            cells = grad.view(rows, width, heads.query, heads.dim)
        else:
            padded = arena.zeros(rows * width, heads.query * heads.dim)
            padded.index_copy_(0, padding.unpad, grad)
            cells = padded.view(rows, width, heads.query, heads.dim)
        grad_heads.copy_(cells.transpose(1, 2))
        grad_out = grad_heads.view(block.queries.shape)
        queries, keys, values = (arena.empty(*part.shape) for part in
                                 (block.queries, block.keys, block.values))
        scores = arena.empty(*block.weights.shape)
        torch.bmm(block.weights.transpose(1, 2), grad_out, out=values)
        torch.bmm(grad_out, block.values.transpose(1, 2), out=scores)
        torch.ops.aten._softmax_backward_data.out(
            scores, block.weights, -1, scores.dtype, grad_input=scores)
        torch.bmm(scores, block.keys, out=queries)
        torch.bmm(scores.transpose(1, 2), block.queries, out=keys)
        return queries, keys, values


def _causal(width: int, like: Tensor) -> Tensor:
    """(width, width) 0 on and below the diagonal, -inf above."""
    return torch.full((width, width), -torch.inf, dtype=like.dtype, device=like.device).triu_(1)


def _as_complex(heads: Tensor) -> Tensor:
    """(..., D) -> a complex view (..., D / 2) of neighbouring pairs."""
    return torch.view_as_complex(heads.view(*heads.shape[:-1], -1, 2))
