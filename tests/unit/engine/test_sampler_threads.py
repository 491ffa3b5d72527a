"""Thread settings, in processes of their own: OpenMP reads them once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from safeladder.engine.threads import usable_cores

SCRIPT = """
import json, os, sys
{before}
from safeladder.engine.threads import configure_threads
settings = configure_threads({argument})
heavy = [name for name in ("torch", "numpy") if name in sys.modules]
import torch
print(json.dumps([settings.num_threads, settings.passive_waiting, os.environ["OMP_WAIT_POLICY"],
                  torch.get_num_threads(), heavy]))
"""


def configured(before: str = "", argument: str = "", **environment: str) -> list[object]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "KMP_"))}
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(before=before, argument=argument)],
        env=clean | environment, capture_output=True, text=True, check=True).stdout
    return list(json.loads(out))


def test_waiting_is_passive_and_threads_are_set_before_torch_starts() -> None:
    assert configured(argument="1") == [1, True, "PASSIVE", 1, []]


def test_the_users_environment_wins() -> None:
    assert configured(OMP_WAIT_POLICY="ACTIVE", OMP_NUM_THREADS="1") == [
        1, False, "ACTIVE", 1, []]


def test_too_late_for_the_policy_is_said() -> None:
    threads, passive, *_ = configured("import torch; os.environ.setdefault('OMP_WAIT_POLICY', '')",
                                      argument="1")
    assert (threads, passive) == (1, False)


@pytest.mark.parametrize(("quota", "most"), [("max 100000", None), ("100000 100000", 1),
                                             ("50000 100000", 1), ("150000 100000", 2)])
def test_a_containers_quota_bounds_the_cores(tmp_path: Path, quota: str, most: int | None) -> None:
    limit = tmp_path / "cpu.max"
    limit.write_text(quota + "\n")
    free = usable_cores(tmp_path / "missing")
    assert usable_cores(limit) == (free if most is None else min(free, most))
