"""Which assignments fit: truth tables as whole numbers, and the search that people would do.

Bit r of a truth table belongs to assignment r in the order knight before knave, last person
fastest (the order of ``itertools.product([True, False], repeat=n)``).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from safeladder.data.knights_knaves.statements import (
    Assignment,
    Statement,
    Statements,
    count_operators,
    people_mentioned,
)


@lru_cache(maxsize=32)
def knight_tables(num_people: int) -> tuple[int, ...]:
    """Per person, the truth table of "this person is a knight"."""
    tables = []
    for person in range(num_people):
        run = 1 << (num_people - 1 - person)
        block = (1 << run) - 1
        tables.append(sum(block << start for start in range(0, 1 << num_people, 2 * run)))
    return tuple(tables)


def truth_table(statement: Statement, num_people: int) -> int:
    """The truth table of a statement, 2**num_people bits."""
    everything = (1 << (1 << num_people)) - 1
    knights = knight_tables(num_people)

    def table(node: Statement) -> int:
        operator = node[0]
        if operator == "telling-truth":
            return knights[node[1]]
        if operator == "lying":
            return everything ^ knights[node[1]]
        first, *rest = (table(operand) for operand in node[1:])
        if operator == "not":
            return everything ^ first
        for other in rest:
            if operator == "and":
                first &= other
            elif operator == "or":
                first |= other
            elif operator == "->":
                first = (everything ^ first) | other
            elif operator == "<=>":
                first = everything ^ first ^ other
            elif operator == "xor":
                first ^= other
            else:
                raise ValueError(f"not a statement: {node!r}")
        return first

    return table(statement)


def solutions(statements: Statements) -> list[Assignment]:
    """All assignments in which exactly the knights' statements are true."""
    num_people = len(statements)
    fitting = (1 << (1 << num_people)) - 1
    everything = fitting
    for knight, statement in zip(knight_tables(num_people), statements, strict=True):
        fitting &= everything ^ knight ^ truth_table(statement, num_people)
    rows = (row for row in range(1 << num_people) if fitting >> row & 1)
    return [tuple(not row >> (num_people - 1 - p) & 1 for p in range(num_people)) for row in rows]


def unique_solution(statements: Statements) -> Assignment | None:
    """The solution if there is exactly one, else None."""
    found = solutions(statements)
    return found[0] if len(found) == 1 else None


class Step(NamedTuple):
    """One step of the search."""

    person: int
    """Whose role is tried, or who is reconsidered."""
    role: bool | None
    """The role tried (True = knight); None for a step back."""
    conflict: tuple[int, bool] | None = None
    """The person, with their role, whose statement can no longer fit; None: no conflict."""
    exhausted: tuple[int, ...] = ()
    """For a step back: the people without a role left to try, last one first."""


class Trace(NamedTuple):
    """The search from the first trial to its end."""

    steps: tuple[Step, ...]
    solution: Assignment | None
    """The first solution found; None: there is none."""


def search(statements: Statements) -> Trace:
    """Depth-first search in the order that the public chains of thought follow.

    Roles are tried knight first. After a trial that fits, the people just spoken of come next.
    A trial fits if every person with a role has, taken alone, a statement that can still be true
    (knight) or false (knave) in some completion. The order of people that a trial brought about
    survives a step back, as it does in the public generator.
    """
    num_people = len(statements)
    order = list(range(num_people))
    untried = [[False, True] for _ in order]
    roles: list[bool | None] = [None] * num_people
    steps: list[Step] = []
    depth = 0
    while depth < num_people:
        if not untried[order[depth]]:
            exhausted = []
            while depth >= 0 and not untried[order[depth]]:
                person = order[depth]
                untried[person], roles[person] = [False, True], None
                exhausted.append(person)
                depth -= 1
            if depth < 0:
                return Trace(tuple(steps), None)
            steps.append(Step(order[depth], None, exhausted=tuple(exhausted)))
        person = order[depth]
        roles[person] = untried[person].pop()
        conflict = _first_conflict(statements, roles)
        steps.append(Step(person, roles[person], conflict))
        if conflict is None:
            depth += 1
            spoken_of = list(dict.fromkeys(people_mentioned(statements[person])))
            later = order[depth:]
            order[depth:] = [p for p in spoken_of if p in later]
            order += [p for p in later if p not in spoken_of]
    return Trace(tuple(steps), tuple(bool(role) for role in roles))


def _first_conflict(
    statements: Statements, roles: list[bool | None]
) -> tuple[int, bool] | None:
    num_people = len(statements)
    everything = (1 << (1 << num_people)) - 1
    possible = everything
    for knight, role in zip(knight_tables(num_people), roles, strict=True):
        if role is not None:
            possible &= knight if role else everything ^ knight
    for person, role in enumerate(roles):
        if role is None:
            continue
        table = truth_table(statements[person], num_people)
        if not possible & (table if role else everything ^ table):
            return person, role
    return None


class Difficulty(NamedTuple):
    """How hard a puzzle is."""

    people: int
    operators: int
    """Connectives over all statements."""
    steps: int
    """Length of the search (``len(cot_repeat_steps)`` of the public rows)."""


def difficulty(statements: Statements) -> Difficulty:
    """Number of people, of connectives, and of search steps."""
    return Difficulty(len(statements), sum(map(count_operators, statements)),
                      len(search(statements).steps))
