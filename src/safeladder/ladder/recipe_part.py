"""Some rungs of a recipe alone, from a checkpoint of the user's choice."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from safeladder.config import near_miss, validate
from safeladder.data.sources import traced_answers
from safeladder.errors import ConfigError
from safeladder.ladder.gates import PREVIOUS, Gate
from safeladder.ladder.recipe import Recipe, Rung
from safeladder.ladder.run_dir import RunDir


class Part(NamedTuple):
    """A recipe of some of the rungs of another."""

    recipe: Recipe
    left_out: list[str]
    """What of these rungs needs one that is not among them; a line each."""


def part_of(recipe: Recipe, names: Collection[str], start: str | None) -> Part:
    """Only the rungs ``names``, in the recipe's order and each as it is there, so that from the
    same checkpoint the numbers are those of the whole climb. What a rung imitates of the answers of
    rungs that are not run is read in the run whose checkpoint ``start`` is.

    Args:
        recipe: the whole one.
        names: of the rungs to run; none: all.
        start: a checkpoint's folder or hub id, from which every rung starts that does not start
            from one that is run; None: the recipe's model.

    Raises:
        ConfigError: there is no such rung, one would start from a rung that is not run and there
            is no ``start``, or the rungs make no recipe by themselves.
        DataError: the run of ``start`` has no answers to imitate.
    """
    if not names and start is None:
        return Part(recipe, [])
    for name in names:
        if name not in recipe.by_name:
            raise ConfigError(f"recipe {recipe.name!r} has no rung {name!r}"
                              f"{near_miss(name, list(recipe.by_name))}")
    kept = [rung for rung in recipe.rungs if not names or rung.name in names]
    data = recipe.model_dump(mode="json")
    if names:
        data["name"] += f".{kept[0].name}"
    if start is not None:
        template = data["model"]["chat_template"] if data["model"]["type"] == "checkpoint" else None
        data["model"] = {"type": "checkpoint", "path": start, "chat_template": template}
    run = [rung.name for rung in kept]
    alone = [_alone(recipe, rung, run, start) for rung in kept]
    data["rungs"] = [rung for rung, _ in alone]
    left_out = [line for _, lines in alone for line in lines]
    if start is not None:
        data["rungs"][0]["start_from"] = None
    elif recipe.start_of(kept[0]) is None and recipe.model.type == "embedded" and (
            len(kept) < len(recipe.rungs)):
        left_out.append(f"{run[0]}: the tokenizer is made without the rows of the rungs that are "
                        "not run, so the numbers are not those of the whole climb")
    return Part(validate(Recipe, data, f"{recipe.name}, only {', '.join(run)}"), left_out)


def _alone(
    recipe: Recipe, rung: Rung, names: Collection[str], start: str | None,
) -> tuple[dict[str, Any], list[str]]:
    """A rung among those of ``names``, and what is left out of it."""
    data, left_out = rung.model_dump(mode="json"), []
    before = recipe.start_of(rung)
    if before not in names:
        if start is None and before in recipe.by_name:
            raise ConfigError(f"rung {rung.name!r} starts from {before!r}, which is not run: name "
                              "the checkpoint to start from with --from, or that rung, too")
        data["start_from"] = start or rung.start_from
    if rung.compare_with is not None and rung.compare_with not in names:
        left_out.append(f"{rung.name}: not compared with {rung.compare_with}, which is not run")
        data["compare_with"] = None
    gates: list[Gate] = []
    for gate in rung.gates:
        other = before if gate.not_below == PREVIOUS else gate.not_below
        if other is None or other in names:
            gates.append(gate)
        else:
            left_out.append(f"{rung.name}: no gate on {gate.figure}, for {other}, which it is held "
                            "against, is not run")
    data["gates"] = [gate.model_dump(mode="json") for gate in gates]
    traces = None if start is None else _traces_beside(start)
    if traces is not None:
        others = {other.name: other.data for other in recipe.rungs if other.name not in names}
        data["data"] = [source.model_dump(mode="json")
                        for source in traced_answers(rung.data, traces, others)]
    return data, left_out


def _traces_beside(checkpoint: str) -> Path | None:
    """Those of the run in which ``checkpoint`` is a rung's; None: it lies in no run."""
    folder = Path(checkpoint).resolve()
    run = RunDir(folder.parent.parent.parent)
    inside = folder == run.checkpoint(folder.parent.name) and run.traces.is_dir()
    return run.traces if inside else None
