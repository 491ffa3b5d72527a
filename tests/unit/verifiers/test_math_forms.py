"""What is equal, and the near misses that are not."""

import json
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.errors import DataError
from safeladder.verifiers.cases import HOSTILE_TEXTS, trajectory_of
from safeladder.verifiers.math import MathAnswer, read_gold
from safeladder.verifiers.math_forms import Rules, same_answer
from safeladder.verifiers.math_text import spelled, split_top, stated_answer
from safeladder.verifiers.math_units import plain_number, quantity, units_clash

T = "<think>it is 99</think>"


def judged(response, gold, user="?", **fields):
    rule = MathAnswer(isolate=None, **fields)
    return rule.verify(trajectory_of(f"{T}{response}", gold, user=user))


EQUAL = """
1,2 ~ 2, 1 ~ x = 1 or x = 2 ~ \\{2,1\\} ~ $x=1$ and $x=2$ ~ \\boxed{1} and \\boxed{2} ~ 1; 2
3,5,7 ~ 3, 5, and 7 ~ (3,5,7)
5 ~ x = 5 ~ 2 + 3 = 5 ~ 5.0 ~ 10/2 ~ The answer is $\\boxed{5}$. ~ So the total is 5. ~ 5 apples
x=5 ~ 5
12 ~ \\$12 ~ $12 ~ She has 12 apples. ~ 12 apples per day ~ 12 \\text{ cm} ~ 12cm
1234 ~ 1,234 ~ 1.234 \\times 10^{3} ~ 1.234e3
11,\\! 111,\\! 111,\\! 100 ~ 11111111100
\\frac{3}{4} ~ 0.75 ~ 75\\% ~ 3/4 ~ .75 ~ \\frac34 ~ \\dfrac{3}{4} ~ \\frac{6}{8}
75\\% ~ 75\\% ~ 0.75 ~ 75 percent
137 \\frac{1}{2} ~ 137.5 ~ 275/2
\\frac{1}{3} ~ 1/3 \\approx 0.3333333333
3 \\text{ cm} ~ 3 centimeters ~ 3 cm ~ 3
15\\mbox{ cm}^2 ~ 15 \\text{ square centimeters} ~ 15 cm^2
90^\\circ ~ 90 ~ 90 degrees ~ 90^{\\circ} ~ 90\u00b0
\\sqrt{2} ~ 1.4142135624 ~ \\frac{2}{\\sqrt{2}} ~ \u221a2
y=2x+3 ~ 2x+3 ~ y - 2x = 3 ~ 2y = 4x + 6 ~ -3 = 2x - y
x^2+y^2=4 ~ \\frac{x^2}{4}+\\frac{y^2}{4}=1
F=ma ~ ma=F
(2,\\infty) ~ x>2 ~ 2<x ~ x \\in (2,\\infty)
[-2,7) ~ -2 \\le x < 7 ~ 7 > x \\ge -2
(-\\infty, 2) \\cup (3, \\infty) ~ (3,\\infty)\\cup(-\\infty,2)
1\\pm\\sqrt{19} ~ 1-\\sqrt{19}, 1+\\sqrt{19} ~ 1 \u00b1 \u221a19 ~ 1 \\mp \\sqrt{19}
\\{1\\pm\\sqrt{5},-2\\} ~ -2, 1+\\sqrt5, 1-\\sqrt5
(3,\\frac{\\pi}{2}) ~ (3, \\pi/2) ~ 3, \\pi/2
\\text{even} ~ The function is even. ~ Even ~ \\textbf{even}
\\text{(C)} ~ C ~ (C)
(a+5)(b+2) ~ (b+2)(a+5) ~ ab + 2a + 5b + 10
52_8 ~ 52_{8} ~ 52
6+9i ~ 9i+6
\\begin{pmatrix} -2 \\\\ 7 \\end{pmatrix} ~ \\begin{bmatrix} -2 \\\\ 7 \\end{bmatrix}
0 ~ 0.0
288\\pi ~ 288 \\pi \\text{ cm}^3
3:00 ~ 3:00
"""
NEAR = """
5 ~ 15 ~ -5 ~ 5.000001 ~ 5i ~ 5x ~ 50 ~ 5\\% ~ 5! ~ \\sqrt{5} ~ 5 or 15 ~ 15 or 5 ~ 5, 15 ~ 5 = 6
5 ~ 6 = 5 ~ x = 6 = 5 ~ \\boxed{5}, \\boxed{6} ~ \\boxed{6} or \\boxed{5} ~ \\boxed{6}\\boxed{5}
5 ~ $5$ or $6$ ~ $6$ or maybe $5$ ~ \\boxed{5 \\text{ or } 6} ~ \\{4,5\\} ~ 1 2 3 4 5 ~ 5 6 ~ \\pm 5
5 ~ not 5 ~ It is not \\boxed{5} ~ \\boxed{5} is wrong ~ either 5 or 6 ~ maybe 5 ~ 5? ~ about 5
5 ~ x \\ge 5 ~ at least 5 ~ 5 or more ~ 5 \\ne 6 ~ 5 thousand ~ 5 dozen ~ 5 \\text{ million} ~ [5]
5 ~ 5 squared ~ 5 (or 6) ~ 5|6 ~ 5 & 6 ~ x \\in 5 ~ five ~ 5 of 8 ~ (5,5) ~ 101_2 ~ 5^1 ~ 5 e10
5 ~ It could be 5. ~ I am not sure. ~ 5, but 15 is possible ~ The answer is 5. Or 6.
1/3 ~ 0.33 ~ 0.333333 ~ 3 ~ 1/4 ~ 3/1
0.33 ~ 1/3
\\frac{5}{9} ~ 0.5 ~ 0.5556
10 ~ 10% ~ 10\\% ~ 0.1 ~ 1 0 ~ 100
10% ~ 10 ~ 1000\\%
12 ~ 1 2 ~ 1,2 ~ 21
1000 ~ 1.000 ~ 1,00,0 ~ 1 000 ~ 1,0000
1234567 ~ 1234568 ~ 1234567.9
123456789 ~ 123456788
0.001 ~ 0.0010001 ~ 0.01
1e-7 ~ 2e-7 ~ 0
0 ~ 0.000000001 ~ 10^{-300} ~ \\emptyset ~ x - x
10^{-3} ~ 10^{3} ~ -1000
\\sqrt{2} ~ 1.414 ~ 1.414214 ~ \\sqrt{3} ~ \\sqrt[3]{2} ~ 2
\\pi ~ 3.14 ~ 22/7 ~ 2\\pi
1024 ~ 2^{10} ~ 2 \\cdot 512 ~ 1023 + 1
120 ~ 5! ~ \\binom{120}{1}
2 ~ \\sqrt{4} ~ \\lfloor 2.5 \\rfloor ~ x=-2
3 \\text{ cm} ~ 3 m ~ 3 \\text{ m} ~ 3 cm^2 ~ 3 \\text{ square cm} ~ 3 kg ~ 3m
3 \\text{ apples} ~ 3 oranges
3 \\text{ hours} ~ 3 minutes ~ 180
\\$3 ~ 3 cents ~ 3\\% ~ 3 euros
30^\\circ ~ 30 radians
60 miles per hour ~ 60 miles ~ 60 km per hour
x=2 ~ x=-2 ~ y=2 ~ x^2=4 ~ (x-2)(x-3)=0 ~ 0=0 ~ x=x ~ \\sin^2 x + \\cos^2 x = 1
x+y=1 ~ x+y=2 ~ 2x+y=1 ~ x-y=1 ~ a+b=1
y=2x+1 ~ y=2x-1 ~ 2x-1 ~ x=2y+1 ~ y=2x+1=5
f(x)=2x ~ g(x)=2x ~ f(2)=4
x^2 ~ x^3 ~ x ~ 2x
x+1 ~ x-1 ~ X+1 ~ x+1, x-1
(0,1) ~ [0,1] ~ (0,1] ~ [0,1) ~ 0 \\le x \\le 1 ~ (1,0) ~ (0,1,2) ~ \\{0,1\\} ~ (0,1) \\cup (2,3)
[0,1] ~ (0,1) ~ 0,1 ~ 0 < x < 1
(2,\\infty) ~ x \\ge 2 ~ x<2 ~ [2,\\infty) ~ 2
x>2 ~ x<2 ~ 2>x ~ x \\ge 2
(1,2) ~ (2,1) ~ \\{1,2\\} ~ 2,1 ~ [1,2] ~ 1
1,2 ~ 1,2,3 ~ 1 ~ 1,1 ~ 1,3 ~ 1.2 ~ 12 ~ (2,1)
1,2,2 ~ 1,1,2
\\{1,2\\} ~ (1,2) ~ \\{1\\} ~ \\{1,2,3\\}
1 \\pm \\sqrt{2} ~ 1+\\sqrt{2} ~ 1 - \\sqrt{2} ~ \\pm \\sqrt{2}
(0,9)\\cup(9,36) ~ (0,36) ~ (0,9) ~ (0,9]\\cup(9,36)
\\text{even} ~ odd ~ not even ~ neve ~ odd or even ~ even or odd
even ~ e v e n n ~ 2
\\text{(C)} ~ (B) ~ B or C ~ A, B, C, D
\\text{Monday} ~ Tuesday ~ Monday or Tuesday
101_2 ~ 101_3 ~ 5 ~ 11
2:3 ~ 3:2
3:00 ~ 3:30 ~ 3
\\begin{pmatrix}1\\\\2\\end{pmatrix} ~ \\begin{pmatrix}2\\\\1\\end{pmatrix}
\\infty ~ -\\infty ~ 10^{400}
a ~ A ~ b
\\frac{x}{y} ~ \\frac{y}{x}
x_1 ~ x_2
"""


