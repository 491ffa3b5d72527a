"""Letters are read where they are options, and never otherwise."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from safeladder.errors import DataError
from safeladder.verifiers.cases import HOSTILE_TEXTS, trajectory_of
from safeladder.verifiers.choice import Choice, read_question
from safeladder.verifiers.choice_text import read_choice

CITIES = {"A": "Paris", "B": "Lyon", "C": "London", "D": "Paris and London"}
LETTERS = dict.fromkeys("ABCDEFGHIJ", "")


@pytest.mark.parametrize(("text", "letter"), [
    ("A", "A"), ("(a)", "A"), ("I", "I"), ("**C**", "C"), ("Answer: C", "C"), ("answer: c", "C"),
    ("Answer:\nC", "C"), ("The correct option is D.", "D"), ("I would go with (J).", "J"),
    ("Option E is correct because F is wrong.", "E"), ("(B) is the best answer", "B"),
    ("So it's (D).", "D"), ("\\boxed{\\textbf{(C)}}", "C"), ("$\\boxed{C}$ is my answer", "C"),
    ("The answer is **A**.", "A"), ("The answer is A because it is round.", "A"),
    ("The answer is \uff22\u3002", "B"), ("\u7b54\u6848\u662f\uff08D\uff09", "D"),
    ("\u6b63\u786e\u7b54\u6848\u4e3aC", "C"), ("\u56e0\u6b64\u9009\u62e9 E", "E"),
    ("B\n\nIt is B since the sum is 7.", "B"), ("Some words.\n\nB", "B"),
    ("Answer: B.\nThe answer is C.", "C"), ("\\boxed{B}\nAnswer: C", "C"),
    ("We can exclude (A), which is wrong; (B) remains", None),
    ("The answer is a matter of taste.", None), ("The answer is I think unclear.", None),
    ("A dog is what I see.", None), ("I am sure.", None), ("a", "A"), ("Vitamin C helps.", None),
    ("The answer is not C.", None), ("The answer isn't (C)", None), ("Do not choose C", None),
    ("\u4e0d\u9009C", None), ("Is the answer C?", None), ("Answer:", None), ("Answer: K", None),
    ("The answer is (B) or (C).", None), ("Answer: B/C", None), ("Answer: B and C", None),
    ("Answer: A, B, C, D, E", None), ("\\boxed{B}, or maybe \\boxed{}C", None),
    ("\\boxed{B} or \\boxed{C}", None),
    ("\\boxed{B}\\boxed{C}", None), ("\\boxed{B}. No: \\boxed{C}", "C"),
    ("Answer: B. Alternatively, (D).", None), ("either A or B", None), ("A B C D", None),
    ("(A) (B) (C)", None), ("A.\nB.\nC.", None),
    ("We saw (B).\nThen we saw (C) there.", None), ("Either (B) or something else.", "B"),
    ("Question: is it so?\n(A) yes\n(B) no\nAnswer:", None),
    ("ABCD", None), ("B12", None), ("B's", None), ("It's as easy as A, B, C", None),
])
def test_letters(text, letter):
    assert read_choice(text, LETTERS).letter == letter


@pytest.mark.parametrize(("text", "letter"), [
    ("Paris", "A"), ("Paris and London", "D"), ("paris.", "A"), ("The answer is London.", "C"),
    ("It must be Lyon.", "B"), ("Lyon is large. It is not far.", "B"), ("B. Lyon", "B"),
    ("(B) Lyon, a city", "B"), ("Answer: (C) London", "C"), ("Answer: E", None),
    ("B. London", None), ("Answer: C. Lyon", None), ("\\boxed{B: London}", None),
    ("Paris or Lyon", None), ("It is not Paris.", None), ("Not Paris but somewhere else", None),
    ("Paris. Or is it Lyon?", None), ("Berlin", None), ("A. Paris\nB. Lyon\nC. London", None),
    ("A. Paris B. Lyon", None), ("The answer is Paris or London", None), ("Parisian", None),
])
def test_texts_of_options(text, letter):
    assert read_choice(text, CITIES).letter == letter


def test_numbers_are_compared_whole():
    options = {"A": "$7", "B": "$17", "C": "-7", "D": "7%"}
    for text, letter in {"It is $7.": "A", "17": "B", "-7": "C", "It costs 7%": "D",
                         "It is 1.7": None, "it is 77": None}.items():
        assert read_choice(text, options).letter == letter, text


@pytest.mark.parametrize(("reference", "letter", "count"), [
    ("B", "B", 10), ("(b)", "B", 10), ({"answer": "B"}, "B", 10),
    ({"answer": "B", "options": ["x", "y", "z"]}, "B", 3),
    ({"answer": "y.", "options": ["x", "y", "z"]}, "B", 3),
    ({"answer": "London", "options": CITIES}, "C", 4),
    ({"answer": "C", "options": {"(a)": "x", "(c)": "y"}}, "C", 2),
])
def test_references(reference, letter, count):
    question = read_question(reference)
    assert (question.letter, len(question.options)) == (letter, count)


@pytest.mark.parametrize("reference", [
    None, "K", "", 2, ["B"], {"answer": "D", "options": ["x", "y"]}, {"options": ["x", "y"]},
    {"answer": "x", "options": ["x", "x"]}, {"answer": "A", "options": []},
    {"answer": "A", "options": list(range(11))}, {"answer": "A", "options": {"A": "x", "a": "y"}},
    {"answer": "A", "options": "xy"}])
def test_a_reference_without_a_right_option_is_no_wrong_answer(reference):
    with pytest.raises(DataError, match="must be a letter"):
        read_question(reference)


WORDS = st.lists(st.sampled_from(
    ["a", "A", "I", "i", "dog", "the", "answer", "is", "see", "not", "and", "so", "think", "cat"]),
    min_size=2, max_size=12).filter(lambda words: words[-1] not in ("A", "I", "a", "i"))


STATED = re.compile(r"\banswer ([ai]) is (?:the )?answer", re.IGNORECASE)
"""As in "answer A is the answer": that is an option stated."""


@given(WORDS)
@example(["answer", "a", "is", "answer"])
def test_english_words_are_no_options(words):
    text = " ".join(words)
    stated = {letter.upper() for letter in STATED.findall(text)}
    assert read_choice(text, LETTERS).letter in {None, *stated}


@given(st.lists(st.sampled_from("ABCDEFGHIJ"), min_size=2, max_size=6, unique=True),
       st.sampled_from([", ", " or ", " and ", "/", " / ", "; ", "\u3001", " | ", " & "]),
       st.sampled_from(["{}", "Answer: {}", "The answer is {}.", "\\boxed{{{}}}", "I choose {}",
                        "\u7b54\u6848\uff1a{}", "({})"]), st.booleans())
def test_several_letters_are_no_answer(letters, between, form, brackets):
    if brackets:
        letters = [f"({letter})" for letter in letters]
    assert read_choice(form.format(between.join(letters)), LETTERS).letter is None


@given(st.text(), st.sampled_from("BC"))
def test_any_text_gets_a_verdict(text, gold):
    verdict = Choice().verify(trajectory_of(f"<answer>{text}</answer>", gold))
    assert verdict.score == float(verdict.verdict_class == "correct")


@given(st.text(alphabet="ABCD ().:,*\nanswerisotbxed\\{}", max_size=40))
def test_a_letter_that_is_read_was_written(text):
    letter = read_choice(text, CITIES).letter
    assert letter is None or letter in text.upper() or CITIES[letter].lower() in text.lower()


@pytest.mark.parametrize("text", [
    *HOSTILE_TEXTS, "\\boxed{" * 100_000 + "D}", "answer is " * 100_000, "(A)" * 300_000,
    "not (B) " * 100_000, "A. x\n" * 200_000, "\u9009" * 300_000, "\\boxed{{{{{" * 60_000,
    "option " * 140_000, "B or " * 200_000, "or " * 300_000], ids=lambda text: repr(text[:12]))
def test_hostile_text_is_quick(text):
    started = time.process_time()
    verdict = Choice().verify(trajectory_of(text, {"answer": "B", "options": CITIES}))
    assert verdict.score == 0.0
    assert time.process_time() - started < 1.0


def test_the_measurement_tells_draws_from_answers(tmp_path):
    rows = [("1", "The answer is (B).", "B"), ("2", "No idea at all.", "A"),
            ("3", "So the answer is (C).", "B"), ("4", "It is B for me.", "B")]
    letters = ["A", "B", "C"]
    (tmp_path / "m_raw").mkdir()
    (tmp_path / "m_raw" / "x.json").write_text(json.dumps([
        {"id": key, "question_type": "multiple-choice", "all_choices": letters, "response": text,
         "index2ans": dict(zip(letters, ("one", "two", "three"), strict=True))}
        for key, text, _ in rows]))
    (tmp_path / "answer_dict_val.json").write_text(json.dumps(
        {key: {"ground_truth": "B"} for key, _, _ in rows}))
    (tmp_path / "m_total_val_output.json").write_text(json.dumps(
        {"1": "B", "2": "B", "3": "C", "4": "B"}))
    tool = Path(__file__).parents[3] / "tools" / "measure_choice.py"
    out = subprocess.run([sys.executable, str(tool), str(tmp_path)], check=True, timeout=60,
                         capture_output=True, text=True).stdout
    assert "parsed 2 of 4 (50.0%), correct 1 of 4" in out
    assert "found 3 of 4 (75.0%), drawn at random 1 of 4" in out
    assert "the draws were right in 1 of 1 (100.0%), expected 0.3" in out
    assert "right: correct 1, wrong 0, unparsable 1" in out
