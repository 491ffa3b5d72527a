"""Draw puzzles; with the published seed, the published puzzles.

The random draws follow the generator of the public data (github AlphaPav/mem-kk-logic 35385cf,
``data_prep/lib_kk.py``): one numpy ``Generator`` per number of people, and the same calls on it in
the same order. What is drawn first stays the same however many are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np

from safeladder.data.knights_knaves.solver import unique_solution
from safeladder.data.knights_knaves.statements import (
    LEAVES,
    Assignment,
    Statement,
    Statements,
)
from safeladder.errors import DataError

PUBLISHED_SEED = 1234
_MAX_TRIES = 1000

PerturbationKind = Literal["statement", "leaf"]


class Puzzle(NamedTuple):
    """Statements with exactly one solution."""

    statements: Statements
    solution: Assignment


@dataclass(frozen=True)
class Grammar:
    """Which statements are drawn. The published data has depth 2 and width 2."""

    people: int
    depth: int = 2
    """Levels of a statement; 1 draws single claims only. The published text renders up to 2."""
    width: int = 2
    """Most operands of ``and`` and ``or``."""

    def __post_init__(self) -> None:
        if self.people < 2 or self.depth < 1 or self.width < 2:
            raise DataError(f"a puzzle needs people >= 2, depth >= 1, width >= 2, got {self}")

    def statement(self, rng: np.random.Generator, speaker: int, depth: int) -> Statement:
        """Draw one statement of at most ``depth`` levels; nobody says "I am a knave"."""
        die = rng.integers(0, 6)
        if depth == 1 or die == 0:
            while True:
                leaf = LEAVES[rng.integers(0, 2)]
                person = int(rng.integers(0, self.people))
                if leaf != "lying" or person != speaker:
                    return (leaf, person)
        if die == 1:
            return ("not", self.statement(rng, speaker, depth - 1))
        operator = ("and", "or", "->", "<=>")[die - 2]
        count = int(rng.integers(2, self.width + 1)) if die in (2, 3) else 2
        operands: list[Statement] = []
        while len(operands) < count:
            operand = self.statement(rng, speaker, depth - 1)
            if operand not in operands:
                operands.append(operand)
        return (operator, *operands)

    def puzzles(self, rng: np.random.Generator) -> Iterator[Puzzle]:
        """Draw puzzles without end, no statements twice.

        Raises:
            DataError: 1000 draws in a row gave nothing new (few people have few puzzles).
        """
        seen: set[Statements] = set()
        while True:
            for _ in range(_MAX_TRIES):
                statements = tuple(
                    self.statement(rng, person, self.depth) for person in range(self.people))
                if statements in seen:
                    continue
                solution = unique_solution(statements)
                if solution is not None:
                    break
            else:
                raise DataError(
                    f"no new puzzle of {self.people} people in {_MAX_TRIES} draws after "
                    f"{len(seen)}: ask for fewer, or for more people, depth or width")
            seen.add(statements)
            yield Puzzle(statements, solution)

    def perturb(
        self, rng: np.random.Generator, puzzle: Puzzle, kind: PerturbationKind
    ) -> Puzzle | None:
        """Change one statement, or one leaf, so that the solution changes and stays unique.

        None: 1000 draws found none (a leaf of a small puzzle often has no such change).
        """
        for _ in range(_MAX_TRIES):
            person = int(rng.integers(0, self.people))
            old = puzzle.statements[person]
            new = (self.statement(rng, person, self.depth) if kind == "statement"
                   else self._with_new_leaf(rng, old, person))
            statements = (*puzzle.statements[:person], new, *puzzle.statements[person + 1:])
            if new == old:
                continue
            solution = unique_solution(statements)
            if solution is not None and solution != puzzle.solution:
                return Puzzle(statements, solution)
        return None

    def _with_new_leaf(
        self, rng: np.random.Generator, statement: Statement, speaker: int
    ) -> Statement:
        if statement[0] in LEAVES:
            return self.statement(rng, speaker, 1)
        at = int(rng.integers(1, len(statement)))
        inner = self._with_new_leaf(rng, statement[at], speaker)
        return (*statement[:at], inner, *statement[at + 1:])


class PublishedPuzzles(NamedTuple):
    """The puzzles behind the public data of one number of people, by problem index."""

    clean: tuple[Puzzle, ...]
    statement: tuple[Puzzle | None, ...]
    leaf: tuple[Puzzle | None, ...]


def num_published(people: int) -> int:
    """How many problems the public data has: 300 of two people, 1100 of three to eight."""
    return 300 if people == 2 else 1100


@lru_cache(maxsize=8)
def published_puzzles(people: int) -> tuple[Puzzle, ...]:
    """The published puzzles of ``people`` (2 to 8) inhabitants, by problem index.

    Raises:
        DataError: another number of people.
    """
    if not 2 <= people <= 8:
        raise DataError(f"the published puzzles have 2 to 8 people, not {people}")
    rng = np.random.default_rng(PUBLISHED_SEED)
    return tuple(islice(Grammar(people).puzzles(rng), num_published(people)))


@lru_cache(maxsize=8)
def published_perturbations(people: int) -> PublishedPuzzles:
    """The published puzzles with one statement, or one leaf, perturbed, by problem index.

    The public generator goes on with the same random stream: all puzzles, then all statement
    perturbations, then all leaf perturbations.
    """
    if not 2 <= people <= 8:
        raise DataError(f"the published puzzles have 2 to 8 people, not {people}")
    rng = np.random.default_rng(PUBLISHED_SEED)
    grammar = Grammar(people)
    clean = tuple(islice(grammar.puzzles(rng), num_published(people)))
    statement = tuple([grammar.perturb(rng, puzzle, "statement") for puzzle in clean])
    leaf = tuple([grammar.perturb(rng, puzzle, "leaf") for puzzle in clean])
    return PublishedPuzzles(clean, statement, leaf)
