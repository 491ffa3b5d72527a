"""A climb with the search environment as a user runs it; lambda survives a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from safeladder.eval.deliberation import false_certain_baseline_matched
from safeladder.ladder.report_data import deliberation_answers

RECIPE = Path(__file__).parent / "search.yaml"
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
COMMAND = [sys.executable, "-m", "safeladder", "climb"]


def climb(folder, *more, check=True):
    result = subprocess.run([*COMMAND, str(RECIPE), "--out", str(folder), *more],
                            capture_output=True, text=True, env=ENVIRONMENT, timeout=180)
    if check:
        assert result.returncode == 0, result.stderr[-3000:]
    return result


def metrics(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "time"} for line in lines]


def of_rl(folder, rung="deliberative_rl"):
    return [r["metrics"] for r in metrics(folder) if (r["rung"], r["kind"]) == (rung, "rl")]


@pytest.fixture(scope="module")
def climbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search") / "run"
    climb(folder)
    return folder


def test_the_evaluation_has_the_figures_of_stated_confidence(climbed):
    for rung in ("warm_up", "deliberative_rl"):
        found = json.loads((climbed / "rungs" / rung / "evaluation.json").read_text())
        assert {f"{name}_t1" for name in (
            "accuracy", "reliability", "false_certain", "coverage", "auroc", "ece", "brier",
            "accuracy_when_certain", "searches_per_answer", "reads_per_answer",
            "accuracy_condition_clean", "accuracy_condition_conflicting", "accuracy_tier_rare",
            "format", "microworld_search_accuracy")} <= set(found)
        assert found["accuracy_t1"]["n"] == 6
        assert found["accuracy_condition_clean_t1"]["n"] == 2
        assert found["accuracy_t1"]["value"] == found["microworld_search_accuracy_t1"]["value"]


def test_the_start_is_the_baseline_at_as_many_certain_answers(climbed):
    before, after = (json.loads((climbed / "rungs" / rung / "evaluation.json").read_text())
                     for rung in ("warm_up", "deliberative_rl"))
    assert "false_certain_baseline_matched_t1" not in before
    matched = after["false_certain_baseline_matched_t1"]
    ours, theirs = (deliberation_answers(climbed, rung, temperature=1.0)
                    for rung in ("deliberative_rl", "warm_up"))
    assert matched["n"] == 6 and matched["ci95"] is None
    assert matched["value"] == false_certain_baseline_matched(ours, theirs).value
    minus = after["false_certain_minus_matched_t1"]
    assert minus["n"] == 6 and minus["value"] == pytest.approx(
        after["false_certain_t1"]["value"] - matched["value"])
    assert sum(a.right for a in ours) / 6 == after["accuracy_t1"]["value"]
    assert sum(a.certain for a in theirs) / 6 == before["coverage_t1"]["value"]


def test_another_arm_may_be_the_baseline(climbed):
    found = json.loads((climbed / "rungs/unconstrained/evaluation.json").read_text())
    ours, theirs = (deliberation_answers(climbed, rung)
                    for rung in ("unconstrained", "deliberative_rl"))
    expected = false_certain_baseline_matched(ours, theirs)
    assert found["false_certain_baseline_matched"]["value"] == expected.value
    assert expected.n == 6


def test_the_report_shows_the_whole_episode(climbed):
    page = (climbed / "report.html").read_text()
    assert "&lt;search&gt;" in page and "&lt;information&gt;" in page
    assert "false_certain_baseline_matched" in page


def test_lambda_is_logged_and_moves_between_batches(climbed):
    steps = of_rl(climbed)
    assert steps[0]["lambda"] == 0.3 and len(steps) == 3
    assert len({step["lambda"] for step in steps}) > 1
    assert {"reliability/mean", "deliberation/false_certain",
            "reward/part/accuracy"} <= set(steps[0])


def test_a_rung_has_an_objective_of_its_own(climbed):
    (step,) = of_rl(climbed, "unconstrained")
    assert step["lambda"] == 0
    first = of_rl(climbed)[0]  # the same rollout, rewarded with lambda 0.3
    assert step["reward/part/reliability"] == first["reward/part/reliability"] > 0
    assert step["reward/mean"] == pytest.approx(
        first["reward/mean"] - 0.3 * first["reward/part/reliability"])


@pytest.mark.parametrize("rung", ["warm_up", "deliberative_rl", "unconstrained"])
def test_every_rung_is_judged_by_the_objective_of_the_recipe_as_it_begins(climbed, rung):
    """Whatever lambda its training had: f (0.1 f + 0.9 a + 0.3 rel)."""
    for row in pq.read_table(climbed / f"traces/{rung}-test-t1.parquet").to_pylist():
        parts = json.loads(row["verdicts"])["deliberative"]["parts"]
        assert row["reward_total"] == pytest.approx(parts["format"] * (
            0.1 + 0.9 * parts["accuracy"] + 0.3 * parts["reliability"]))


def test_the_policy_searches_and_what_it_found_stands_between_its_turns(climbed):
    rows = [row for path in sorted((climbed / "traces").glob("deliberative_rl-train-*.parquet"))
            for row in pq.read_table(path).to_pylist()]
    verdicts = [json.loads(row["verdicts"])["deliberative"] for row in rows]
    assert len(rows) == 36 and all(v["score"] is not None for v in verdicts)
    assert {json.loads(row["meta"])["condition"] for row in rows} == {
        "clean", "noisy", "conflicting"}
    several = [turns for row in rows if (turns := json.loads(row["turns"]))]
    assert any("<information>" in turn["environment"][0] for turns in several
               for turn in turns[:-1])
    found = json.loads((climbed / "rungs/warm_up/evaluation.json").read_text())
    assert found["searches_per_answer"]["value"] > 0  # greedy
    assert found["format_t1"]["value"] > 0.5  # sixty steps teach the form, and nothing else


def test_killed_after_a_step_and_resumed_lambda_goes_on(climbed, tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen([*COMMAND, str(RECIPE), "--out", str(folder)], env=ENVIRONMENT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    state = folder / "state/deliberative_rl"
    end = time.monotonic() + 120
    while not list(state.glob("step-*")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    carried = json.loads(next(iter(sorted(state.glob("step-*")))).joinpath("loop.json").read_text())
    assert carried["carried"]["objective"]["multiplier"]["value"] != 0.3
    climb(folder, "--resume")
    assert metrics(folder) == metrics(climbed)
    for rung in ("warm_up", "deliberative_rl"):
        name = Path("rungs") / rung / "evaluation.json"
        assert (folder / name).read_text() == (climbed / name).read_text()


@pytest.mark.parametrize(("override", "message"), [
    ("objective.maximum=0.95", "failing on purpose pays"),
    ("rungs.deliberative_rl.environment.passages=nowhere.jsonl", "no such file of passages"),
    ("rungs.deliberative_rl.environment.type=serch", "environment"),
    ("rungs.deliberative_rl.environment.max_turn=3", "did you mean 'max_turns'?"),
])
def test_what_a_user_can_mend_is_one_line(override, message, tmp_path):
    result = climb(tmp_path / "run", "--set", override, check=False)
    assert result.returncode == 2 and message in result.stderr, result.stderr[-2000:]
    assert "Traceback" not in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run/metrics.jsonl").exists()  # before anything was trained
