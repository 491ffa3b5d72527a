"""Filters as a user meets them: in a rung of a climb, and on the command line."""

import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from safeladder.data.responses import LabelledResponse, write_responses
from safeladder.types import Message, Prompt

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
RECIPE = """
extends: first_climb
name: filtered
model: {config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2,
                 num_key_value_heads: 1, head_dim: 16, intermediate_size: 64}}
engine: {threads: 1}
verifiers: {world: {type: microworld}}
objective: {tasks: {arithmetic: {parts: {world: 1.0}}}}
evaluation:
  max_tokens: 4
  temperatures: [0.0]
  sets: [{name: test, data: [{type: microworld, family: arithmetic, split: test, count: 2}]}]
  validation: []
rungs:
  - name: base
    data: [{type: compact_walks, people: [2], count: 10, seed: 1}]
    settings: {num_steps: 1, tokens_per_step: 256, save_every: 1}
    evaluate: false
  - name: cot_sft
    disclosure: one chain in five misjudges
    data: [{type: microworld, family: arithmetic, split: train, count: 60, teacher: {ideal: 1.0},
            strategies: {direct: 2.0, check: 1.0}, noise: 0.2}]
    validation: []
    filters:
      - {type: verifier, name: answer, verifier: world}
      - {type: diversity, patterns: microworld, max_share: 0.5}
    settings: {num_steps: null, num_tokens: 500, tokens_per_step: 256, eval_every: 2,
               save_every: 2, optim: {schedule: constant}}
  - name: logic_rl
    data: [{type: microworld, family: arithmetic, split: train, count: 4}]
    settings: {num_steps: 1, prompts_per_step: 2, group_size: 2, max_tokens: 4, eval_every: 9,
               save_every: 9, trace_every: 9}
"""


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "safeladder", *map(str, arguments)],
                          capture_output=True, text=True, env=ENVIRONMENT, timeout=180)


def test_a_rung_learns_from_what_its_filters_let_through(tmp_path: Path):
    recipe = tmp_path / "filtered.yaml"
    recipe.write_text(RECIPE)
    result = run("climb", recipe, "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr[-2000:]
    report = json.loads((tmp_path / "run/rungs/cot_sft/filters.json").read_text())
    answer, diversity = report["steps"]
    assert answer["rows"] == 60 and answer["reasons"] == {"wrong": answer["dropped"]}
    assert 4 <= answer["dropped"] <= 24  # 0.2 of 60 is 12, sd 3.1
    assert diversity["rows"] == answer["kept"] and diversity["dropped"] > 0
    assert f"{report['kept']} of 60 demonstrations passed 2 filters" in " ".join(
        result.stdout.split())
    page = (tmp_path / "run/report.html").read_text()
    assert 'href="rungs/cot_sft/filters.html"' in page
    assert (tmp_path / "run/rungs/cot_sft/filters.html").exists()
    assert not (tmp_path / "run/rungs/base/filters.json").exists()


def test_the_command_prints_the_counts(tmp_path: Path):
    asked = Prompt("1", (Message("user", "two and two ?"),))
    write_responses(tmp_path / "rows.jsonl", [
        LabelledResponse(asked, "<think>two and two are four</think> four"),
        LabelledResponse(asked, "four")])
    result = run("data", "filter", tmp_path / "rows.jsonl", "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "1 of 2 rows (50.0%) passed all 6 steps." in result.stdout
    again = run("data", "filter", tmp_path / "rows.jsonl", "--out", tmp_path / "out")
    assert again.returncode == 2 and "holds a kept.jsonl already" in again.stderr
    assert "Traceback" not in again.stderr


@contextmanager
def judge(answers):
    """The judge of the neighbouring tests, which dies after so many answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "judge_server.py"), str(port), str(answers)],
        stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"
        yield port
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_what_a_judge_did_not_live_to_judge_is_kept_apart(tmp_path: Path):
    rows = [LabelledResponse(Prompt(str(i), (Message("user", "how many ?"),)),
                             f"<think>I count them one by one</think> {i} things")
            for i in range(12)]
    write_responses(tmp_path / "rows.jsonl", rows)
    with judge(answers=9) as port:
        (tmp_path / "steps.yaml").write_text(f"""
steps:
  - type: verifier
    verifier: {{type: judge, rubric: helpful, endpoint: {{base_url: "http://127.0.0.1:{port}/v1",
               model: little, max_retries: 0, max_concurrency: 1}}}}
""")
        result = run("data", "filter", tmp_path / "rows.jsonl", "--out", tmp_path / "out",
                     "--recipe", tmp_path / "steps.yaml")
    assert result.returncode == 0, result.stderr[-2000:]
    report = json.loads((tmp_path / "out/filters.json").read_text())
    step = report["steps"][0]
    assert step["unjudged"] == 3 and step["kept"] + step["dropped"] == 9
    assert step["kept"] and set(step["reasons"]) <= {"needlessly cautious", "unhelpful"}
    assert step["figures"]["spent"]["calls"] == 9 and step["figures"]["spent"]["failed"] == 3
    left = (tmp_path / "out/unjudged.jsonl").read_text().splitlines()
    assert len(left) == 3 and all(json.loads(line)["why"] for line in left)
    assert "3 could not be judged and are kept apart" in " ".join(result.stdout.split())
