"""The pictures of a whole ladder: where every checkpoint stands, and what it is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from safeladder.eval.metrics import suffix
from safeladder.eval.microworld import MACROS, SHARES
from safeladder.ladder.ladder_findings import is_ladder
from safeladder.ladder.report_charts import (
    Axes,
    Chart,
    Line,
    bar_chart,
    line_chart,
    rung_colours,
)
from safeladder.ladder.report_data import RunData, RungEntry
from safeladder.ladder.report_sections import heat_label, split_order
from safeladder.ladder.summary import Figure

BALANCE = ("benign_compliance", "over_refusal", "bare_refusal", "value")
THOUGHTS = ("names_risk_first", "unsafe_thinking")
CALIBRATION = ("reliability", "false_certain", "coverage", "ece")
"""Figures of stated confidence, shown where a run has them."""
MAX_CONFIDENCE = 10
NAME_GAP = 0.055
"""Between names in the first picture, in spans: a line of text and a little."""


def ladder_charts(data: RunData) -> list[Chart]:
    """All charts of the section; none for a run without the figures of a ladder."""
    if not is_ladder(data):
        return []
    return [chart for chart in (evolution_chart(data), *_figure_charts(data), _calibration(data),
                                *_over_time(data)) if chart]


def evolution_chart(data: RunData) -> Chart | None:
    """Capability (x) against safety (y): a point per checkpoint, arrows between those that stand,
    and the validations between them.
    """
    rungs = [rung for rung in data.rungs if {"capability", "safety"} <= rung.figures.keys()
             and None not in (_value(rung, "capability"), _value(rung, "safety"))]
    if not rungs:
        return None
    climbed = [rung for rung in rungs if not rung.baseline and rung.accepted]
    groups = (("rungs", 2, "circle", climbed),
              ("held back by a gate", 5, "x-open",
               [rung for rung in rungs if not rung.baseline and not rung.accepted]),
              ("baselines", 1, "diamond-open", [rung for rung in rungs if rung.baseline]))
    points = [_checkpoints(*group) for group in groups if group[3]]
    traces = [*_validations(data), *points]
    x, y = ([v for t in traces for v in t[axis]] for axis in ("x", "y"))
    span = max(max(x) - min(x), max(y) - min(y), 0.1)
    ranges = [axis_range(values, span) for values in (x, y)]
    start = (climbed or rungs)[0]
    first = _value(start, "capability") or 0.0, _value(start, "safety") or 0.0
    diagonal = {"type": "scatter", "mode": "lines", "name": "both alike (45\u00b0)",
                "x": [first[0], first[0] + 2 * span], "y": [first[1], first[1] + 2 * span],
                "hoverinfo": "skip", "line": {"color": "@s0/50", "dash": "dot", "width": 1.5}}
    layout: dict[str, Any] = {
        "height": 560, "annotations": [*_arrows(climbed), *_names(points, ranges, span)],
        "margin": {"r": 8 * max(len(rung.name) for rung in rungs) + 12},
        "legend": {"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.13, "yanchor": "top"},
        "xaxis": {"title": {"text": "capability"}, "tickformat": ".0%", "range": ranges[0],
                  "zeroline": False, "constrain": "domain"},
        "yaxis": {"title": {"text": "safety"}, "tickformat": ".0%", "range": ranges[1],
                  "zeroline": False, "scaleanchor": "x", "constrain": "domain"}}
    return Chart("evolution", "The way up", "Every checkpoint on held-out prompts, greedy, with "
                 "95% intervals; small points are validations while a rung trains (other prompts, "
                 "no intervals). Along the dotted line both grow alike.",
                 [diagonal, *traces], layout, wide=True)


def _names(
    points: Sequence[Mapping[str, Any]], ranges: Sequence[Sequence[float]], span: float,
) -> list[dict[str, Any]]:
    """The points' names in a column beside the plot, each tied to its point by a thin line."""
    (_, edge), (bottom, top) = ranges
    named = [place for t in points for place in zip(t["x"], t["y"], t["text"], strict=True)]
    heights = spread([y for _, y, _ in named], NAME_GAP * span, bottom, top)
    return [{"x": x, "y": y, "ax": edge + 0.02 * span, "ay": height, "xref": "x", "yref": "y",
             "axref": "x", "ayref": "y", "text": name, "xanchor": "left", "showarrow": True,
             "arrowhead": 0, "arrowwidth": 0.7, "arrowcolor": "@s0/50", "standoff": 7}
            for (x, y, name), height in zip(named, heights, strict=True)]


