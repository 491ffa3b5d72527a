"""LiMem, the local inconsistency-based memorisation score (arXiv 2410.23123, section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class LiMem(NamedTuple):
    """The score and what it was made of."""

    score: float
    """Acc * (1 - CR), in 0..1; high = solves the puzzles but not their neighbours."""
    accuracy: float
    """Acc: solved puzzles / all puzzles."""
    consistency_ratio: float | None
    """CR: puzzles solved with their twin / solved puzzles; None when none was solved."""
    num_puzzles: int
    num_solved: int


def limem(solved: Sequence[bool], twin_solved: Sequence[bool]) -> LiMem:
    """Score a model on puzzles and their perturbed twins, one pair per position.

    LiMem(f; D) = Acc(f; D) * (1 - CR(f; D)). Leave out puzzles that have no twin, and those where
    either answer could not be judged: D holds the pairs given. With nothing solved there is
    nothing memorised: the score is 0, and CR is undefined.

    Raises:
        ValueError: the two differ in length or are empty.
    """
    if len(solved) != len(twin_solved) or not solved:
        raise ValueError(
            f"limem needs pairs, got {len(solved)} puzzles and {len(twin_solved)} twins")
    num_solved = sum(map(bool, solved))
    both = sum(bool(a) and bool(b) for a, b in zip(solved, twin_solved, strict=True))
    accuracy = num_solved / len(solved)
    if not num_solved:
        return LiMem(0.0, 0.0, None, len(solved), 0)
    consistency = both / num_solved
    return LiMem(accuracy * (1 - consistency), accuracy, consistency, len(solved), num_solved)
