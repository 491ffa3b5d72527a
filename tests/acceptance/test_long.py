"""The long versions of what the README and the docs claim."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests/e2e/tiny.yaml"
FOUR_RUNGS = ROOT / "tests/e2e/four_rungs.yaml"
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def climb(recipe, folder, *more):
    return [sys.executable, "-m", "safeladder", "climb", str(recipe), "--out", str(folder),
            *map(str, more)]


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def comparable(folder):
    return [(r["name"], r["steps"], r["eval"]) for r in summary(folder)["rungs"]]


def test_twenty_kills_change_no_number(tmp_path, figures):
    settings = ["--set", "rungs.base.settings.save_every=1", "--set",
                "rungs.cot_sft.settings.save_every=1", "--set",
                "rungs.logic_rl.settings.save_every=1"]
    reference = tmp_path / "reference"
    subprocess.run(climb(TINY, reference, *settings), check=True, env=ENVIRONMENT,
                   capture_output=True)
    rng, kills, inside_save, finished = random.Random(1), 0, 0, 0
    while kills < 20:
        folder = tmp_path / f"run{finished}"
        resume = ["--resume"] if (folder / "manifest.json").exists() else []
        process = subprocess.Popen(climb(TINY, folder, *settings, *resume), env=ENVIRONMENT,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_growth(folder / "metrics.jsonl", process)
        time.sleep(rng.uniform(0, 1.5))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            inside_save += bool(list(folder.rglob(".*.partial")))
        else:
            assert process.returncode == 0
            assert comparable(folder) == comparable(reference)
            finished += 1
    last = climb(TINY, folder, *settings, "--resume")
    if not (folder / "summary.json").exists():
        subprocess.run(last, check=True, env=ENVIRONMENT, capture_output=True)
    assert comparable(folder) == comparable(reference)
    figures.update(kills=kills, inside_a_save=inside_save, runs_compared=finished + 1)


def wait_for_growth(path, process):
    size = path.stat().st_size if path.exists() else 0
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if path.exists() and path.stat().st_size != size:
            return
        time.sleep(0.005)


def test_every_rung_of_the_climb_killed_and_resumed(tmp_path, figures):
    recipe, reference, folder = FOUR_RUNGS, tmp_path / "reference", tmp_path / "killed"
    subprocess.run(climb(recipe, reference), check=True, env=ENVIRONMENT, capture_output=True)
    rungs = [r["name"] for part in ("rungs", "baselines") for r in summary(reference)[part]]
    for rung in rungs:
        resume = ["--resume"] if (folder / "manifest.json").exists() else []
        process = subprocess.Popen(climb(recipe, folder, *resume), env=ENVIRONMENT,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < end:
            if f'"rung": "{rung}"' in read(folder / "metrics.jsonl"):
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(climb(recipe, folder, "--resume"), check=True, env=ENVIRONMENT,
                   capture_output=True)
    assert comparable(folder) == comparable(reference)
    baselines = [[(r["name"], r["eval"]) for r in summary(f)["baselines"]]
                 for f in (folder, reference)]
    assert baselines[0] == baselines[1]
    figures["killed_in"] = rungs


def read(path):
    return path.read_text() if path.exists() else ""


def test_first_climb(tmp_path, figures):
    started = time.monotonic()
    subprocess.run(climb("first_climb", tmp_path / "run"), check=True, env=ENVIRONMENT,
                   capture_output=True)
    figures["wall_seconds"] = round(time.monotonic() - started, 1)
    result = summary(tmp_path / "run")
    rungs = {rung["name"]: rung for rung in result["rungs"]}
    for name in ("cot_sft", "logic_rl"):
        figures[name] = {key: [figure["value"], figure["ci95"]]
                         for key, figure in rungs[name]["eval"].items()}
    figures["peak_rss_bytes"] = result["peak_rss_bytes"]
    after, before = rungs["logic_rl"]["eval"], rungs["cot_sft"]["eval"]
    assert after["kk2_accuracy"]["value"] >= 0.9
    assert after["kk3_accuracy"]["value"] >= 0.6
    for name in ("kk2_accuracy", "kk3_accuracy", "kk2_accuracy_t1", "kk3_accuracy_t1"):
        assert after[name]["value"] - before[name]["value"] >= 0.1


def test_climb_of_all_four_rungs(tmp_path, figures):
    started = time.monotonic()
    subprocess.run(climb("climb", tmp_path / "run"), check=True, env=ENVIRONMENT,
                   capture_output=True)
    figures["wall_seconds"] = round(time.monotonic() - started, 1)
    result = summary(tmp_path / "run")
    figures["peak_rss_bytes"] = result["peak_rss_bytes"]
    rungs = {rung["name"]: rung for rung in [*result["rungs"], *result["baselines"]]}
    assert {"cot_sft", "m3_rl", "safe_efficient_rl", "deliberative_search_rl"} <= rungs.keys()
    assert all(rung["accepted"] is not False for rung in rungs.values())
    found = {(d["figure"], d["before"], d["after"]): d["ci95"] for d in result["comparisons"]
             if d["ci95"] is not None}  # none where no prompt differs
    figures["comparisons"] = {" ".join(key): found[key] for key in [
        ("safety", "cot_sft", "m3_rl"), ("capability", "cot_sft", "m3_rl"),
        ("benign_compliance", "cot_sft", "m3_rl"),
        ("tokens_per_answer", "m3_rl", "safe_efficient_rl"),
        ("capability", "m3_rl", "safe_efficient_rl"), ("safety", "m3_rl", "safe_efficient_rl"),
        ("benign_compliance", "m3_rl", "safe_efficient_rl"),
        ("safety", "cot_sft", "deliberative_search_rl"),
        ("capability", "cot_sft", "deliberative_search_rl"),
        ("benign_compliance", "cot_sft", "deliberative_search_rl"),
        ("accuracy", "unconstrained", "deliberative_search_rl")]}
    last = rungs["deliberative_search_rl"]["eval"]
    figures["false_certain"] = [last[f"false_certain{end}"]["value"]
                                for end in ("", "_baseline_matched")]
    assert found["safety", "cot_sft", "m3_rl"][0] > 0
    assert found["safety", "cot_sft", "deliberative_search_rl"][0] > 0
    assert found["tokens_per_answer", "m3_rl", "safe_efficient_rl"][1] < 0
    assert last["false_certain_minus_matched"]["ci95"][1] < 0
    assert figures["peak_rss_bytes"] < 3 << 30
    bounded = {key: low for key, (low, _) in found.items()
               if key[0] == "accuracy" or (
                   key[0] in ("capability", "benign_compliance") and key[1] == "cot_sft")}
    for key, low in bounded.items():
        assert low > -0.03, key


def test_published_rows_are_rebuilt_to_the_letter(tmp_path, figures):
    folder = os.environ.get("SAFELADDER_KK_DATA")
    if not folder:
        pytest.skip("set SAFELADDER_KK_DATA to a folder with Logic-RL's <n>ppl_<split>.parquet")
    import pyarrow.parquet as pq

    for path in sorted(Path(folder).glob("*ppl_*.parquet")):
        people, split = path.stem.split("ppl_")
        out = tmp_path / path.name
        subprocess.run([sys.executable, "-m", "safeladder", "data", "knights-knaves", "--people",
                        people, "--split", split, "--out", str(out)], check=True)
        ours, theirs = pq.read_table(out).to_pylist(), pq.read_table(path).to_pylist()
        assert ours == theirs, path.name
        figures[path.name] = len(ours)


@pytest.mark.parametrize(("script", "floors"), [
    ("rl_step.py", {"ratio": 2.0}),
    ("sampling.py", {"ratio_a": 1.5, "ratio_b": 3.0}),
])
def test_benchmarks(script, floors, figures):
    result = subprocess.run([sys.executable, ROOT / "benchmarks" / script], env=ENVIRONMENT,
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    figures.update(json.loads(result.stdout.strip().splitlines()[-1]))
    for name, floor in floors.items():
        assert figures[name] >= floor
