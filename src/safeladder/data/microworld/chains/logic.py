"""Chains for Knights and Knaves: those of the compact rendering, over the puzzle as it was read.

A teacher who misjudges misreads a word of a statement (a role or an operator; two, where no single
one changes the solution) and works that puzzle out without a further slip.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import cast

from safeladder.data.knights_knaves.compact import (
    OPERATORS,
    Claim,
    CompactStatement,
    Puzzle,
    Strategy,
    answer_text,
    chain_text,
    read_puzzle,
    split_of,
    statement_work,
)
from safeladder.data.knights_knaves.statements import Assignment
from safeladder.data.microworld.chains.base import Chain
from safeladder.types import Prompt

STRATEGIES = ("sight", "list", "work", "check")


def logic_chain(prompt: Prompt, strategy: str, rng: random.Random, misjudges: bool) -> Chain:
    """``sight`` the outcome; ``list`` the tries; ``work`` every statement; ``check`` them twice."""
    statements, names = read_puzzle(prompt.messages[0].text)
    solution = tuple(word == "knight" for word in prompt.reference["roles"])
    puzzle = Puzzle(statements, names, solution)
    if misjudges:
        puzzle = _misread(puzzle, rng)
    return Chain(chain_text(puzzle, cast(Strategy, strategy)),
                 answer_text(puzzle) if misjudges else None)


def _misread(puzzle: Puzzle, rng: random.Random) -> Puzzle:
    """The puzzle with a word read wrongly, and what is then the first try that holds; it stays in
    its split, so that no chain works through a puzzle that is held out.
    """
    split = split_of(puzzle.statements)
    once = list(_neighbours(puzzle.statements))
    rng.shuffle(once)
    twice = (again for statements in once for again in _neighbours(statements))
    for statements in itertools.chain(once, twice):
        found = _first_fit(statements, puzzle.names)
        if (found is not None and found != puzzle.solution
                and split_of(statements) == split):
            return Puzzle(statements, puzzle.names, found)
    raise ValueError("no two words of this puzzle can be misread")


def _neighbours(read: Sequence[CompactStatement]) -> Iterator[tuple[CompactStatement, ...]]:
    """The statements with one word changed."""
    for speaker, (claims, words) in enumerate(read):
        changed = [CompactStatement(
            (*claims[:i], Claim(claim.person, not claim.knight), *claims[i + 1:]), words)
            for i, claim in enumerate(claims)]
        changed += [CompactStatement(claims, (*words[:i], other, *words[i + 1:]))
                    for i, word in enumerate(words) for other in OPERATORS if other != word]
        for statement in changed:
            yield (*read[:speaker], statement, *read[speaker + 1:])


def _first_fit(
    statements: tuple[CompactStatement, ...], names: tuple[str, ...],
) -> Assignment | None:
    for tried in itertools.product((True, False), repeat=len(names)):
        if all(statement_work(statement, speaker, tried, names)[1]
               for speaker, statement in enumerate(statements)):
            return tried
    return None
