"""The ``safeladder`` command: parse, then import what the command needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from safeladder import __version__
from safeladder.cli.data import data_app
from safeladder.cli.verifier import verifier_app
from safeladder.errors import SafeLadderError

app = typer.Typer(
    name="safeladder", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Take a language model up a ladder of safety-oriented reinforcement learning.")
app.add_typer(data_app, name="data")
app.add_typer(verifier_app, name="verifier")


def _version(show: bool) -> None:
    if show:
        typer.echo(f"safeladder {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option(
        "--version", callback=_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    pass


@app.command()
def climb(
    recipe: Annotated[str, typer.Argument(
        help="A recipe file, or the name of one that ships with the package.")] = "climb",
    set_: Annotated[list[str] | None, typer.Option(
        "--set", metavar="A.B=C", help="Override a recipe value; repeatable. List items by "
        "number or name: rungs.logic_rl.settings.num_steps=10.")] = None,
    rung: Annotated[list[str] | None, typer.Option(
        metavar="NAME", help="Run this rung alone; repeatable.")] = None,
    from_: Annotated[str | None, typer.Option(
        "--from", metavar="CHECKPOINT", help="Where a rung starts whose start is not run, or "
        "the first one: a Hugging Face checkpoint, such as runs/<run>/rungs/m3_rl/checkpoint.")
    ] = None,
    out: Annotated[Path | None, typer.Option(
        help=r"Run directory \[default: runs/<recipe>-<time>].")] = None,
    resume: Annotated[bool, typer.Option(
        "--resume", help="Go on with the run in --out, or with the newest.")] = False,
) -> None:
    """Train a model up the rungs of a recipe."""
    from safeladder.ladder.climb import climb as run_climb

    run_climb(recipe, overrides=set_ or [], out=out, resume=resume, rungs=rung or [], start=from_)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
) -> None:
    """Write report.html from what a run directory holds."""
    from safeladder.ladder.report import write_report

    typer.echo(write_report(run))


@app.command()
def chat(
    run: Annotated[Path, typer.Argument(
        help="A run directory (its last rung answers) or a Hugging Face checkpoint.")],
    rung: Annotated[str | None, typer.Option(help="Which rung of the run answers.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1)] = 1024,
) -> None:
    """Talk to a model in the terminal; its reasoning is dimmed."""
    from safeladder.cli.chat import chat_with

    chat_with(run, rung=rung, temperature=temperature, max_tokens=max_tokens)


@app.command()
def doctor() -> None:
    """Show versions, threads, devices, and what each extra would add."""
    from safeladder.cli.doctor import run_doctor

    run_doctor()


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="Responses, JSON lines (docs/verifiers.md).")],
    with_: Annotated[list[str], typer.Option(
        "--with", metavar="VERIFIER", help="A verifier's folder, a YAML file with 'type: ...', or "
        "a type; repeatable.")],
    out: Annotated[Path | None, typer.Option(
        help=r"File to write \[default: <file>.verdicts.jsonl].", show_default=False)] = None,
) -> None:
    """Judge the responses of a file; every row is written with its verdicts."""
    from safeladder.cli.verifier_eval import run_verify

    run_verify(file, with_, out or file.with_suffix(".verdicts.jsonl"))


def main() -> None:
    """Run the command line; an error a user can mend is one line and exit code 2."""
    try:
        app(standalone_mode=True)
    except SafeLadderError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("interrupted; go on with --resume", err=True)
        sys.exit(130)
