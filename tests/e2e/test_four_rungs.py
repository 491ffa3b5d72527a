"""The embedded ladder's recipe, shrunk: all four rungs and the arm without a constraint."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from safeladder.ladder.recipe import load_recipe

RECIPE = Path(__file__).with_name("four_rungs.yaml")


def climb(out, *more):
    return subprocess.run([sys.executable, "-m", "safeladder", "climb", str(RECIPE), "--out",
                           str(out), *more], capture_output=True, text=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "climb"
    result = climb(out)
    assert result.returncode == 0, result.stderr[-3000:]
    return out


def summary(run):
    return json.loads((run / "summary.json").read_text())


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_shrunk_recipe_has_the_rungs_of_the_whole_one():
    whole, small = load_recipe("climb", []), load_recipe(str(RECIPE), [])
    assert [r.name for r in whole.rungs] == [r.name for r in small.rungs]
    for rung in whole.rungs:
        other = small.by_name[rung.name]
        assert (other.start_from, other.compare_with, other.baseline) == (
            rung.start_from, rung.compare_with, rung.baseline)
        if rung.type == "rl":
            assert (other.algorithm, other.environment, other.objective, other.data) == (
                rung.algorithm, rung.environment, rung.objective, rung.data)


def test_the_summary_has_every_rung_and_the_arm_without_a_constraint(run):
    found = summary(run)
    assert [r["name"] for r in found["rungs"]] == [
        "cot_sft", "m3_rl_general", "m3_rl", "safe_efficient_rl", "search_warm_up",
        "deliberative_search_rl"]
    assert [r["name"] for r in found["baselines"]] == ["unconstrained"]
    last = found["rungs"][-1]["eval"]
    assert {"capability", "safety", "image_safety", "jailbreak_safety", "benign_compliance",
            "bare_refusal", "tokens_per_answer", "accuracy", "reliability", "false_certain",
            "coverage", "false_certain_baseline_matched", "false_certain_minus_matched"} <= (
                last.keys())
    pairs = {(d["before"], d["after"]) for d in found["comparisons"] if d["figure"] == "safety"}
    assert pairs == {("cot_sft", "m3_rl"), ("m3_rl", "safe_efficient_rl"),
                     ("safe_efficient_rl", "deliberative_search_rl"),
                     ("cot_sft", "deliberative_search_rl"),
                     ("unconstrained", "deliberative_search_rl")}


def test_each_task_is_judged_by_its_row_and_watched(run):
    steps = {}
    for row in metrics(run):
        if row["kind"] == "rl":
            steps.setdefault(row["rung"], row["metrics"])
    assert {"reward/part/helpful", "reward/part/focus"} <= steps["m3_rl"].keys()
    assert "lambda" in steps["deliberative_search_rl"]
    assert steps["unconstrained"]["lambda"] == 0


@pytest.mark.parametrize(("start", "rungs"), [
    ("m3_rl", ["safe_efficient_rl"]),
    ("safe_efficient_rl", ["search_warm_up", "deliberative_search_rl"])])
def test_rungs_run_alone_from_a_checkpoint(run, tmp_path, start, rungs):
    """The numbers are those of the whole climb; the warm-up finds the answers it rehearses."""
    chosen = [word for name in rungs for word in ("--rung", name)]
    result = climb(tmp_path / "alone", *chosen, "--from",
                   str(run / "rungs" / start / "checkpoint"))
    assert result.returncode == 0, result.stderr[-3000:]
    # the figures that need a rung before
    matched = {"false_certain_baseline_matched", "false_certain_minus_matched"}
    alone, whole = ({rung["name"]: {k: v for k, v in rung["eval"].items() if k not in matched}
                     for rung in summary(folder)["rungs"] if rung["name"] in rungs}
                    for folder in (tmp_path / "alone", run))
    assert list(alone) == rungs and alone == whole and alone[rungs[-1]]
    alone, whole = ([(row["rung"], row["step"], row["metrics"]) for row in metrics(folder)
                     if row["rung"] in rungs] for folder in (tmp_path / "alone", run))
    assert alone == whole and alone


def test_what_a_rung_alone_does_not_have_is_told(tmp_path):
    result = climb(tmp_path / "alone", "--rung", "m3_rl")
    assert result.returncode == 2 and result.stderr.startswith("error: rung 'm3_rl' starts from")
    result = climb(tmp_path / "alone", "--rung", "m3_rl", "--from", str(tmp_path / "nowhere"))
    assert result.returncode == 2 and "nowhere" in result.stderr
