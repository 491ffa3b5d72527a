r"""The figures of answers with a stated confidence (arXiv 2507.16727 and the usual ones).

N judged answers, each right or wrong, with a confidence c of 0 to 10 that is *certain* above the
verifier's zeta. An answer that is not well formed counts as wrong, has no confidence, and is
neither certain nor reliable; N counts it.

==========================  ====================================================================
name                        is
==========================  ====================================================================
accuracy                    right / N
reliability                 (right and certain + wrong and uncertain) / N
false_certain               wrong and certain / N
false_certain_of_wrong      wrong and certain / wrong
coverage                    certain / N
accuracy_when_certain       right among the certain
brier                       mean of (c / 10 - right)^2, over answers with a confidence
ece                         sum_c (n_c / n) \|right share of c - c / 10\|, over the 11 confidences
auroc                       P(c of a right answer > c of a wrong one), ties half
searches_per_answer         moves that the environment carried out
reads_per_answer
accuracy_<group>            accuracy of the prompts of one condition or tier (``Prompt.meta``):
false_certain_<group>       accuracy_condition_clean .., false_certain_tier_known ..
false_certain_baseline_     false certainty of the rung this one is compared with, were that one
matched                     certain of as many answers (:func:`false_certain_baseline_matched`)
false_certain_minus_        false_certain minus that, over the prompts judged on both sides, with a
matched                     paired interval (:func:`false_certain_minus_matched`)
==========================  ====================================================================

Reliability, coverage and the accuracy when certain are to be read together: an answerer that is
never certain has no false certainty, and is as reliable as it is often wrong. Intervals: those of
:mod:`safeladder.eval.statistics` for means; for ece and auroc a cluster bootstrap
(:class:`~safeladder.eval.classification.Bootstrap`). ECE is biased upwards in small samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from safeladder.errors import DataError
from safeladder.eval.classification import Bootstrap, Floats, Ints, RankedScores
from safeladder.eval.items import cluster_of
from safeladder.eval.metrics import suffix
from safeladder.eval.statistics import Estimate, estimate
from safeladder.render.actions import MAX_CONFIDENCE
from safeladder.types import Trajectory
from safeladder.verifiers.deliberative import PARTS, read_episode

GROUPS = ("condition", "tier")
"""Entries of ``Prompt.meta`` by which figures are split."""


class Answer(NamedTuple):
    """One answer. ``right`` and ``certain`` are None together: it could not be judged."""

    prompt_id: str
    cluster: str
    right: float | None
    certain: float | None
    confidence: int | None = None
    """None where none was stated (not well formed)."""
    searches: int | None = None
    """None where the answer was not judged."""
    reads: int | None = None
    groups: tuple[str, ...] = ()
    """What figures of its own it counts in: ``condition_clean``, ``tier_known``."""


class ReliabilityBin(NamedTuple):
    """One bar of a reliability diagram: all answers of one confidence."""

    confidence: int
    n: int
    right: float


def answer_of(trajectory: Trajectory) -> Answer:
    """Read a verified trajectory: the verdict that has the parts of type ``deliberative``."""
    blank = blank_answer(trajectory.prompt.id, trajectory.prompt.meta)
    if trajectory.status.is_error:
        return blank
    episode = read_episode(trajectory)
    judged = [v.parts for v in trajectory.deciding_verdicts.values() if v.score is not None]
    answer = with_parts(blank, judged)
    if answer.right is None:
        return answer
    return answer._replace(searches=episode.searches, reads=episode.reads)


def blank_answer(prompt_id: str, meta: Mapping[str, Any]) -> Answer:
    """An answer of which nothing is known but what was asked."""
    groups = tuple(f"{key}_{meta[key]}" for key in GROUPS if key in meta)
    return Answer(prompt_id, cluster_of(prompt_id, meta), None, None, groups=groups)


def with_parts(answer: Answer, verdict_parts: Iterable[Mapping[str, float]]) -> Answer:
    """The answer with what the first verdict of type ``deliberative`` says; as it is without."""
    parts = next((parts for parts in verdict_parts if parts.keys() >= set(PARTS)), None)
    if parts is None:
        return answer
    stated = parts.get("confidence")
    return answer._replace(right=parts["accuracy"], certain=parts["certain"],
                           confidence=None if stated is None else int(stated))


def deliberation_metrics(
    trajectories: Iterable[Trajectory], split: str = "test", temperature: float = 0.0,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The figures of verified trajectories under their full names."""
    answers = [answer_of(t) for t in trajectories]
    ending = suffix(split, temperature)
    return {f"{name}{ending}": figure for name, figure in answer_metrics(answers, seed).items()}


