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

from safeladder.eval.metrics import tokens
from safeladder.eval.microworld import world_difference
from safeladder.eval.statistics import PairedDifference, paired_difference
from safeladder.ladder.report_data import evaluation_items
from safeladder.ladder.report_tables import difference_text
from safeladder.ladder.summary import Summary, read_summary

WORLD = ("capability", "safety", "benign_compliance")
FAMILIES = ("logic", "arithmetic", "instruction_following", "knowledge", "vision", "value",
            "image_safety", "jailbreak_safety", "bare_refusal", "tokens_per_answer")
SEARCH = ("accuracy", "coverage", "false_certain", "false_certain_baseline_matched", "auroc", "ece")


def figure_table(summaries: Sequence[Summary], rungs: Sequence[str],
                 figures: Sequence[str]) -> str:
    """Every rung's figures: mean over seeds and each seed's."""
    lines = ["| figure | " + " | ".join(f"`{rung}`" for rung in rungs) + " |",
             "|---|" + "---|" * len(rungs)]
    for figure in figures:
        cells = []
        for rung in rungs:
            entries = [one for summary in summaries
                       for one in (*summary.rungs, *summary.baselines) if one.name == rung]
            values = [entry.eval[figure].value for entry in entries if figure in entry.eval]
            judged = [value * (1 if figure == "tokens_per_answer" else 100)
                      for value in values if value is not None]
            listed = ", ".join(f"{value:.1f}" for value in judged)
            cells.append(f"{sum(judged) / len(judged):.1f} ({listed})" if judged else "-")
        lines.append(f"| `{figure}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def difference(runs: Sequence[Path], first: str, second: str, figure: str,
               ) -> PairedDifference | None:
    """First minus second over all seeds; None where one of them was not asked."""
    split = "search" if figure == "accuracy" else "test"
    ours, theirs = ([evaluation_items(run, rung, split) for run in runs]
                    for rung in (first, second))
    if figure == "accuracy":
        return paired_difference(ours, theirs)
    if figure == "tokens_per_answer":
        return paired_difference(ours, theirs, tokens)
    return world_difference(figure, ours, theirs)


def difference_table(runs: Sequence[Path], pairs: Sequence[str], figures: Sequence[str]) -> str:
    """One row per pair and figure."""
    lines = ["| first - second | figure | difference | each seed |", "|---|---|---|---|"]
    for pair in pairs:
        first, second = pair.split(":")
        for figure in figures:
            found = difference(runs, first, second, figure)
            if found is None:
                continue
            unit, scale = ("tokens", 1) if figure == "tokens_per_answer" else ("points", 100)
            seeds = ", ".join(f"{scale * value:+.1f}" for value in found.per_seed)
            lines.append(f"| `{first}` - `{second}` | `{figure}` "
                         f"| {difference_text(found, unit)} | {seeds} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--rungs", nargs="*", help="of the first table (default: all evaluated)")
    parser.add_argument("--pairs", nargs="*", default=(), help="FIRST:SECOND")
    parser.add_argument("--figures", nargs="*", default=(*WORLD, "tokens_per_answer", "accuracy"),
                        help="of the second table")
    options = parser.parse_args()
    summaries = [read_summary(run / "summary.json") for run in options.runs]
    rungs = options.rungs or [one.name for one in (*summaries[0].rungs, *summaries[0].baselines)
                              if one.eval]
    print(figure_table(summaries, rungs, (*WORLD, *FAMILIES, *SEARCH)),
          difference_table(options.runs, options.pairs, options.figures), sep="\n\n")


if __name__ == "__main__":
    main()
