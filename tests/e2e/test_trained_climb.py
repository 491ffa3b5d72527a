"""A climb that trains its own verifier, as a user runs it; killed behind that training, it goes on
to the same numbers with the verifier that is there.
"""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from test_climb import COMMAND, ENVIRONMENT, metrics

from safeladder.engine.threads import torch_threads
from safeladder.ladder.climb import climb

TINY_TRAINED = Path(__file__).with_name("tiny_trained.yaml")


def climb_here(folder, resume=False):
    """In this process, whose threads stay as they are: half the time goes into imports."""
    import torch  # noqa: F401

    with pytest.MonkeyPatch.context() as patch, torch_threads(None):
        patch.setenv("OMP_NUM_THREADS", "1")
        climb(str(TINY_TRAINED), out=folder, resume=resume)


@pytest.fixture(scope="module")
def climbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("climb") / "run"
    climb_here(folder)
    return folder


def test_the_run_says_what_its_verifier_is_worth(climbed):
    summary = json.loads((climbed / "summary.json").read_text())
    (guard,) = summary["verifiers"]
    assert (guard["name"], guard["kind"], guard["folder"], guard["rows"]) == (
        "guard", "generative", "verifiers/guard", 120)
    assert guard["accuracy"]["n"] == 30 and len(guard["accuracy"]["ci95"]) == 2
    assert 0 <= guard["ece"]["value"] <= 1 and guard["seconds"] > 0
    own = json.loads((climbed / "verifiers/guard/metrics.json").read_text())
    assert guard["accuracy"]["value"] == pytest.approx(own["test"]["accuracy"])
    rungs = sum(rung["seconds"] for rung in summary["rungs"])
    assert summary["total_seconds"] == pytest.approx(rungs + guard["seconds"])
    page = (climbed / "report.html").read_text()
    section = page[page.index('<section id="verifiers">'):]
    assert "value_generative_micro" in section[:section.index("</section>")]


def test_it_is_the_reward_and_the_rules_are_the_judge(climbed):
    steps = [row["metrics"] for row in metrics(climbed) if row["kind"] == "rl"]
    assert len(steps) == 2
    for step in steps:
        assert step["reward/mean"] == step["reward/part/expectation"] and step["reward/std"] > 0
        assert "monitor/gap/expectation/world" in step
    assert not [row for row in metrics(climbed) if row["rung"] not in ("sft", "value_rl")]


def test_killed_behind_the_training_and_resumed(climbed, tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen([*COMMAND, "climb", str(TINY_TRAINED), "--out", str(folder)],
                               env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    while not (folder / "verifiers/guard").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    weights = folder / "verifiers/guard/checkpoint/model.safetensors"
    written = weights.stat().st_mtime_ns
    climb_here(folder, resume=True)
    assert weights.stat().st_mtime_ns == written
    assert weights.read_bytes() == (
        climbed / "verifiers/guard/checkpoint/model.safetensors").read_bytes()
    assert metrics(folder) == metrics(climbed)
    evals = [[rung["eval"] for rung in json.loads((run / "summary.json").read_text())["rungs"]]
             for run in (folder, climbed)]
    assert evals[0] == evals[1]
