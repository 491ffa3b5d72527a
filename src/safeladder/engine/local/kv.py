"""Keys and values of the rows being sampled, and of prefixes that may come again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

_BLOCK = 16
_HASH_BASE, _HASH_MODULUS = 1_000_003, (1 << 61) - 1


class KVCache:
    """Keys and values of a batch of rows that grow together, one column per step.

    All rows end at the same column ``end``; row r starts at ``starts[r]``, and ``bias`` hides the
    columns before it. So a step writes one column for the whole batch and the mask never changes
    while a row lives. Rows are dropped by moving the last rows into their places; the buffer
    doubles when it is full, and slides back to column 0 when its left part is no longer used.

    Shapes: L layers, R rows, K key-value heads, C columns, D head size.
    """

    def __init__(
        self, num_layers: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._dims = (num_layers, num_kv_heads, head_dim)
        self.buffer = torch.empty(num_layers, 2, 0, num_kv_heads, 0, head_dim,
                                  dtype=dtype, device=device)
        self.bias = torch.empty(0, 0, dtype=dtype, device=device)
        self.starts = torch.empty(0, dtype=torch.int64, device=device)
        self.num_rows = 0
        self.begin = 0
        """First column any row uses."""
        self.end = 0
        """One past the last written column."""

    @property
    def device(self) -> torch.device:
        """Where the buffer is."""
        return self.buffer.device

    def admit(self, kvs: Sequence[Tensor], repeats: Sequence[int]) -> None:
        """Append rows: ``repeats[i]`` copies of ``kvs[i]``, each (L, 2, K, length, D)."""
        end = max(kv.shape[3] for kv in kvs)
        # The slack lets prompts that are somewhat longer than these be admitted later.
        end = max(self.end, end) if self.num_rows else _round_up(end, 4 * _BLOCK)
        self._make_room(self.num_rows + sum(repeats), end)
        for kv, count in zip(kvs, repeats, strict=True):
            rows = slice(self.num_rows, self.num_rows + count)
            start = end - kv.shape[3]
            self.buffer[:, :, rows, :, start:end] = kv[:, :, None]
            self.bias[rows, :start] = float("-inf")
            self.bias[rows, start:] = 0
            self.starts[rows] = start
            self.num_rows = rows.stop
        self.begin = int(self.starts[: self.num_rows].min())

    def extend(self) -> Tensor:
        """Open one more column for every row; return the rows' positions in it, (R,)."""
        used, columns = self.end - self.begin, self.bias.shape[1]
        if self.end == columns:
            # Sliding within a buffer that is more than half full would soon be needed again.
            self._move(self.bias.shape[0], columns if 2 * used <= columns else 2 * columns, used)
        self.end += 1
        return (self.end - 1) - self.starts[: self.num_rows]

    def write(self, layer: int, key_value: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Write the open column, ``key_value`` (2, r, K, D); return the keys and values so far."""
        span = self.buffer[layer, :, rows]
        span[:, :, :, self.end - 1] = key_value
        window = span[:, :, :, self.begin:self.end]
        return window[0], window[1]

    def mask(self, rows: slice) -> Tensor:
        """Additive mask over the window, (r, 1, 1, columns)."""
        return self.bias[rows, None, None, self.begin:self.end]

    def row(self, index: int, length: int) -> Tensor:
        """A copy of the first ``length`` positions of a row, (L, 2, K, length, D)."""
        start = int(self.starts[index])
        return self.buffer[:, :, index, :, start:start + length].clone()

    def drop(self, finished: Sequence[int]) -> list[int]:
        """Remove rows; return the old index of each row that is left, in its new order."""
        gone = set(finished)
        kept = self.num_rows - len(gone)
        order = list(range(kept))
        holes = [r for r in sorted(gone) if r < kept]
        movers = [r for r in range(kept, self.num_rows) if r not in gone]
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
        if holes and kept:
            source = torch.tensor(movers, device=self.device)
            target = torch.tensor(holes, device=self.device)
            window = self.buffer[..., self.begin:self.end, :]
            window[:, :, target] = window[:, :, source]
            self.bias[target] = self.bias[source]
            self.starts[target] = self.starts[source]
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
        """Copy the live columns to a fresh buffer in which they end at ``end``.

        Zeros, not arbitrary memory: a hidden column must be finite (0 * NaN is NaN).
        """
        num_layers, num_kv_heads, head_dim = self._dims
        fresh = self.buffer.new_zeros(num_layers, 2, capacity, num_kv_heads, columns, head_dim)
        bias = self.bias.new_zeros(capacity, columns)
        starts = self.starts.new_zeros(capacity)
        live, begin = slice(0, self.num_rows), end - (self.end - self.begin)
        fresh[:, :, live, :, begin:end] = self.buffer[:, :, live, :, self.begin:self.end]
        bias[live, :begin] = float("-inf")
        bias[live, begin:end] = self.bias[live, self.begin:self.end]
        starts[live] = self.starts[live] + (end - self.end)
        self.buffer, self.bias, self.starts = fresh, bias, starts
        self.begin, self.end = begin, end


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


@dataclass
class _Entry:
    tokens: tuple[int, ...]
    kv: Tensor
    keys: list[Hashable] = field(default_factory=list)


class PrefixCache:
    """Keys and values of earlier token sequences, looked up by longest common prefix.

    A sequence is found by any of its prefixes whose length is a multiple of 16, and by its full
    length; from there the match is extended token by token. Least recently used sequences are
    dropped once more than ``max_tokens`` tokens are held. Valid for one set of weights.
    """

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.num_tokens = 0
        self._entries: OrderedDict[tuple[int, ...], _Entry] = OrderedDict()
        self._index: dict[Hashable, _Entry] = {}

    def insert(self, tokens: tuple[int, ...], make: Callable[[], Tensor]) -> None:
        """Remember the tensor that ``make`` returns, (L, 2, K, T, D), of ``tokens`` (T,).

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

    def lookup(self, tokens: Sequence[int]) -> Tensor | None:
        """Keys and values of the longest known proper prefix of ``tokens``, if any.

        At least one token is always left to encode: its logits are what sampling starts from.
        """
        key = tuple(tokens)[:-1]
        for length, digest in reversed(list(enumerate(_prefix_hashes(key), start=1))):
            entry = self._index.get((length, digest))
            # Different tokens may share a hash: only equal tokens count.
            if entry is None or entry.tokens[:length] != key[:length]:
                continue
            while length < min(len(key), len(entry.tokens)) and key[length] == entry.tokens[length]:
                length += 1
            self._entries.move_to_end(entry.tokens)
            return entry.kv[:, :, :, :length]
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
