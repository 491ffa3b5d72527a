"""``safeladder verifier check``: the gold cases as a table, failures as lines under it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from safeladder.verifiers.check_all import CheckResult, check_registered


def run_check(names: Sequence[str], console: Console | None = None) -> bool:
    """Print table and failures; False when something failed, or was named and not run.

    Raises:
        ConfigError: a name is no registered type.
    """
    console = console or Console()
    results = []
    for result in check_registered(names):
        if console.is_terminal:
            console.print(Text(f"{result.type}: {_outcome(result)}", "dim"))
        results.append(result)
    console.print(render(results))
    for result in results:
        for failure in result.failures:
            console.print(failure, markup=False, highlight=False, soft_wrap=True)
    return all(result.passed or (result.skipped and not names) for result in results)


def render(results: Sequence[CheckResult]) -> Table:
    """One row per verifier type."""
    table = Table(box=None, pad_edge=False)
    table.add_column("verifier", no_wrap=True)
    for name in ("good", "bad", "hostile", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("result", overflow="fold")
    for result in results:
        style = "yellow" if result.skipped else "green" if result.passed else "bold red"
        table.add_row(
            result.type, *(str(result.cases[kind]) for kind in ("good", "bad", "hostile")),
            "-" if result.skipped else f"{result.seconds:.2f}", Text(_outcome(result), style))
    return table


def _outcome(result: CheckResult) -> str:
    if result.skipped:
        return f"skipped: {result.skipped}"
    return "ok" if result.passed else f"{len(result.failures)} failed"
