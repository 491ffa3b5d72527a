import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from safeladder.data.knights_knaves.compact import (
    Strategy,
    draw_puzzle,
    puzzle_text,
    response_text,
    role,
)
from safeladder.eval.items import EvalItem, Opinion, item_of, judge
from safeladder.eval.metrics import evaluation_metrics, item_metrics, shown_behaviours, suffix
from safeladder.eval.statistics import wilson
from safeladder.types import Group, Status, Trajectory, Verdict
from safeladder.verifiers import LogicRL, build_objective, verify_all
from safeladder.verifiers.cases import trajectory_of

THINK = "<think>Zoey lies.</think>"
REFERENCE = {"names": ["Zoey", "Bob"], "roles": ["knave", "knight"]}
RIGHT = f"{THINK}<answer>Zoey knave Bob knight</answer>"
WRONG = f"{THINK}<answer>Zoey knight Bob knight</answer>"
ILL_FORMED = "<answer>Zoey knave Bob knight</answer>"


def verified(response: str, prompt_id: str, people: int = 2, **meta: Any) -> Trajectory:
    trajectory = trajectory_of(response, REFERENCE, {"people": people, **meta}, id=prompt_id,
                               source="knights_knaves")
    objective = build_objective({"tasks": {"*": {"parts": {"logic_rl": 1.0}}}})
    asyncio.run(verify_all([Group(trajectory.prompt, [trajectory])], {"logic_rl": LogicRL()},
                           objective))
    return trajectory


@pytest.mark.parametrize(("opinions", "expected"), [
    ([("correct", True, {"format", "answer"})], (1.0, 1.0, "correct")),
    ([("wrong", True, {"format", "answer"})], (0.0, 1.0, "wrong")),
    ([("bad_format", True, {"format", "answer"})], (0.0, 0.0, "bad_format")),
    ([("correct", True, set())], (1.0, None, "correct")),
    ([("partial", True, set()), ("well_formed", True, set())], (0.0, 1.0, "partial")),
    # A verifier of the form alone says nothing about the answer.
    ([("bad_format", True, set())], (None, 0.0, None)),
    ([("correct", True, set()), ("bad_format", True, set())], (1.0, 0.0, "correct")),
    # Two verifiers of the answer have to agree.
    ([("correct", True, set()), ("wrong", True, set())], (0.0, None, "wrong")),
    ([(None, False, set())], (None, None, None)),
    ([("correct", False, {"format"})], (None, None, None)),
    ([], (None, None, None)),
])
def test_reading_verdicts(
    opinions: list[tuple[Any, bool, set[str]]], expected: tuple[Any, ...],
) -> None:
    assert tuple(judge(Opinion(c, j, frozenset(p)) for c, j, p in opinions)) == expected


def test_items_of_real_verdicts() -> None:
    items = [item_of(verified(text, f"p{i}")) for i, text in
             enumerate((RIGHT, WRONG, ILL_FORMED))]
    assert [item.correct for item in items] == [1.0, 0.0, 0.0]
    assert [item.format for item in items] == [1.0, 1.0, 0.0]
    assert [item.verdict_class for item in items] == ["correct", "wrong", "bad_format"]


def test_puzzles_of_one_structure_are_one_cluster() -> None:
    first, second = (item_of(verified(RIGHT, name, structure="S")) for name in ("p", "q"))
    assert first.cluster == second.cluster
    assert item_of(verified(RIGHT, "r")).cluster == "r"


def test_a_failed_rollout_is_unanswered_not_wrong() -> None:
    trajectory = replace(verified(RIGHT, "p"), status=Status.ERROR_SAMPLER)
    item = item_of(trajectory)
    assert (item.correct, item.format, item.tokens, item.truncated) == (None, None, None, None)
    metrics = item_metrics([item, item_of(verified(RIGHT, "q"))])
    for name in ("kk2_accuracy", "tokens_per_answer", "reflection_rate"):
        assert (metrics[name].n, metrics[name].unjudged) == (1, 1), name


def test_an_abstention_is_counted_and_is_no_zero() -> None:
    abstained = verified(RIGHT, "p")
    abstained.verdicts = {"logic_rl": Verdict("logic_rl", None, error="time limit")}
    metrics = evaluation_metrics([abstained, verified(RIGHT, "q")])
    assert (metrics["kk2_accuracy"].value, metrics["kk2_accuracy"].unjudged) == (1.0, 1)


