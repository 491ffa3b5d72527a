"""Perturbed puzzles for memorisation tests (arXiv 2410.23123, section 2.2).

Two kinds change the problem, and always its solution: ``statement`` (one person says something
else) and ``leaf`` (one claim within a statement is another). Four kinds change the language only:
``uncommon_names``, ``other_roles``, ``flipped_roles`` (knaves tell the truth) and ``reordered``
(people speak in another order). Rewards that look for the words knight and knave cannot read the
answers of ``other_roles``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np

from safeladder.data.knights_knaves.generate import (
    Grammar,
    PerturbationKind,
    Puzzle,
    published_perturbations,
    published_puzzles,
)
from safeladder.data.knights_knaves.published import (
    Row,
    Split,
    Template,
    puzzle_columns,
    split_indices,
    verl_columns,
)
from safeladder.data.knights_knaves.text import Wording

Perturbation = Literal[
    "statement", "leaf", "uncommon_names", "other_roles", "flipped_roles", "reordered"]
PERTURBATIONS: tuple[Perturbation, ...] = get_args(Perturbation)


def perturb_puzzle(
    puzzle: Puzzle, kind: PerturbationKind, seed: int, grammar: Grammar | None = None
) -> Puzzle | None:
    """Change one statement or one leaf; the new solution is unique and another.

    None: no such change was found in 1000 draws; leave the puzzle out of the comparison.
    """
    grammar = grammar or Grammar(len(puzzle.statements))
    return grammar.perturb(np.random.default_rng(seed), puzzle, kind)


def wording_of(kind: Perturbation) -> Wording:
    """The wording of a perturbation; plain for ``statement`` and ``leaf``."""
    if kind in get_args(PerturbationKind):
        return Wording()
    return Wording(**{kind: True})


def published_perturbed_rows(
    people: int, split: Split, kind: Perturbation, template: Template = "instruct"
) -> Iterator[Row]:
    """The perturbed twins of the rows of a published split; ``index`` says whose twin it is.

    All kinds follow the draws of the public generator. Problems without a valid perturbation have
    no twin, so there may be fewer rows.

    Raises:
        ConfigError: as :func:`~safeladder.data.knights_knaves.published.split_indices` says.
    """
    indices = split_indices(people, split)
    twins: tuple[Puzzle | None, ...]
    match kind:
        case "statement":
            twins = published_perturbations(people).statement
        case "leaf":
            twins = published_perturbations(people).leaf
        case _:
            twins = published_puzzles(people)
    for number, index in enumerate(indices):
        twin = twins[index]
        if twin is not None:
            row = puzzle_columns(twin, index, wording_of(kind))
            yield row | verl_columns(row, split, number, template)
