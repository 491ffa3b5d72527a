"""Whole numbers are compared, never substrings."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.errors import DataError
from safeladder.verifiers.cases import HOSTILE_TEXTS, trajectory_of
from safeladder.verifiers.numeric import (
    MAX_FORMS,
    NumericAnswer,
    boxed_text,
    last_number,
    numbers_in,
    single_number,
)

T = "<think>it is 99</think>"


def judged(response, gold, **settings):
    return NumericAnswer(**settings).verify(trajectory_of(response, gold)).verdict_class


@pytest.mark.parametrize(("text", "numbers"), [
    ("5", [5]), ("15", [15]), ("-5", [-5]), ("\u22125", [-5]), ("+5", [5]), ("x = - 5", [-5]),
    ("3 - 5", [3, 5]), ("3-5", [3, 5]), ("142.0", [142]), ("0.50", [Fraction(1, 2)]),
    ("1,234,567", [1234567]), ("1,2", []), ("1, 2", [1, 2]), ("12,34", []), ("1.2.3", []),
    ("x5", []), ("5x", []), ("5.", [5]), ("(5)", [5]), ("$5$", [5]), ("3/4", [Fraction(3, 4)]),
    ("3/0", []), ("\\frac{3}{4}", [Fraction(3, 4)]), ("-\\dfrac{1}{2}", [Fraction(-1, 2)]),
    ("1e5", []), ("1" * 65, []), ("\u0665", []), ("5 and 15 or 5", [5, 15, 5]), ("1,2345", []),
])
def test_numbers_that_stand_alone(text, numbers):
    assert numbers_in(text) == numbers


@pytest.mark.parametrize(("text", "number"), [
    ("5", 5), ("The answer is 5.", 5), ("x = 5", 5), ("**5**", 5), ("\\(5\\)", 5), ("$5\\%$", 5),
    ("\\text{5 apples}", 5), ("5, so 5.0", 5), ("5\u00b0", 5),
    ("\\sqrt{5}", None), ("5!", None), ("10^5", None), ("2*5", None), ("2**5", None),
    ("\\frac{\\sqrt{3}}{2}", None), ("5\\pi", None), ("5 or 15", None), ("< 5", None),
    ("none", None), ("5/x", None),
])
def test_one_number_or_none(text, number):
    found = single_number(text)
    assert found == number if number is not None else isinstance(found, str)


@pytest.mark.parametrize(("response", "gold", "expected"), [
    (f"{T}<answer>142</answer>", 142.0, "correct"),
    (f"{T}<answer>142.0</answer>", "142", "correct"),
    (f"{T}<answer>\\boxed{{142}}</answer>", {"answer": 142}, "correct"),
    (f"{T}<answer>15</answer>", 5, "wrong"),
    (f"{T}<answer>5</answer>", 15, "wrong"),
    (f"{T}\\boxed{{5}}", 5, "correct"),
    (f"{T}\\boxed{{4}} no, \\boxed{{5}}", 5, "correct"),
    (f"{T}<answer>4</answer> \\boxed{{5}}", 5, "wrong"),
    (f"{T}<answer>4</answer><answer>5</answer>", 5, "unparsable"),
    (f"{T}5", 5, "unparsable"),
    ("<think>\\boxed{5} <answer>5</answer>", 5, "unparsable"),
    ("<think>\\boxed{5}</think>", 5, "unparsable"),
])
def test_modes_are_strict(response, gold, expected):
    assert judged(response, gold) == expected


def test_the_last_number_only_when_asked_for():
    assert judged(f"{T}4 or 5.", 5, where=("last",)) == "correct"
    assert judged(f"{T}4 or 5.", 4, where=("last",)) == "wrong"
    assert judged(f"{T}none", 99, where=("last",)) == "unparsable"


def test_tolerance_is_absolute():
    assert judged(f"{T}<answer>3.14</answer>", 3.1415, tolerance=0.01) == "correct"
    assert judged(f"{T}<answer>3.14</answer>", 3.1415) == "wrong"


@pytest.mark.parametrize("gold", [None, True, "five", [5], float("nan"), {"value": 5}, "5 or 6"])
def test_a_reference_that_is_no_number_is_no_wrong_answer(gold):
    with pytest.raises(DataError, match="no number"):
        judged(f"{T}<answer>5</answer>", gold)


def test_braces_are_balanced():
    assert boxed_text("\\boxed{a{b}c} d}") == "a{b}c"
    assert boxed_text("\\boxed{a") is None
    assert boxed_text("a") is None


@given(st.integers(-10**9, 10**9), st.integers(-10**9, 10**9))
def test_equal_iff_equal(answer, gold):
    expected = "correct" if answer == gold else "wrong"
    assert judged(f"{T}<answer>{answer:,}</answer>", gold) == expected
    assert judged(f"{T}\\boxed{{{answer}.00}}", gold) == expected


@given(st.text())
def test_arbitrary_text_never_raises(text):
    assert NumericAnswer(where=("answer", "boxed", "last")).verify(
        trajectory_of(f"<answer>{text}</answer>", 5)).score in (0.0, 1.0)


@pytest.mark.parametrize("text", [*HOSTILE_TEXTS, "1,111" * 200_000, "1." * 500_000, "1/" * 500_000,
                                  "\\frac{1}{" * 100_000, "- " * 500_000],
                         ids=lambda text: repr(text[:12]))
def test_hostile_text_takes_linear_time(text):
    # Twice the text takes about twice the time; quadratic work would take four times.
    half, whole = seconds_for(text[: len(text) // 2]), seconds_for(text)
    assert whole < 3 * half + 0.5


def seconds_for(text):
    started = time.process_time()
    for where in ("answer", "boxed", "last"):
        response = f"<answer>{text}</answer>" if where == "answer" else text
        judged(response, 7, where=(where,))
    return time.process_time() - started



def test_the_last_number_is_the_last_that_can_be_read():
    assert last_number("5 then 0") == 0
    assert last_number("7 of 3/0 and " + "1" * 99) == 7
    assert last_number("none") is None


def test_one_number_may_be_written_in_a_few_ways_only():
    assert single_number("5, 5.0 and 10/2") == 5
    forms = [f"{5 * n}/{n}" for n in range(1, MAX_FORMS + 2)]
    assert single_number(" = 5 = ".join(forms[:MAX_FORMS - 1]).replace("=", "and")) == 5
    assert single_number(" ".join(forms)) == (
        f"{MAX_FORMS + 1} different numbers in the answer, expected one")
