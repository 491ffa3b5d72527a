"""Climb: train a model up the rungs of a recipe, and leave a run directory that shows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from safeladder.errors import ConfigError, GateFailed
from safeladder.ladder.recipe import Recipe, load_recipe
from safeladder.ladder.recipe_files import dump_recipe
from safeladder.ladder.recipe_part import part_of
from safeladder.ladder.run_dir import RunDir

if TYPE_CHECKING:
    from safeladder.ladder.rungs import Climber


def climb(
    recipe_name: str, overrides: Sequence[str] = (), out: Path | None = None, resume: bool = False,
    rungs: Sequence[str] = (), start: str | None = None,
) -> Path:
    """Run ``safeladder climb``; return the run directory.

    Finished rungs are skipped; an unfinished one goes on from its newest state. ``rungs`` and
    ``start`` as :func:`safeladder.ladder.recipe_part.part_of` has them.

    Raises:
        SafeLadderError: one clear line; what is on disk stays as it is.
    """
    recipe, left_out = part_of(load_recipe(recipe_name, list(overrides)), rungs, start)
    run = RunDir(choose_folder(recipe, out, resume))
    # Before torch is imported: its thread pool reads the environment once.
    from safeladder.engine.threads import configure_threads

    configure_threads(recipe.engine.threads)
    from safeladder.ladder.rungs import Climber
    from safeladder.ladder.summary import MemoryWatch, versions

    with ExitStack() as stack:
        stack.enter_context(run.locked())
        run.open(dump_recipe(recipe), resume, {"versions": versions()})
        memory = stack.enter_context(MemoryWatch())
        climber = stack.enter_context(Climber.open(recipe, run, memory))
        for line in left_out:
            climber.display.message(line)
        asyncio.run(climb_rungs(recipe, run, climber))
    return run.path


def choose_folder(recipe: Recipe, out: Path | None, resume: bool) -> Path:
    """``--out``, or the recipe's newest run to resume, or a new ``runs/<recipe>-<time>``.

    Raises:
        ConfigError: there is nothing to resume.
    """
    if out is not None:
        return out
    if not resume:
        return Path("runs") / f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    found = sorted(Path("runs").glob(f"{recipe.name}-*/manifest.json"))
    if not found:
        raise ConfigError(f"nothing to resume: no run of {recipe.name!r} under runs/; "
                          "give its folder with --out")
    return found[-1].parent


async def climb_rungs(recipe: Recipe, run: RunDir, climber: Climber) -> None:
    """Every rung in order, then the summary and the report.

    Raises:
        GateFailed: a rung failed a gate, and its recipe says to stop.
    """
    from safeladder.ladder.gate_keeper import start_folder
    from safeladder.ladder.ladder_findings import rung_differences
    from safeladder.ladder.report import write_report
    from safeladder.ladder.summary import write_summary

    for rung in recipe.rungs:
        if run.rung_state(rung.name).get("status") == "done":
            climber.display.message(f"{rung.name}: done already")
        else:
            await climber.climb(rung, start_folder(recipe, rung, run) or climber.initial())
        if rung.on_failure == "stop" and run.rung_state(rung.name).get("accepted") is False:
            raise GateFailed(f"rung {rung.name!r} failed a gate, and says to stop: "
                             f"{run.rung_state(rung.name)['failure']}; "
                             f"report: {write_report(run.path)}")
    write_summary(run, recipe, climber.memory.peak_bytes, rung_differences(run.path))
    climber.display.message(f"report: {write_report(run.path)}")
