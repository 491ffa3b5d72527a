"""``safeladder verifier check``: what fails is seen, what is skipped is said."""

import importlib.util
import io
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from safeladder.cli.verifier_check import run_check
from safeladder.errors import ConfigError
from safeladder.verifiers.format import ThinkFormat


def checked(*names):
    output = io.StringIO()
    return run_check(names, Console(file=output, width=100)), output.getvalue()


def test_a_green_row():
    passed, output = checked("format")
    assert passed
    row = next(line for line in output.splitlines() if line.startswith("format"))
    kinds = [case.kind for case in ThinkFormat.cases]
    counts = [str(kinds.count(kind)) for kind in ("good", "bad", "hostile")]
    assert row.split()[1:4] == counts
    assert row.split()[-1] == "ok"


def test_a_failure_is_a_line_and_the_check_fails(monkeypatch):
    good, *others = ThinkFormat.cases
    monkeypatch.setattr(ThinkFormat, "cases", (replace(good, score=0.0), *others))
    passed, output = checked("format", "numeric")
    assert not passed
    assert "1 failed" in output
    line = output.strip().splitlines()[-1]
    assert line.startswith("format, good case '<think>2 + 2</think>4': score 1.0, expected 0.0")


def test_a_type_without_hostile_cases_fails(monkeypatch):
    calm = tuple(case for case in ThinkFormat.cases if case.kind != "hostile")
    monkeypatch.setattr(ThinkFormat, "cases", calm)
    passed, output = checked("format")
    assert not passed
    assert "format: ships no hostile case" in output


def test_what_is_skipped_is_said_and_fails_when_it_was_asked_for(monkeypatch):
    passed, output = checked("trl")
    assert not passed
    assert "skipped: needs settings of yours: path" in output
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name, *more: None if name == "math_verify" else real(name, *more))
    passed, output = checked("math")
    assert not passed
    assert "skipped: " in output
    assert "pip install 'safeladder[math]'" in " ".join(output.split())


def test_unknown_names_are_an_error():
    with pytest.raises(ConfigError, match="did you mean 'format'"):
        checked("formt")


@pytest.mark.parametrize(("names", "code"), [(["format"], 0), (["verl"], 1), (["nothing"], 2)])
def test_exit_codes(names, code):
    command = [sys.executable, "-m", "safeladder", "verifier", "check", *names]
    assert subprocess.run(command, capture_output=True).returncode == code
