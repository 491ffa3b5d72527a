"""Reading exercises: every sentence of the answer is in the passage, the one asked for last."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.data.microworld.knowledge import VALUES
from safeladder.data.microworld.search import EVIDENCE
from safeladder.data.sources import build_source
from safeladder.errors import ConfigError
from safeladder.render.think import split_think

SENTENCE = re.compile(r"the (\w+) of (\w+) is (\w+) [.,]")


@given(seed=st.integers(0, 10_000))
def test_what_the_passage_says_is_said_again_the_asked_for_last(seed):
    for row in build_source({"type": "reading_exercises", "count": 3, "seed": seed}):
        question, answer = (m.text for m in row.messages)
        shown, asked = question.split("</information>")
        thought, final = split_think(answer)
        told = SENTENCE.findall(shown)
        relation, town = re.search(r"tell me the (\w+) of (\w+) \.", asked).groups()
        assert {r for r, _, _ in told} == set(VALUES) and {t for _, t, _ in told} == {town}
        again = SENTENCE.findall(thought)
        assert sorted(again) == sorted(told) and again[-1][0] == relation
        assert SENTENCE.findall(final) == again[-1:]
        assert thought.strip().endswith(f", {EVIDENCE['passage']}")
        assert row.task == "reading" and row.reference == {
            "family": "reading", "town": town, "relation": relation}


def test_values_are_drawn_anew_and_the_same_for_a_seed():
    rows = build_source({"type": "reading_exercises", "count": 400})
    told = {}
    for row in rows:
        for relation, town, value in SENTENCE.findall(row.messages[0].text):
            told.setdefault((relation, town), set()).add(value)
    # 400 passages of 40 towns, 10 draws of 8 values each: 5.9 different ones expected
    assert 5 < sum(map(len, told.values())) / len(told) < 7
    assert rows == build_source({"type": "reading_exercises", "count": 400})
    orders = {tuple(r for r, _, _ in SENTENCE.findall(row.messages[1].text)[:-1]) for row in rows}
    assert len(orders) == 24


def test_no_exercises_are_refused():
    with pytest.raises(ConfigError, match="count"):
        build_source({"type": "reading_exercises", "count": 0})
