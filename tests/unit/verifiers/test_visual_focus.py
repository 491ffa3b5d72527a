"""Looking pays, guessing, repeating and stuffing do not."""

from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.verifiers.cases import check, trajectory_of
from safeladder.verifiers.visual_focus import VisualFocus

SHOWN = ["dog", ["bicycle", "bike"], "red car", "bench"]
ABSENT = ["cat", "horse", "blue car", "tree", "boat", "lamp", "map", "idol"]


def judge(think, user="What is going on?", **fields):
    meta = {"shown": SHOWN, "absent": ABSENT}
    return VisualFocus(**fields).verify(trajectory_of(f"<think>{think}</think>ok", meta=meta,
                                                      user=user))


def test_gold_cases():
    assert check(VisualFocus()) == []


@pytest.mark.parametrize(("think", "hits", "false"), [
    ("a dog", 1, 0), ("dogs and benches", 2, 0), ("the BIKE . the bicycle", 1, 0),
    ("a red car", 1, 0), ("a blue car", 0, 1), ("a car", 0, 0), ("hotdog", 0, 0),
    ("no cat , no horse", 0, 0), ("there is no dog", 0, 1), ("no dog . a dog", 1, 0),
    ("no lamp . cat", 0, 1), ("not one two three cat", 0, 1), ("without any tree", 0, 0)])
def test_what_is_counted(think, hits, false):
    assert judge(think).parts == {"shown": hits, "not_shown": false}


def test_the_score_is_the_formula():
    assert judge("dog bike").score == pytest.approx(2 / 3)         # n = min(4, 3)
    assert judge("dog bike bench , red car").score == 1.0            # saturates
    assert judge("dog bike cat").score == pytest.approx(1 / 3)
    assert judge("cat horse tree boat lamp").score == -1.0           # 0 - 5/3, cut
    assert judge("dog", enough=1).score == 1.0


def test_what_the_question_names_earns_nothing():
    verdict = judge("a dog and a cat and a bench", user="Is the dog near a cat?")
    assert verdict.parts == {"shown": 1, "not_shown": 0}
    told = "a dog, a bike, a red car and a bench"
    assert judge("dog", user=told).verdict_class == "not_applicable"


def test_without_knowing_what_is_absent_it_abstains():
    row = trajectory_of("<think>dog</think>", meta={"shown": ["dog", "cat"], "absent": ["tree"]})
    assert "cannot be told from guessing" in VisualFocus().verify(row).error
    assert VisualFocus(vocabulary=["dog", "map"]).verify(row).score == 0.5
    assert VisualFocus().verify(trajectory_of("<think>dog</think>")).verdict_class == (
        "not_applicable")


def test_stuffing_never_pays():
    words = [name if isinstance(name, str) else name[0] for name in (*SHOWN, *ABSENT)]
    assert judge(" ".join(words * 20)).score == -1.0
    assert judge(" ".join(f"no {word} ." for word in words)).score == -1.0  # 4 shown ones denied
    assert judge("dog " * 100).score == judge("dog").score


@given(shown=st.integers(1, 7), more=st.integers(0, 8), enough=st.integers(1, 5))
def test_names_drawn_at_random_have_no_positive_expectation(shown, more, enough):
    absent, need = shown + more, min(shown, enough)
    for named in range(1, shown + absent + 1):
        ways = {h: comb(shown, h) * comb(absent, named - h) for h in range(shown + 1)
                if 0 <= named - h <= absent}
        mean = sum(count * max(-1.0, (min(h, need) - (named - h)) / need)
                   for h, count in ways.items()) / sum(ways.values())
        assert mean <= 1e-12


@settings(max_examples=50)
@given(st.text(max_size=300))
def test_any_text_has_a_score_within_bounds(text):
    assert -1.0 <= judge(text).score <= 1.0
