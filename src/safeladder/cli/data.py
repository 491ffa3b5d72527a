"""``safeladder data ...``: parse, then import what the command needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

data_app = typer.Typer(no_args_is_help=True, help="Write, distil and filter data sets.")


@data_app.command("knights-knaves")
def knights_knaves(
    people: Annotated[int, typer.Option(min=2, max=8, help="People per puzzle.")],
    split: Annotated[Literal["train", "test", "eval"], typer.Option(
        help="As published: train and test by Logic-RL, eval is what accuracies are taken on.")],
    out: Annotated[Path, typer.Option(help="File to write; .jsonl or .parquet.")],
) -> None:
    """Rebuild the published Knights and Knaves rows of Logic-RL."""
    from safeladder.data.knights_knaves.published import write_knights_knaves

    count = write_knights_knaves(people, split, out)
    typer.echo(f"{out}: {count} rows")


@data_app.command()
def microworld(
    out: Annotated[Path, typer.Option(help="Folder to write; new or empty.")],
    seed: Annotated[int, typer.Option(help="Another seed draws another set.")] = 0,
    rows: Annotated[int, typer.Option(
        min=4, help="Training prompts per family; twice as many responses.")] = 2000,
) -> None:
    """Write the microworld: prompts, labelled responses, corpora and images."""
    from safeladder.data.microworld.write import summary_lines, write_microworld

    for line in summary_lines(write_microworld(out, seed, rows)):
        typer.echo(line)


@data_app.command("filter")
def filter_(
    rows: Annotated[Path, typer.Argument(help="Responses, JSON lines (docs/verifiers.md).")],
    out: Annotated[Path, typer.Option(
        help="Folder to write: kept.jsonl, dropped.jsonl, unjudged.jsonl, filters.html.")],
    recipe: Annotated[str | None, typer.Option(
        help="A YAML file of steps, or the name of one that ships under recipes/filters "
        r"\[default: cot].", show_default=False)] = None,
) -> None:
    """Keep the responses that are worth imitating; say of all others why not."""
    from safeladder.cli.data_filter import run_filter

    run_filter(rows, out, recipe)


@data_app.command()
def distill(
    prompts: Annotated[Path, typer.Argument(
        help="Prompts: .jsonl, .parquet, or a .yaml with one source as a recipe has it.")],
    teacher: Annotated[str, typer.Option(
        help="A YAML file with base_url, model, ... of an OpenAI-compatible endpoint, or its "
        "base URL (with --model).")],
    out: Annotated[Path, typer.Option(
        help="File to write, JSON lines; what it holds already is not asked for again.")],
    model: Annotated[str | None, typer.Option(help="The model's name at a base URL.")] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Responses per prompt.")] = 1,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of one response.")] = 4096,
    seed: Annotated[int, typer.Option(help="Of the first response; the k-th has seed + k.")] = 0,
    system: Annotated[str | None, typer.Option(
        help="System prompt for prompts that have none: a text, or @FILE.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first prompts only.")] = None,
) -> None:
    """Ask a teacher for responses to imitate; exit code 1 when some could not be had."""
    from safeladder.cli.data_filter import run_distill

    if not run_distill(prompts, out, teacher, model, system, limit,
                       {"n": n, "temperature": temperature, "max_tokens": max_tokens,
                        "seed": seed}):
        raise typer.Exit(1)
