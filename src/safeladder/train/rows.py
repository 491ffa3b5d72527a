"""A seeded, resumable, endless stream of supervised rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from safeladder.errors import DataError
from safeladder.types import Datum


class ShuffledRows:
    """Rows in a new seeded order each epoch; the position is three numbers.

    Raises:
        DataError: there are no rows, or a position is loaded that belongs to other rows.
    """

    def __init__(self, rows: Sequence[Datum], seed: int) -> None:
        if not rows:
            raise DataError("no training rows: the data of this rung is empty")
        self._rows = rows
        self._seed = seed
        self._epoch = 0
        self._index = 0
        self._order = self._permutation()

    def take_tokens(self, budget: int) -> list[Datum]:
        """Return the next rows, at least one and as many as fit into ``budget`` tokens."""
        taken = [self._next()]
        used = len(taken[0].token_ids)
        while used + len(self._peek().token_ids) <= budget:
            taken.append(self._next())
            used += len(taken[-1].token_ids)
        return taken

    def state_dict(self) -> dict[str, object]:
        """The position, and a fingerprint of the rows it belongs to."""
        return {"epoch": self._epoch, "index": self._index, "rows": self._fingerprint}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go back to a position."""
        if state["rows"] != self._fingerprint:
            raise DataError("the training rows changed since this state was saved; "
                            "restore the data, or start the rung anew without --resume")
        self._epoch, self._index = int(str(state["epoch"])), int(str(state["index"]))
        self._order = self._permutation()

    def _peek(self) -> Datum:
        return self._rows[self._order[self._index]]

    def _next(self) -> Datum:
        row = self._peek()
        self._index += 1
        if self._index == len(self._rows):
            self._epoch, self._index = self._epoch + 1, 0
            self._order = self._permutation()
        return row

    def _permutation(self) -> list[int]:
        generator = np.random.default_rng([self._seed, self._epoch])
        return [int(i) for i in generator.permutation(len(self._rows))]

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for row in self._rows:
            digest.update(row.token_ids.tobytes())
            digest.update(row.mask.tobytes())
        return digest.hexdigest()[:16]
