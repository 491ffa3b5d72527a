"""Attention of the packed path with compiled code between its products.

The same as :mod:`.attention`, but the rows go through in blocks that fit into the processor's
cache, scores above the diagonal cost nothing in the softmax, and queries, keys and values are
laid out anew in the backward instead of being kept: all that is kept of a layer are the attention
weights and the heads' norms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from safeladder.engine.local.arena import Arena
from safeladder.engine.local.attention import HeadSettings
from safeladder.engine.local.batching import PackedBatch
from safeladder.engine.local.native_train import Block, HeadCounts, TrainKernels

_MAX_SCORES = 1 << 18
"""Attention weights of one block, 1 MB: they should stay in the cache, and every block costs some
ten calls from Python."""


@dataclass(frozen=True)
class Layout:
    """The blocks of one micro-batch; the same for all layers."""

    batch: PackedBatch
    prefixes: Block | None
    own: tuple[Block, ...]

    @classmethod
    def of(cls, batch: PackedBatch, heads: HeadCounts, eps: float) -> Layout:
        """Cut the rows, which stand in order of length, into blocks."""
        prefixes = None
        lengths = np.array([family.prefix_length for family in batch.families])
        if batch.num_prefix:
            none = np.zeros_like(lengths)
            starts = np.cumsum(lengths) - lengths
            prefixes = Block(heads, eps, np.stack([starts, lengths, none, none, none]), room=0)
        room = 0 if prefixes is None else prefixes.columns
        own = np.array([row.own_length for row in batch.rows])
        family = np.repeat(np.arange(len(batch.families)),
                           [len(f.rows) for f in batch.families])
        table = np.stack([np.cumsum(own) - own, own, [row.start for row in batch.rows],
                          lengths[family], family])
        blocks = []
        first = 0
        for last in range(1, len(own) + 1):
            width = own[first : last + 1].max()
            size = (last + 1 - first) * heads.query * width * (room + width)
            if last == len(own) or size > _MAX_SCORES:
                blocks.append(Block(heads, eps, table[:, first:last], room))
                first = last
        return cls(batch, prefixes, tuple(blocks))


@dataclass(frozen=True)
class _Heads:
    """Queries (rows, H, width, D), keys and values (rows, K, columns, D) of one block."""

    queries: Tensor
    keys: Tensor
    values: Tensor

    @classmethod
    def empty(cls, block: Block, arena: Arena) -> _Heads:
        heads, rows = block.heads, block.num_rows
        columns = (rows, heads.key_value, block.columns, heads.dim)
        return cls(arena.empty(rows, heads.query, block.width, heads.dim),
                   arena.empty(*columns), arena.empty(*columns))

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.queries, self.keys, self.values))


class NativeAttention:
    """Implements :class:`~safeladder.engine.local.attention.LayerAttention` in fp32 on the CPU.

    Args:
        kernels: the compiled functions.
        layout: of the micro-batch.
        settings: of the layer.
        arena: scratch memory; what the backward needs stays on it.
    """

    def __init__(self, kernels: TrainKernels, layout: Layout, settings: HeadSettings,
                 arena: Arena) -> None:
        self._kernels, self._layout, self._settings = kernels, layout, settings
        self._arena = arena
        self._num_prefix = layout.batch.num_prefix
        self._skipped = self._num_prefix if settings.skip_prefix else 0
        self._qkv = arena.empty(0)
        self._rstd: Tensor | None = None
        self._weights: list[Tensor] = []

    def forward(self, qkv: Tensor) -> Tensor:
        """See :class:`LayerAttention`; ``qkv`` is kept."""
        heads, arena = self._settings.counts, self._arena
        out = arena.empty(len(qkv) - self._skipped, heads.query * heads.dim)
        self._qkv = qkv
        if self._settings.gain is not None:
            self._rstd = arena.empty(len(qkv), heads.query + heads.key_value)
        self._weights = [arena.empty(block.num_rows, heads.query, block.width, block.columns)
                         for block in self._attended]
        mark = arena.height
        shared = self._lay_out_prefixes()
        for block, weights in zip(self._attended, self._weights, strict=True):
            before = arena.height
            laid = shared if block is self._layout.prefixes else self._lay_out(block, shared)
            assert laid is not None
            scores = _rows(weights, heads)
            torch.bmm(_rows(laid.queries, heads), _rows(laid.keys, heads).transpose(1, 2),
                      out=scores)
            self._kernels.softmax(block, weights)
            mixed = arena.empty(*laid.queries.shape)
            torch.bmm(scores, _rows(laid.values, heads), out=_rows(mixed, heads))
            self._kernels.merge_heads(block, mixed, out[self._offset(block) - self._skipped :])
            arena.release(before)
        arena.release(mark)
        return out

    def backward(self, grad: Tensor, grad_gain: Tensor | None) -> Tensor:
        """See :class:`LayerAttention`."""
        arena = self._arena
        result = arena.empty(len(self._qkv), self._qkv.shape[1])
        mark = arena.height
        shared = self._lay_out_prefixes()
        totals = [torch.zeros_like(part) for part in (shared.keys, shared.values)] if shared else []
        own = zip(self._layout.own, self._weights[-len(self._layout.own) :], strict=True)
        for block, weights in own:
            before = arena.height
            grads = self._attend_backward(block, weights, self._lay_out(block, shared), grad)
            self._heads_backward(block, list(grads), result, grad_gain)
            if totals:
                self._kernels.sum_prefixes(block, (grads.keys, grads.values), totals)
            arena.release(before)
        prefixes = self._layout.prefixes
        if prefixes is not None and shared is not None:
            queries = None
            if not self._skipped:
                grads = self._attend_backward(prefixes, self._weights[0], shared, grad)
                queries = grads.queries
                totals = [totals[0].add_(grads.keys), totals[1].add_(grads.values)]
            self._heads_backward(prefixes, [queries, *totals], result, grad_gain)
        arena.release(mark)
        return result

    @property
    def _attended(self) -> list[Block]:
        """The blocks whose outputs are needed, prefixes first."""
        prefixes = self._layout.prefixes
        return [*([prefixes] if prefixes is not None and not self._skipped else []),
                *self._layout.own]

    def _offset(self, block: Block) -> int:
        """Where the tokens that a block counts from stand in the flat arrays."""
        return 0 if block is self._layout.prefixes else self._num_prefix

    def _lay_out_prefixes(self) -> _Heads | None:
        prefixes = self._layout.prefixes
        return None if prefixes is None else self._lay_out(prefixes, None)

    def _lay_out(self, block: Block, shared: _Heads | None) -> _Heads:
        """Queries, keys and values of one block, its rows' prefixes in front."""
        out = _Heads.empty(block, self._arena)
        offset = self._offset(block)
        self._kernels.heads(
            block, self._qkv[offset:], self._settings.gain, self._settings.rotations,
            (shared.keys, shared.values) if shared else (), (*out,),
            None if self._rstd is None else self._rstd[offset:])
        return out

    def _attend_backward(self, block: Block, weights: Tensor, laid: _Heads, grad: Tensor,
                         ) -> _Heads:
        """With P the weights and S the scores: dV = P^T dO, dP = dO V^T,
        dS = P * (dP - rowsum(P * dP)), dQ = dS K, dK = dS^T Q.
        """
        heads, arena = self._settings.counts, self._arena
        grads = _Heads.empty(block, arena)
        mixed, scores = arena.empty(*laid.queries.shape), arena.empty(*weights.shape)
        self._kernels.split_heads(block, grad[self._offset(block) - self._skipped :], mixed)
        flat = _rows(scores, heads)
        torch.bmm(_rows(mixed, heads), _rows(laid.values, heads).transpose(1, 2), out=flat)
        torch.bmm(_rows(weights, heads).transpose(1, 2), _rows(mixed, heads),
                  out=_rows(grads.values, heads))
        self._kernels.softmax_backward(block, weights, scores)
        torch.bmm(flat, _rows(laid.keys, heads), out=_rows(grads.queries, heads))
        torch.bmm(flat.transpose(1, 2), _rows(laid.queries, heads), out=_rows(grads.keys, heads))
        return grads

    def _heads_backward(self, block: Block, grads: Sequence[Tensor | None], result: Tensor,
                        grad_gain: Tensor | None) -> None:
        offset = self._offset(block)
        self._kernels.heads_backward(
            block, self._qkv[offset:], self._settings.gain, self._settings.rotations,
            None if self._rstd is None else self._rstd[offset:], grads, result[offset:], grad_gain)


def _rows(tensor: Tensor, heads: HeadCounts) -> Tensor:
    """(rows, H or K, n, m) -> (rows K, all rows of the key-value head's matrix, m)."""
    return tensor.view(len(tensor) * heads.key_value, -1, tensor.shape[-1])
