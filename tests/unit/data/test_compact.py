"""The compact world: one solution, no structure in two splits, every teacher's step is true."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.data.knights_knaves.compact import (
    Claim,
    CompactStatement,
    Puzzle,
    answer_text,
    apply_word,
    draw_distinct,
    draw_puzzle,
    form_key,
    puzzle_text,
    response_text,
    split_of,
    walk_text,
)
from safeladder.data.knights_knaves.solver import solutions
from safeladder.data.knights_knaves.statements import evaluate
from safeladder.data.sources import build_source
from safeladder.verifiers import parse_answer

# Ann knight: "Bob knave and Ann knight" is T if Bob is a knave; Bob's "Ann knave and Bob knave" is
# then F, as a knave's must be. Ann knave: Bob's statement is T for a knave and F for a knight, so
# neither fits. One solution.
ANN = CompactStatement((Claim(1, False), Claim(0, True)), ("and",))
BOB = CompactStatement((Claim(0, False), Claim(1, False)), ("and",))
PUZZLE = Puzzle((ANN, BOB), ("Ann", "Bob"), (True, False))


def test_the_texts_by_hand():
    assert solutions(PUZZLE.nested) == [(True, False)]
    assert puzzle_text(PUZZLE) == ("Ann says Bob knave and Ann knight . "
                                   "Bob says Ann knave and Bob knave .")
    assert answer_text(PUZZLE) == "Ann knight Bob knave"
    assert response_text(PUZZLE, "work") == (
        "<think> work "
        "try Ann+ Bob+ : Ann says Bob knave Bob+ F and Ann knight Ann+ T = F Ann+ no "
        "try Ann+ Bob- : Ann says Bob knave Bob- T and Ann knight Ann+ T = T Ann+ ok "
        "Bob says Ann knave Ann+ F and Bob knave Bob- T = F Bob- ok "
        "</think> <answer> Ann knight Bob knave </answer>")
    assert response_text(PUZZLE, "list") == (
        "<think> list try Ann+ Bob+ : no try Ann+ Bob- : ok </think> "
        "<answer> Ann knight Bob knave </answer>")
    assert response_text(PUZZLE, "sight") == (
        "<think> sight </think> <answer> Ann knight Bob knave </answer>")
    work_of_bob = "Bob says Ann knave Ann+ F and Bob knave Bob- T"
    assert response_text(PUZZLE, "check").count(work_of_bob) == 2


@pytest.mark.parametrize("word", ["and", "or", "implies", "iff", "xor"])
def test_a_word_means_what_its_operator_means(word):
    statement = CompactStatement((Claim(0, True), Claim(1, True)), (word,)).nested
    for left in (True, False):
        for right in (True, False):
            assert apply_word(word, left, right) == evaluate(statement, (left, right))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 4),
       st.sampled_from(["train", "validation", "test", "unseen_forms"]))
def test_drawn_puzzles_are_what_they_say(seed, num_people, split):
    puzzle = draw_puzzle(random.Random(seed), num_people, split)
    assert solutions(puzzle.nested) == [puzzle.solution]
    assert split_of(puzzle.statements) == split
    assert len(set(puzzle.names)) == num_people
    text = response_text(puzzle, "check")
    # Every comparison, every folding and every verdict the teacher writes is true.
    for role, sign, value in re.findall(r"(knight|knave) \w+([+-]) ([TF])", text):
        assert (value == "T") == ((sign == "+") == (role == "knight"))
    for value, sign, verdict in re.findall(r"([TF]) \w+([+-]) (ok|no)", text):
        assert (verdict == "ok") == ((value == "T") == (sign == "+"))
    roles = parse_answer(re.search(r"<answer>(.*)</answer>", text)[1], puzzle.names)
    assert roles is not None


def test_walks_work_through_tries_and_neither_ask_nor_answer():
    rng = random.Random(3)
    walks = [walk_text(rng, 2) for _ in range(50)]
    for walk in walks:
        assert "answer" not in walk and "think" not in walk
        tries = walk.split(" try ")[1:]
        assert 1 <= len(tries) <= 4
        assert all(t.endswith(" no") for t in tries[:-1])
    assert any(walk.endswith(" no") for walk in walks)


def test_renaming_and_order_do_not_change_the_split():
    rng = random.Random(5)
    for _ in range(50):
        puzzle = draw_puzzle(rng, 3, "test")
        order = [2, 0, 1]
        place = {old: new for new, old in enumerate(order)}
        moved = tuple(
            CompactStatement(tuple(Claim(place[c.person], c.knight) for c in s.claims), s.words)
            for s in (puzzle.statements[i] for i in order))
        assert split_of(moved) == "test"
        assert Puzzle(moved, puzzle.names, puzzle.solution).structure == puzzle.structure


def test_no_structure_is_in_two_splits_and_forms_are_held_out():
    rng = random.Random(1)
    structures = {split: {p.structure for p in draw_distinct(rng, 2, split, 60)}
                  for split in ("train", "validation", "test", "unseen_forms")}
    assert all(len(found) == 60 for found in structures.values())
    assert len(set.union(*structures.values())) == 240
    forms = {split: {form_key(s, i) for p in draw_distinct(rng, 3, split, 100)
                     for i, s in enumerate(p.statements)} for split in ("train", "unseen_forms")}
    assert forms["unseen_forms"] - forms["train"]


def test_sources_of_a_recipe():
    spec = {"type": "compact_chains", "people": [2, 3], "count": 30, "split": "train",
            "strategies": {"sight": 1, "work": 1}}
    rows = build_source(spec)
    assert [row.id for row in rows] == [row.id for row in build_source(spec)]
    assert len(rows) == 60
    assert {row.meta["strategy"] for row in rows} == {"sight", "work"}
    assert rows[0].messages[-1].role == "assistant"
    puzzles = build_source({"type": "compact_puzzles", "people": [3], "count": 20,
                            "split": "test", "distinct": True})
    assert len({p.meta["structure"] for p in puzzles}) == 20
    assert set(puzzles[0].reference) == {"names", "roles"}
