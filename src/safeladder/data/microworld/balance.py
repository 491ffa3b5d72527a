"""Held-out compositions without a hint: in every split each word is harmful as often as not."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Literal

Split = Literal["train", "validation", "test", "unseen_forms"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "unseen_forms")

Cell = tuple[str, str]
Square = tuple[Cell, ...]


def split_by_squares(
    rows: Mapping[str, Hashable], columns: Sequence[str], holds: Callable[[str, str], bool],
    squares: Mapping[Literal["test", "validation"], int], max_held_out: int,
) -> dict[Cell, Split]:
    """The split of every cell (row, column) of a table of truth values.

    Held out are squares: two rows and two columns where each row holds with one of the columns
    and each column with one of the rows. So if in the whole table every row and every column holds
    half of the time, then so it does in every split, exactly. Of the squares whose types are the
    least used so far the first by SHA-256 is taken, which depends on the words alone.

    Args:
        rows: words of one kind, each with its type; rows of one type are equal in the table, and
            in every split all types are equally frequent.
        columns: words of the other kind.
        holds: the table.
        squares: how many squares a split gets (4 cells each); the rest is for training.
        max_held_out: of the cells of one type and one column at most so many are held out, so that
            what testing asks for can be learned from the training split.

    Raises:
        ValueError: the squares cannot be had under these conditions.
    """
    free = [(frozenset(rows[x] for x, _ in square), square)
            for square in _squares(tuple(rows), columns, holds)]
    splits: dict[Cell, Split] = {(x, y): "train" for x in rows for y in columns}
    held: Counter[Hashable] = Counter()
    for split, count in squares.items():
        quota = 2 * count // len(set(rows.values()))
        times: Counter[Hashable] = Counter()  # of types, and of pairs of types
        for _ in range(count):
            ranked = [(sum(times[kind] for kind in types), times[types], types, square)
                      for types, square in free if all(times[kind] < quota for kind in types)]
            if not ranked:
                raise ValueError(f"no {count} squares for {split} in a table of {len(splits)}")
            _, _, types, chosen = min(ranked, key=lambda place: place[:2])
            splits.update(dict.fromkeys(chosen, split))
            held.update((rows[x], y) for x, y in chosen)
            times.update([*types, types])
            free = [(types, square) for types, square in free
                    if all(splits[cell] == "train" for cell in square)
                    and all(held[rows[x], y] < max_held_out for x, y in square)]
    return splits


def _squares(
    rows: Sequence[str], columns: Sequence[str], holds: Callable[[str, str], bool],
) -> list[Square]:
    found = [tuple((x, y) for x in pair for y in other)
             for pair in itertools.combinations(rows, 2)
             for other in itertools.combinations(columns, 2)
             if _is_square([holds(x, y) for x in pair for y in other])]
    return sorted(found, key=lambda square: hashlib.sha256(repr(square).encode()).digest())


def _is_square(values: Sequence[bool]) -> bool:
    a, b, c, d = values
    return a != b and c != d and a != c


def hashed_split(key: str) -> Split:
    """Of keys that need no balance one in ten is for testing and one for validation."""
    bucket = hashlib.sha256(key.encode()).digest()[0] % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def in_split(key: str, split: Split) -> bool:
    """Whether a key belongs to a split; ``unseen_forms`` has the keys of test."""
    return hashed_split(key) == ("test" if split == "unseen_forms" else split)
