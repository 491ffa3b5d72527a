"""Scratch memory that is claimed once and used again by every micro-batch.

Activations of a micro-batch are some tens of megabytes. Returning them to the system after each
one would make the kernel clear every page again for the next, which costs more time than the
elementwise arithmetic on them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_ALIGNMENT = 16


class Arena:
    """A stack of uninitialised tensors: :meth:`empty` takes from its top, :meth:`release` goes
    back to an earlier height. Tensors taken above that height must not be used any more.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._chunk = torch.empty(0, dtype=dtype, device=device)
        self._top = 0
        self._outgrown = 0

    def empty(self, *shape: int) -> Tensor:
        """An uninitialised contiguous tensor."""
        size = math.prod(shape)
        start = self._top
        self._top += -(-size // _ALIGNMENT) * _ALIGNMENT
        if self._top > self._chunk.numel():
            # older tensors keep their own storage alive; clear() merges what was needed in all
            self._outgrown = max(self._outgrown, self._top)
            return self._chunk.new_empty(shape)
        return self._chunk[start : start + size].view(shape)

    def zeros(self, *shape: int) -> Tensor:
        """A contiguous tensor of zeros."""
        return self.empty(*shape).zero_()

    @property
    def height(self) -> int:
        """Where the stack ends now."""
        return self._top

    def release(self, height: int) -> None:
        """Give back all that was taken since ``height``."""
        self._top = height

    def clear(self) -> None:
        """Give back everything, and grow to the greatest height that was asked for."""
        if self._outgrown > self._chunk.numel():
            self._chunk = self._chunk.new_empty(self._outgrown + self._outgrown // 8)
        self._top = 0
