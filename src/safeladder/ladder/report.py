"""``report.html``: one self-contained page that shows what a climb did. No network, no server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safeladder.files import write_text
from safeladder.ladder.filters.page import filter_parts
from safeladder.ladder.ladder_findings import is_ladder, main_differences
from safeladder.ladder.report_data import RunData, load_run
from safeladder.ladder.report_ladder import ladder_charts, validation_charts
from safeladder.ladder.report_monitor import (
    judge_rows,
    monitor_charts,
    monitor_rows,
    trained_rows,
)
from safeladder.ladder.report_requests import (
    difference_rows,
    gate_rows,
    ladder_headline,
    ladder_tiles,
    requests,
)
from safeladder.ladder.report_sections import (
    accuracy_charts,
    behaviour_charts,
    learning_charts,
    rl_charts,
    speed_charts,
    supervised_charts,
)
from safeladder.ladder.report_tables import (
    abstention_rows,
    comparison_tables,
    cost_rows,
    figure_tables,
    gap_rows,
    headline,
    main_comparisons,
    plateau_lines,
    puzzles,
    rule_lines,
    tiles,
)


def write_report(run_dir: Path) -> Path:
    """Write ``report.html`` into a run directory, finished or not; return its path.

    Raises:
        CheckpointError: it is no run directory, or a file in it cannot be read.
        ConfigError: ``recipe.yaml`` or ``summary.json`` is not what it should be.
        StorageError: the page cannot be written.
    """
    import jinja2
    from plotly.offline import get_plotlyjs

    data = load_run(run_dir)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("safeladder.ladder", "templates"), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template("report.html.jinja").render(
        **context(data), plotly_js=get_plotlyjs())
    path = run_dir / "report.html"
    write_text(path, page)
    return path


def context(data: RunData) -> dict[str, Any]:
    """All that the page shows, by the names its template uses."""
    main, ladder = main_comparisons(data), is_ladder(data)
    sections = {
        "ladder": ladder_charts(data),
        "accuracy": accuracy_charts(data), "supervised": supervised_charts(data),
        "learning": validation_charts(data) if ladder else list(learning_charts(data)),
        "rl": rl_charts(data),
        "monitor": monitor_charts(data),
        "behaviours": list(behaviour_charts(data)), "speed": speed_charts(data)}
    charts = {chart.id: {"data": chart.data, "layout": chart.layout}
              for group in sections.values() for chart in group}
    return {
        "name": data.recipe["name"], "description": data.recipe.get("description", ""),
        "run_name": data.run.path.resolve().name, "finished": data.finished,
        "ladder": ladder,
        "headline": ladder_headline(data) if ladder else headline(data, main),
        "tiles": ladder_tiles(data) if ladder else tiles(data, main),
        "gate_rows": gate_rows(data), "requests": requests(data),
        "difference_rows": difference_rows(main_differences(data)),
        "charts": _for_script(charts), "sections": sections,
        "comparisons": comparison_tables(data, main), "plateaus": plateau_lines(data),
        "monitor_rows": monitor_rows(data), "judge_rows": judge_rows(data),
        "trained_rows": trained_rows(data),
        "gap_rows": gap_rows(data), "rules": rule_lines(data),
        "puzzles": [] if ladder else puzzles(data),
        "tables": figure_tables(data), "cost_rows": cost_rows(data),
        "filters": filter_parts(data),
        "abstentions": abstention_rows(data), "versions": data.manifest.get("versions", {}),
        "recipe_text": data.run.recipe.read_text(encoding="utf-8")}


def _for_script(charts: Mapping[str, Any]) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(charts, allow_nan=False).replace("<", "\\u003c")
