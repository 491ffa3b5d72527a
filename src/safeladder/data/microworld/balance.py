"""Held-out compositions without a hint: in every split each word is harmful as often as not."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Hashable, Sequence
from typing import Literal

Split = Literal["train", "validation", "test", "unseen_forms"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "unseen_forms")

Cell = tuple[str, str]


def split_by_squares(
    rows: Sequence[str], columns: Sequence[str], holds: Callable[[str, str], bool],
    test_squares: int, validation_squares: int, lesson: Callable[[str, str], Hashable],
    max_held_out: int,
) -> dict[Cell, Split]:
    """The split of every cell (row, column) of a table of truth values.

    Held out are squares: two rows and two columns where each row holds with one of the columns
    and each column with one of the rows. So if in the whole table every row and every column holds
    half of the time, then so it does in every split, exactly. Squares are taken in the order of
    their SHA-256, which depends on the words alone.

    Args:
        rows: words of one kind.
        columns: words of the other.
        holds: the table.
        test_squares: how many squares are for testing (4 cells each).
        validation_squares: how many for validation.
        lesson: what a cell teaches; cells that teach the same fact share it.
        max_held_out: of one lesson at most so many cells are held out, so that all of what
            testing asks for can be learned from the training split.
    """
    squares = [tuple((x, y) for x in pair for y in other)
               for pair in itertools.combinations(rows, 2)
               for other in itertools.combinations(columns, 2)
               if _is_square([holds(x, y) for x in pair for y in other])]
    squares.sort(key=lambda square: hashlib.sha256(repr(square).encode()).digest())
    splits: dict[Cell, Split] = {}
    held: dict[Hashable, int] = {}
    taken = 0
    for square in squares:
        if taken == test_squares + validation_squares:
            break
        lessons = [lesson(*cell) for cell in square]
        if any(cell in splits for cell in square) or any(
                held.get(key, 0) + lessons.count(key) > max_held_out for key in lessons):
            continue
        for cell, key in zip(square, lessons, strict=True):
            splits[cell] = "test" if taken < test_squares else "validation"
            held[key] = held.get(key, 0) + 1
        taken += 1
    return {(x, y): splits.get((x, y), "train") for x in rows for y in columns}


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
