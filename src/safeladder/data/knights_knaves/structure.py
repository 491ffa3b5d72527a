"""The structure of a puzzle: its statements, whatever the people are called.

Two puzzles have one structure if one becomes the other by renaming the people, by introducing them
in another order, or by swapping operands of ``and``, ``or``, ``<=>``, ``xor`` (these are
associative, so nested uses of one of them count as one). Splits by structure do not leak: what is
held out is never seen in other words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from safeladder.data.knights_knaves.statements import (
    COMMUTATIVE,
    LEAVES,
    Statement,
    Statements,
)


def structure_key(statements: Statements) -> str:
    """A stable name of the structure: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(str(canonical_structure(statements)).encode()).hexdigest()[:16]


def canonical_structure(statements: Statements) -> Statements:
    """The representative of the structure: equal for equal structures, different otherwise.

    Statements of nested ``<=>`` or ``xor`` come out flat, with more operands than the grammar has.
    People are told apart by colour refinement; where that leaves ties, each tied person is tried
    in turn, and the smallest result wins.
    """
    return _smallest(statements, _refine(statements, [0] * len(statements)))


def statement_form(statement: Statement, speaker: int) -> Statement:
    """The structure of one statement as seen by its speaker: the speaker is 0, others 1, 2, ...

    Used to hold out statement forms, not only whole puzzles.
    """
    others = sorted({p for p in _people(statement) if p != speaker})
    colours = {speaker: 0} | dict.fromkeys(others, 1)
    return _smallest_form(statement, colours, others)


def _smallest_form(statement: Statement, numbers: dict[int, int], rest: list[int]) -> Statement:
    if not rest:
        return _recolour(statement, numbers)
    number = len(numbers) - len(rest)
    return min(
        _smallest_form(statement, {**numbers, person: number}, [p for p in rest if p != person])
        for person in rest)


def _people(statement: Statement) -> set[int]:
    if statement[0] in LEAVES:
        return {statement[1]}
    return set().union(*(_people(operand) for operand in statement[1:]))


def _recolour(statement: Statement, colours: Sequence[int] | dict[int, int]) -> Statement:
    """Replace people by their colours and bring commutative operands into one order."""
    operator = statement[0]
    if operator in LEAVES:
        return (operator, colours[statement[1]])
    operands = [_recolour(operand, colours) for operand in statement[1:]]
    if operator in COMMUTATIVE:
        flat: list[Statement] = []
        for operand in operands:
            flat.extend(operand[1:] if operand[0] == operator else [operand])
        operands = sorted(flat)
    return (operator, *operands)


def _refine(statements: Statements, colours: list[int]) -> list[int]:
    """Split colour classes until no person can be told from another of their class.

    A person's signature: their colour, their own statement, and the statements of all others,
    with the speaker and the person marked in each.
    """
    people = range(len(statements))
    while True:
        signatures = []
        for person in people:
            views = []
            for speaker in people:
                marked = [4 * colours[p] + 2 * (p == person) + (p == speaker) for p in people]
                views.append((marked[speaker], _recolour(statements[speaker], marked)))
            signatures.append((colours[person], sorted(views)))
        ranks = sorted(signatures)
        # The first rank of a class leaves room, so that a singled-out person keeps theirs.
        refined = [ranks.index(signature) for signature in signatures]
        if len(set(refined)) == len(set(colours)):
            return refined
        colours = refined


def _smallest(statements: Statements, colours: list[int]) -> Statements:
    tied = [p for p in range(len(colours)) if colours.count(colours[p]) > 1]
    if not tied:
        placed = [_recolour(statement, colours) for statement in statements]
        return tuple(placed[colours.index(place)] for place in range(len(placed)))
    first = min(colours[p] for p in tied)
    candidates: list[Statements] = []
    tried: list[int] = []
    for person in (p for p in tied if colours[p] == first):
        if any(_interchangeable(statements, person, other) for other in tried):
            continue
        tried.append(person)
        # All others of the class move up by one; ranks stay those of a sorted list.
        singled = [c + (c == first and p != person) for p, c in enumerate(colours)]
        candidates.append(_smallest(statements, _refine(statements, singled)))
    return min(candidates)


def _interchangeable(statements: Statements, a: int, b: int) -> bool:
    """Whether swapping two people leaves the puzzle as it is."""
    swapped = list(range(len(statements)))
    swapped[a], swapped[b] = b, a
    identity = list(range(len(statements)))
    return all(
        _recolour(statement, swapped) == _recolour(statements[swapped[p]], identity)
        for p, statement in enumerate(statements))
