"""What is said of a whole ladder: how its rungs differ, in the figures that it is climbed for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from safeladder.eval.items import EvalItem
from safeladder.eval.metrics import suffix, tokens
from safeladder.eval.microworld import PAIRED, SOURCES, world_difference
from safeladder.eval.statistics import PairedDifference, paired_difference
from safeladder.ladder.report_data import Row, RunData, RungEntry, item_of_row, load_run
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
    the last one that stands after the first, and after every baseline the rung of the ladder that
    its ``compare_with`` names, or else the last one that stands.
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
    return found + [Pair(arm, data.against(arm, standing)) for arm in data.baselines]


def rung_differences(run_dir: Path) -> list[Difference]:
    """The differences of :func:`pairs`, set by set: of the microworld's figures and the tokens per
    answer, and in a search environment of accuracy; none for a run without such figures.
    """
    return differences(load_run(run_dir))


def differences(data: RunData) -> list[Difference]:
    """:func:`rung_differences` of a run that has been read."""
    return [found for pair in pairs(data) for found in _differences(data, pair)]


def main_differences(data: RunData) -> list[Difference]:
    """Of :func:`differences` those of ``COMPARED``: as the summary has them or, where it lacks
    some, computed.
    """
    known = [found for found in data.comparisons if found.figure in COMPARED]
    there = {(found.before, found.after, found.figure) for found in known}
    # The last figure of a set can always be computed, and a summary of old may lack it
    needed = {(pair.before.name, pair.after.name, one.figures[-1] + one.ending)
              for pair in pairs(data) for one in _sets(data, pair) if one.figures}
    if {entry for entry in needed if entry[-1] in COMPARED} <= there:
        return known
    return [found for pair in pairs(data) for found in _differences(data, pair, COMPARED)]


class _Set(NamedTuple):
    """One evaluation of two rungs."""

    ending: str
    """Of the names of its figures."""
    figures: Sequence[str]
    """Those to compare, without the ending; empty for a set of another kind."""
    before: Sequence[Row]
    after: Sequence[Row]


def _sets(data: RunData, pair: Pair) -> Iterator[_Set]:
    for (rung, split, temperature), after in data.evaluations.items():
        before = data.evaluations.get((pair.before.name, split, temperature))
        if rung != pair.after.name or before is None:
            continue
        searched = _searched(data, split)
        figures: Sequence[str] = ("accuracy",)
        if searched is None:
            world = all(any(row["source"] in SOURCES for row in side) for side in (before, after))
            figures = (*PAIRED, "tokens_per_answer") if world else ()
        ending = suffix(split if searched is None else searched, temperature)
        yield _Set(ending, figures, before, after)


def _differences(
    data: RunData, pair: Pair, wanted: Collection[str] | None = None,
) -> Iterator[Difference]:
    """Only those of the figures ``wanted``, named with their endings; None: all."""
    for one in _sets(data, pair):
        figures = [figure for figure in one.figures
                   if wanted is None or figure + one.ending in wanted]
        if not figures:
            continue
        after, before = ([item_of_row(row) for row in side] for side in (one.after, one.before))
        for figure in figures:
            found = compare_runs(figure, [after], [before])
            if found is not None:
                yield Difference(
                    before=pair.before.name, after=pair.after.name, figure=figure + one.ending,
                    value=found.value, n=found.n, ci95=found.ci95, unjudged=found.unjudged,
                    clusters=found.clusters)


def compare_runs(
    figure: str, after: Sequence[Sequence[EvalItem]], before: Sequence[Sequence[EvalItem]],
) -> PairedDifference | None:
    """``after - before`` of one figure, ``after[s]`` and ``before[s]`` of seed s and one set; None
    where nobody was asked.

    Raises:
        KeyError: no figure that is compared.
        DataError: the two sides do not hold the same prompts.
    """
    if figure == "accuracy":
        return paired_difference(after, before)
    if figure == "tokens_per_answer":
        return paired_difference(after, before, tokens)
    ours, theirs = ([[item for item in run if item.source in SOURCES] for run in side]
                    for side in (after, before))
    return world_difference(figure, ours, theirs)


def _searched(data: RunData, split: str) -> str | None:
    """How figures of deliberation end for a set in a search environment; None for other sets."""
    for chosen in data.recipe.get("evaluation", {}).get("sets", ()):
        if chosen["name"] == split and chosen.get("environment", {}).get("type") == "search":
            return chosen.get("split") or split
    return None
