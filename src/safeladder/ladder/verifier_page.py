"""The page of ``safeladder verifier eval``: self-contained, in the style of the climb's report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from safeladder.eval.classification import Bin, Classification
from safeladder.eval.statistics import Estimate
from safeladder.ladder.report_charts import Chart, figure_text, interval_chart
from safeladder.ladder.summary import Figure
from safeladder.ladder.verifier_eval import VerifierEvaluation

NOTE = {
    "accuracy": "share of judged rows whose class is the label",
    "macro F1": "mean of the classes' F1",
    "AUROC": "chance that a row of the class gets the higher probability; 50% is none",
    "ECE": "mean gap between confidence and accuracy; 0 is best",
    "Brier score": "squared distance of the probabilities from the label; 0 best, 2 worst",
    "strict accuracy": "accuracy if every abstention counted as wrong"}


def figure_rows(evaluation: VerifierEvaluation) -> list[tuple[str, str, str]]:
    """(figure, value with interval, what it is), for the terminal and the page."""
    figures = evaluation.figures
    named: list[tuple[str, Estimate]] = []
    if figures is not None:
        named = [("accuracy", figures.accuracy), ("macro F1", figures.macro_f1),
                 ("AUROC", figures.auroc), ("ECE", figures.ece), ("Brier score", figures.brier)]
    if evaluation.abstained:
        named.append(("strict accuracy", evaluation.strict_accuracy))
    return [(name, estimate_text(value, percent=name != "Brier score"), NOTE[name])
            for name, value in named]


def estimate_text(value: Estimate, percent: bool = True) -> str:
    """``91.3% [88.1, 93.6]``; "-" for a figure that is undefined here."""
    if value.value is None:
        return "-"
    if percent:
        return figure_text(_figure(value))
    text = f"{value.value:.3f}"
    return text + (f" [{value.ci95[0]:.3f}, {value.ci95[1]:.3f}]" if value.ci95 else "")


def _figure(value: Estimate) -> Figure:
    return Figure(value=value.value, n=value.n, ci95=value.ci95, unjudged=value.unjudged,
                  method=value.method, clusters=value.clusters)


def render_page(evaluation: VerifierEvaluation) -> str:
    """The whole page."""
    import jinja2
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("safeladder.ladder", "templates"), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("verifier_eval.html.jinja").render(
        **context(evaluation), plotly_js=get_plotlyjs())


def context(evaluation: VerifierEvaluation) -> dict[str, Any]:
    """All that the page shows, by the names its template uses."""
    figures = evaluation.figures
    charts = [chart for chart in (_classes_chart(evaluation), _sources_chart(evaluation),
                                  *_calibration(figures)) if chart is not None]
    shown = json.dumps({chart.id: {"data": chart.data, "layout": chart.layout}
                        for chart in charts}, allow_nan=False).replace("<", "\\u003c")
    return {
        "evaluation": evaluation, "headline": headline(evaluation), "charts": shown,
        "class_charts": [c for c in charts if c.id in ("classes", "sources")],
        "calibration_charts": [c for c in charts if c.id in ("reliability", "confidences")],
        "figures": [{"figure": name, "value": value, "note": note}
                    for name, value, note in figure_rows(evaluation)],
        "per_class": _per_class(evaluation), "confusion": _confusion(evaluation),
        "sources": [{"source": s.source, "rows": s.rows, "abstained": s.accuracy.unjudged,
                     "accuracy": estimate_text(s.accuracy)} for s in evaluation.sources],
        "abstentions": [{"reason": reason, "rows": count}
                        for reason, count in evaluation.abstentions.items()],
        "spec": json.dumps(evaluation.spec, indent=1, ensure_ascii=False, default=str)}


def headline(evaluation: VerifierEvaluation) -> str:
    """One sentence."""
    figures = evaluation.figures
    if figures is None:
        return (f"{evaluation.verifier} could judge none of {evaluation.rows} rows: there is no "
                "figure.")
    text = (f"{evaluation.verifier} agrees with {estimate_text(figures.accuracy)} of the labels of "
            f"{evaluation.judged} responses")
    if evaluation.abstained:
        text += (f"; {evaluation.abstained} more it could not judge (counted as wrong, agreement "
                 f"is {estimate_text(evaluation.strict_accuracy)})")
    return text + "."


def _per_class(evaluation: VerifierEvaluation) -> list[dict[str, Any]]:
    figures = evaluation.figures
    if figures is None:
        return []
    table = figures.confusion
    rows = []
    for k, name in enumerate(evaluation.classes):
        right, given, held = table[k][k], sum(row[k] for row in table), sum(table[k])
        rows.append({
            "name": name, "rows": held, "given": given, "f1": estimate_text(figures.f1[name]),
            "precision": f"{100 * right / given:.1f}%" if given else "-",
            "recall": f"{100 * right / held:.1f}%" if held else "-",
            "auroc": estimate_text(figures.class_auroc[name])})
    return rows


def _confusion(evaluation: VerifierEvaluation) -> list[dict[str, Any]]:
    """Rows of cells with their share of the row's label, for the shading."""
    if evaluation.figures is None:
        return []
    rows = []
    for k, (name, counts) in enumerate(
            zip(evaluation.classes, evaluation.figures.confusion, strict=True)):
        held = sum(counts)
        cells = [{"count": count, "share": round(100 * count / held) if held else 0,
                  "right": j == k} for j, count in enumerate(counts)]
        rows.append({"name": name, "cells": cells, "rows": held})
    return rows