def table(text):
    rows = [line.split(" ~ ") for line in text.strip().splitlines()]
    return [(gold, answer) for gold, *answers in rows for answer in answers]


@pytest.mark.parametrize(("gold", "answer"), table(EQUAL))
def test_equal_answers(gold, answer):
    assert judged(f"<answer>{answer}</answer>", gold).verdict_class == "correct"


@pytest.mark.parametrize(("gold", "answer"), table(NEAR))
def test_near_misses(gold, answer):
    assert judged(f"<answer>{answer}</answer>", gold).score == 0.0
    if "boxed" not in answer and "$" not in answer:
        assert judged(f"\\boxed{{{answer}}}", gold).score == 0.0
        assert judged(f"We see that it is ${answer}$.", gold).score == 0.0


@pytest.mark.parametrize(("text", "answer"), [
    ("\\boxed{4} no, \\boxed{5}", "5"), ("\\boxed{1}, \\boxed{2}", "1 , 2"),
    ("\\boxed{\\boxed{5}}", "5"), ("\\boxed{$5$}", "5"), ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
    ("$1$, so $x$ is $5$ cm", "5 \\text{cm}"), ("\\(1\\) or \\(2\\)", "1 , 2"),
    ("\\[ 5 \\]", " 5 "), ("Well.\nThe sum is 7.", "7"), ("Answer: 7", "7"), ("x + 1", "x + 1"),
    ("\\boxed{5", None), ("\\boxed{}", None), ("It can't be 5.", None), ("Is it 5?", None),
    ("", None), ("$5$?", None), ("It is perhaps $5$", None), ("\\boxed{5}}", "5"),
])
def test_where_the_answer_stands(text, answer):
    assert stated_answer(text).text == answer


