"""Distilling as a user meets it: a teacher that is a process of its own, a kill, a rerun."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safeladder.data.microworld import family_prompts

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "NO_PROXY": "127.0.0.1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def teacher():
    process = subprocess.Popen(
        [sys.executable, ROOT / "examples/microworld_teacher.py", "--family", "value"],
        stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def command(teacher, folder, out):
    return [sys.executable, "-m", "safeladder", "data", "distill", str(folder / "prompts.yaml"),
            "--teacher", teacher, "--model", "rehearsal", "--n", "4", "--out", str(folder / out)]


def test_a_killed_run_goes_on_and_ends_with_the_same_file(teacher, tmp_path):
    (tmp_path / "prompts.yaml").write_text(
        "{type: microworld, family: value, split: train, count: 150}")
    out = tmp_path / "chains.jsonl"
    process = subprocess.Popen(command(teacher, tmp_path, "chains.jsonl"), env=ENVIRONMENT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None and (
            not out.exists() or out.read_bytes().count(b"\n") < 40):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = out.read_bytes().count(b"\n")
    assert 40 <= left < 600
    results = [subprocess.run(command(teacher, tmp_path, name), env=ENVIRONMENT, timeout=120,
                              capture_output=True, text=True)
               for name in ("chains.jsonl", "whole.jsonl")]
    assert [result.returncode for result in results] == [0, 0], results[0].stderr
    all_ = 4 * len({prompt.messages for prompt in family_prompts("value", "train", 150)})
    said = f"{all_ - left} responses written now, {left} were there already, 0 failed"
    assert said in " ".join(results[0].stdout.split())
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len({row["request_hash"] for row in rows}) == len(rows) == all_
    assert rows[1]["id"].endswith("/1") and "<think>" in rows[1]["response"]