def answer_metrics(answers: Sequence[Answer], seed: int = 0) -> dict[str, Estimate]:
    """The figures of the module; those of a group for each that occurs."""
    found = {name: _mean(answers, value, seed) for name, value in _MEANS.items()}
    wrong = [a for a in answers if a.right == 0]
    found["false_certain_of_wrong"] = _mean(wrong, _certain, seed)
    found["accuracy_when_certain"] = _mean([a for a in answers if a.certain], _right, seed)
    stated = [a for a in answers if a.confidence is not None]
    found["brier"] = _mean(stated, _brier, seed)
    found["ece"], found["auroc"] = _ece(stated, seed), _auroc(stated, seed)
    for group in dict.fromkeys(group for a in answers for group in a.groups):
        members = [a for a in answers if group in a.groups]
        found[f"accuracy_{group}"] = _mean(members, _right, seed)
        found[f"false_certain_{group}"] = _mean(members, _false_certain, seed)
    return found


def reliability_bins(answers: Sequence[Answer]) -> list[ReliabilityBin]:
    """The bars of the reliability diagram, one for each confidence that was stated."""
    rights: dict[int, list[float]] = {}
    for answer in answers:
        if answer.confidence is not None and answer.right is not None:
            rights.setdefault(answer.confidence, []).append(answer.right)
    return [ReliabilityBin(confidence, len(column), math.fsum(column) / len(column))
            for confidence, column in sorted(rights.items())]


def false_certain_baseline_matched(
    ours: Sequence[Answer], baseline: Sequence[Answer],
) -> Estimate:
    """False certainty of a baseline that were certain of as many answers as we are.

    Of the baseline's N answers to the same prompts its most confident m count as certain, m the
    number of our certain ones; the figure is the wrong ones among them / N. Where a confidence is
    shared by more answers than there is room for, their mean stands for the choice (the
    expectation of drawing among them); answers without a confidence come last. N counts the prompts
    judged on both sides; no value where there are none.

    Raises:
        DataError: the two do not answer the same prompts equally often.
    """
    pairs = _matched_pairs(ours, baseline)
    unjudged = len(ours) - pairs.n
    if not pairs.n:
        return Estimate(None, 0, None, unjudged)
    return Estimate(pairs.matched(np.ones(pairs.n)), pairs.n, None, unjudged)


def false_certain_minus_matched(
    ours: Sequence[Answer], baseline: Sequence[Answer], seed: int = 0,
) -> Estimate:
    """Our false certainty minus :func:`false_certain_baseline_matched`, with its 95% interval.

    Below 0: of as many certain answers fewer of ours are wrong. The interval is a paired cluster
    bootstrap (:class:`~safeladder.eval.classification.Bootstrap`): questions are drawn with both
    sides' answers, those about one fact together, and every draw matches anew: m is the number of
    our certain answers in the draw, and ties count in expectation. No interval where the draws do
    not differ.

    Raises:
        DataError: as there.
    """
    pairs = _matched_pairs(ours, baseline)
    unjudged = len(ours) - pairs.n
    if not pairs.n:
        return Estimate(None, 0, None, unjudged)

    def figure(weights: Floats) -> float:
        own = float((weights * pairs.certain * (1 - pairs.right)).sum() / weights.sum())
        return own - pairs.matched(weights)

    found = Bootstrap(pairs.clusters, seed).estimate(figure)
    return replace(found, unjudged=unjudged)


