"""A climb as a user runs it: the command, the files it leaves, kills and resumes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

TINY = Path(__file__).parent / "tiny.yaml"
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
COMMAND = [sys.executable, "-m", "safeladder"]


def run(*arguments, check=True, timeout=180):
    result = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True,
                            env=ENVIRONMENT, timeout=timeout)
    if check:
        assert result.returncode == 0, result.stderr[-3000:]
    return result


@pytest.fixture(scope="module")
def climbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("climb") / "run"
    result = run("climb", TINY, "--out", folder)
    return folder, result.stdout


def figures(folder):
    """What must be equal on every run: steps and every evaluated value."""
    summary = json.loads((folder / "summary.json").read_text())
    return [(rung["name"], rung["steps"], rung["eval"]) for rung in summary["rungs"]]


def metrics(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "time"} for line in lines]


def test_a_climb_leaves_what_the_docs_promise(climbed):
    folder, stdout = climbed
    summary = json.loads((folder / "summary.json").read_text())
    assert [rung["name"] for rung in summary["rungs"]] == ["base", "cot_sft", "logic_rl"]
    names = set(summary["rungs"][-1]["eval"])
    assert {"kk2_accuracy", "kk3_accuracy", "format", "tokens_per_answer", "reflection_rate",
            "kk2_accuracy_t1", "kk2_accuracy_unseen_forms",
            "kk2_accuracy_t1_unseen_forms"} <= names
    figure = summary["rungs"][-1]["eval"]["kk2_accuracy"]
    assert figure["n"] == 6 and len(figure["ci95"]) == 2
    assert summary["total_seconds"] > 0 and summary["peak_rss_bytes"] > 1e8
    assert (folder / "report.html").stat().st_size > 10_000
    assert (folder / "rungs/logic_rl/checkpoint/model.safetensors").exists()
    assert not (folder / "state").exists() or not list((folder / "state").glob("*/step-*"))
    rows = pq.read_table(folder / "traces/logic_rl-test-t0.parquet").to_pylist()
    assert len(rows) == 12 and json.loads(rows[0]["verdicts"])["logic_rl"]["score"] is not None
    assert "logic_rl step" in stdout


def test_the_checkpoint_loads_without_safeladder(climbed):
    folder, _ = climbed
    code = (
        "import sys; sys.modules['safeladder'] = None\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"path = {str(folder / 'rungs/logic_rl/checkpoint')!r}\n"
        "t, m = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)\n"
        "ids = t.apply_chat_template([{'role': 'user', 'content': 'Ann says Bob knave .'}],\n"
        "    add_generation_prompt=True, return_tensors='pt', return_dict=True)\n"
        "out = m.generate(**ids, max_new_tokens=5, do_sample=False)\n"
        "print(out.shape[1] - ids['input_ids'].shape[1])\n")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            env=ENVIRONMENT, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
    assert 1 <= int(result.stdout.strip()) <= 5


def test_killed_anywhere_and_resumed_it_reaches_the_same_numbers(climbed, tmp_path):
    reference, _ = climbed
    folder, rng = tmp_path / "run", random.Random(0)
    for lines in (1, 5, 9, 14, None):  # in each rung; the last one goes on to the end
        arguments = ["climb", TINY, "--out", folder, *(["--resume"] if folder.exists() else [])]
        process = subprocess.Popen([*COMMAND, *map(str, arguments)], env=ENVIRONMENT,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if lines is not None:
            wait_for_lines(folder / "metrics.jsonl", lines, process)
            time.sleep(rng.uniform(0.0, 0.1))
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=180)
        expected = 0 if lines is None else -signal.SIGKILL
        assert process.returncode == expected, errors.decode()[-2000:]
    assert figures(folder) == figures(reference)
    assert metrics(folder) == metrics(reference)


def wait_for_lines(path, lines, process, seconds=60):
    """Until so many steps are logged, so that a kill comes while the loop runs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.005)


def test_a_finished_run_is_not_climbed_again(climbed):
    folder, _ = climbed
    before = (folder / "metrics.jsonl").read_bytes()
    result = run("climb", TINY, "--out", folder, check=False)
    assert result.returncode == 2 and "--resume" in result.stderr
    run("climb", TINY, "--out", folder, "--resume")
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_any_rung_starts_from_any_checkpoint(climbed, tmp_path):
    folder, _ = climbed
    start = folder / "rungs" / "cot_sft" / "checkpoint"
    recipe = tmp_path / "alone.yaml"
    recipe.write_text(f"extends: {TINY}\nname: alone\n")
    run("climb", recipe, "--out", tmp_path / "run", "--set", f"rungs.logic_rl.start_from={start}",
        "--set", "rungs.logic_rl.settings.num_steps=2", "--set", "rungs.base.evaluate=false")
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["rungs"]["logic_rl"]["start"] == str(start)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["climb", "frist_climb"], "no recipe 'frist_climb'"),
        (["climb", TINY, "--set", "rungs.logic_rl.settings.num_stps=3"],
         "did you mean 'num_steps'?"),
        (["climb", TINY, "--set", "rungs.logic_rl.settings.minibatches=9"],
         "minibatches (9) must not exceed prompts_per_step (4)"),
        (["climb", TINY, "--resume", "--out", "/proc/nowhere"], "cannot write"),
        (["report", "/nonexistent"], "/nonexistent"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_exit_code_2(arguments, message):
    result = run(*arguments, check=False)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
