"""``safeladder verifier check``: the gold cases as a table, failures as lines under it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from safeladder.verifiers.check_all import CheckResult, check_registered
from safeladder.verifiers.registry import VERIFIERS


def run_check(names: Sequence[str], console: Console | None = None) -> bool:
    """Print table and failures; False when something failed, or was named and not run.

    A name is a registered type, or a verifier of one's own: a folder or a YAML file.

    Raises:
        ConfigError: a name is neither.
    """
    console = console or Console()
    results = []
    own = [name for name in names if name not in VERIFIERS and Path(name).exists()]
    types = [name for name in names if name not in own]
    for result in itertools.chain(check_registered(types) if types or not own else (),
                                  map(_check_own, own)):
        if console.is_terminal:
            console.print(Text(f"{result.type}: {_outcome(result)}", "dim"))
        results.append(result)
    console.print(render(results))
    for result in results:
        for failure in result.failures:
            console.print(failure, markup=False, highlight=False, soft_wrap=True)
    return all(result.passed or (result.skipped and not names) for result in results)


def _check_own(name: str) -> CheckResult:
    from safeladder.ladder.verifier_cases import check_own

    return check_own(name)


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
    if not result.passed:
        return f"{len(result.failures)} failed"
    return f"ok: {result.note}" if result.note else "ok"