class _MatchedPairs(NamedTuple):
    """Prompts judged on both sides; (n,) each."""

    clusters: list[str]
    certain: Floats
    """Ours."""
    right: Floats
    levels: Ints
    """The baseline's confidence plus 1; 0: none was stated."""
    wrong: Floats
    """The baseline's."""

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.clusters)

    def matched(self, weights: Floats) -> float:
        """Wrong among the baseline's most confident, as many as our certain ones, over all; a
        pair counts ``weights`` times.
        """
        room, found = float((weights * self.certain).sum()), 0.0
        sizes = np.bincount(self.levels, weights)
        wrongs = np.bincount(self.levels, weights * self.wrong)
        for size, wrong in zip(sizes[::-1], wrongs[::-1], strict=True):
            if size > 0:
                taken = min(room, float(size))
                found += taken * float(wrong) / float(size)
                room -= taken
        return found / float(weights.sum())


def _matched_pairs(ours: Sequence[Answer], baseline: Sequence[Answer]) -> _MatchedPairs:
    if sorted(a.prompt_id for a in ours) != sorted(a.prompt_id for a in baseline):
        raise DataError("a matched baseline must answer the same prompts, equally often")
    pairs = [(a, b) for a, b in zip(_ordered(ours), _ordered(baseline), strict=True)
             if a.certain is not None and b.right is not None]
    return _MatchedPairs(
        [a.cluster for a, _ in pairs], np.array([float(a.certain == 1) for a, _ in pairs]),
        np.array([a.right for a, _ in pairs], np.float64),
        np.array([0 if b.confidence is None else b.confidence + 1 for _, b in pairs], np.int64),
        np.array([float(b.right == 0) for _, b in pairs]))


def _ordered(answers: Sequence[Answer]) -> list[Answer]:
    return sorted(answers, key=lambda a: a.prompt_id)


Value = Callable[[Answer], float | None]


def _mean(answers: Sequence[Answer], value: Value, seed: int) -> Estimate:
    return estimate([value(a) for a in answers], [a.cluster for a in answers], seed)


def _right(answer: Answer) -> float | None:
    return answer.right


def _certain(answer: Answer) -> float | None:
    return answer.certain


def _false_certain(answer: Answer) -> float | None:
    if answer.right is None or answer.certain is None:
        return None
    return answer.certain * (1 - answer.right)


def _reliable(answer: Answer) -> float | None:
    if answer.right is None:
        return None
    return float(answer.confidence is not None and answer.right == answer.certain)


def _brier(answer: Answer) -> float | None:
    if answer.right is None or answer.confidence is None:
        return None
    gap = answer.confidence / MAX_CONFIDENCE - answer.right
    return gap * gap


_MEANS: dict[str, Value] = {
    "accuracy": _right, "reliability": _reliable, "false_certain": _false_certain,
    "coverage": _certain, "searches_per_answer": lambda a: a.searches,
    "reads_per_answer": lambda a: a.reads}


def _ece(answers: Sequence[Answer], seed: int) -> Estimate:
    if not answers:
        return Estimate(None, 0, None)
    levels, rights = _columns(answers)
    gaps = rights - levels / MAX_CONFIDENCE

    def figure(weights: Floats) -> float:
        return float(np.abs(np.bincount(levels, weights * gaps)).sum() / weights.sum())

    return Bootstrap([a.cluster for a in answers], seed).estimate(figure)


def _auroc(answers: Sequence[Answer], seed: int) -> Estimate:
    if not answers:
        return Estimate(None, 0, None)
    levels, rights = _columns(answers)
    ranked = RankedScores(levels.astype(float), rights == 1)
    return Bootstrap([a.cluster for a in answers], seed).estimate(ranked.auroc)


def _columns(answers: Sequence[Answer]) -> tuple[Ints, Floats]:
    return (np.array([a.confidence for a in answers], np.int64),
            np.array([a.right for a in answers], np.float64))