@pytest.mark.parametrize(("text", "value"), [
    ("12", 12), ("-3.5", Fraction(-7, 2)), (".5", Fraction(1, 2)), ("5.", 5),
    ("3/4", Fraction(3, 4)), ("\\frac{3}{4}", Fraction(3, 4)), ("-\\frac{3}{4}", Fraction(-3, 4)),
    ("\\frac{-3}{4}", Fraction(-3, 4)), ("1\\frac{1}{2}", Fraction(3, 2)),
    ("1 1/2", Fraction(3, 2)), ("-1 1/2", Fraction(-3, 2)), ("2 \\times 10^{3}", 2000),
    ("2e3", 2000), ("10^{-2}", Fraction(1, 100)), ("3/0", None), ("1 \\frac{1}{0}", None),
    ("1 2", None), ("x", None), ("2^3", None), ("10^{401}", None), ("", None), ("1,2", None),
    ("--5", None), ("2 \\times 3", None), ("\u0663", None)])
def test_numbers_that_are_written_out(text, value):
    assert plain_number(text) == value


@pytest.mark.parametrize(("text", "value", "unit"), [
    ("\\$36", "36", "$"), ("5%", "5", "%"), ("30^\\circ", "30", "deg"), ("3 cm", "3", "cm"),
    ("3\\text{ miles per hour}", "3", "mile/h"), ("2 \\pi \\text{ m}", "2 \\pi", "m"),
    ("12 red apples", "12", "red apples"), ("5x", "5x", ""), ("5 x", "5 x", ""), ("x m", "x m", ""),
    ("5", "5", ""), ("7 thousand", "7 thousand", "")])
