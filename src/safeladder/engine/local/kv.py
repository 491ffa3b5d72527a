"""Keys and values of the rows being sampled, and of prefixes that may come again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

_BLOCK = 16
_HASH_BASE, _HASH_MODULUS = 1_000_003, (1 << 61) - 1


class Span(NamedTuple):
    """Keys and values of consecutive positions of one sequence, (L, K, length, D) each."""

    keys: Tensor
    values: Tensor

    @property
    def length(self) -> int:
        """Number of positions."""
        return self.values.shape[2]

    def first(self, length: int) -> Span:
        """The first positions, not copied."""
        return Span(self.keys[:, :, :length], self.values[:, :, :length])

    def copy(self) -> Span:
        """A copy that does not keep what surrounds these positions in memory."""
        return Span(self.keys.clone(memory_format=torch.contiguous_format),
                    self.values.clone(memory_format=torch.contiguous_format))


class KVCache:
    """Keys and values of a batch of rows that grow together, one column per step.

    All rows end at the same column ``end``; row r starts at ``starts[r]``, and ``bias`` hides the
    columns before it. So a step writes one column for the whole batch and the mask never changes
    while a row lives. Rows are dropped by moving the last rows into their places; the buffers
    double when they are full, and slide back to column 0 when their left part is no longer used.

    Shapes: L layers, R rows, K key-value heads, C columns, D head size.

    Args:
        num_layers: L.
        num_kv_heads: K.
        head_dim: D.
        like: a tensor with the dtype and device wanted.

    Attributes:
        keys: (L, R, K, C, D), like ``values``. Zeros, not arbitrary memory, where nothing was
            written: a hidden column must be finite (0 * NaN is NaN).
        offsets: (R,) what a row's positions are off the number of tokens before them: behind
            images, some families count fewer positions than tokens (0 or less).
    """

    def __init__(
        self, num_layers: int, num_kv_heads: int, head_dim: int, like: Tensor,
    ) -> None:
        self._dims = (num_layers, num_kv_heads, head_dim)
        self.keys = self._buffer(like, 0, 0)
        self.values = self._buffer(like, 0, 0)
        self.bias = like.new_empty(0, 0)
        self.starts = like.new_empty(0, dtype=torch.int64)
        self.offsets = like.new_empty(0, dtype=torch.int64)
        self.num_rows = 0
        self.begin = 0
        """First column any row uses."""
        self.end = 0
        """One past the last written column."""

    @property
    def columns(self) -> int:
        """Allocated columns."""
        return self.bias.shape[1]

    def admit(self, spans: Sequence[Span], repeats: Sequence[int],
              offsets: Sequence[int] | None = None) -> None:
        """Append ``repeats[i]`` rows that begin with ``spans[i]``.

        Their next token's position is the span's length plus ``offsets[i]`` (0 where not given).
        """
        offsets = offsets or [0] * len(spans)
        end = max(span.length for span in spans)
        # The slack lets prompts that are somewhat longer than these be admitted later.
        end = max(self.end, end) if self.num_rows else _round_up(end, 4 * _BLOCK)
        self._make_room(self.num_rows + sum(repeats), end)
        for span, count, offset in zip(spans, repeats, offsets, strict=True):
            rows = slice(self.num_rows, self.num_rows + count)
            start = end - span.length
            self.keys[:, rows, :, start:end] = span.keys[:, None]
            self.values[:, rows, :, start:end] = span.values[:, None]
            self.bias[rows, :start] = float("-inf")
            self.bias[rows, start:] = 0
            self.starts[rows] = start
            self.offsets[rows] = offset
            self.num_rows = rows.stop
        self.begin = int(self.starts[: self.num_rows].min())

    def extend(self) -> Tensor:
        """Open one more column for every row; return the rows' positions in it, (R,)."""
        used, columns = self.end - self.begin, self.columns
        if self.end == columns:
            # Sliding within a buffer that is more than half full would soon be needed again.
            self._move(len(self.starts), columns if 2 * used <= columns else 2 * columns, used)
        self.end += 1
        live = slice(0, self.num_rows)
        return (self.end - 1) - self.starts[live] + self.offsets[live]

    def write(self, layer: int, key: Tensor, value: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Write the open column, (r, K, D) each; return the keys and values of the window."""
        keys, values = self.keys[layer, rows], self.values[layer, rows]
        keys[:, :, self.end - 1] = key
        values[:, :, self.end - 1] = value
        return keys[:, :, self.begin:self.end], values[:, :, self.begin:self.end]

    def mask(self, rows: slice) -> Tensor:
        """Additive mask over the window, (r, 1, 1, columns)."""
        return self.bias[rows, None, None, self.begin:self.end]

    def row(self, index: int, length: int) -> Span:
        """A copy of the first ``length`` positions of a row."""
        start = int(self.starts[index])
        columns = slice(start, start + length)
        return Span(self.keys[:, index, :, columns], self.values[:, index, :, columns]).copy()

    def drop(self, finished: Sequence[int]) -> list[int]:
        """Remove rows; return the old index of each row that is left, in its new order."""
        gone = set(finished)
        kept = self.num_rows - len(gone)
        order = list(range(kept))
        holes = [r for r in sorted(gone) if r < kept]
        movers = [r for r in range(kept, self.num_rows) if r not in gone]
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
        if holes:
            source = torch.tensor(movers, device=self.starts.device)
            target = torch.tensor(holes, device=self.starts.device)
            for buffer in (self.keys, self.values):
                window = buffer[:, :, :, self.begin:self.end]
                window[:, target] = window[:, source]
            self.bias[target] = self.bias[source]
            self.starts[target] = self.starts[source]
            self.offsets[target] = self.offsets[source]
        self.num_rows = kept
        if kept:
            self.begin = int(self.starts[:kept].min())
        return order

    def _make_room(self, rows: int, end: int) -> None:
        """Let ``rows`` rows fit and the live columns end at ``end``, with a free one after it."""
        capacity, columns = self.bias.shape
        while capacity < rows:
            capacity = max(8, 2 * capacity)
        while columns <= end:
            columns = max(4 * _BLOCK, 2 * columns)
        if not self.num_rows:
            self.begin = self.end = end
        if (capacity, columns) != tuple(self.bias.shape) or end != self.end:
            self._move(capacity, columns, end)

    def _move(self, capacity: int, columns: int, end: int) -> None:
        """Copy the live columns to fresh buffers in which they end at ``end``."""
        keys = self._buffer(self.keys, capacity, columns)
        values = self._buffer(self.values, capacity, columns)
        bias = self.bias.new_zeros(capacity, columns)
        starts, offsets = self.starts.new_zeros(capacity), self.offsets.new_zeros(capacity)
        live, begin = slice(0, self.num_rows), end - (self.end - self.begin)
        for fresh, old in ((keys, self.keys), (values, self.values)):
            fresh[:, live, :, begin:end] = old[:, live, :, self.begin:self.end]
        bias[live, :begin] = float("-inf")
        bias[live, begin:end] = self.bias[live, self.begin:self.end]
        starts[live] = self.starts[live] + (end - self.end)
        offsets[live] = self.offsets[live]
        self.keys, self.values, self.bias = keys, values, bias
        self.starts, self.offsets = starts, offsets
        self.begin, self.end = begin, end

    def _buffer(self, like: Tensor, capacity: int, columns: int) -> Tensor:
        num_layers, num_kv_heads, head_dim = self._dims
        return like.new_zeros(num_layers, capacity, num_kv_heads, columns, head_dim)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


@dataclass
class _Entry:
    tokens: tuple[int, ...]
    span: Span
    keys: list[Hashable] = field(default_factory=list)


class Continuations:
    """Whether completions come back as the beginnings of prompts, so that keeping them pays.

    Single-turn training samples hundreds of rows per step that nobody continues, and a copy of
    each costs several percent of the time. So after ``patience`` completions without a
    continuation no more are kept, until a prompt begins with one that could have been.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._in_vain = 0
        self._finished: OrderedDict[Hashable, None] = OrderedDict()

    def worth_keeping(self, tokens: Sequence[int]) -> bool:
        """Whether a completed row should be kept; it is noted either way."""
        keep = self._in_vain < self._patience
        self._in_vain += 1
        if tokens:
            self._finished[len(tokens), _prefix_hashes(tokens)[-1]] = None
        while len(self._finished) > 4 * self._patience:
            self._finished.popitem(last=False)
        return keep

    def asked(self, digests: Sequence[int]) -> None:
        """Note a prompt, by the hashes of its prefixes."""
        if any(key in self._finished for key in enumerate(digests, start=1)):
            self._in_vain = 0


class PrefixCache:
    """Keys and values of earlier token sequences, looked up by longest common prefix.

    A sequence is found by any of its prefixes whose length is a multiple of 16, and by its full
    length; from there the match is extended token by token. Least recently used sequences are
    dropped once more than ``max_tokens`` tokens are held. Valid for one set of weights.

    Args:
        max_tokens: held at most.
        continuations: decides about completions; it may outlive the weights. None: keep all.
    """

    def __init__(self, max_tokens: int, continuations: Continuations | None = None) -> None:
        self.max_tokens = max_tokens
        self._continuations = continuations
        self.num_tokens = 0
        self._entries: OrderedDict[tuple[int, ...], _Entry] = OrderedDict()
        self._index: dict[Hashable, _Entry] = {}

    def insert(self, tokens: tuple[int, ...], make: Callable[[], Span]) -> None:
        """Remember the span that ``make`` returns, of ``tokens``.

        It is kept, not copied. Sequences of fewer than 16 tokens are cheaper to encode again.
        """
        if tokens in self._entries:
            self._entries.move_to_end(tokens)
            return
        if not _BLOCK <= len(tokens) <= self.max_tokens:
            return
        entry = _Entry(tokens, make())
        for length, digest in enumerate(_prefix_hashes(tokens), start=1):
            if length % _BLOCK == 0 or length == len(tokens):
                entry.keys.append((length, digest))
                self._index[length, digest] = entry
        self._entries[tokens] = entry
        self.num_tokens += len(tokens)
        while self.num_tokens > self.max_tokens:
            self._evict()

    def insert_completion(self, tokens: tuple[int, ...], make: Callable[[], Span]) -> None:
        """Remember a finished row, if that is likely to be of use."""
        if self.max_tokens and (
                self._continuations is None or self._continuations.worth_keeping(tokens)):
            self.insert(tokens, make)

    def lookup(self, tokens: Sequence[int]) -> Span | None:
        """Keys and values of the longest known proper prefix of ``tokens``, if any.

        At least one token is always left to encode: its logits are what sampling starts from.
        """
        key = tuple(tokens)[:-1]
        digests = _prefix_hashes(key)
        if self._continuations is not None:
            self._continuations.asked(digests)
        for length, digest in reversed(list(enumerate(digests, start=1))):
            entry = self._index.get((length, digest))
            # Different tokens may share a hash: only equal tokens count.
            if entry is None or entry.tokens[:length] != key[:length]:
                continue
            while length < min(len(key), len(entry.tokens)) and key[length] == entry.tokens[length]:
                length += 1
            self._entries.move_to_end(entry.tokens)
            return entry.span.first(length)
        return None

    def clear(self) -> None:
        """Forget everything (the weights changed)."""
        self._entries.clear()
        self._index.clear()
        self.num_tokens = 0

    def _evict(self) -> None:
        tokens, entry = self._entries.popitem(last=False)
        self.num_tokens -= len(tokens)
        for key in entry.keys:
            if self._index.get(key) is entry:
                del self._index[key]


def _prefix_hashes(tokens: Sequence[int]) -> list[int]:
    """Rolling hash of every non-empty prefix."""
    digest, digests = 1, []
    for token in tokens:
        digest = (digest * _HASH_BASE + token + 1) % _HASH_MODULUS
        digests.append(digest)
    return digests
