"""What a report shows of the reward under watch, of judges (their failures and their cost) and of
verifiers that the climb trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from safeladder.ladder.report_charts import Axes, Chart, Line, figure_text, line_chart
from safeladder.ladder.report_data import RunData, RungEntry, Series
from safeladder.ladder.report_findings import totals
from safeladder.ladder.summary import trained_verifiers
from safeladder.train.progress import duration

MAX_LINES = 8
KINDS: Mapping[str, str] = {
    "length": "{0} with the length of the response",
    "between": "{0} with {1}",
    "agreement": "{0} with {1}, which is not rewarded",
    "gap": "{0} above {1}, which is not rewarded",
    "task_gap": "{0}: {1} above {2}, which is not rewarded",
}
"""Kind of a ``monitor/`` metric -> what it says, of its names."""


def monitor_charts(data: RunData) -> list[Chart]:
    """By RL rung: the gap to independent verifiers, the agreement with them, and the correlation
    of every part with length.
    """
    return [chart for rung in data.of_kind("rl") for chart in _charts(data, rung)]


def _charts(data: RunData, rung: RungEntry) -> Iterator[Chart]:
    shown = (
        ("gap", f"Rewarded parts above independent verifiers in {rung.name}",
         "Mean of a part minus mean of a verifier that is never rewarded. A gap that opens while "
         "the reward rises: the policy learns the verifier, not the task.", Axes(y="score")),
        ("task_gap", f"The same gap by family in {rung.name}",
         "Only the prompts of one task. A family that opens alone is where the verifier is "
         "fooled.", Axes(y="score")),
        ("agreement", f"Agreement with independent verifiers in {rung.name}",
         "Correlation within each prompt's responses. It should stay up.",
         Axes(y="correlation", y_range=(-1.05, 1.05))),
        ("length", f"Parts of the reward and length in {rung.name}",
         "Correlation of each part with the number of tokens, within each prompt's responses. Far "
         "from 0 for long: length is what pays.",
         Axes(y="correlation", y_range=(-1.05, 1.05))))
    for kind, title, note, axes in shown:
        lines = [Line(_names(metric), data.series(rung.name, metric), (1 + i) % 7)
                 for i, metric in enumerate(_metrics(data, rung.name, kind)[:MAX_LINES])]
        chart = line_chart(f"monitor-{kind}-{rung.name}", title, note, lines, axes)
        if chart:
            yield chart


def monitor_rows(data: RunData) -> list[dict[str, str]]:
    """Every figure of every RL rung: at the start, at the end, and on how many steps it stands."""
    rows = []
    for rung in data.of_kind("rl"):
        for kind, text in KINDS.items():
            for metric in _metrics(data, rung.name, kind):
                series = data.series(rung.name, metric)
                quarter = max(len(series.values) // 4, 1)
                rows.append({
                    "rung": rung.name, "what": text.format(*_parted(metric)),
                    "kind": "difference" if kind.endswith("gap") else "correlation",
                    "start": f"{_mean(series, slice(quarter)):+.2f}",
                    "end": f"{_mean(series, slice(-quarter, None)):+.2f}",
                    "steps": f"{len(series.values):,}"})
    return rows


def judge_rows(data: RunData) -> list[dict[str, str]]:
    """Per rung and verifier that asks a model: replies that held no verdict, calls, tokens and
    time. Training counts what was logged, evaluation what was asked at the rung's end.
    """
    read, unreadable = totals(data, "verdicts_read/"), totals(data, "unreadable/")
    rows = []
    for (rung, where), judges in _costs(data).items():
        for name, cost in judges.items():
            good = read.get(rung, {}).get(f"verdicts_read/{name}", 0.0)
            bad = unreadable.get(rung, {}).get(f"unreadable/{name}", 0.0)
            counted = where == "training" and good + bad > 0
            rows.append({
                "where": f"{where} of {rung}", "judge": name,
                "unreadable": f"{bad:,.0f} of {good + bad:,.0f} ({bad / (good + bad):.1%})"
                if counted else "\u2013",
                "calls": f"{cost.get('calls', 0):,.0f}", "cached": f"{cost.get('cached', 0):,.0f}",
                "failed": f"{cost.get('failed', 0):,.0f}",
                "tokens": f"{cost.get('prompt_tokens', 0):,.0f} + "
                          f"{cost.get('completion_tokens', 0):,.0f}",
                "latency": f"{cost['seconds'] / cost['calls']:.2f} s" if cost.get("calls")
                else "\u2013"})
    return rows


def trained_rows(data: RunData) -> list[dict[str, str]]:
    """Per verifier that the climb trained: how far it agrees with its own test rows."""
    return [{
        "name": one.name, "kind": one.kind, "recipe": one.recipe, "rows": f"{one.rows:,}",
        "n": "no test rows" if one.accuracy is None else f"{one.accuracy.n:,}",
        "accuracy": "\u2013" if one.accuracy is None else figure_text(one.accuracy),
        "unjudged": "\u2013" if one.accuracy is None else f"{one.accuracy.unjudged:,}",
        "ece": "\u2013" if one.ece is None else figure_text(one.ece),
        "time": duration(one.seconds) if one.seconds else f"with {one.folder}"}
        for one in trained_verifiers(data.manifest)]


def _costs(data: RunData) -> dict[tuple[str, str], dict[str, dict[str, float]]]:
    """(rung, training or evaluation) -> verifier -> summed figures."""
    found: dict[tuple[str, str], dict[str, dict[str, float]]] = {}

    def add(rung: str, where: str, judges: Mapping[str, Mapping[str, float]]) -> None:
        for name, figures in judges.items():
            column = found.setdefault((rung, where), {}).setdefault(name, {})
            for key, value in figures.items():
                column[key] = column.get(key, 0.0) + value

    for record in data.records:
        add(record["rung"], "training", record.get("time", {}).get("judges", {}))
    states: Mapping[str, Mapping[str, Any]] = data.manifest.get("rungs", {})
    for rung, state in states.items():
        add(rung, "evaluation", state.get("evaluation_judges", {}))
    return found


def _metrics(data: RunData, rung: str, kind: str) -> list[str]:
    return [name for name in data.metric_names(rung) if name.startswith(f"monitor/{kind}/")]


def _parted(metric: str) -> list[str]:
    return metric.split("/")[2:]


def _names(metric: str) -> str:
    return " / ".join(_parted(metric))


def _mean(series: Series, part: slice) -> float:
    values = series.values[part]
    return math.fsum(values) / len(values)
