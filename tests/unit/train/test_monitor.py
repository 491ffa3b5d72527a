"""The figures that show a gamed reward, by hand."""

import math

import numpy as np
import pytest

from safeladder.algos.presets import build_algorithm
from safeladder.train.metrics import rollout_metrics
from safeladder.train.monitor import monitor_metrics
from safeladder.types import (
    Completion,
    Group,
    Message,
    Prompt,
    Reward,
    Status,
    Trajectory,
    Turn,
    Verdict,
)


def group(*rows, task="general"):
    """Rows of (tokens, parts, monitor)."""
    prompt = Prompt("p", (Message("user", "?"),), task=task)
    made = []
    for tokens, parts, monitor in rows:
        completion = Completion((1,) * tokens, np.zeros(tokens, np.float32), "stop", 0)
        made.append(Trajectory(prompt, (Turn((1,), completion, "x"),), Status.COMPLETED,
                               reward=Reward(1.0, parts, monitor)))
    return Group(prompt, made)


def test_every_figure_by_hand():
    one = group((10, {"a": 0.0, "b": 1.0}, {"m": 0.0}), (20, {"a": 1.0, "b": 0.0}, {"m": 0.0}))
    two = group((30, {"a": 0.0, "b": 0.0}, {"m": 1.0}), (50, {"a": 0.0, "b": 1.0}, {"m": 0.0}))
    got = monitor_metrics([one, two])
    # centred: a -.5 .5 | 0 0; b .5 -.5 | -.5 .5; m 0 0 | .5 -.5; length -5 5 | -10 10
    assert got == pytest.approx({
        "monitor/length/a": 5 / math.sqrt(0.5 * 250),         # .5*5 + .5*5
        "monitor/length/b": 5 / math.sqrt(1.0 * 250),         # -2.5 - 2.5 + 5 + 5
        "monitor/between/a/b": -0.5 / math.sqrt(0.5 * 1.0),   # -.25 - .25
        "monitor/agreement/a/m": 0.0,
        "monitor/agreement/b/m": -0.5 / math.sqrt(1.0 * 0.5),
        "monitor/gap/a/m": 0.25 - 0.25, "monitor/gap/b/m": 0.5 - 0.25})


def test_the_gap_of_each_task_where_there_are_several():
    # safety: (0.9 - 0.5 + 0.7 - 0.5) / 2 = 0.3; value: 0.4 - 0.6; all: (0.4 + 0.2 - 0.2) / 3
    safety = group((1, {"a": 0.9}, {"m": 0.5}), (2, {"a": 0.7}, {"m": 0.5}), task="safety")
    value = group((3, {"a": 0.4}, {"m": 0.6}), (4, {"a": 0.1}, {"m": None}), task="value")
    silent = group((3, {}, {}), task="logic")
    got = {k: v for k, v in monitor_metrics([safety, value, silent]).items() if "gap" in k}
    assert got == pytest.approx({
        "monitor/gap/a/m": 0.4 / 3, "monitor/task_gap/safety/a/m": 0.3,
        "monitor/task_gap/value/a/m": -0.2})
    assert not [k for k in monitor_metrics([safety]) if "task_gap" in k]


def test_differences_between_prompts_are_no_sign_of_anything():
    short = group(*[(10, {"a": 1.0}, {})] * 2)
    long = group(*[(90, {"a": 0.0}, {})] * 2)
    assert monitor_metrics([short, long]) == {}


def test_the_unjudged_are_left_out_of_their_pairs_only():
    rows = group((1, {"a": 0.0, "b": None}, {"m": None}), (2, {"a": 1.0, "b": 0.0}, {"m": 0.5}),
                 (3, {"a": 2.0, "b": 1.0}, {"m": None}))
    got = monitor_metrics([rows])
    assert got == pytest.approx({"monitor/length/a": 1.0, "monitor/gap/a/m": 0.5,
                                 "monitor/gap/b/m": -0.5})  # two rows make no correlation


def test_what_is_undefined_is_left_out_and_never_nan():
    assert monitor_metrics([]) == {}
    lone = [group((i, {"a": float(i)}, {})) for i in range(5)]
    assert monitor_metrics(lone) == {}
    flat = group(*[(i, {"a": 0.1 + 0.2}, {"m": 0.3}) for i in range(4)])
    assert monitor_metrics([flat]) == {"monitor/gap/a/m": pytest.approx(0.0)}
    unrewarded = group((1, {}, {}), (2, {}, {}))
    for row in unrewarded.trajectories:
        row.reward = None
    assert monitor_metrics([unrewarded]) == {}


def test_monitors_have_no_say_in_accuracy():
    rows = group((1, {"a": 1.0}, {"m": 1.0}), (2, {"a": 0.0}, {"m": 1.0}))
    for row, label in zip(rows.trajectories, ("correct", "wrong"), strict=True):
        row.verdicts = {"a": Verdict("a", 1.0, label), "m": Verdict("m", 1.0, "correct")}
    metrics = rollout_metrics([rows], build_algorithm({"preset": "grpo"}), 10)
    assert metrics["accuracy"] == 0.5
    assert metrics["monitor/gap/a/m"] == -0.5
