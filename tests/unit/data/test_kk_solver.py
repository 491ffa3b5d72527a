import pytest
from hypothesis import given, settings
from kk_strategies import brute_force, statement, statements

from safeladder.data.knights_knaves.solver import (
    Step,
    difficulty,
    search,
    solutions,
    truth_table,
    unique_solution,
)
from safeladder.data.knights_knaves.statements import (
    check_statements,
    count_operators,
    evaluate,
    parse_statements,
    people_mentioned,
)
from safeladder.errors import DataError

IS_KNIGHT, IS_KNAVE = "telling-truth", "lying"


@pytest.mark.parametrize(("operator", "table"), [
    # (True, True), (True, False), (False, True), (False, False)
    ("and", (1, 0, 0, 0)), ("or", (1, 1, 1, 0)), ("->", (1, 0, 1, 1)), ("<=>", (1, 0, 0, 1)),
    ("xor", (0, 1, 1, 0)),
])
def test_operators_have_their_truth_tables(operator, table):
    said = (operator, (IS_KNIGHT, 0), (IS_KNIGHT, 1))
    assignments = ((True, True), (True, False), (False, True), (False, False))
    assert tuple(evaluate(said, a) for a in assignments) == tuple(map(bool, table))
    # Bit r belongs to the r-th assignment of the same order.
    assert truth_table(said, 2) == sum(bit << r for r, bit in enumerate(table))


def test_negation_and_leaves():
    assert evaluate((IS_KNAVE, 1), (True, False))
    assert not evaluate(("not", (IS_KNAVE, 1)), (True, False))
    with pytest.raises(ValueError, match="nand"):
        evaluate(("nand", (IS_KNIGHT, 0), (IS_KNIGHT, 1)), (True, False))
    with pytest.raises(ValueError, match="nand"):
        truth_table(("nand", (IS_KNIGHT, 0), (IS_KNIGHT, 1)), 2)


@settings(max_examples=60, deadline=None)
@given(statement(4))
def test_truth_table_is_evaluation_of_all_assignments(said):
    assignments = [tuple(not r >> (3 - p) & 1 for p in range(4)) for r in range(16)]
    assert truth_table(said, 4) == sum(evaluate(said, a) << r for r, a in enumerate(assignments))


@settings(max_examples=60, deadline=None)
@given(statements())
def test_solutions_and_search_agree_with_brute_force(puzzle):
    expected = brute_force(puzzle)
    assert solutions(puzzle) == expected
    assert unique_solution(puzzle) == (expected[0] if len(expected) == 1 else None)
    found = search(puzzle).solution
    assert (found in expected) if expected else (found is None)


def test_search_of_a_puzzle_worked_by_hand():
    # 0: "1 is a knave".  1: "0 and 1 are both knights".
    puzzle = ((IS_KNAVE, 1), ("and", (IS_KNIGHT, 0), (IS_KNIGHT, 1)))
    # Knight 0 fits if 1 is a knave; 1 as a knight contradicts 0's statement; 1 as a knave fits.
    assert search(puzzle).steps == (
        Step(0, True), Step(1, True, conflict=(0, True)), Step(1, False))
    assert search(puzzle).solution == (True, False)
    assert difficulty(puzzle) == (2, 1, 3)


def test_search_steps_back_when_nobody_fits():
    # 0: "1 is a knight".  1: "0 is a knave".  2: "2 is a knight".
    puzzle = ((IS_KNIGHT, 1), (IS_KNAVE, 0), (IS_KNIGHT, 2))
    steps = search(puzzle).steps
    # 0 knight; 1 knight: 1's claim that 0 is a knave fails; 1 knave: 0's claim fails;
    # back to 0: knave; then 1 knight: 0's claim is true, which a knave's may not be;
    # 1 knave: 0 is a knave makes 1's claim true. Nothing is left.
    assert steps == (
        Step(0, True), Step(1, True, (1, True)), Step(1, False, (0, True)),
        Step(0, None, exhausted=(1,)), Step(0, False),
        Step(1, True, (0, False)), Step(1, False, (1, False)))
    assert search(puzzle).solution is None


def test_the_people_spoken_of_are_tried_next():
    puzzle = ((IS_KNIGHT, 2), (IS_KNIGHT, 1), (IS_KNIGHT, 0))
    assert [step.person for step in search(puzzle).steps] == [0, 2, 1]


def test_statements_are_read_and_checked():
    text = "(('not', ('lying', 1)), ('xor', ('lying', 0), ('telling-truth', 1)))"
    puzzle = parse_statements(text)
    assert str(puzzle) == text
    assert [count_operators(said) for said in puzzle] == [1, 1]
    assert list(people_mentioned(puzzle[1])) == [0, 1]
    assert check_statements([["lying", 1], ["not", ["lying", 0]]])[1] == ("not", ("lying", 0))


@pytest.mark.parametrize("text", [
    "(('lying', 2), ('lying', 0))", "(('not', ('lying', 0), ('lying', 1)), ('lying', 0))",
    "(('and', ('lying', 0)), ('lying', 0))", "(('nor', ('lying', 0)), ('lying', 0))", "()", "3",
    "import os", "(" * 500,
])
def test_what_is_no_statement_is_refused(text):
    with pytest.raises(DataError, match=r"statement"):
        parse_statements(text)
