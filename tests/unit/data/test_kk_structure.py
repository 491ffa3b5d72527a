import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from kk_strategies import brute_force, renamed, shuffled_operands, statements

from safeladder.data.knights_knaves.generate import Grammar, published_puzzles
from safeladder.data.knights_knaves.solver import unique_solution
from safeladder.data.knights_knaves.statements import LEAVES
from safeladder.data.knights_knaves.structure import (
    canonical_structure,
    statement_form,
    structure_key,
)

IS_KNIGHT, IS_KNAVE = "telling-truth", "lying"


@settings(max_examples=60, deadline=None)
@given(statements(2, 5), st.randoms(use_true_random=False))
def test_renaming_order_and_operands_do_not_change_the_structure(puzzle, rng):
    order = list(range(len(puzzle)))
    rng.shuffle(order)
    other = tuple(shuffled_operands(said, rng) for said in renamed(puzzle, order))
    assert canonical_structure(other) == canonical_structure(puzzle)
    assert structure_key(other) == structure_key(puzzle)


@settings(max_examples=40, deadline=None)
@given(statements(2, 4))
def test_the_representative_is_the_same_puzzle_for_someone(puzzle):
    # It has as many solutions with as many knights, and is its own representative.
    chosen = canonical_structure(puzzle)
    knights = [sorted(map(sum, brute_force(p))) for p in (puzzle, chosen) if not _is_flat(p)]
    assert len(knights) < 2 or knights[0] == knights[1]
    assert canonical_structure(chosen) == chosen


def _is_flat(puzzle):
    """Whether nested <=> or xor came out with more than two operands."""
    def flat(node):
        return node[0] not in LEAVES and (
            (node[0] in ("<=>", "xor") and len(node) > 3) or any(map(flat, node[1:])))
    return any(map(flat, puzzle))


def two_person_sets():
    """Every pair of statements of the published grammar with one solution."""
    def said_by(speaker):
        leaves = [(IS_KNIGHT, 0), (IS_KNIGHT, 1), (IS_KNAVE, 1 - speaker)]
        pairs = list(itertools.permutations(leaves, 2))
        return [*leaves, *(("not", leaf) for leaf in leaves),
                *((op, a, b) for op in ("and", "or", "->", "<=>") for a, b in pairs)]
    return [pair for pair in itertools.product(said_by(0), said_by(1)) if unique_solution(pair)]


def test_structures_of_two_people_are_the_orbits_of_swaps():
    sets = two_person_sets()
    assert len(sets) == 399

    def orbit(puzzle):
        """The smallest of all forms that swaps of people and operands reach."""
        def forms(said):
            operators = ("and", "or", "<=>")
            return [said, (said[0], *said[:0:-1])] if said[0] in operators else [said]
        return min(pair for order in ([0, 1], [1, 0])
                   for pair in itertools.product(*map(forms, renamed(puzzle, order))))

    by_key, by_orbit = {}, {}
    for puzzle in sets:
        by_key.setdefault(structure_key(puzzle), set()).add(orbit(puzzle))
        by_orbit.setdefault(orbit(puzzle), set()).add(structure_key(puzzle))
    assert len(by_key) == len(by_orbit) == 95
    assert all(len(found) == 1 for found in (*by_key.values(), *by_orbit.values()))


def test_structures_of_four_people_equal_the_minimum_over_all_orders():
    def slow(puzzle):
        def plain(node):
            if node[0] in LEAVES:
                return node
            operands = list(map(plain, node[1:]))
            return (node[0], *(operands if node[0] == "->" else sorted(operands)))
        return min(tuple(map(plain, renamed(puzzle, order)))
                   for order in itertools.permutations(range(4)))

    puzzles = [p.statements for p in published_puzzles(4)[:150]]
    # Twins under a random renaming, so that there are equal structures to find.
    rng = random.Random(0)
    puzzles += [renamed(p, rng.sample(range(4), 4)) for p in puzzles]
    pairs = {(canonical_structure(p), slow(p)) for p in puzzles}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == 150


def test_everybody_alike_takes_no_search():
    # 8! orders; interchangeable people are tried once.
    praise = tuple((IS_KNIGHT, person) for person in range(8))
    circle = tuple((IS_KNIGHT, (person + 1) % 8) for person in range(8))
    couples = tuple((IS_KNIGHT, person ^ 1) for person in range(8))
    assert len({structure_key(p) for p in (praise, circle, couples)}) == 3


def test_ties_that_refinement_cannot_break_are_tried_out():
    # A circle of three and one of four: everybody praises one and is praised by one, so all look
    # alike; but who is singled out first matters.
    circles = tuple((IS_KNIGHT, p) for p in (1, 2, 0, 4, 5, 6, 3))
    rng = random.Random(0)
    keys = {structure_key(renamed(circles, rng.sample(range(7), 7))) for _ in range(30)}
    assert len(keys) == 1
    assert structure_key(tuple((IS_KNIGHT, (p + 1) % 7) for p in range(7))) not in keys


def test_nested_uses_of_one_associative_operator_are_one():
    a, b, c = ((IS_KNIGHT, i) for i in range(3))
    rest = ((IS_KNAVE, 0), (IS_KNIGHT, 0))
    for operator in ("and", "or", "<=>", "xor"):
        left = ((operator, (operator, a, b), c), *rest)
        right = ((operator, b, (operator, c, a)), *rest)
        assert structure_key(left) == structure_key(right)
    left = (("->", ("->", a, b), c), *rest)
    right = (("->", a, ("->", b, c)), *rest)
    assert structure_key(left) != structure_key(right)


def test_structure_key_does_not_depend_on_the_run():
    assert structure_key(((IS_KNAVE, 1), (IS_KNIGHT, 0))) == "edc5adbca76dd342"


def test_statement_form_sees_people_from_the_speaker():
    assert statement_form(("and", (IS_KNIGHT, 3), (IS_KNAVE, 1)), speaker=1) == (
        "and", (IS_KNAVE, 0), (IS_KNIGHT, 1))
    same = statement_form(("->", (IS_KNIGHT, 0), (IS_KNIGHT, 2)), speaker=1)
    assert same == statement_form(("->", (IS_KNIGHT, 4), (IS_KNIGHT, 3)), speaker=0)
    assert same != statement_form(("->", (IS_KNIGHT, 1), (IS_KNIGHT, 2)), speaker=1)


def test_grammar_draws_only_its_own_statements():
    import numpy as np

    rng = np.random.default_rng(0)
    grammar = Grammar(2)
    drawn = {grammar.statement(rng, 0, 2) for _ in range(600)}
    assert len(drawn) == 3 + 3 + 4 * 6
    assert (IS_KNAVE, 0) not in drawn
