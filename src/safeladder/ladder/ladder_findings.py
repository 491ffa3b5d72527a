"""What is said of a whole ladder: how its rungs differ, in the figures that it is climbed for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from safeladder.eval.items import EvalItem
from safeladder.eval.metrics import suffix, tokens
from safeladder.eval.microworld import PAIRED, SOURCES, world_difference
from safeladder.eval.statistics import PairedDifference, paired_difference
from safeladder.ladder.report_data import RunData, RungEntry, item_of_row, load_run
from safeladder.ladder.summary import Difference

COMPARED = ("capability", "safety", "benign_compliance", "tokens_per_answer", "accuracy")
"""The figures whose differences a reader looks for first: the two macro means, what safety must not
cost, length, and being right after a search. The summary holds those of every family, too."""


def is_ladder(data: RunData) -> bool:
    """Whether a run has the figures of a ladder (:mod:`safeladder.eval.microworld`)."""
    return any({"capability", "safety"} <= rung.figures.keys() for rung in data.rungs)


class Pair(NamedTuple):
    """Two rungs to compare."""

    before: RungEntry
    after: RungEntry


def pairs(data: RunData) -> list[Pair]:
    """Every evaluated rung after the last one before it that stands (no gate holds it back), then
    the last one that stands after the first, and after every baseline.
    """
    found, standing = [], None
    for rung in data.climbed:
        if standing is not None:
            found.append(Pair(standing, rung))
        standing = rung if rung.accepted else standing
    if standing is None:
        return found
    whole = Pair(data.climbed[0], standing)
    if whole.before.name != standing.name and whole not in found:
        found.append(whole)
    return found + [Pair(baseline, standing) for baseline in data.baselines]


def rung_differences(run_dir: Path) -> list[Difference]:
    """The differences of :func:`pairs`, set by set: of the microworld's figures and the tokens per
    answer, and in a search environment of accuracy; none for a run without such figures.
    """
    return differences(load_run(run_dir))


def differences(data: RunData) -> list[Difference]:
    """:func:`rung_differences` of a run that has been read."""
    return [found for pair in pairs(data) for found in _differences(data, pair)]


def _differences(data: RunData, pair: Pair) -> Iterator[Difference]:
    for (rung, split, temperature), rows in data.evaluations.items():
        others = data.evaluations.get((pair.before.name, split, temperature))
        if rung != pair.after.name or others is None:
            continue
        searched = _searched(data, split)
        ours, theirs = ([item_of_row(row) for row in side] for side in (rows, others))
        compared = _world_differences(ours, theirs) if searched is None else [
            ("accuracy", paired_difference([ours], [theirs]))]
        ending = suffix(split if searched is None else searched, temperature)
        for name, found in compared:
            yield Difference(
                before=pair.before.name, after=pair.after.name, figure=name + ending,
                value=found.value, n=found.n, ci95=found.ci95, unjudged=found.unjudged,
                clusters=found.clusters)


def _world_differences(
    ours: Sequence[EvalItem], theirs: Sequence[EvalItem],
) -> Iterator[tuple[str, PairedDifference]]:
    """Of one set: the microworld's figures, and tokens; nothing where no item is of it."""
    world = [[item for item in side if item.source in SOURCES] for side in (ours, theirs)]
    if not all(world):
        return
    for name in PAIRED:
        found = world_difference(name, [world[0]], [world[1]])
        if found is not None:
            yield name, found
    yield "tokens_per_answer", paired_difference([ours], [theirs], tokens)


def _searched(data: RunData, split: str) -> str | None:
    """How figures of deliberation end for a set in a search environment; None for other sets."""
    for chosen in data.recipe.get("evaluation", {}).get("sets", ()):
        if chosen["name"] == split and chosen.get("environment", {}).get("type") == "search":
            return chosen.get("split") or split
    return None
