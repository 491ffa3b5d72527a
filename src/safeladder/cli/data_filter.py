"""``safeladder data filter`` and ``data distill``: run, write, and print the counts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from safeladder.errors import ConfigError


def run_filter(path: Path, out: Path, recipe: str | None) -> None:
    """Filter a file, write the piles and the report, print the counts.

    Raises:
        SafeLadderError: one clear line.
    """
    from safeladder.ladder.filters import filter_file, load_steps
    from safeladder.ladder.filters.page import diversity_text, headline, step_rows

    report = asyncio.run(filter_file(path, out, load_steps(recipe)))
    console = _console()
    columns = {"step": "step", "rows": "rows in", "kept": "kept", "dropped": "dropped",
               "unjudged": "not judged", "note": "why dropped"}
    table = Table(box=None, pad_edge=False)
    for key, title in columns.items():
        table.add_column(title, justify="left" if key in ("step", "note") else "right",
                         no_wrap=True)
    for row in step_rows(report):
        table.add_row(*(Text(row[key]) for key in columns))
    console.print(table)
    for step in report.steps:
        if diversity_text(step.figures):
            console.print(f"{step.name}: entropy {diversity_text(step.figures)}", highlight=False)
        for reason, count in step.unjudged_reasons.items():
            console.print(Text(f"  {step.name}: {count} x not judged: {reason}", "yellow"),
                          soft_wrap=True)
    console.print(headline(report), highlight=False, soft_wrap=True)
    console.print(f"{out / 'kept.jsonl'} and {out / 'filters.html'}", highlight=False,
                  soft_wrap=True, markup=False)


def run_distill(
    prompts: Path, out: Path, teacher: str, model: str | None, system: str | None,
    limit: int | None, settings: Mapping[str, Any],
) -> bool:
    """Ask, write, print the counts; False when some responses could not be had.

    Raises:
        SafeLadderError: one clear line.
    """
    from safeladder.config import validate
    from safeladder.ladder.distill import DistillSettings, distill, load_questions, open_teacher

    chosen = validate(DistillSettings, {**settings, "system_prompt": _text(system)}, "distill")
    endpoint = open_teacher(teacher, model)
    questions = load_questions(prompts, limit)
    console = _console()
    result = asyncio.run(distill(questions, endpoint, chosen, out, console.is_terminal))
    console.print(f"{out}: {result.written} responses written now, {result.kept} were there "
                  f"already, {len(result.failures)} failed, {result.not_asked} not asked",
                  highlight=False, soft_wrap=True, markup=False)
    if result.repeated:
        console.print(f"  {result.repeated} prompts are equal to an earlier one and were not asked "
                      "again", highlight=False)
    if result.other:
        console.print(f"  {result.other} rows of the file belong to other requests; they stay",
                      highlight=False)
    console.print("  finish reasons: " + (", ".join(
        f"{count} {reason}" for reason, count in result.finish_reasons.items()) or "none"),
        highlight=False)
    usage = result.usage
    console.print(f"  {usage.calls} calls, {usage.retries} retries, {usage.prompt_tokens} prompt "
                  f"and {usage.completion_tokens} completion tokens", highlight=False)
    for reason, count in result.reasons.items():
        console.print(Text(f"  {count} x {reason}", "yellow"), soft_wrap=True)
    if result.failures or result.not_asked:
        console.print(f"  run the same command again to ask for the rest; failures are listed in "
                      f"{result.failure_file}", highlight=False, soft_wrap=True, markup=False)
    return not result.failures and not result.not_asked


def _text(system: str | None) -> str | None:
    if system is None or not system.startswith("@"):
        return system
    try:
        return Path(system[1:]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--system {system}: cannot be read ({error})") from None


def _console() -> Console:
    """Wide enough for every table where nobody watches: a log must not lose figures."""
    console = Console()
    return console if console.is_terminal else Console(width=200)