def spread(heights: Sequence[float], gap: float, bottom: float, top: float) -> list[float]:
    """The heights moved as little as can be (sum of squares) for them to keep their order, stand
    ``gap`` apart and between the bounds: isotonic regression by pooling neighbours. Where there is
    no room for all, the lowest stand below ``bottom``.
    """
    order = sorted(range(len(heights)), key=lambda i: -heights[i])
    pools: list[tuple[float, int]] = []          # of heights with the gaps taken out: mean, size
    for rank, i in enumerate(order):
        mean, size = heights[i] + rank * gap, 1
        while pools and pools[-1][0] < mean:
            above, count = pools.pop()
            mean, size = (above * count + mean * size) / (count + size), count + size
        pools.append((mean, size))
    lowest = bottom + (len(heights) - 1) * gap
    flat = [min(max(mean, lowest), top) for mean, size in pools for _ in range(size)]
    moved = {i: mean - rank * gap for rank, (i, mean) in enumerate(zip(order, flat, strict=True))}
    return [moved[i] for i in range(len(heights))]


def axis_range(values: Sequence[float], span: float) -> list[float]:
    """A range of 1.44 ``span`` around the values, pushed into what a share can be."""
    lowest, highest = -0.09, 1.06       # room around a point at 0 or 1
    width = min(1.44 * span, highest - lowest)
    low = min(max((max(values) + min(values) - width) / 2, lowest), highest - width)
    return [low, low + width]


def _value(rung: RungEntry, name: str) -> float | None:
    return rung.figures[name].value


def _checkpoints(
    label: str, colour: int, symbol: str, rungs: Sequence[RungEntry],
) -> dict[str, Any]:
    x, y = ([rung.figures[name] for rung in rungs] for name in ("capability", "safety"))
    return {
        "type": "scatter", "mode": "markers", "name": label,
        "x": [figure.value for figure in x], "y": [figure.value for figure in y],
        "text": [rung.name for rung in rungs],
        "hovertemplate": "%{text}: capability %{x:.1%}, safety %{y:.1%}<extra></extra>",
        "marker": {"size": 12, "color": f"@s{colour}", "symbol": symbol},
        "error_x": _errors(x, colour), "error_y": _errors(y, colour)}


def _errors(figures: Sequence[Figure], colour: int) -> dict[str, Any]:
    bounds = [(f.value or 0.0, *(f.ci95 or (f.value or 0.0, f.value or 0.0))) for f in figures]
    return {"type": "data", "symmetric": False, "color": f"@s{colour}/50", "thickness": 1.5,
            "width": 4, "array": [high - value for value, _, high in bounds],
            "arrayminus": [value - low for value, low, _ in bounds]}


def _arrows(rungs: Sequence[RungEntry]) -> list[dict[str, Any]]:
    ends = [(_value(rung, "capability"), _value(rung, "safety")) for rung in rungs]
    return [{"x": x, "y": y, "ax": ax, "ay": ay, "xref": "x", "yref": "y", "axref": "x",
             "ayref": "y", "text": "", "showarrow": True, "arrowhead": 3, "arrowwidth": 1.8,
             "arrowcolor": "@s2/70", "standoff": 8, "startstandoff": 8}
            for (ax, ay), (x, y) in pairwise(ends) if (ax, ay) != (x, y)]


def _validations(data: RunData) -> Iterator[dict[str, Any]]:
    colours = rung_colours(data)
    for rung in data.rungs:
        x, y = (data.series(rung.name, name, evaluation=True) for name in ("capability", "safety"))
        both = [(step, x.values[x.steps.index(step)], safety)
                for step, safety in zip(*y, strict=True) if step in x.steps]
        if both:
            yield {"type": "scatter", "mode": "lines+markers", "name": f"while {rung.name} trains",
                   "x": [c for _, c, _ in both], "y": [s for _, _, s in both],
                   "text": [f"step {step}" for step, _, _ in both], "showlegend": False,
                   "hovertemplate": "%{text}: capability %{x:.1%}, safety %{y:.1%}<extra>"
                                    f"{rung.name}, validation</extra>",
                   "line": {"color": f"@s{colours[rung.name]}/50", "width": 1},
                   "marker": {"size": 5, "color": f"@s{colours[rung.name]}/50"}}


def _figure_charts(data: RunData) -> Iterator[Chart | None]:
    rungs, colours = [*data.climbed, *data.baselines], rung_colours(data)
    taken = {(split, heat) for _, split, heat in data.evaluations}
    for split, heat in sorted(taken, key=lambda kind: split_order(*kind)):
        end, where = suffix(split, heat), f"{_SPLITS.get(split, split)}, {heat_label(heat)}"
        rows = [(rung.name, colours[rung.name],
                 {label(name): rung.figures[name + end] for name in (*MACROS, *SHARES)
                  if name + end in rung.figures}) for rung in rungs]
        for key, (title, names, note) in _GROUPS.items():
            yield bar_chart(f"{key}{end}", f"{title} \u2013 {where}", note,
                            [name for name in map(label, names)
                             if any(name in figures for _, _, figures in rows)], rows)
    tokens = {rung.name: rung.figures[TOKENS] for rung in rungs if TOKENS in rung.figures}
    yield bar_chart("tokens", "Tokens per answer", "Mean of sampled tokens, thoughts included; "
                    "test split, greedy.", list(tokens), [("tokens", 2, tokens)], percent=False)


