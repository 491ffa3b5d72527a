"""``safeladder verifier ...``: parse, then import what the command needs."""

from __future__ import annotations

from typing import Annotated

import typer

verifier_app = typer.Typer(no_args_is_help=True, help="Check, train and measure verifiers.")


@verifier_app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(
        metavar="[NAME]...", help="Verifier types, as in a recipe [default: all].",
        show_default=False)] = None,
) -> None:
    """Run the gold cases that ship with every verifier; exit code 1 when one fails.

    What cannot be checked here (its package is not installed, it needs settings of yours) is
    shown as skipped; a type that was asked for by name and skipped counts as failed.
    """
    from safeladder.cli.verifier_check import run_check

    if not run_check(names or []):
        raise typer.Exit(1)
