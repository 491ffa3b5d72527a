"""Compare the arms of several runs of one recipe, one run per seed; print Markdown tables.

    python tools/compare_arms.py runs/controls-0 runs/controls-1 runs/controls-2 --plot curves.html

Differences are paired by puzzle, averaged over seeds, with 95% intervals from a bootstrap over
structures; every seed is listed.
"""

from __future__ import annotations

import argparse
import collections
import json
from pathlib import Path

from safeladder.eval.items import EvalItem
from safeladder.eval.statistics import estimate, paired_difference
from safeladder.ladder.report_data import evaluation_items
from safeladder.ladder.report_tables import difference_text
from safeladder.ladder.summary import read_summary

MAIN, START = "logic_rl", "cot_sft"


def items(run: Path, arm: str, people: int, temperature: float, split: str = "test"):
    """The answers of one arm to the puzzles about so many people."""
    found = evaluation_items(run, arm, split, temperature)
    return [item for item in found if item.people == people]


def accuracy(answers: list[EvalItem]) -> float:
    """Share of right answers among the judged."""
    return 100 * (estimate([i.correct for i in answers], [i.cluster for i in answers]).value or 0.0)


def accuracy_table(runs: list[Path], arms: list[str]) -> str:
    """Mean accuracy of every arm, and each seed's."""
    lines = ["| arm | two, greedy | three, greedy | two, T=1 | three, T=1 |",
             "|---|---|---|---|---|"]
    for arm in arms:
        cells = []
        for temperature in (0.0, 1.0):
            for people in (2, 3):
                seeds = [accuracy(items(run, arm, people, temperature)) for run in runs]
                listed = ", ".join(f"{value:.1f}" for value in seeds)
                cells.append(f"**{sum(seeds) / len(seeds):.1f}** ({listed})")
        lines.append(f"| `{arm}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def difference_table(runs: list[Path], arms: list[str]) -> str:
    """``logic_rl`` minus every other arm."""
    lines = [f"| `{MAIN}` minus | people | greedy | each seed | T=1 | each seed |",
             "|---|---|---|---|---|---|"]
    for arm in arms:
        if arm == MAIN:
            continue
        for people in (2, 3):
            cells = []
            for temperature in (0.0, 1.0):
                found = paired_difference(
                    [items(run, MAIN, people, temperature) for run in runs],
                    [items(run, arm, people, temperature) for run in runs])
                cells += [difference_text(found),
                          ", ".join(f"{100 * value:+.1f}" for value in found.per_seed)]
            lines.append(f"| `{arm}` | {people} | {' | '.join(cells)} |")
    return "\n".join(lines)


def strategy_table(runs: list[Path]) -> str:
    """Accuracy at temperature 1 by the first word of the reasoning, before and after RL."""
    lines = ["| rung | strategy | share | right, two people | right, three people |",
             "|---|---|---|---|---|"]
    for arm in (START, MAIN):
        answers = [item for run in runs for people in (2, 3)
                   for item in items(run, arm, people, 1.0)]
        groups = collections.defaultdict(list)
        for item in answers:
            words = item.response.replace("<", " <").replace(">", "> ").split()[1:]
            groups[words[0] if words and words[0] in ("sight", "work") else "other"].append(item)
        for name in sorted(groups):
            cells = []
            for people in (2, 3):
                mine = [item for item in groups[name] if item.people == people]
                cells.append(f"{accuracy(mine):.1f} (n = {len(mine)})" if mine else "-")
            share = 100 * len(groups[name]) / len(answers)
            lines.append(f"| `{arm}` | {name} | {share:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_plot(runs: list[Path], arms: list[str], target: Path, window: int = 5) -> None:
    """Training accuracy by step of every RL arm (running mean), one line per seed."""
    import numpy as np
    import plotly.graph_objects as go

    colours = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
    figure = go.Figure()
    for number, arm in enumerate(arms):
        for seed, run in enumerate(runs):
            rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            right = [100 * row["metrics"]["accuracy"] for row in rows
                     if row["rung"] == arm and row["kind"] == "rl"]
            means = [float(np.mean(right[max(0, i - window + 1):i + 1])) for i in range(len(right))]
            figure.add_scatter(x=list(range(1, len(means) + 1)), y=means, name=arm,
                               legendgroup=arm, showlegend=seed == 0,
                               line={"color": colours[number], "width": 1.6})
    figure.update_layout(
        template="simple_white", width=900, height=480, font={"size": 15},
        title=f"Right answers while training, {len(runs)} seeds",
        xaxis_title="RL steps (16 puzzles x 8 answers each, two and three people)",
        yaxis_title=f"right (%), mean of {window} steps")
    figure.write_html(target, include_plotlyjs=True, config={"displayModeBar": False})


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    first = read_summary(options.runs[0] / "summary.json")
    arms = [rung.name for rung in [*first.rungs, *first.baselines] if rung.eval]
    print(accuracy_table(options.runs, arms), difference_table(options.runs, arms),
          strategy_table(options.runs), sep="\n\n")
    if options.plot:
        rl = [rung.name for rung in [*first.rungs, *first.baselines] if rung.tokens_sampled]
        write_plot(options.runs, rl, options.plot)


if __name__ == "__main__":
    main()
