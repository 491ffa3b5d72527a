"""What the people say: the statement grammar, its meaning, its text form.

People are numbered from 0; a knight's statement is true, a knave's is false. Statements are nested
tuples, as the public data sets have them (arXiv 2410.23123, section 2)::

    ("telling-truth", i)   person i is a knight        ("lying", i)   person i is a knave
    ("not", s)             ("and", s, ...)              ("or", s, ...)
    ("->", s, t)           ("<=>", s, t)                ("xor", s, t)

``xor`` is ours; the public grammar has no exclusive or.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any

from safeladder.errors import DataError

# The tag decides the type of the rest, which Python's type system cannot express for tuples.
Statement = tuple[Any, ...]
Statements = tuple[Statement, ...]
Assignment = tuple[bool, ...]
"""One truth value per person, True = knight."""

LEAVES = ("telling-truth", "lying")
COMMUTATIVE = frozenset({"and", "or", "<=>", "xor"})
_ARITY = {"not": (1, 1), "and": (2, None), "or": (2, None), "->": (2, 2), "<=>": (2, 2),
          "xor": (2, 2)}


def evaluate(statement: Statement, assignment: Sequence[bool]) -> bool:
    """Whether ``statement`` is true when the people are what ``assignment`` says.

    This is the definition of the operators; :mod:`~safeladder.data.knights_knaves.solver`
    computes the same for all assignments at once.
    """
    match statement:
        case ("telling-truth", int(person)):
            return bool(assignment[person])
        case ("lying", int(person)):
            return not assignment[person]
        case ("not", inner):
            return not evaluate(inner, assignment)
        case ("and", *operands):
            return all(evaluate(operand, assignment) for operand in operands)
        case ("or", *operands):
            return any(evaluate(operand, assignment) for operand in operands)
        case ("->", premise, conclusion):
            return not evaluate(premise, assignment) or evaluate(conclusion, assignment)
        case ("<=>", left, right):
            return evaluate(left, assignment) == evaluate(right, assignment)
        case ("xor", left, right):
            return evaluate(left, assignment) != evaluate(right, assignment)
    raise ValueError(f"not a statement: {statement!r}")


def people_mentioned(statement: Statement) -> Iterator[int]:
    """The people a statement speaks of, in order of mention, repetitions kept."""
    if statement[0] in LEAVES:
        yield statement[1]
        return
    for operand in statement[1:]:
        yield from people_mentioned(operand)


def count_operators(statement: Statement) -> int:
    """Number of connectives, ``not`` included."""
    if statement[0] in LEAVES:
        return 0
    return 1 + sum(count_operators(operand) for operand in statement[1:])


def check_statements(value: object) -> Statements:
    """Return ``value`` as statements (lists become tuples).

    Raises:
        DataError: an unknown operator, a wrong number of operands, or a person that is not there.
    """
    if not isinstance(value, list | tuple) or not value:
        raise DataError(f"statements must be a non-empty list, one per person, got {value!r}")
    return tuple(_check(statement, len(value)) for statement in value)


def _check(statement: object, num_people: int) -> Statement:
    match statement:
        case (("telling-truth" | "lying") as leaf, int(person)) if 0 <= person < num_people:
            return (leaf, person)
        case (str(operator), *operands) if operator in _ARITY:
            least, most = _ARITY[operator]
            if len(operands) >= least and (most is None or len(operands) <= most):
                return (operator, *(_check(operand, num_people) for operand in operands))
    raise DataError(f"not a statement about {num_people} people: {statement!r}")


def parse_statements(text: str) -> Statements:
    """Read the text form of the public data sets: a Python literal of nested tuples.

    Raises:
        DataError: the text is no such literal.
    """
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise DataError(f"statements are no literal of nested tuples: {text[:80]!r}") from None
    return check_statements(value)
