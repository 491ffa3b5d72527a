"""``safeladder verifier ...``: parse, then import what the command needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

verifier_app = typer.Typer(no_args_is_help=True, help="Check, train and measure verifiers.")


@verifier_app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(
        metavar="[NAME]...", help="Verifier types, as in a recipe, or verifiers of your own: a "
        r"trained one's folder, a YAML file with 'type: ...' \[default: all types].",
        show_default=False)] = None,
) -> None:
    """Run the gold cases that ship with every verifier; exit code 1 when one fails.

    What cannot be checked here (its package is not installed, it needs settings of yours) is
    shown as skipped; a type that was asked for by name and skipped counts as failed.
    """
    from safeladder.cli.verifier_check import run_check

    if not run_check(names or []):
        raise typer.Exit(1)


@verifier_app.command()
def train(
    recipe: Annotated[str, typer.Argument(
        help="A recipe file, or the name of one that ships under recipes/verifiers.")],
    set_: Annotated[list[str] | None, typer.Option(
        "--set", metavar="A.B=C", help="Override a recipe value; repeatable.")] = None,
    out: Annotated[Path | None, typer.Option(
        help=r"Folder to write \[default: verifiers/<name of the recipe>].",
        show_default=False)] = None,
) -> None:
    """Train a verifier from labelled responses, light or neural."""
    from safeladder.ladder.verifier_train import train_verifier

    train_verifier(recipe, set_ or [], out or Path("verifiers") / Path(recipe).stem, typer.echo)


@verifier_app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(
        help="A verifier's folder, a YAML file with 'type: ...', or a type (prefix_refusal).")],
    data: Annotated[Path, typer.Argument(help="Labelled responses, JSON lines.")],
    out: Annotated[Path | None, typer.Option(
        help=r"Page to write; the JSON goes beside it \[default: <verifier>-<data>.html].",
        show_default=False)] = None,
    map_: Annotated[list[str] | None, typer.Option(
        "--map", metavar="LABEL=CLASS",
        help="Rename a label before comparing; repeatable.")] = None,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
) -> None:
    """Measure a verifier against labels: figures, intervals, a page with what it gets wrong."""
    from safeladder.cli.verifier_eval import run_eval

    run_eval(model, data, out, map_ or [], seed)