def _classes_chart(evaluation: VerifierEvaluation) -> Chart | None:
    figures = evaluation.figures
    if figures is None:
        return None
    kept = [name for name in evaluation.classes if figures.f1[name].value is not None]
    return interval_chart(
        "classes", "F1 and AUROC by class", "Points with 95% intervals, over groups.", kept,
        [("F1", 2, {name: _figure(figures.f1[name]) for name in kept}),
         ("AUROC", 3, {name: _figure(figures.class_auroc[name]) for name in kept})])


def _sources_chart(evaluation: VerifierEvaluation) -> Chart | None:
    if len(evaluation.sources) < 2:
        return None
    return interval_chart(
        "sources", "Agreement by data source", "Accuracy over the judged rows of each source.",
        [s.source for s in evaluation.sources],
        [("accuracy", 1, {s.source: _figure(s.accuracy) for s in evaluation.sources})])


def _calibration(figures: Classification | None) -> list[Chart]:
    if figures is None or not figures.reliability:
        return []
    return [_reliability(figures.reliability), _confidences(figures.reliability)]


def _reliability(bins: Sequence[Bin]) -> Chart:
    values = [b.accuracy.value or 0.0 for b in bins]
    bounds = [b.accuracy.ci95 or (v, v) for b, v in zip(bins, values, strict=True)]
    diagonal = {"type": "scatter", "mode": "lines", "x": [0, 1], "y": [0, 1], "hoverinfo": "skip",
                "name": "perfectly calibrated", "line": {"color": "@s0", "dash": "dot", "width": 2}}
    points = {
        "type": "scatter", "mode": "markers+lines", "name": "this verifier",
        "x": [b.confidence for b in bins], "y": values,
        "text": [f"confidence {b.confidence:.1%}: right {v:.1%}, n = {b.n}"
                 for b, v in zip(bins, values, strict=True)],
        "hovertemplate": "%{text}<extra></extra>", "line": {"color": "@s2", "width": 1.5},
        "marker": {"size": 9, "color": "@s2"},
        "error_y": {"type": "data", "symmetric": False, "color": "@s2", "thickness": 1.5,
                    "array": [high - v for (_, high), v in zip(bounds, values, strict=True)],
                    "arrayminus": [v - low for (low, _), v in zip(bounds, values, strict=True)]}}
    return Chart("reliability", "Reliability diagram",
                 "Rows in bins by confidence: how often they are right. Under the dotted line the "
                 "verifier is too sure.", [diagonal, points],
                 _shares("confidence", "share right", {"range": [-0.03, 1.05]}))


def _confidences(bins: Sequence[Bin]) -> Chart:
    bars = {"type": "bar", "x": [(b.low + b.high) / 2 for b in bins], "y": [b.n for b in bins],
            "width": [0.9 * (b.high - b.low) for b in bins], "marker": {"color": "@s2/70"},
            "hovertemplate": "%{y} rows<extra></extra>"}
    layout = _shares("confidence", "rows", {"rangemode": "tozero"})
    layout["yaxis"].pop("tickformat")
    return Chart("confidences", "How sure it is", "Rows by the largest probability.", [bars],
                 layout)


def _shares(x: str, y: str, more: Mapping[str, Any]) -> dict[str, Any]:
    return {"xaxis": {"title": {"text": x}, "range": [-0.03, 1.03], "tickformat": ".0%",
                      "zeroline": False},
            "yaxis": {"title": {"text": y, "standoff": 14}, "tickformat": ".0%", "zeroline": False,
                      "automargin": True, **more}}
