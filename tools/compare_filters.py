"""Print what the arms of cot_filters reach: python tools/compare_filters.py RUN [RUN ...]."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq

ARMS, HEATS = ("clean", "noisy", "filtered"), ("t0", "t1")


def share(run: Path, arm: str, heat: str) -> str:
    """Percent of the test prompts answered in full score."""
    rows = pq.read_table(run / "traces" / f"{arm}-test-{heat}.parquet").to_pylist()
    scores = [json.loads(row["verdicts"])["world"]["score"] for row in rows]
    judged = [score for score in scores if score is not None]
    open_ = f" ({len(scores) - len(judged)} unjudged)" if len(judged) < len(scores) else ""
    return f"{100 * sum(score == 1.0 for score in judged) / len(judged):.1f}{open_}"


def main(runs: list[Path]) -> None:
    """One row per arm, a figure per run."""
    print("| arm | rows learned from | greedy | temperature 1 |\n|---|---|---|---|")
    for arm in ARMS:
        report = runs[0] / "rungs" / arm / "filters.json"
        kept = json.loads(report.read_text())["kept"] if report.exists() else "all"
        figures = [", ".join(share(run, arm, heat) for run in runs) for heat in HEATS]
        print(f"| `{arm}` | {kept} | {' | '.join(figures)} |")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