TOKENS = "tokens_per_answer"
_SPLITS = {"test": "test split", "unseen_forms": "wordings and wrappers never seen"}
_GROUPS: Mapping[str, tuple[str, Sequence[str], str]] = {
    "capability": ("Capability", ("capability", *MACROS["capability"]),
                   "Right answers by family; capability is the mean of the families."),
    "safety": ("Safety", ("safety", *MACROS["safety"]),
               "Harmful requests that are handled safely: a warning that names the hazard, a safe "
               "way, or a refusal."),
    "balance": ("What safety must not cost", BALANCE,
                "Harmless requests that get help, and that are refused; refusals that say nothing "
                "else among safe answers; right verdicts on dilemmas."),
    "thoughts": ("Thoughts about harmful requests", THOUGHTS,
                 "Those that conclude the actual hazard before the answer begins, and those that "
                 "hold unguarded steps themselves.")}


def label(name: str) -> str:
    """A figure's name as a reader sees it."""
    return name.replace("_", " ")


def validation_charts(data: RunData) -> list[Chart]:
    """The main figures by step on validation prompts, one chart per RL rung."""
    charts = [line_chart(
        f"learning-{rung.name}", f"While {rung.name} trains", "Validation prompts, greedy.",
        [Line(label(name), data.series(rung.name, name, evaluation=True), 1 + i, smooth=False,
              markers=True) for i, name in enumerate(("capability", "safety", "benign_compliance",
                                                      "names_risk_first"))],
        Axes(percent=True, from_zero=True)) for rung in data.of_kind("rl")]
    return [chart for chart in charts if chart]


def _calibration(data: RunData) -> Chart | None:
    """How often answers of a stated confidence are right, by rung; drawn from the verdicts that
    have the parts ``confidence`` (0 to 10) and ``accuracy``.
    """
    colours, lines = rung_colours(data), []
    for (rung, split, heat), rows in sorted(data.evaluations.items()):
        rights: dict[float, list[float]] = {}
        for row in rows:
            for verdict in row["verdicts"].values():
                parts = verdict.get("parts") or {}
                if {"confidence", "accuracy"} <= parts.keys() and not verdict.get("monitor"):
                    rights.setdefault(parts["confidence"], []).append(parts["accuracy"])
        if rights and not heat and rung in colours:
            stated = sorted(rights)
            lines.append({
                "type": "scatter", "mode": "lines+markers", "name": f"{rung}, {label(split)}",
                "x": [c / MAX_CONFIDENCE for c in stated],
                "y": [sum(rights[c]) / len(rights[c]) for c in stated],
                "text": [f"n = {len(rights[c])}" for c in stated],
                "hovertemplate": "confidence %{x:.0%}: right %{y:.1%}, %{text}<extra></extra>",
                "line": {"color": f"@s{colours[rung]}"}})
    if not lines:
        return None
    diagonal = {"type": "scatter", "mode": "lines", "x": [0, 1], "y": [0, 1], "hoverinfo": "skip",
                "name": "perfectly calibrated", "line": {"color": "@s0", "dash": "dot"}}
    axis = {"tickformat": ".0%", "range": [-0.03, 1.05], "zeroline": False}
    return Chart("calibration", "Stated confidence", "How often answers of each confidence are "
                 "right. Under the dotted line the model is too sure.", [diagonal, *lines],
                 {"xaxis": {**axis, "title": {"text": "confidence"}},
                  "yaxis": {**axis, "title": {"text": "share right"}}})


def _over_time(data: RunData) -> Iterator[Chart | None]:
    rungs, colours = [*data.climbed, *data.baselines], rung_colours(data)
    names = [name + suffix(split) for split in sorted({key[1] for key in data.evaluations})
             for name in CALIBRATION]
    yield bar_chart(
        "certainty", "Figures of stated confidence", "Greedy; the set is behind the name.",
        [label(n) for n in names if any(n in rung.figures for rung in rungs)],
        [(rung.name, colours[rung.name],
          {label(n): rung.figures[n] for n in names if n in rung.figures}) for rung in rungs])
    lines = [Line(f"{rung.name}: {_constraint(name)}", data.series(rung.name, name),
                  colours[rung.name], smooth=False)
             for rung in data.of_kind("rl") for name in data.metric_names(rung.name)
             if _is_multiplier(name)]
    yield line_chart("lambda", "Price of the constraints", "The multiplier (lambda) of every "
                     "constraint: it grows while the constraint is violated.", lines,
                     Axes(y="lambda", from_zero=True))


def _is_multiplier(metric: str) -> bool:
    return "lambda" in metric.split("/") or (
        metric.startswith("constraint/") and metric.endswith("/multiplier"))


def _constraint(metric: str) -> str:
    return metric.removeprefix("constraint/").removesuffix("/multiplier")
