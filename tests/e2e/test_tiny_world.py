"""A ladder in the microworld as a user climbs it: figures, images, gates, kills."""

import json
import random
import re
import signal
import subprocess
import time

import pytest
import yaml
from test_climb import COMMAND, ENVIRONMENT, TINY, metrics, run, wait_for_lines

TINY_WORLD = TINY.with_name("tiny_world.yaml")
IMPOSSIBLE = {"figure": "safety", "minimum": 1.0}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """safety_rl fails its gate twice; ``more`` goes on from sft."""
    path = tmp_path_factory.mktemp("recipes") / "gated.yaml"
    sft = yaml.safe_load(TINY_WORLD.read_text())["rungs"][0]
    more = {**sft, "name": "more", "settings": {**sft["settings"], "num_steps": 2},
            "gates": [{"figure": "capability", "not_below": "previous", "margin": "interval"}]}
    gated = {"name": "safety_rl", "gates": [IMPOSSIBLE], "on_failure": "retry",
             "retry": {"attempts": 1, "settings": {"num_steps": 2}}}
    path.write_text(yaml.safe_dump({"extends": str(TINY_WORLD), "rungs": [gated, more]}))
    return path


@pytest.fixture(scope="module")
def climbed(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("climb") / "run"
    return folder, run("climb", recipe, "--out", folder).stdout


def gates(folder):
    """What must be equal on every run beside the metrics."""
    summary = json.loads((folder / "summary.json").read_text())
    rungs = json.loads((folder / "manifest.json").read_text())["rungs"]
    return [(r["name"], r["steps"], r["eval"], r["gates"], r["accepted"], r["attempts"],
             [a["gates"] for a in rungs[r["name"]].get("failed_attempts", [])])
            for r in summary["rungs"]] + summary["comparisons"]


def test_a_failed_gate_keeps_the_previous_checkpoint(climbed):
    folder, stdout = climbed
    manifest = json.loads((folder / "manifest.json").read_text())["rungs"]
    failed = manifest["safety_rl"]
    assert failed["accepted"] is False and failed["steps"] == 2 and failed["attempt"] == 1
    assert failed["kept"] == failed["start"] == manifest["more"]["start"]
    assert failed["start"].endswith("rungs/sft/checkpoint")
    assert failed["failed_attempts"][0]["steps"] == 4
    assert re.search(r"safety_rl: safety is 0\S*, below the minimum of 1; attempt 2 of 2", stdout)
    assert "safety_rl failed a gate: safety is 0" in stdout.replace("\n", " ")
    assert manifest["more"]["accepted"] is True
    (outcome,) = manifest["more"]["gates"]
    assert outcome["rule"].endswith("the lower end of sft's interval")


def test_the_last_attempt_alone_is_in_metrics_and_traces(climbed):
    folder, _ = climbed
    steps = [row["step"] for row in metrics(folder)
             if row["rung"] == "safety_rl" and row["kind"] == "rl"]
    assert steps == [0, 1]
    assert [p.name for p in (folder / "traces").glob("safety_rl-train*")] == [
        "safety_rl-train-step000000.parquet"]


def test_the_summary_has_the_figures_of_a_ladder(climbed):
    folder, _ = climbed
    summary = json.loads((folder / "summary.json").read_text())
    assert [rung["name"] for rung in summary["rungs"]] == ["sft", "safety_rl", "more"]
    assert [rung["accepted"] for rung in summary["rungs"]] == [True, False, True]
    names = set(summary["rungs"][0]["eval"])
    assert {"capability", "safety", "image_safety", "vision", "benign_compliance",
            "jailbreak_safety_unseen_forms", "names_risk_first", "tokens_per_answer"} <= names
    pairs = {(d["before"], d["after"]) for d in summary["comparisons"]}
    assert pairs == {("sft", "safety_rl"), ("sft", "more")}
    page = (folder / "report.html").read_text()
    assert "data:image/png;base64," in page and 'id="gates"' in page
    validated = [row["metrics"] for row in metrics(folder) if row["kind"] == "eval"]
    assert all("capability" in row and "safety" in row for row in validated)


def test_killed_anywhere_and_resumed_the_gates_say_the_same(climbed, recipe, tmp_path):
    reference, _ = climbed
    folder, rng = tmp_path / "run", random.Random(0)
    for attempt in (3, 8, None):
        arguments = ["climb", recipe, "--out", folder, *(["--resume"] if folder.exists() else [])]
        process = subprocess.Popen([*COMMAND, *map(str, arguments)], env=ENVIRONMENT,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if attempt is not None:
            wait_for_lines(folder / "metrics.jsonl", attempt, process)
            time.sleep(rng.uniform(0.0, 0.3))
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=180)
        assert process.returncode == (0 if attempt is None else -signal.SIGKILL), errors.decode()
    assert gates(folder) == gates(reference)
    assert metrics(folder) == metrics(reference)


def test_a_rung_may_stop_the_climb_with_one_line(tmp_path):
    arguments = ["climb", TINY_WORLD, "--out", tmp_path / "run",
                 "--set", "rungs.sft.gates=[{figure: safety, minimum: 1.0}]",
                 "--set", "rungs.sft.on_failure=stop", "--set", "rungs.sft.settings.num_steps=1"]
    for more in ([], ["--resume"]):
        result = run(*arguments, *more, check=False)
        assert result.returncode == 2, result.stderr
        assert result.stderr.startswith("error: rung 'sft' failed a gate, and says to stop: safety")
        assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run/rungs/safety_rl").exists()
    assert (tmp_path / "run/report.html").exists()


def test_a_gate_on_no_figure_is_refused_before_anything_trains(tmp_path):
    result = run("climb", TINY_WORLD, "--out", tmp_path / "run",
                 "--set", "rungs.sft.gates=[{figure: saftey, minimum: 1.0}]", check=False)
    assert result.returncode == 2 and "did you mean 'safety'?" in result.stderr
    assert (tmp_path / "run/metrics.jsonl").read_text() == ""
