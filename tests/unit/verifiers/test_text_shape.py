"""Length, repetition and language, worked out by hand."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.config import validate
from safeladder.errors import ConfigError, DataError
from safeladder.types import Completion, Status, Trajectory, Turn
from safeladder.verifiers.cases import HOSTILE_TEXTS, trajectory_of
from safeladder.verifiers.language import LanguageConsistency, language_of
from safeladder.verifiers.length import Length, count_words, length_score
from safeladder.verifiers.repetition import Repetition, final_loop, repeated_share

ZH = "\u6211\u4eec\u6765\u60f3\u60f3"


@pytest.mark.parametrize(("length", "score"), [
    (1, 1), (10, 1), (11, 0.9), (15, 0.5), (19, 0.1), (20, 0), (10**9, 0)])
def test_length_formula(length, score):
    assert length_score(length, 10, 20) == pytest.approx(score)


@pytest.mark.parametrize(("text", "count"), [
    ("", 0), (" \n", 0), ("one two", 2), ("it's", 2), (ZH, 5), ("x" * 16, 1), ("x" * 17, 2),
    ("---", 1), (ZH + " ok", 6), ("a b" + " " * 60, 4)])
def test_words_are_counted(text, count):
    assert count_words(text) == count


def test_parts_of_a_response_are_measured_apart():
    row = trajectory_of("<think>one two three</think>four")
    scores = {part: Length(budget=1, limit=3, part=part).verify(row).score
              for part in ("thinking", "answer", "response")}
    # The response has the words of its two tags as well: 6 in all.
    assert scores == {"thinking": 0.0, "answer": 1.0, "response": 0.0}


def test_tokens_are_counted_or_the_verdict_is_left_open():
    rule = Length(budget=2, limit=4, unit="tokens")
    completion = Completion((5, 6, 7), np.zeros(3, np.float32), "stop", 0)
    row = Trajectory(trajectory_of("x").prompt, (Turn((1,), completion, "x"),), Status.COMPLETED)
    assert rule.verify(row).score == 0.5
    assert rule.verify(trajectory_of("x")).score is None
    assert rule.verify(trajectory_of("")).score == 0.0


@pytest.mark.parametrize(("cls", "settings", "message"), [
    (Length, {"budget": 5, "limit": 5}, "must be above budget"),
    (Length, {"unit": "tokens", "part": "answer"}, "whole response"),
    (Repetition, {"allowed": 0.5, "limit": 0.5}, "must be above allowed"),
])
def test_impossible_settings(cls, settings, message):
    with pytest.raises(ConfigError, match=message):
        validate(cls, settings, "v")


def test_repeated_share_by_hand():
    # Bigrams of "a b a b c": ab ba ab bc; 3 distinct of 4.
    assert repeated_share("a b a b c", 2) == pytest.approx(0.25)
    assert repeated_share("a b c", 2) == repeated_share("a", 2) == repeated_share("", 2) == 0.0
    assert repeated_share("x " * 11, 1) == pytest.approx(10 / 11)


@pytest.mark.parametrize(("text", "block", "repeats"), [
    ("well " + "abc" * 5, "abc", 5), ("well " + "abc" * 5 + "ab", "cab", 17 / 3),
    ("a" * 12, "a", 12), ("well aaaa", None, 0), ("xyz" * 3, None, 0),
    ("no loop at all in here", None, 0),
    ("abc" * 5 + " the end", None, 0), ("abc " * 5, "abc ", 4.75), ("", None, 0)])
def test_loops_at_the_end(text, block, repeats):
    loop = final_loop(text, 4, 8)
    if block is None:
        assert loop is None
    else:
        assert loop is not None and len(loop.block) == len(block)
        assert set(loop.block) == set(block) and loop.repeats == pytest.approx(repeats)


def test_repetition_formula():
    # 1-grams of ten words, 6 distinct: r = 0.4, in the middle between 0.2 and 0.6.
    verdict = Repetition(n=1).verify(trajectory_of("a b c d e f a b c d"))
    assert (verdict.score, verdict.verdict_class) == (pytest.approx(0.5), "repetitive")
    assert verdict.parts == {"repeated": pytest.approx(0.4), "loop": 0.0}


@given(st.text(alphabet="ab .", max_size=60), st.integers(2, 4))
def test_a_loop_is_really_there(text, repeats):
    loop = final_loop(text, repeats, 6)
    tail = text.rstrip()
    if loop is not None:
        assert tail.endswith(loop.block * repeats) and len(loop.block) * loop.repeats >= 6
    for period in range(1, len(tail) // repeats + 1):
        block = tail[len(tail) - period:]
        if period * repeats >= 6 and tail.endswith(block * repeats):
            assert loop is not None


@pytest.mark.parametrize(("text", "language"), [
    ("", None), ("1 + 1 = 2", None), ("\\frac{1}{2}", None), ("hello", "en"), (ZH, "zh"),
    ("two words \u4e24\u5b57", "en"), ("two words \u4e24\u4e2a\u5b57", "zh"),
    ("```python\nfor x in range(3)\n```\n\u597d", "zh"), ("<answer>\u597d</answer>", "zh"),
    ("\u00e9t\u00e9", None), ("na\u00efve don't", "en")])
def test_language(text, language):
    assert language_of(text) == language


@pytest.mark.parametrize(("question", "response", "verdict_class"), [
    ("What is it?", "<think>well</think>This.", "consistent"),
    (ZH, f"<think>{ZH}</think>{ZH}", "consistent"), (ZH, f"<think>well then</think>{ZH}", "mixed"),
    (ZH, f"<think>{ZH}</think>This", "mixed"), ("What?", f"<think>{ZH}</think>This", "mixed"),
    ("What?", f"{ZH}", "mixed"), ("What?", "5", "consistent"), ("1 + 1?", ZH, "consistent"),
    ("1 + 1?", f"<think>{ZH}</think>Two", "mixed"), ("What?", "<think>well", "no_answer"),
    ("1 + 1?", f"<think>{ZH}</think>2", "consistent")])
def test_language_follows_the_question(question, response, verdict_class):
    row = trajectory_of(response, user=question)
    verdict = LanguageConsistency().verify(row)
    assert verdict.verdict_class == verdict_class
    assert verdict.score == (verdict_class == "consistent")


def test_an_unknown_language_is_no_wrong_answer():
    with pytest.raises(DataError, match="must be zh or en"):
        LanguageConsistency().verify(trajectory_of("x", meta={"language": "fr"}))


@given(st.text(), st.text())
def test_any_text_gets_a_score_in_range(thinking, answer):
    row = trajectory_of(f"<think>{thinking}</think>{answer}")
    for rule in (Length(budget=2, limit=9), Repetition(n=2), LanguageConsistency()):
        assert 0.0 <= rule.verify(row).score <= 1.0


@pytest.mark.parametrize("rule", [Length(), Repetition(), LanguageConsistency()],
                         ids=lambda rule: rule.name)
def test_hostile_text_is_quick(rule):
    for text in (*HOSTILE_TEXTS, "ab" * 500_000, "a b " * 250_000, "```" * 300_000, ZH * 100_000,
                 "\\a" * 500_000, "</a" * 300_000, "a'" * 500_000, "a" * 4000 + "b" + "a" * 4000):
        started = time.process_time()
        rule.verify(trajectory_of(text))
        assert time.process_time() - started < 1.5, text[:20]