def test_figures_by_hand() -> None:
    items = [EvalItem("a", "a", 1.0, 1.0, 10, people=2, truncated=0.0),
             EvalItem("b", "b", 0.0, 1.0, 20, people=2, truncated=1.0),
             EvalItem("c", "c", 1.0, 0.0, 60, people=3, truncated=0.0),
             EvalItem("d", "d", None, None, None, people=3)]
    metrics = item_metrics(items, "_t1")
    assert metrics["kk2_accuracy_t1"].value == 0.5
    assert metrics["kk2_accuracy_t1"].ci95 == wilson(1, 2)
    assert (metrics["kk3_accuracy_t1"].value, metrics["kk3_accuracy_t1"].unjudged) == (1.0, 1)
    assert metrics["format_t1"].value == pytest.approx(2 / 3)
    assert metrics["tokens_per_answer_t1"].value == 30.0
    assert metrics["tokens_per_answer_t1"].method == "cluster_bootstrap"
    assert metrics["truncated_t1"].value == pytest.approx(1 / 3)


def test_figures_nobody_was_asked_for_are_left_out() -> None:
    items = [EvalItem("a", "a", 1.0, None, 10, source="AIME 2024")]
    metrics = item_metrics(items)
    assert metrics["aime_2024_accuracy"].value == 1.0
    assert "format" not in metrics and "truncated" not in metrics


def test_behaviours_in_english() -> None:
    texts = ("Wait, Bob lies.", "Hmm.", "Let me check.", "In summary, Bob lies.")
    metrics = evaluation_metrics([verified(f"<think>{text}</think>", f"p{i}")
                                  for i, text in enumerate(texts)])
    assert metrics["reflection_rate"].value == 0.5
    assert metrics["verification_rate"].value == 0.25
    assert metrics["summary_rate"].value == 0.25


def test_only_the_chain_of_thought_is_read() -> None:
    metrics = evaluation_metrics([verified("<think>Bob lies.</think>wait, let me check", "p")])
    assert metrics["reflection_rate"].value == metrics["verification_rate"].value == 0.0


@pytest.mark.parametrize(("strategy", "verify"), [
    ("sight", False), ("list", False), ("work", False), ("check", True)])
def test_behaviours_of_the_compact_world(strategy: Strategy, verify: bool) -> None:
    rng = random.Random(0)
    for _ in range(20):
        puzzle = draw_puzzle(rng, 2, "test")
        shown = shown_behaviours("compact_knights_knaves", response_text(puzzle, strategy))
        assert shown["verify"] is verify
        first_try_holds = puzzle.solution == (True, True)
        assert shown["reflect"] is (strategy != "sight" and not first_try_holds)


def test_the_name_of_the_strategy_is_no_verification() -> None:
    puzzle = draw_puzzle(random.Random(0), 2, "test")
    announced, _, _ = response_text(puzzle, "check").rpartition("check")
    assert "think> check try" in announced
    assert shown_behaviours("compact_knights_knaves", announced)["verify"] is False


def test_the_compact_teacher_is_right_and_well_formed() -> None:
    puzzle = draw_puzzle(random.Random(1), 3, "test")
    trajectory = trajectory_of(
        response_text(puzzle, "check"), user=puzzle_text(puzzle), source="compact_knights_knaves",
        reference={"names": list(puzzle.names), "roles": [role(k) for k in puzzle.solution]},
        meta={"people": 3, "structure": puzzle.structure})
    trajectory.verdicts = {"logic_rl": LogicRL().verify(trajectory)}
    metrics = evaluation_metrics([trajectory], "unseen_forms", 1.0)
    assert metrics["kk3_accuracy_t1_unseen_forms"].value == 1.0
    assert metrics["format_t1_unseen_forms"].value == 1.0
    assert "summary_rate_t1_unseen_forms" not in metrics


@pytest.mark.parametrize(("split", "temperature", "text"), [
    ("test", 0.0, ""), ("test", 1.0, "_t1"), ("unseen_forms", 0.0, "_unseen_forms"),
    ("unseen_forms", 1.0, "_t1_unseen_forms"), ("validation", 0.7, "_t0.7_validation")])
def test_suffixes(split: str, temperature: float, text: str) -> None:
    assert suffix(split, temperature) == text
