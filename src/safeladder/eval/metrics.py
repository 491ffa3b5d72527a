"""The named figures of an evaluation.

======================  ===========================================================
name                    is
======================  ===========================================================
kk<n>_accuracy          share of right answers to puzzles about n people
<source>_accuracy       the same for prompts that are no such puzzles
format                  share of well-formed answers
tokens_per_answer       mean number of sampled tokens
truncated               share of answers cut by the token limit
reflection_rate         share of answers whose chain of thought takes back a try
verification_rate       ... checks something again
summary_rate            ... states the outcome of the whole chain
======================  ===========================================================

Prompts of some sources have figures of their own in place of an accuracy (:data:`FIGURE_SETS`):
those of the microworld are in :mod:`safeladder.eval.microworld`.

Suffixes say how it was taken: none is greedy on the test split, ``_t1`` is temperature 1,
``_unseen_forms`` is that split; both together: ``kk2_accuracy_t1_unseen_forms``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from safeladder.eval.items import EvalItem, item_of
from safeladder.eval.microworld import SOURCES, world_figures
from safeladder.eval.statistics import Estimate, estimate
from safeladder.types import Trajectory
from safeladder.verifiers.behaviours import ENGLISH, Rule, Rules, behaviours
from safeladder.verifiers.format import think_text

RATES: Mapping[str, str] = {
    "verify": "verification_rate", "reflect": "reflection_rate", "summarise": "summary_rate"}
"""Behaviour -> name of its figure."""

COMPACT: Rules = {
    "verify": (Rule(("ok",), then=("check",)),),
    "reflect": (Rule(("no",), then=("try",)),),
}
"""The compact world has few words. Verify: after a try that holds ("ok") it goes through the
solution again ("check"). Reflect: after a contradiction ("no") it goes on to another try. It has
no words for a summary."""

RULES: Mapping[str, Rules] = {"compact_knights_knaves": COMPACT}
"""Source of a prompt -> the rules its chains of thought are read by; others are English."""

Value = Callable[[EvalItem], float | None]


def rules_for(source: str) -> Rules:
    """The rules by which the chains of thought of a source are read."""
    return RULES.get(source, ENGLISH)


def shown_behaviours(source: str, response: str) -> dict[str, bool]:
    """Which behaviours the chain of thought of a response shows."""
    return behaviours(think_text(response), rules_for(source))


def suffix(split: str = "test", temperature: float = 0.0) -> str:
    """``""`` for greedy on ``test``, ``_t1``, ``_unseen_forms``, ``_t0.7_validation``."""
    heat = f"_t{temperature:g}" if temperature else ""
    return heat + ("" if split == "test" else f"_{split}")


def evaluation_metrics(
    trajectories: Iterable[Trajectory], split: str = "test", temperature: float = 0.0,
) -> dict[str, Estimate]:
    """The figures of verified trajectories under their full names."""
    return item_metrics([item_of(t) for t in trajectories], suffix(split, temperature))


def item_metrics(items: Sequence[EvalItem], suffix: str = "") -> dict[str, Estimate]:
    """The figures of items; names end in ``suffix``. Figures nobody was asked for are left out."""
    columns: dict[str, Column] = {"tokens_per_answer": _column(items, tokens)}
    if any(item.format is not None for item in items):
        columns["format"] = _column(items, _format)
    if any(item.truncated is not None for item in items):
        columns["truncated"] = _column(items, _truncated)
    columns |= _behaviour_columns(items)
    figures = {**_own_figures(items), **_estimates(columns)}
    return {f"{name}{suffix}": figure for name, figure in figures.items()}


FigureSet = Callable[[Sequence[EvalItem]], dict[str, Estimate]]


def _own_figures(items: Sequence[EvalItem]) -> dict[str, Estimate]:
    """What each source's figure set says of its items."""
    groups: dict[FigureSet, list[EvalItem]] = {}
    for item in items:
        groups.setdefault(FIGURE_SETS.get(item.source, accuracies), []).append(item)
    return {name: figure for figures, members in groups.items()
            for name, figure in figures(members).items()}


def accuracies(items: Sequence[EvalItem]) -> dict[str, Estimate]:
    """The figure set of most sources: right answers, by number of people or by source."""
    return _estimates(_accuracies(items))


FIGURE_SETS: Mapping[str, FigureSet] = dict.fromkeys(SOURCES, world_figures)
"""Source of a prompt -> its figures; all others have :func:`accuracies`."""

Column = list[tuple[EvalItem, float | None]]


def _estimates(columns: Mapping[str, Column]) -> dict[str, Estimate]:
    return {name: estimate([value for _, value in column], [item.cluster for item, _ in column])
            for name, column in columns.items()}


def _column(items: Iterable[EvalItem], value: Value) -> Column:
    return [(item, value(item)) for item in items]


def _accuracies(items: Sequence[EvalItem]) -> dict[str, Column]:
    kinds: dict[str, list[EvalItem]] = {}
    for item in items:
        kinds.setdefault(accuracy_name(item), []).append(item)
    return {kind: _column(members, _correct) for kind, members in sorted(kinds.items())}


def accuracy_name(item: EvalItem) -> str:
    """The figure that an item's right or wrong counts in."""
    if item.people is not None:
        return f"kk{item.people}_accuracy"
    return f"{re.sub(r'[^a-z0-9]+', '_', item.source.casefold()).strip('_') or 'all'}_accuracy"


def _behaviour_columns(items: Sequence[EvalItem]) -> dict[str, Column]:
    """A source without a word for a behaviour is no part of that rate."""
    columns: dict[str, Column] = {}
    for item in items:
        rules = rules_for(item.source)
        shown = shown_behaviours(item.source, item.response) if item.answered else {}
        for behaviour in rules:
            value = float(shown[behaviour]) if item.answered else None
            columns.setdefault(RATES[behaviour], []).append((item, value))
    return columns


def _correct(item: EvalItem) -> float | None:
    return item.correct


def _format(item: EvalItem) -> float | None:
    return item.format


def _truncated(item: EvalItem) -> float | None:
    return item.truncated


def tokens(item: EvalItem) -> float | None:
    """Sampled tokens of an answer."""
    return item.tokens
