import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from safeladder.config import read_yaml, validate
from safeladder.errors import CheckpointError, ConfigError
from safeladder.ladder.recipe import Recipe
from safeladder.ladder.run_dir import RunDir
from safeladder.ladder.summary import (
    MemoryWatch,
    git_revision,
    own_high_water_bytes,
    read_figures,
    read_summary,
    versions,
    write_summary,
)


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "first_climb-1"))


def test_the_file_has_the_documented_form(run: Path) -> None:
    data = json.loads((run / "summary.json").read_text())
    assert [rung["name"] for rung in data["rungs"]] == ["base", "cot_sft", "logic_rl"]
    assert [rung["name"] for rung in data["baselines"]] == ["more_sft", "shuffled_rl"]
    assert data["recipe"] == "first_climb"
    assert data["total_seconds"] == 5 * 72.5
    assert data["peak_rss_bytes"] == 1_500_000_000
    assert {"python", "torch", "safeladder", "git_revision", "cpu", "threads"} <= \
        data["versions"].keys()
    rung = data["rungs"][2]
    assert (rung["seconds"], rung["steps"]) == (72.5, 8)
    names = ("kk2_accuracy", "kk3_accuracy", "format", "tokens_per_answer", "reflection_rate")
    for name in names:
        for suffix in ("", "_t1", "_unseen_forms", "_t1_unseen_forms"):
            figure = rung["eval"][name + suffix]
            assert figure["n"] in (12, 24)
            low, high = figure["ci95"]
            assert low <= figure["value"] <= high


def test_reading_gives_back_what_was_written(run: Path) -> None:
    summary = read_summary(run / "summary.json")
    written = json.loads((run / "summary.json").read_text())
    assert summary.model_dump(mode="json") == written


def test_an_earlier_process_may_have_had_the_peak(run: Path) -> None:
    recipe, folder = validate(Recipe, read_yaml(run / "recipe.yaml"), "recipe"), RunDir(run)
    folder.update_rung("cot_sft", peak_rss_bytes=2_000_000_000)
    assert write_summary(folder, recipe, 1_000_000_000).peak_rss_bytes == 2_000_000_000


def test_an_unfinished_rung_is_named(run: Path) -> None:
    recipe, folder = validate(Recipe, read_yaml(run / "recipe.yaml"), "recipe"), RunDir(run)
    folder.update_rung("cot_sft", status="running")
    with pytest.raises(CheckpointError, match="rung 'cot_sft' is not finished"):
        write_summary(folder, recipe, 0)


def test_broken_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_summary(path)
    path.write_text("[]")
    with pytest.raises(CheckpointError, match="expected a JSON object, found list"):
        read_summary(path)
    path.write_text('{"recipe": "x", "rung": []}')
    with pytest.raises(ConfigError, match="did you mean 'rungs'"):
        read_summary(path)
    path.write_text('{"format": {"value": 0.5, "n": -1, "ci95": null}}')
    with pytest.raises(ConfigError, match=r"summary\.json, format: n: .*greater than or equal"):
        read_figures(path)


def test_memory_of_a_child_counts() -> None:
    with MemoryWatch(interval=0.05) as watch:
        before = watch.peak_bytes
        size = before - psutil.Process().memory_info().rss + 120_000_000
        child = subprocess.Popen(
            [sys.executable, "-c", f"import time; x = bytearray({size}); print('ready', flush=True)"
             "; time.sleep(60)"], stdout=subprocess.PIPE)
        assert child.stdout and child.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 10
        while watch.peak_bytes < before + 100_000_000 and time.monotonic() < deadline:
            time.sleep(0.02)
        child.terminate()
        child.wait()
        child.stdout.close()
    assert watch.peak_bytes >= before + 100_000_000


def test_a_peak_of_this_process_is_kept_after_it_is_gone() -> None:
    if own_high_water_bytes() is None:
        pytest.skip("this system keeps no high-water mark")
    with MemoryWatch(interval=60) as watch:
        before = watch.peak_bytes
        block = bytearray(before - psutil.Process().memory_info().rss + 60_000_000)
        del block
        assert watch.peak_bytes >= before + 50_000_000


def test_versions_are_all_there() -> None:
    found = versions()
    assert all(found.values())
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|not a git checkout", git_revision())
