"""The charts of a report, as plain plotly values.

Colours are names (``@s1``, ``@s1/30`` for 30% of it); the page puts in those of its light or dark
palette. Both palettes keep apart under the common colour blindnesses, and series differ in symbol
or dash as well.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from safeladder.ladder.report_data import RunData, Series
from safeladder.ladder.summary import Figure

SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "star", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "5px,1px", "1px,5px")
"""The first line of a chart is solid; a chart has at most this many lines."""
HATCHES = ("", "/", "x", ".", "-", "|", "+")
"""The first bar of a colour is solid."""
MANY_BARS = 7
"""More series than this, and their legend leaves no room for the bars in half a row."""
FEW = 12
"""A line of at most this many points shows them."""
BEFORE, AFTER = 1, 2
"""Colours of the last rung and of the one before it."""


@dataclass(frozen=True)
class Line:
    """A series with its place in the legend."""

    label: str
    series: Series
    colour: int
    smooth: bool = True
    markers: bool = False


@dataclass(frozen=True)
class Chart:
    """One figure with its heading and a sentence that says how to read it."""

    id: str
    title: str
    note: str
    data: list[dict[str, Any]] = field(repr=False)
    layout: dict[str, Any] = field(repr=False)
    wide: bool = False
    """Whether it takes a whole row of the page."""


@dataclass(frozen=True)
class Axes:
    """Titles and ranges."""

    x: str = "step"
    y: str = ""
    y_range: tuple[float, float] | None = None
    percent: bool = False
    from_zero: bool = False
    log: bool = False
    """Logarithmic, for a loss: its plateau would lie on the axis."""


def line_chart(
    chart_id: str, title: str, note: str, lines: Sequence[Line], axes: Axes,
) -> Chart | None:
    """Lines over steps: the points faint, their running mean strong. None without points."""
    data: list[dict[str, Any]] = []
    for dash, line in zip(DASHES, [line for line in lines if line.series.values], strict=False):
        data += _line(line, dash)
    return Chart(chart_id, title, note, data, _layout(axes)) if data else None


def _line(line: Line, dash: str) -> list[dict[str, Any]]:
    steps, values = line.series
    colour = f"@s{line.colour}"
    common = {"type": "scatter", "x": steps, "name": line.label,
              "hovertemplate": "step %{x}: %{y:.4g}<extra>" + line.label + "</extra>"}
    window = smoothing_window(len(values)) if line.smooth else 1
    mode = "lines+markers" if line.markers or len(values) <= FEW else "lines"
    strong = {**common, "y": running_mean(values, window), "mode": mode,
              "line": {"color": colour, "width": 2.2, "dash": dash},
              "marker": {"size": 7, "symbol": SYMBOLS[line.colour % len(SYMBOLS)]}}
    if window == 1:
        return [strong]
    faint = {**common, "y": values, "mode": "lines", "showlegend": False, "hoverinfo": "skip",
             "line": {"color": f"{colour}/30", "width": 1}}
    return [faint, strong]


def smoothing_window(count: int) -> int:
    """Steps in a running mean: a twentieth of all, odd, 1 for short series."""
    return 1 if count < 30 else 2 * (count // 40) + 1


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean over ``window`` values centred on each; the window shrinks at the ends."""
    half = window // 2
    parts = [values[max(i - half, 0):i + half + 1] for i in range(len(values))]
    return [math.fsum(part) / len(part) for part in parts]


def interval_chart(
    chart_id: str, title: str, note: str, columns: Sequence[str],
    rows: Sequence[tuple[str, int, Mapping[str, Figure]]],
) -> Chart | None:
    """Shares with 95% intervals: a column per figure, side by side a point per series.

    ``rows`` are (label, colour, figure by column). None if no series has a figure.
    """
    data = []
    width = min(0.16, 0.7 / max(len(rows), 1))
    for number, (label, colour, figures) in enumerate(rows):
        shift = (number - (len(rows) - 1) / 2) * width
        points = [(place + shift, column, figures[column]) for place, column in enumerate(columns)
                  if column in figures and figures[column].value is not None]
        if points:
            data.append(_points(label, colour, points))
    layout = _layout(Axes(x="", percent=True, y_range=(-0.03, 1.05)))
    layout["xaxis"] |= {"tickvals": list(range(len(columns))), "ticktext": list(columns),
                        "range": [-0.5, len(columns) - 0.5], "showgrid": False}
    return Chart(chart_id, title, note, data, layout) if data else None


def _points(
    label: str, colour: int, points: Sequence[tuple[float, str, Figure]], percent: bool = True,
) -> dict[str, Any]:
    values = [figure.value or 0.0 for _, _, figure in points]
    bounds = [figure.ci95 or (value, value)
              for (_, _, figure), value in zip(points, values, strict=True)]
    texts = [f"{column}: {figure_text(figure, percent)}, n = {figure.n}"
             for _, column, figure in points]
    return {
        "type": "scatter", "mode": "markers", "name": label, "x": [x for x, _, _ in points],
        "y": values, "text": texts, "hovertemplate": "%{text}<extra>" + label + "</extra>",
        "marker": {"size": 11, "color": f"@s{colour}", "symbol": SYMBOLS[colour % len(SYMBOLS)]},
        "error_y": {"type": "data", "symmetric": False, "color": f"@s{colour}", "thickness": 2,
                    "width": 6,
                    "array": [high - v for (_, high), v in zip(bounds, values, strict=True)],
                    "arrayminus": [v - low for (low, _), v in zip(bounds, values, strict=True)]}}


