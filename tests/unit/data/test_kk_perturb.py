import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.data.knights_knaves.generate import (
    published_perturbations,
    published_puzzles,
)
from safeladder.data.knights_knaves.limem import LiMem, limem
from safeladder.data.knights_knaves.perturb import (
    PERTURBATIONS,
    perturb_puzzle,
    published_perturbed_rows,
)
from safeladder.data.knights_knaves.published import published_rows
from safeladder.data.knights_knaves.solver import solutions
from safeladder.data.knights_knaves.statements import LEAVES
from safeladder.data.knights_knaves.text import ROLE_PAIRS, UNCOMMON_NAMES


def leaves(node):
    return [node] if node[0] in LEAVES else [x for inner in node[1:] for x in leaves(inner)]


def shape(node):
    return "x" if node[0] in LEAVES else (node[0], *map(shape, node[1:]))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 7), st.integers(0, 299), st.sampled_from(("statement", "leaf")),
       st.integers(0, 2**32))
def test_a_perturbed_puzzle_differs_in_one_place_and_has_one_other_solution(
        people, index, kind, seed):
    puzzle = published_puzzles(people)[index]
    twin = perturb_puzzle(puzzle, kind, seed)
    if twin is None:
        return
    changed = [i for i in range(people) if twin.statements[i] != puzzle.statements[i]]
    assert len(changed) == 1
    assert solutions(twin.statements) == [twin.solution]
    assert twin.solution != puzzle.solution
    if kind == "leaf":
        old, new = puzzle.statements[changed[0]], twin.statements[changed[0]]
        assert shape(old) == shape(new)
        assert sum(a != b for a, b in zip(leaves(old), leaves(new), strict=True)) == 1


def test_published_perturbations_follow_the_public_draws():
    # As counted with the public generator: 300 problems, 1 and 71 without a valid perturbation.
    twins = published_perturbations(2)
    assert twins.clean == published_puzzles(2)
    assert [sum(t is None for t in kind) for kind in (twins.statement, twins.leaf)] == [1, 71]


def rows_by_index(rows):
    return {row["index"]: row for row in rows}


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_perturbed_rows_are_twins_of_the_clean_rows(kind):
    clean = rows_by_index(published_rows(3, "test"))
    twins = rows_by_index(published_perturbed_rows(3, "test", kind))
    assert set(twins) <= set(clean) and len(twins) >= 90
    for index, twin in twins.items():
        row = clean[index]
        assert twin["quiz"] != row["quiz"]
        if kind in ("statement", "leaf"):
            assert twin["solution"] != row["solution"] and twin["names"] == row["names"]
        else:
            assert twin["solution"] == row["solution"]
            assert twin["statements"] == row["statements"]


def test_language_perturbations_change_what_they_say():
    clean = next(published_rows(3, "test"))
    rows = {kind: next(published_perturbed_rows(3, "test", kind)) for kind in PERTURBATIONS}
    assert set(rows["uncommon_names"]["names"]) <= set(UNCOMMON_NAMES)
    pair = rows["other_roles"]["knight_knave"]
    assert (pair["a_knight"], pair["a_knave"]) in ROLE_PAIRS
    assert "knight" not in rows["other_roles"]["quiz"]
    flipped = rows["flipped_roles"]
    assert "Knaves always tell the truth, and knights always lie." in flipped["quiz"]
    swap = {"knight": "knave", "knave": "knight"}
    assert flipped["solution_text_format"] == re.sub(
        "knight|knave", lambda m: swap[m[0]], clean["solution_text_format"])
    # The same sentences in another order, between the introduction and the question.
    assert rows["reordered"]["quiz"] != clean["quiz"]
    assert sorted(rows["reordered"]["quiz"].split()) == sorted(clean["quiz"].split())
    assert rows["reordered"]["names"] == clean["names"]


def test_limem_by_hand():
    # 3 of 4 solved, 1 of these 3 also in its twin: 0.75 * (1 - 1/3) = 0.5.
    score = limem([True, True, True, False], [True, False, False, True])
    assert score == LiMem(pytest.approx(0.5), 0.75, pytest.approx(1 / 3), 4, 3)
    assert limem([True, True], [True, True]).score == 0
    assert limem([True, True], [False, False]).score == 1
    assert limem([False], [True]) == LiMem(0.0, 0.0, None, 1, 0)
    with pytest.raises(ValueError, match="2 puzzles and 1 twins"):
        limem([True, True], [True])
    with pytest.raises(ValueError, match="0 puzzles"):
        limem([], [])
