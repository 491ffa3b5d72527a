"""``safeladder verifier eval`` and ``safeladder verify``: run, write, and print the figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from safeladder.errors import ConfigError


def run_eval(model: str, data: Path, out: Path | None, renames: Sequence[str], seed: int) -> None:
    """Measure, write page and JSON, print the figures.

    Raises:
        SafeLadderError: one clear line.
    """
    from safeladder.ladder.verifier_eval import evaluate_verifier, write_evaluation
    from safeladder.ladder.verifier_page import estimate_text, figure_rows

    evaluation = evaluate_verifier(model, data, _mapping(renames), seed)
    page = out or Path(f"{Path(evaluation.verifier).name}-{data.stem}.html")
    target = write_evaluation(evaluation, page)
    console = _console()
    console.print(f"{evaluation.judged} of {evaluation.rows} rows judged, {evaluation.abstained} "
                  "abstained", highlight=False)
    _reasons(console, evaluation.abstentions)
    table = _table("figure", "value, 95% interval")
    for name, value, _ in figure_rows(evaluation):
        table.add_row(name, value)
    console.print(table)
    if evaluation.figures is not None:
        table = _table("label", "rows", "F1", *(f"-> {name}" for name in evaluation.classes))
        for name, counts in zip(evaluation.classes, evaluation.figures.confusion, strict=True):
            table.add_row(name, str(sum(counts)), estimate_text(evaluation.figures.f1[name]),
                          *map(str, counts))
        console.print(table)
    console.print(f"{page} and {target}", highlight=False, soft_wrap=True, markup=False)


def run_verify(path: Path, names: Sequence[str], out: Path) -> None:
    """Judge a file, write it, print the counts.

    Raises:
        SafeLadderError: one clear line.
    """
    from safeladder.ladder.verify_file import verify_file

    report = verify_file(path, names, out)
    console = _console()
    table = _table("verifier", "judged", "abstained", "not applicable", "seconds")
    for name, tally in report.verifiers.items():
        table.add_row(name, str(tally.judged), str(tally.abstained), str(tally.not_applicable),
                      f"{report.verifier_seconds[name]:.2f}")
    console.print(table)
    for name, tally in report.verifiers.items():
        _reasons(console, dict(tally.errors.most_common(5)), f"{name}: ")
    console.print(f"{out}: {report.trajectories} rows", highlight=False, soft_wrap=True,
                  markup=False)


def _console() -> Console:
    """Wide enough for every table where nobody watches: a log must not lose figures."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def _mapping(renames: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in renames:
        label, separator, name = text.partition("=")
        if not separator or not label or not name:
            raise ConfigError(f"--map {text!r}: expected LABEL=CLASS")
        pairs[label] = name
    return pairs


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


def _reasons(console: Console, reasons: dict[str, int], before: str = "") -> None:
    for reason, count in reasons.items():
        console.print(Text(f"  {before}{count} x {reason}", "yellow"), soft_wrap=True)