def test_units(text, value, unit):
    assert quantity(text)[:2] == (value, unit)


def test_units_that_clash():
    clash = {("3 cm", "3 m"), ("3 cm", "3 cm^2"), ("3 apples", "3 oranges"), ("\\$3", "3 euros")}
    for one, other in [*clash, ("3 cm", "3"), ("3 red apples", "3 apples"), ("3 cm", "3 apples"),
                       ("3 hours", "3 hr"), ("3 \\text{ square cm}", "3 cm^2")]:
        expected = (one, other) in clash
        assert units_clash(quantity(one), quantity(other)) == expected, (one, other)


def test_parts_between_brackets():
    assert split_top("(1,2),[3,4),\\{5,6\\}", ",") == ["(1,2)", "[3,4)", "\\{5,6\\}"]
    assert split_top("\\begin{pmatrix}1,2\\end{pmatrix},3", ",") == [
        "\\begin{pmatrix}1,2\\end{pmatrix}", "3"]
    assert split_top("(1", ",") is None and split_top("1)", ",") is None
    assert split_top("p \\cup q", "\\cup") == ["p ", " q"]
    assert split_top("pcu", "\\cup") == ["pcu"]


def test_spelling():
    assert spelled("\\left( \\dfrac12 ,\\; 1{,}000 \\right).") == "( \\frac{1}{2} , 1{,}000 )"
    assert spelled("$1,234,567$") == "1234567" and spelled("1,2345") == "1,2345"


def test_the_tolerance_of_a_reference_is_absolute():
    gold = {"answer": "9.8", "tolerance": 0.05}
    assert [judged(f"<answer>{a}</answer>", gold).score for a in ("9.85", "9.86", "9.75", "-9.8")
            ] == [1.0, 0.0, 1.0, 0.0]
    assert judged("<answer>101</answer>", {"answer": 100, "tolerance": 1}).score == 1.0


def test_the_tolerance_of_the_verifier_is_relative():
    assert judged("<answer>1000.9</answer>", "1000", tolerance=1e-3).score == 1.0
    assert judged("<answer>1001.1</answer>", "1000", tolerance=1e-3).score == 0.0
    # Whole numbers are exact whatever the tolerance.
    assert judged("<answer>1001</answer>", "1000", tolerance=1e-2).score == 0.0
    assert judged("<answer>1.4142</answer>", "\\sqrt{2}", tolerance=1e-4).score == 1.0


def test_expressions_count_where_they_are_wanted():
    assert judged("<answer>2^{10}</answer>", "1024", evaluated=False).score == 1.0
    assert judged("<answer>2^{10}</answer>", "2^{10}").score == 1.0


@pytest.mark.parametrize(("question", "answer", "gold", "score"), [
    ("Factor $x^2 - 1$.", "x^2 - 1", "(x-1)(x+1)", 0.0),
    ("Factor $x^2 - 1$.", "(x+1)(x-1)", "(x-1)(x+1)", 1.0),
    ("Simplify \\frac{2}{4} \\cdot \\pi", "\\frac{2}{4}\\cdot\\pi", "\\frac{\\pi}{2}", 0.0),
    ("Is it 12 or 13?", "13", "13", 1.0), ("Is $x+1$ it?", "x + 1", "x+1", 1.0),
    ("Given y = 2x + 3, find y.", "2x+3", "y=2x+3", 1.0),
])
def test_the_question_is_no_answer(question, answer, gold, score):
    assert judged(f"\\boxed{{{answer}}}", gold, user=question).score == score


@pytest.mark.parametrize("gold", ["", " ", "$", "\\boxed{", "(1", None, True, [5], {"value": 5},
                                  {"answer": "5", "tolerance": "wide"}])
