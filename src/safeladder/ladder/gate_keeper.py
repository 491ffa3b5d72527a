"""Which checkpoint a rung starts from, and whether the one it leaves may stand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from safeladder.config import near_miss
from safeladder.errors import CheckpointError, ConfigError
from safeladder.ladder.gates import PREVIOUS, Gate, GateOutcome, Measured, judge_gate
from safeladder.ladder.recipe import Recipe, Rung
from safeladder.ladder.run_dir import RunDir
from safeladder.ladder.summary import read_figures


def standing_start(recipe: Recipe, rung: Rung, run: RunDir) -> str | None:
    """What ``rung`` starts from once gates have spoken: a rung that failed one gives way to what it
    started from itself. A rung's name, a checkpoint's place, or None: the recipe's model.
    """
    start = recipe.start_of(rung)
    other = recipe.by_name.get(start or "")
    if other is None or run.rung_state(other.name).get("accepted") is not False:
        return start
    return standing_start(recipe, other, run)


def start_folder(recipe: Recipe, rung: Rung, run: RunDir) -> Path | str | None:
    """The checkpoint a rung starts from; None: the recipe's model.

    Raises:
        CheckpointError: it starts from a rung that left none.
    """
    start = standing_start(recipe, rung, run)
    if start is None or start not in recipe.by_name:
        return start
    folder = run.checkpoint(start)
    if not folder.is_dir():
        raise CheckpointError(f"rung {rung.name!r} starts from {start!r}, which left no checkpoint "
                              f"in {folder}")
    return folder


def judge_gates(
    recipe: Recipe, rung: Rung, run: RunDir, figures: Mapping[str, Measured],
) -> list[GateOutcome]:
    """Hold every gate of a rung against its figures."""
    return [judge_gate(gate, figures, _reference(recipe, rung, run, gate)) for gate in rung.gates]


def _reference(
    recipe: Recipe, rung: Rung, run: RunDir, gate: Gate,
) -> tuple[str, Measured] | None:
    """The rung that ``not_below`` means, with its figure; None where there is none."""
    if gate.not_below is None:
        return None
    previous = gate.not_below == PREVIOUS
    name = standing_start(recipe, rung, run) if previous else gate.not_below
    other = recipe.by_name.get(name or "")
    if other is None:
        return None
    path = run.evaluation(other.name)
    found = read_figures(path) if path.exists() else {}
    if gate.figure in found:
        return other.name, found[gate.figure]
    return _reference(recipe, other, run, gate) if previous else None


def check_figures(recipe: Recipe, known: Collection[str]) -> None:
    """Refuse gates on figures that the evaluation will not have, before anything trains.

    Raises:
        ConfigError: the first such gate.
    """
    for rung in recipe.rungs:
        for gate in rung.gates:
            if gate.figure not in known:
                raise ConfigError(f"rung {rung.name!r}: the evaluation has no figure "
                                  f"{gate.figure!r}{near_miss(gate.figure, list(known))}")