def bar_chart(
    chart_id: str, title: str, note: str, columns: Sequence[str],
    rows: Sequence[tuple[str, int, Mapping[str, Figure]]], percent: bool = True,
) -> Chart | None:
    """Bars with 95% intervals: a group per column, a bar per series. ``rows`` as in
    :func:`interval_chart`; series of one colour differ in hatching. None if no series has a figure.
    """
    data: list[dict[str, Any]] = []
    used: Counter[int] = Counter()
    for label, colour, figures in rows:
        points = [(0.0, name, figures[name]) for name in columns
                  if name in figures and figures[name].value is not None]
        if points:
            trace = _points(label, colour, points, percent)
            texts = trace.pop("text")
            data.append({**trace, "type": "bar", "x": [name for _, name, _ in points],
                         "hovertext": texts, "hovertemplate": "%{hovertext}<extra></extra>",
                         "marker": {"color": f"@s{colour}/80", "pattern": {
                             "shape": HATCHES[used[colour] % len(HATCHES)],
                             "fillmode": "overlay"}}})
            data[-1].pop("mode")
            used[colour] += 1
    layout = _layout(Axes(x="", percent=percent, y_range=(0, 1.05) if percent else None,
                          from_zero=not percent))
    layout |= {"barmode": "group", "bargap": 0.25, "showlegend": len(rows) > 1}
    wide = len(data) > MANY_BARS
    if wide:
        layout["height"] = 400
    layout["xaxis"] |= {"showgrid": False, "categoryarray": list(columns),
                        "categoryorder": "array"}
    return Chart(chart_id, title, note, data, layout, wide) if data else None


def stacked_share_chart(
    chart_id: str, title: str, note: str, rungs: Sequence[str],
    seconds: Mapping[str, Mapping[str, float]],
) -> Chart | None:
    """Horizontal bars: which share of each rung's time every phase took."""
    phases = list(dict.fromkeys(phase for rung in rungs for phase in seconds.get(rung, {})))
    data = []
    for number, phase in enumerate(phases):
        shares = [_share(seconds.get(rung, {}), phase) for rung in rungs]
        data.append({"type": "bar", "orientation": "h", "name": phase, "y": list(rungs),
                     "x": shares, "marker": {"color": f"@s{number % 7}"},
                     "hovertemplate": "%{x:.0%} " + phase + "<extra>%{y}</extra>"})
    layout = _layout(Axes(x=""))
    layout |= {"barmode": "stack", "height": 110 + 44 * len(rungs),
               "legend": {"traceorder": "normal"}}
    layout["xaxis"] |= {"tickformat": ".0%", "range": [0, 1]}
    layout["yaxis"] |= {"autorange": "reversed", "showgrid": False, "automargin": True}
    return Chart(chart_id, title, note, data, layout) if data else None


def _share(seconds: Mapping[str, float], phase: str) -> float:
    total = math.fsum(seconds.values())
    return seconds.get(phase, 0.0) / total if total else 0.0


def _layout(axes: Axes) -> dict[str, Any]:
    y: dict[str, Any] = {"title": {"text": axes.y}, "zeroline": False, "automargin": True}
    if axes.percent:
        y["tickformat"] = ".2~%"
    if axes.y_range:
        y["range"] = list(axes.y_range)
    if axes.from_zero:
        y["rangemode"] = "tozero"
    if axes.log:
        y |= {"type": "log", "dtick": "D2"}
    return {"xaxis": {"title": {"text": axes.x}, "zeroline": False}, "yaxis": y}


def figure_text(figure: Figure, percent: bool = True) -> str:
    """``91.3% [88.1, 93.6]``, ``104.2 [101.0, 107.9]``, ``not judged``."""
    if figure.value is None:
        return "not judged"
    scale, sign = (100, "%") if percent else (1, "")
    text = f"{figure.value * scale:.1f}{sign}"
    if figure.ci95:
        text += f" [{figure.ci95[0] * scale:.1f}, {figure.ci95[1] * scale:.1f}]"
    return text


def rung_colours(data: RunData) -> dict[str, int]:
    """The colour each rung keeps through the whole report."""
    climbed = [rung.name for rung in data.rungs if not rung.baseline]
    others = [rung.name for rung in data.rungs if rung.baseline]
    colours = {name: (0, 4, 6, 5)[i % 4] for i, name in enumerate(reversed(climbed[:-2]))}
    colours |= dict(zip(climbed[-2:][::-1], (AFTER, BEFORE), strict=False))
    return colours | {name: 3 + i % 3 for i, name in enumerate(others)}
