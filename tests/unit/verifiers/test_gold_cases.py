"""Every verifier passes its own gold cases, and the runner can see one fail."""

import asyncio
import subprocess
import sys
from dataclasses import replace

import pytest

from safeladder.errors import DataError
from safeladder.verifiers import build_verifier, check
from safeladder.verifiers.cases import trajectory_of
from safeladder.verifiers.check_all import required_settings, shipped_types
from safeladder.verifiers.registry import VERIFIERS

SHIPPED = shipped_types()


@pytest.fixture(scope="module", params=SHIPPED)
def verifier(request):
    verifier = build_verifier({"type": request.param})
    yield verifier
    close = getattr(verifier, "close", None)
    if close:
        close()


def test_gold_cases(verifier):
    assert check(verifier) == []


def test_a_wrong_score_is_seen(verifier):
    wrong = [replace(case, score=0.123) if case.kind != "hostile" else case
             for case in verifier.cases if case.kind != "hostile"]
    assert len(check(verifier, wrong)) == len(wrong)


def test_the_format_verifier_says_what_is_wrong():
    verifier = build_verifier({"type": "format", "min_think_words": 2})
    reasons = {
        "</think>a<think>": "tags out of order", "<think>a": "</think> occurs 0 times",
        "x<think>a b</think>": "text before <think>", "<think>one</think>": "fewer than 2 words",
        "<think>a b</think> \n": "no answer after </think>", "<think>a b</think>c": ""}
    for response, reason in reasons.items():
        assert reason in verifier.verify(trajectory_of(response)).reason, response
    verdict = verifier.verify(trajectory_of("<think>a b</think>c", user="<think>"))
    assert verdict.score == 1.0
    lenient = build_verifier({"type": "format", "needs_answer": False})
    assert lenient.verify(trajectory_of("<think>a b</think>")).score == 1.0
    shown = "Write <think>your thoughts here</think> and an answer."
    assert verifier.verify(trajectory_of("4", user=shown)).score == 0.0


@pytest.mark.parametrize("kind", VERIFIERS)
def test_every_type_ships_cases_unless_it_comes_from_its_user(kind):
    kinds = {case.kind for case in getattr(VERIFIERS[kind], "cases", ())}
    assert kinds == {"good", "bad", "hostile"} or required_settings(kind)


def test_the_adapters_come_from_their_user():
    assert required_settings("trl") == required_settings("verl") == ("path",)


def test_verifiers_import_without_torch_and_transformers():
    code = ("import sys, pkgutil, importlib, safeladder.verifiers as v\n"
            "for m in pkgutil.iter_modules(v.__path__):\n"
            "    importlib.import_module('safeladder.verifiers.' + m.name)\n"
            "heavy = {'torch', 'transformers', 'datasets', 'math_verify', 'sympy', 'httpx',\n"
            "         'reasoning_gym'} & set(sys.modules)\n"
            "assert not heavy, heavy\n")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


ENTRY = {"question": "Calculate 5 - 3 - 6.", "answer": "-4",
         "metadata": {"source_dataset": "basic_arithmetic", "source_index": 0}}


def gym(response, origin, **settings):
    gym_verifier = build_verifier({"type": "reasoning_gym", "isolate": None, **settings})
    return gym_verifier.verify(trajectory_of(response, meta={"reasoning_gym": origin}))


def test_reasoning_gym_makes_its_row_again_from_the_index():
    import reasoning_gym

    config = {"size": 3, "seed": 1}
    dataset = reasoning_gym.create_dataset("basic_arithmetic", **config)
    origin = {"dataset": "basic_arithmetic", "config": config, "index": 2,
              "entry": {"question": dataset[2]["question"], "answer": "never read"}}
    answer = dataset[2]["answer"]
    assert gym(f"<answer>{answer}</answer>", origin).verdict_class == "correct"
    assert gym("<answer>123456</answer>", origin).score < 1
    assert gym(f"<think>x</think>{answer}", origin, where="after_think").score == 1.0
    with pytest.raises(DataError, match="its version differs"):
        gym("<answer>1</answer>", {**origin, "index": 1})


@pytest.mark.parametrize(("origin", "message"), [
    (None, "meta needs 'reasoning_gym'"),
    ({"dataset": "basic_arithmetic"}, "meta needs 'reasoning_gym'"),
    ({"dataset": "no_such_set", "entry": ENTRY}, "no_such_set"),
    ({"dataset": "basic_arithmetic", "config": {"what": 1}, "entry": ENTRY}, "what"),
])
def test_reasoning_gym_needs_to_know_where_a_prompt_came_from(origin, message):
    with pytest.raises(DataError, match=message):
        gym("<answer>1</answer>", origin)


@pytest.mark.parametrize(("gold", "answer", "verdict_class"), [
    ("\\frac{1}{2}", "0.5", "correct"),
    ("\\frac{1}{2}", "$\\frac{2}{4}$", "correct"),
    ("3\\sqrt{13}", "3\\sqrt{13}", "correct"),
    ("6 - 5i", "6 - 5i", "correct"),
    ("5", "6 - 5i", "wrong"),
    ("5", "15", "wrong"),
    ("5", "\\sqrt{5}", "wrong"),
    ("(3, \\frac{\\pi}{2})", "(3, \\pi/2)", "correct"),
    ("\\$36", "\\$36", "correct"),
    ("12", "The answer is 12 apples", "correct"),
    ("5", "((((" * 20 + "5", "unparsable"),
    ("5", "5" * 2000, "unparsable"),
])
def test_math_equality(gold, answer, verdict_class):
    rule = build_verifier({"type": "math", "isolate": None})
    got = rule.verify(trajectory_of(f"<think>x</think><answer>{answer}</answer>", gold))
    assert got.verdict_class == verdict_class


@pytest.mark.parametrize("gold", [None, True, ["5"], ""])
def test_math_without_a_reference_is_no_wrong_answer(gold):
    rule = build_verifier({"type": "math", "isolate": None})
    with pytest.raises(DataError):
        rule.verify(trajectory_of("<answer>5</answer>", gold))


def test_a_math_verifier_never_answers_wrong_for_what_it_could_not_do():
    """A deadline is an abstention: the answer may have been right."""
    with build_verifier({"type": "math", "isolate": {"workers": 1, "time_limit": 0.001}}) as pool:
        pool.start()
        row = trajectory_of("<answer>$\\sum_{k=1}^{9999} k^{17}$</answer>", "5x")
        (verdict,) = asyncio.run(pool.verify_many([row]))
    assert (verdict.score, verdict.error) == (None, "time limit 0.001 s")
