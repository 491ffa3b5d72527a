"""The page of ``safeladder data filter``: self-contained, in the style of the climb's report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from safeladder.ladder.filters.pipeline import FilterReport, StepReport, read_report
from safeladder.ladder.report_charts import Chart
from safeladder.ladder.report_data import RunData

KEPT, DROPPED, OPEN, BEFORE = 3, 5, 1, 0
"""Colours."""


def render_page(report: FilterReport) -> str:
    """The whole page."""
    import jinja2
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("safeladder.ladder", "templates"), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("filters.html.jinja").render(
        **context(report), plotly_js=get_plotlyjs())


def context(report: FilterReport) -> dict[str, Any]:
    """All that the page shows, by the names its template uses."""
    steps = [_shown(number, step) for number, step in enumerate(report.steps)]
    charts = [_funnel(report), *(chart for step in steps for chart in step["charts"])]
    return {
        "report": report, "headline": headline(report), "steps": steps, "funnel": charts[0],
        "charts": json.dumps({chart.id: {"data": chart.data, "layout": chart.layout}
                              for chart in charts}, allow_nan=False).replace("<", "\\u003c"),
        "table_of_steps": step_rows(report)}


def headline(report: FilterReport) -> str:
    """One sentence."""
    share = f" ({100 * report.kept / report.rows:.1f}%)" if report.rows else ""
    text = f"{report.kept} of {report.rows} rows{share} passed all {len(report.steps)} steps"
    if report.unjudged:
        text += (f"; {report.unjudged} could not be judged and are kept apart: they are neither "
                 "good nor bad")
    return text + "."


def step_rows(report: FilterReport) -> list[dict[str, str]]:
    """The counts of every step, for the page and the terminal."""
    rows = []
    for step in report.steps:
        why = ", ".join(f"{count} {reason}" for reason, count in list(step.reasons.items())[:4])
        why += ", ..." if len(step.reasons) > 4 else ""
        rows.append({"step": step.name, "rows": str(step.rows), "kept": str(step.kept),
                     "dropped": str(step.dropped), "unjudged": str(step.unjudged),
                     "note": why + (f" ({step.not_applicable} not applicable)"
                                    if step.not_applicable else "")})
    return rows


def filter_parts(data: RunData) -> list[dict[str, Any]]:
    """What the report of a climb shows of the filters of its rungs.

    Raises:
        CheckpointError: a rung's ``filters.json`` cannot be read.
    """
    parts = []
    for rung in data.rungs:
        path = data.run.filters(rung.name)
        if path.exists():
            report = read_report(path)
            parts.append({"rung": rung.name, "headline": headline(report),
                          "rows": step_rows(report)})
    return parts


def diversity_text(figures: Mapping[str, Any]) -> str:
    """``2.31 -> 2.80 bits over 9 profiles``; empty for figures of another step."""
    if "before" not in figures:
        return ""
    before, after = figures["before"], figures["after"]
    return (f"{_bits(before)} -> {_bits(after)} bits over {len(before['profiles'])} profiles")


def _bits(measured: Mapping[str, Any]) -> str:
    value = measured["entropy_bits"]
    return "-" if value is None else f"{value:.2f}"


def _shown(number: int, step: StepReport) -> dict[str, Any]:
    charts = [_profiles(f"profiles-{number}", step.figures)] if "before" in step.figures else []
    figures = {key: value for key, value in step.figures.items() if key not in ("before", "after")}
    return {"number": number, "step": step, "charts": charts,
            "diversity": diversity_text(step.figures),
            "reasons": [{"reason": reason, "rows": count}
                        for reason, count in step.reasons.items()],
            "open_reasons": [{"reason": reason, "rows": count}
                             for reason, count in step.unjudged_reasons.items()],
            "spec": json.dumps({"spec": step.spec, "figures": figures}, indent=1,
                               ensure_ascii=False, default=str)}


def _funnel(report: FilterReport) -> Chart:
    names = [f"{i + 1} {step.name}" for i, step in enumerate(report.steps)]

    def bars(label: str, colour: int, values: Sequence[int]) -> dict[str, Any]:
        return {"type": "bar", "orientation": "h", "name": label, "y": names, "x": list(values),
                "marker": {"color": f"@s{colour}"},
                "hovertemplate": "%{x} " + label + "<extra>%{y}</extra>"}

    data = [bars("kept", KEPT, [s.kept for s in report.steps]),
            bars("dropped", DROPPED, [s.dropped for s in report.steps]),
            bars("not judged", OPEN, [s.unjudged for s in report.steps])]
    layout = {"barmode": "stack", "height": 120 + 40 * len(names),
              "legend": {"traceorder": "normal"},
              "xaxis": {"title": {"text": "rows"}, "zeroline": False},
              "yaxis": {"autorange": "reversed", "showgrid": False, "automargin": True}}
    return Chart("funnel", "Rows at every step", "Each bar is what reached the step.", data, layout)


def _profiles(chart_id: str, figures: Mapping[str, Any]) -> Chart:
    before, after = figures["before"], figures["after"]
    names = list(before["profiles"])

    def bars(label: str, colour: int, measured: Mapping[str, Any]) -> dict[str, Any]:
        total = measured["rows"] or 1
        return {"type": "bar", "name": label, "x": names,
                "y": [measured["profiles"].get(name, 0) / total for name in names],
                "marker": {"color": f"@s{colour}"},
                "hovertemplate": "%{x}: %{y:.1%}<extra>" + label + "</extra>"}

    return Chart(
        chart_id, "Profiles of reasoning patterns", "Share of the chains with each profile, before "
        f"and after the cap; entropy {diversity_text(figures)}.",
        [bars("before", BEFORE, before), bars("after", KEPT, after)],
        {"barmode": "group", "xaxis": {"showgrid": False, "automargin": True},
         "yaxis": {"tickformat": ".0%", "rangemode": "tozero", "zeroline": False,
                   "automargin": True}})
