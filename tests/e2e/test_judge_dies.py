"""The judge of a climb dies in the middle of it: no wrong score, a clear stop, an equal resume."""

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from safeladder.engine.local.models import save_checkpoint
from safeladder.ladder.build import initial_model
from safeladder.ladder.climb import climb
from safeladder.ladder.recipe import load_recipe

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
RECIPE = """
name: judged
model:
  type: checkpoint
  path: {model}
  chat_template: "{{% for m in messages %}}{{{{ m['content'] }}}} : {{% endfor %}}"
engine: {{threads: 1}}
verifiers:
  logic_rl: {{type: logic_rl}}
  judge:
    type: judge
    rubric: helpful
    endpoint: {{base_url: "http://127.0.0.1:{port}/v1", model: little-judge, max_retries: 1,
               backoff: 0.01, request_timeout: 5}}
objective:
  type: constrained
  base: {{tasks: {{"*": {{parts: {{logic_rl: 1}}}}}}}}
  constraints: {{judge: {{threshold: 0.5, rate: 0.5}}}}
verify: {{max_abstentions: 0.0, min_abstentions: 1}}
evaluation:
  max_tokens: 16
  sets:
    - {{name: test, data: [{{type: compact_puzzles, people: [2], count: 4, split: test}}]}}
rungs:
  - name: judged_rl
    type: rl
    data: [{{type: compact_puzzles, people: [2, 3], count: 20, split: train, seed: 4}}]
    settings: {{num_steps: 5, prompts_per_step: 2, group_size: 4, max_tokens: 16, save_every: 2,
               optim: {{learning_rate: 0.01}}}}
    algorithm: {{preset: cpgd}}
"""
@contextmanager
def judge(port, answers=None):
    """A server on the port; with ``answers`` it dies after so many."""
    arguments = [str(port), *([] if answers is None else [str(answers)])]
    process = subprocess.Popen([sys.executable, str(HERE / "judge_server.py"), *arguments],
                               stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def command(recipe, folder):
    """As a user runs it."""
    return subprocess.run([sys.executable, "-m", "safeladder", "climb", str(recipe), "--out",
                           str(folder)], capture_output=True, text=True, env=ENVIRONMENT,
                          timeout=120)


@pytest.fixture(scope="module")
def own_threads():
    """What a climb in this process sets for itself is set back."""
    threads, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    yield
    torch.set_num_threads(threads)
    if variable is None:
        os.environ.pop("OMP_NUM_THREADS", None)
    else:
        os.environ["OMP_NUM_THREADS"] = variable


def records(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def timeless(folder):
    return [{key: value for key, value in record.items() if key != "time"}
            for record in records(folder)]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    save_checkpoint(initial_model(load_recipe(str(HERE / "tiny.yaml"), [])), folder / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = folder / "judged.yaml"
    path.write_text(RECIPE.format(model=folder / "model", port=port))
    return path, port


@pytest.fixture(scope="module")
def undisturbed(recipe, own_threads, tmp_path_factory):
    path, port = recipe
    with judge(port):
        return climb(str(path), out=tmp_path_factory.mktemp("undisturbed") / "run")


def test_a_dead_judge_stops_the_run_and_resume_reaches_the_same_numbers(
        recipe, undisturbed, tmp_path):
    path, port = recipe
    folder = tmp_path / "run"
    calls = [record["time"]["judges"]["judge"]["calls"] for record in records(undisturbed)]
    assert len(calls) == 5 and min(calls) > 4
    with judge(port, sum(calls[:3]) + 4) as process:  # it dies within the fourth step
        stopped = command(path, folder)
        assert process.wait(10) == 9
    assert stopped.returncode == 2
    (line,) = stopped.stderr.strip().splitlines()
    found = re.search(r"verifier 'judge' could not judge (\d+) of 8 trajectories \(allowed: 0%\): "
                      r"SamplingError: POST /v1/chat/completions: connection failed", line)
    assert found and 1 <= int(found[1]) <= 4, line
    # What was logged is what the undisturbed run logged; the broken step left nothing behind.
    assert timeless(folder) == timeless(undisturbed)[:3]
    with judge(port):
        climb(str(path), out=folder, resume=True)
    assert timeless(folder) == timeless(undisturbed)
    for name in ("judged_rl-test-t0.parquet", "judged_rl-train-step000003.parquet"):
        assert pq.read_table(folder / "traces" / name) == pq.read_table(
            undisturbed / "traces" / name)
    # The fourth step was asked again, but not what the judge had answered before it died.
    again = records(folder)[3]["time"]["judges"]["judge"]
    assert again["cached"] >= 4 and again["calls"] + again["cached"] == 8


def test_the_multiplier_is_logged_at_every_step_and_moves(undisturbed):
    multipliers = [record["metrics"]["constraint/judge/multiplier"]
                   for record in records(undisturbed)]
    assert multipliers[0] == 0.3 and len(set(multipliers)) == 5
