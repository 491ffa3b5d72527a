"""Exact match and F1 by hand, and what SQuAD's normalisation would have let through."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.errors import DataError
from safeladder.verifiers.cases import HOSTILE_TEXTS, trajectory_of
from safeladder.verifiers.text_match import TextMatch, last_answer, normalised, token_f1


def judged(answer, gold, **settings):
    return TextMatch(**settings).verify(trajectory_of(f"<answer>{answer}</answer>", gold))


@pytest.mark.parametrize(("text", "squad", "ours"), [
    ("The  Eiffel-Tower!", "eiffeltower", None), ("an apple a day", "apple day", None),
    ("3,000", "3000", None), ("1.5", "15", "1\ue0005"), ("-5", "5", "\ue0015"),
    ("x-5", "x5", None), ("1990-95", "199095", None), ("10 %", "10", "10\ue002"),
    ("1,5", "15", "1\ue0005"), (".5", "5", "\ue0005"), ("C#", "c", "c\ue004"),
    ("C++", "c", "c\ue003\ue003"), ("a+b", "ab", None), ("\u201cHi\u201d\u3002", "hi", None),
    ("the", "", None), ("theatre", "theatre", None), ("1\ue0005", "1\ue0005", "15"),
])
def test_normalisation(text, squad, ours):
    assert normalised(text, published=True) == squad
    assert normalised(text) == (squad if ours is None else ours)


def test_f1_by_hand():
    # 2 of 3 answer tokens are among the 4 gold ones: P = 2/3, R = 2/4, F1 = 4/7.
    assert token_f1("big red dog", "red dog on grass") == pytest.approx(4 / 7)
    # Repeating a right word does not pay: 1 common of 3 and 1.
    assert token_f1("paris paris paris", "paris") == pytest.approx(0.5)
    # Two of three characters, two of two: P = 2/3, R = 1.
    assert token_f1("\u5317\u4eac\u5e02", "\u5317\u4eac") == pytest.approx(0.8)
    assert token_f1("", "") == token_f1("", "x") == token_f1("x", "") == 0.0


@pytest.mark.parametrize(("answer", "gold", "verdict_class"), [
    ("Paris", ["Lyon", "Paris"], "correct"), ("paris.", "Paris", "correct"),
    ("1,000", 1000, "correct"), ("5.0", 5.0, "correct"), ("5", 5.0, "correct"),
    ("5", 5.5, "wrong"), ("5.0", "5", "wrong"),
    ("B.C.", {"answers": ["AD", "BC"]}, "correct"),
    ("a", "the", "wrong"), ("The", "the", "correct"),
    ("!", "?", "wrong"), ("!", "Paris", "wrong"), ("Paris, London", "Paris", "partial"),
    ("either Paris or Lyon", ["Paris", "Lyon"], "partial"), ("not Paris", "Paris", "partial"),
    ("Paris Lyon", ["Paris", "Lyon"], "partial"), ("", "Paris", "no_answer"),
    ("2019-05", "2019-06", "wrong"), ("15%", "15", "wrong"), ("$15", "15", "correct"),
    ("-3 degrees", "3 degrees", "partial"), ("\u22123", "-3", "correct"),
])
def test_answers(answer, gold, verdict_class):
    verdict = judged(answer, gold)
    assert verdict.verdict_class == verdict_class
    assert verdict.score == (verdict_class == "correct")


def test_the_score_is_exact_or_f1_and_both_are_parts():
    gold = {"answer": "x y", "aliases": ["red dog on grass"]}
    verdict = judged("big red dog", gold, score="f1")
    assert verdict.score == verdict.parts["f1"] == pytest.approx(4 / 7)
    assert verdict.parts["exact"] == judged("big red dog", gold).score == 0.0
    assert judged("RED dog, on grass", gold, score="f1").parts == {"exact": 1.0, "f1": 1.0}


def test_published_normalisation_is_there_for_comparisons():
    assert judged("15", "1.5", published=True).score == 1.0
    assert judged("15", "1.5").score == 0.0


@pytest.mark.parametrize(("response", "read"), [
    ("<think>a</think>b", "b"), ("<think><answer>a</answer></think>b", "b"),
    ("<answer>a</answer> <answer>b</answer> c", "b"), ("<answer>a", "<answer>a"),
    ("b</answer>", "b</answer>"), ("</answer>a<answer>", "</answer>a<answer>"),
    ("<answer>a<answer>b</answer>", "b"), ("<think>a", ""), ("b <|im_end|>", "b "),
])
def test_where_the_answer_is_read(response, read):
    assert last_answer(response) == read


@pytest.mark.parametrize("gold", [None, True, "", [], {}, {"value": "x"}, [["x"]], {"answer": " "},
                                  ["x", None]])
def test_a_reference_without_answers_is_no_wrong_answer(gold):
    with pytest.raises(DataError, match="must be an answer"):
        judged("x", gold)


@given(st.text(), st.text(min_size=1).filter(str.strip))
def test_any_text_gets_a_score_in_range(answer, gold):
    verdict = judged(answer, gold, score="f1")
    assert 0.0 <= verdict.parts["exact"] <= verdict.parts["f1"] <= 1.0 + 1e-12


@given(st.text(min_size=1).filter(lambda text: text.strip() and "<" not in text))
def test_a_gold_answer_is_right(gold):
    assert judged(gold, gold).score == 1.0


@pytest.mark.parametrize("text", [*HOSTILE_TEXTS, "a the " * 10_000, "1,111" * 15_000,
                                  "-.1" * 30_000],
                         ids=lambda text: repr(text[:12]))
def test_hostile_text_is_quick(text):
    started = time.process_time()
    judged(text, "Paris")
    assert time.process_time() - started < 1.0
