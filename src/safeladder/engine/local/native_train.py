"""What a training step does between its matrix products, in C (``native_train.c``).

All tensors are fp32, contiguous and on the CPU; the calls release Python's lock. Compiled as
:mod:`.native` says; without a compiler torch's operators do the same (:mod:`.attention`,
:mod:`.elementwise`).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from safeladder.engine.local.native import compiled
from safeladder.types import IntArray

_SOURCE = Path(__file__).with_suffix(".c")
MAX_HEAD_DIM = 512


class _Block(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in (
            "rows", "heads", "kv_heads", "dim", "width", "room", "columns")),
        *((name, ctypes.c_void_p) for name in (
            "starts", "lengths", "firsts", "prefixes", "families")),
        ("eps", ctypes.c_float))


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


class Block:
    """A rectangle of attention: some rows of like length, padded to the longest.

    Args:
        heads: of the model.
        eps: of the heads' norm.
        rows: (5, rows) for each row the flat index of its first token, its length, that token's
            position, the length of its prefix, and the prefix's family.
        room: columns for prefixes.
    """

    def __init__(self, heads: HeadCounts, eps: float, rows: IntArray, room: int) -> None:
        self._rows = np.ascontiguousarray(rows)
        self.num_rows = rows.shape[1]
        self.width = int(rows[1].max())
        self.room = room
        # multiples of a vector's length: rows of scores then start at its border
        self.columns = -(-(room + self.width) // 16) * 16
        self.heads = heads
        line = self._rows.strides[0]
        pointers = [self._rows.ctypes.data + i * line for i in range(5)]
        self._struct = _Block(self.num_rows, heads.query, heads.key_value, heads.dim, self.width,
                              room, self.columns, *pointers, eps)
        self.address = ctypes.addressof(self._struct)


class TrainKernels:
    """The functions of the compiled library; shapes are those told in ``native_train.c``."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))

        def function(name: str, pointers: int, sizes: int = 0, eps: bool = False,
                     ) -> ctypes._NamedFuncPointer:
            found = library[name]
            found.restype = None
            found.argtypes = ([ctypes.c_void_p] * pointers + [ctypes.c_int64] * sizes
                              + [ctypes.c_float] * eps)
            return found
        self._normalize = function("train_normalize", 3, 2, True)
        self._normalize_backward = function("train_normalize_backward", 4, 2)
        self._swiglu = function("train_swiglu", 2, 2)
        self._swiglu_backward = function("train_swiglu_backward", 4, 2)
        self._heads = function("train_heads", 10)
        self._softmax = function("train_softmax", 2)
        self._softmax_backward = function("train_softmax_backward", 3)
        self._merge_heads = function("train_merge_heads", 3)
        self._split_heads = function("train_split_heads", 3)
        self._sum_prefixes = function("train_sum_prefixes", 5)
        self._heads_backward = function("train_heads_backward", 10)

    def normalize(self, x: Tensor, hat: Tensor, rstd: Tensor, eps: float) -> None:
        """``rstd = 1 / sqrt(mean(x^2) + eps)``, ``hat = x * rstd``, rows of x (N, E)."""
        self._normalize(x.data_ptr(), hat.data_ptr(), rstd.data_ptr(), *x.shape, eps)

    def normalize_backward(self, grad: Tensor, hat: Tensor, rstd: Tensor, target: Tensor) -> None:
        """``target += rstd * (grad - hat * mean(grad * hat))``."""
        self._normalize_backward(*_pointers(grad, hat, rstd, target), *grad.shape)

    def swiglu(self, gate_up: Tensor, activated: Tensor) -> None:
        """``activated = silu(gate) * up``, (N, 2F) -> (N, F)."""
        self._swiglu(gate_up.data_ptr(), activated.data_ptr(), *activated.shape)

    def swiglu_backward(self, gate_up: Tensor, grad: Tensor, grad_gate_up: Tensor,
                        activated: Tensor) -> None:
        """Gradient of :meth:`swiglu`; ``activated`` is computed again on the way."""
        self._swiglu_backward(*_pointers(gate_up, grad, grad_gate_up, activated), *grad.shape)

    def heads(self, block: Block, qkv: Tensor, gain: Tensor | None, rotation: Tensor,
              prefix: Sequence[Tensor], out: Sequence[Tensor], rstd: Tensor | None) -> None:
        """Flat projections -> normalised, rotated ``out`` = (queries, keys, values)."""
        first, second = prefix or (None, None)
        self._heads(block.address, *_pointers(qkv, gain, rotation, first, second, *out, rstd))

    def softmax(self, block: Block, scores: Tensor) -> None:
        """Scores -> attention weights, causal, in place."""
        self._softmax(block.address, scores.data_ptr())

    def softmax_backward(self, block: Block, weights: Tensor, grad: Tensor) -> None:
        """Gradient of weights -> gradient of scores, in place."""
        self._softmax_backward(block.address, weights.data_ptr(), grad.data_ptr())

    def merge_heads(self, block: Block, mixed: Tensor, attended: Tensor) -> None:
        """(rows, H, width, D) -> flat tokens (n, H D)."""
        self._merge_heads(block.address, mixed.data_ptr(), attended.data_ptr())

    def split_heads(self, block: Block, attended: Tensor, mixed: Tensor) -> None:
        """Flat tokens -> (rows, H, width, D), 0 where a row has ended."""
        self._split_heads(block.address, attended.data_ptr(), mixed.data_ptr())

    def sum_prefixes(self, block: Block, grads: Sequence[Tensor], totals: Sequence[Tensor],
                     ) -> None:
        """Add each row's gradients of its prefix's keys and values to its family's."""
        self._sum_prefixes(block.address, *_pointers(*grads, *totals))

    def heads_backward(self, block: Block, qkv: Tensor, gain: Tensor | None, rotation: Tensor,
                       rstd: Tensor | None, grads: Sequence[Tensor | None], grad_qkv: Tensor,
                       grad_gain: Tensor | None) -> None:
        """``grads`` of (queries or None, keys, values) -> gradient of the block's projections."""
        self._heads_backward(block.address, *_pointers(
            qkv, gain, rotation, rstd, *grads, grad_qkv, grad_gain))


def _pointers(*tensors: Tensor | None) -> list[int | None]:
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]


@functools.cache
def train_kernels() -> TrainKernels | None:
    """The compiled functions; None where they are switched off or cannot be compiled."""
    path = compiled(_SOURCE)
    return None if path is None else TrainKernels(path)
