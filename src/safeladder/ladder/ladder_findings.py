"""What is said of a whole ladder: how its rungs differ, in the figures that it is climbed for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from safeladder.eval.items import EvalItem
from safeladder.eval.metrics import suffix
from safeladder.eval.microworld import SOURCES, world_difference
from safeladder.ladder.report_data import Row, RunData, RungEntry, item_of_row, load_run
from safeladder.ladder.summary import Difference

COMPARED = ("capability", "safety", "benign_compliance")
"""The figures whose differences the summary holds: the two macro means, and what safety must not
cost."""


def is_ladder(data: RunData) -> bool:
    """Whether a run has the figures of a ladder (:mod:`safeladder.eval.microworld`)."""
    return any({"capability", "safety"} <= rung.figures.keys() for rung in data.rungs)


class Pair(NamedTuple):
    """Two rungs to compare."""

    before: RungEntry
    after: RungEntry


def pairs(data: RunData) -> list[Pair]:
    """Every evaluated rung after the last one before it that stands (no gate holds it back), then
    the last one that stands after every baseline.
    """
    found, standing = [], None
    for rung in data.climbed:
        if standing is not None:
            found.append(Pair(standing, rung))
        standing = rung if rung.accepted else standing
    return found + [Pair(baseline, standing) for baseline in data.baselines if standing]


def rung_differences(run_dir: Path) -> list[Difference]:
    """The differences of :func:`pairs` in the figures :data:`COMPARED`, set by set; none for a run
    without such figures.
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
        ours, theirs = _items(rows), _items(others)
        for name in COMPARED if ours and theirs else ():
            found = world_difference(name, [ours], [theirs])
            if found is not None:
                yield Difference(
                    before=pair.before.name, after=pair.after.name,
                    figure=name + suffix(split, temperature), value=found.value, n=found.n,
                    ci95=found.ci95, unjudged=found.unjudged, clusters=found.clusters)


def _items(rows: Sequence[Row]) -> list[EvalItem]:
    return [item_of_row(row) for row in rows if row["source"] in SOURCES]