def test_a_reference_that_cannot_be_compared_is_no_wrong_answer(gold):
    with pytest.raises(DataError, match="no answer that can be compared"):
        read_gold(gold)


@given(st.integers(-10**6, 10**6), st.integers(-10**6, 10**6))
def test_numbers_are_equal_iff_equal(gold, answer):
    assert judged(f"\\boxed{{{answer:,}}}", str(gold)).score == float(gold == answer)


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=6), st.randoms())
def test_lists_know_no_order_but_their_items(items, random):
    mixed = list(items)
    random.shuffle(mixed)
    gold, answer = (", ".join(map(str, one)) for one in (items, mixed))
    assert judged(f"\\boxed{{{answer}}}", gold).score == 1.0
    assert judged(f"\\boxed{{{answer}, 10}}", gold).score == 0.0
    assert judged(f"\\boxed{{{answer.partition(', ')[2]}}}", gold).score == 0.0


NOTHING = Rules(1e-8, None, True, lambda gold, answer: False, lambda gold, answer: False)


@given(st.text(alphabet="0123456789xy=+-,.;()[]{}\\ %$^_ormptdau", max_size=60))
@settings(max_examples=300)
def test_only_equal_numbers_are_equal(text):
    """Without math-verify's help nothing but the number (or its unit, or a name for it) is 5."""
    if same_answer("5", text, NOTHING):
        assert "5" in text or "." in text or "/" in text or "e" in text


@given(st.text())
def test_any_text_gets_a_verdict_or_a_reason(text):
    assert judged(f"<answer>{text}</answer>", "57").score in (0.0, 1.0)


@pytest.mark.parametrize("text", [
    *HOSTILE_TEXTS, "\\frac{" * 160, "\\text{" * 160, "9" * 1000, "1,111" * 190, "\\pm" * 300,
    "x=" * 490, "\\cup" * 250, "(1,2)" * 190, "10^{" * 240, "\\boxed{5},\\boxed{6}" * 45,
    "\\begin{" * 140, "is " * 330, "1 " * 490, "5 \\text{ a}" * 80, "\\left(" * 160, "$" * 999],
    ids=lambda text: repr(text[:12]))
def test_hostile_text_is_quick_where_the_gold_answer_is_a_number(text):
    started = time.process_time()
    for response in (text, f"<answer>{text}</answer>", f"\\boxed{{{text}}}"):
        assert judged(response, "57").score == 0.0
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("text", [
    "/".join(["a"] * 400), "(1+x)^{9999}", "x^{123456}", "((x+1)^{999})^{999}", "x^{{9999}}"])
def test_what_takes_seconds_to_work_out_is_no_answer(text):
    started = time.process_time()
    verdict = judged(f"\\boxed{{{text}}}", "\\sqrt{982451653} x^2 + \\pi")
    assert (verdict.score, verdict.verdict_class) == (0.0, "unparsable")
    assert time.process_time() - started < 1.0
    assert judged("\\boxed{x^{2019}+1}", "1+x^{2019}").score == 1.0
    assert judged("\\boxed{x^{4096}}", "(x^{4})^{1024}").score == 1.0
    assert judged("\\boxed{\\sum_{k=1}^{5000} k}", "\\sum_{k=1}^{5000} k").score == 1.0


def test_the_measurement_counts_agreement(tmp_path):
    for name in ("gsm8k", "math500"):
        (tmp_path / name).mkdir()
    solution = {"solution": "2 + 3 = 5\nA: 5", "is_correct": True}
    wrong = {"solution": "I cannot say", "is_correct": True}
    (tmp_path / "gsm8k" / "example_model_solutions.jsonl").write_text(json.dumps(
        {"question": "?", "ground_truth": "so\nA: 5", "one": solution, "two": wrong}) + "\n")
    (tmp_path / "math500" / "math500.json").write_text(json.dumps(
        [{"final_answer": "x=5"}, {"final_answer": "5"}]))
    tool = Path(__file__).parents[3] / "tools" / "measure_math.py"
    out = subprocess.run([sys.executable, str(tool), str(tmp_path)], check=True, timeout=60,
                         capture_output=True, text=True).stdout
    assert "GSM8K: 1 of 2 labels" in out and "MATH-500: 2 of 2 gold answers" in out
    assert "2 of 2 pairs of different texts are equal" in out
