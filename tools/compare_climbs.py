"""Compare rungs of several runs of one climb, one run per seed; print Markdown tables.

    python tools/compare_climbs.py runs/a runs/b runs/c --pairs m3_rl:no_stage_1 m3_rl:grpo

The first table has every figure as the seeds' mean with each seed in brackets, the second the
differences first minus second: paired by item, averaged over seeds, with 95% intervals from a
bootstrap over compositions (that is of the items; the spread over seeds stands beside it).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from safeladder.errors import CheckpointError
from safeladder.eval.microworld import PAIRED
from safeladder.ladder.ladder_findings import compare_runs
from safeladder.ladder.report_data import evaluation_items
from safeladder.ladder.report_tables import difference_text
from safeladder.ladder.summary import Summary, read_summary

WORLD = ("capability", "safety", "benign_compliance")
FAMILIES = ("logic", "arithmetic", "instruction_following", "knowledge", "vision", "value",
            "image_safety", "jailbreak_safety", "bare_refusal", "tokens_per_answer")
SEARCH = ("accuracy", "coverage", "false_certain", "false_certain_baseline_matched", "auroc", "ece")


def figure_table(summaries: Sequence[Summary], rungs: Sequence[str],
                 figures: Sequence[str]) -> str:
    """Every rung's figures: mean over the seeds that have one, and each seed's."""
    lines = ["| figure | " + " | ".join(f"`{rung}`" for rung in rungs) + " |",
             "|---|" + "---|" * len(rungs)]
    for figure in figures:
        scale = 1 if figure == "tokens_per_answer" else 100
        cells = []
        for rung in rungs:
            found = [next((one.eval.get(figure) for one in (*summary.rungs, *summary.baselines)
                           if one.name == rung), None) for summary in summaries]
            values = [None if one is None or one.value is None else scale * one.value
                      for one in found]
            judged = [value for value in values if value is not None]
            listed = ", ".join("-" if value is None else f"{value:.1f}" for value in values)
            cells.append(f"{sum(judged) / len(judged):.1f} ({listed})" if judged else "-")
        lines.append(f"| `{figure}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def difference_table(runs: Sequence[Path], pairs: Sequence[tuple[str, str]],
                     figures: Sequence[str]) -> str:
    """One row per pair and figure, which says why where the two cannot be compared."""
    lines = ["| first - second | figure | difference | each seed |", "|---|---|---|---|"]
    for pair in pairs:
        for figure in figures:
            split = "search" if figure == "accuracy" else "test"
            named = f"| `{pair[0]}` - `{pair[1]}` | `{figure}` |"
            try:
                ours, theirs = ([evaluation_items(run, rung, split) for run in runs]
                                for rung in pair)
            except CheckpointError as error:
                lines.append(f"{named} not compared: {error} | |")
                continue
            found = compare_runs(figure, ours, theirs)
            if found is None:
                continue
            unit, scale = ("tokens", 1) if figure == "tokens_per_answer" else ("points", 100)
            seeds = ", ".join(f"{scale * value:+.1f}" for value in found.per_seed)
            lines.append(f"{named} {difference_text(found, unit)} | {seeds} |")
    return "\n".join(lines)


def two_rungs(text: str) -> tuple[str, str]:
    """``FIRST:SECOND``."""
    first, colon, second = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST:SECOND")
    return first, second


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--rungs", nargs="*", help="of the first table (default: all evaluated)")
    parser.add_argument("--pairs", nargs="*", default=(), type=two_rungs, help="FIRST:SECOND")
    parser.add_argument("--figures", nargs="*", default=(*WORLD, "tokens_per_answer", "accuracy"),
                        choices=(*PAIRED, "tokens_per_answer", "accuracy"),
                        help="of the second table")
    options = parser.parse_args()
    summaries = [read_summary(run / "summary.json") for run in options.runs]
    rungs = options.rungs or [one.name for one in (*summaries[0].rungs, *summaries[0].baselines)
                              if one.eval]
    print(figure_table(summaries, rungs, (*WORLD, *FAMILIES, *SEARCH)),
          difference_table(options.runs, options.pairs, options.figures), sep="\n\n")


if __name__ == "__main__":
    main()
