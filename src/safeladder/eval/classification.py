"""Figures of a classifier against labels: accuracy, F1, AUROC, calibration, with 95% intervals.

N judged rows, K classes, C clusters (rows that share a behaviour or a prompt are not independent).
With n_ij the rows of label i that were given class j::

    accuracy  = sum_i n_ii / N
    F1_k      = 2 n_kk / (sum_j n_kj + sum_i n_ik)            0 if the class was never given
    macro F1  = mean of F1_k over the classes that have rows
    AUROC_k   = P(p_k of a row of class k > p_k of another row), ties counted half
    AUROC     = AUROC of the last class for K = 2, else the mean of AUROC_k over classes with rows
    ECE       = sum_b (n_b / N) |accuracy_b - confidence_b|   bins of equal width of the confidence
    Brier     = mean of sum_k (p_k - [label = k])^2           0 is best, 2 worst

The confidence of a row is its largest probability. Intervals: as in
:mod:`safeladder.eval.statistics` for means (accuracy, Brier score); percentile intervals of a
cluster bootstrap for the others (seeded, 2000 draws; draws in which a figure is undefined, because
a class has no row in them, are left out). ECE is never negative and biased upwards in small
samples, and so is its interval.

Sources: Hanley and McNeil, Radiology 143 (1982) 29 (AUROC as a rank statistic); Guo et al., arXiv
1706.04599 (ECE); Brier, Mon. Weather Rev. 78 (1950) 1. Departure: none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from safeladder.eval.statistics import Estimate, Interval, estimate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DRAWS = 2000
BINS = 15


@dataclass(frozen=True)
class Judged:
    """What was said of N rows whose label is known."""

    classes: tuple[str, ...]
    labels: Ints
    """(N,) index of the label."""
    given: Ints
    """(N,) index of the class that was given."""
    clusters: tuple[str, ...]
    """(N,)"""
    probabilities: Floats | None = None
    """(N, K), rows sum to 1; None where the classifier gives none."""

    def __post_init__(self) -> None:
        n = len(self.labels)
        if not n:
            raise ValueError("no judged rows")
        if len(self.given) != n or len(self.clusters) != n:
            raise ValueError("labels, given and clusters differ in length")
        if self.probabilities is not None and self.probabilities.shape != (n, len(self.classes)):
            raise ValueError(f"probabilities have shape {self.probabilities.shape}, expected "
                             f"({n}, {len(self.classes)})")

    @property
    def correct(self) -> Floats:
        """(N,) 1 where the class that was given is the label."""
        return np.asarray(self.labels == self.given, np.float64)


@dataclass(frozen=True)
class Bin:
    """One bar of a reliability diagram."""

    low: float
    high: float
    n: int
    confidence: float
    """Mean confidence of its rows."""
    accuracy: Estimate


@dataclass(frozen=True)
class Classification:
    """All figures. An :class:`Estimate` without a value: undefined here, or not given."""

    accuracy: Estimate
    macro_f1: Estimate
    auroc: Estimate
    ece: Estimate
    brier: Estimate
    f1: dict[str, Estimate]
    class_auroc: dict[str, Estimate]
    confusion: list[list[int]]
    """Row: label; column: class given."""
    reliability: list[Bin] = field(default_factory=list)


def classify(judged: Judged, seed: int = 0, draws: int = DRAWS, bins: int = BINS) -> Classification:
    """Compute every figure of the module."""
    boot = Bootstrap(judged.clusters, seed, draws)
    table = confusion(judged.labels, judged.given, len(judged.classes))
    f1 = {name: boot.estimate(partial(_class_f1, judged, k))
          for k, name in enumerate(judged.classes)}
    present = table.sum(axis=1) > 0
    macro = boot.estimate(lambda w: float(_f1(_weighted_confusion(judged, w))[present].mean()))
    missing = Estimate(None, 0, None)
    none = dict.fromkeys(judged.classes, missing)
    accuracy = estimate(judged.correct.tolist(), judged.clusters, seed)
    if judged.probabilities is None:
        return Classification(accuracy, macro, missing, missing, missing, f1, none, table.tolist())
    p = judged.probabilities
    ranked = [RankedScores(p[:, k], judged.labels == k) for k in range(len(judged.classes))]
    known = [k for k, r in enumerate(ranked) if not np.isnan(r.auroc(np.ones(len(p))))]
    per_class = {name: boot.estimate(ranked[k].auroc) for k, name in enumerate(judged.classes)}
    overall = (per_class[judged.classes[1]] if len(judged.classes) == 2 else missing
               if not known else
               boot.estimate(lambda w: float(np.mean([ranked[k].auroc(w) for k in known]))))
    confidence = p.max(axis=1)
    places = _bins(confidence, bins)
    calibration = boot.estimate(lambda w: _ece(confidence, judged.correct, places, w))
    squares = brier_rows(p, judged.labels)
    return Classification(
        accuracy, macro, overall, calibration, estimate(squares.tolist(), judged.clusters, seed),
        f1, per_class, table.tolist(), _reliability(judged, confidence, places, bins, seed))


def confusion(labels: Ints, given: Ints, num_classes: int) -> Ints:
    """(K, K) counts; row: label, column: class given."""
    table = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(table, (labels, given), 1)
    return table


def f1_scores(table: NDArray[np.int64] | Floats) -> Floats:
    """(K,) F1 per class of a confusion table; NaN inside this module for a class without rows."""
    return _f1(table.astype(float))


def auroc(scores: Floats, positive: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve; None without a positive or without a negative row."""
    value = RankedScores(scores, positive).auroc(np.ones(len(scores)))
    return None if np.isnan(value) else value


def expected_calibration_error(confidence: Floats, correct: Floats, bins: int = BINS) -> float:
    """ECE with bins of equal width; a confidence on an edge belongs to the lower bin."""
    return _ece(confidence, correct, _bins(confidence, bins), np.ones(len(confidence)))


def brier_rows(probabilities: Floats, labels: Ints) -> Floats:
    """(N,) squared distance of each row's probabilities from its label."""
    target = np.zeros_like(probabilities)
    target[np.arange(len(labels)), labels] = 1.0
    return np.asarray(((probabilities - target) ** 2).sum(axis=1))


def _weighted_confusion(judged: Judged, weights: Floats) -> Floats:
    size = len(judged.classes)
    flat = np.bincount(judged.labels * size + judged.given, weights, minlength=size * size)
    return np.asarray(flat, np.float64).reshape(size, size)


def _class_f1(judged: Judged, k: int, weights: Floats) -> float:
    return float(_f1(_weighted_confusion(judged, weights))[k])


def _f1(table: Floats) -> Floats:
    """(K,) NaN where no row has the label: such a class has no F1 of its own."""
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(rows > 0, 2 * np.diag(table) / (rows + columns), np.nan)


class RankedScores:
    """AUROC of one score under changing row weights: sorted once."""

    def __init__(self, scores: Floats, positive: NDArray[np.bool_]) -> None:
        _, self._level = np.unique(scores, return_inverse=True)
        self._levels = int(self._level.max()) + 1
        self._positive = positive.astype(float)

    def auroc(self, weights: Floats) -> float:
        """Of rows that count ``weights`` times; NaN without a positive or a negative row."""
        up = np.bincount(self._level, weights * self._positive, minlength=self._levels)
        down = np.bincount(self._level, weights * (1 - self._positive), minlength=self._levels)
        pairs = up.sum() * down.sum()
        if pairs == 0:
            return float("nan")
        below = np.cumsum(down) - down
        return float((up * (below + down / 2)).sum() / pairs)


def _bins(confidence: Floats, bins: int) -> Ints:
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def _ece(confidence: Floats, correct: Floats, places: Ints, weights: Floats) -> float:
    gaps = np.bincount(places, weights * (correct - confidence))
    return float(np.abs(gaps).sum() / weights.sum())


def _reliability(
    judged: Judged, confidence: Floats, places: Ints, bins: int, seed: int,
) -> list[Bin]:
    found = []
    for place in range(bins):
        rows = np.flatnonzero(places == place)
        if rows.size:
            right = estimate(judged.correct[rows].tolist(),
                             [judged.clusters[i] for i in rows], seed, 1000)
            found.append(Bin(place / bins, (place + 1) / bins, int(rows.size),
                             float(confidence[rows].mean()), right))
    return found


class Bootstrap:
    """Figures of weighted rows, and how they vary when clusters are drawn with replacement."""

    def __init__(self, clusters: Sequence[str], seed: int, draws: int = DRAWS) -> None:
        names, self._cluster = np.unique(clusters, return_inverse=True)
        self._count, self._n = len(names), len(clusters)
        generator = np.random.default_rng(seed)
        self._drawn = generator.multinomial(
            self._count, np.full(self._count, 1 / self._count), draws).astype(float)

    def estimate(self, figure: Callable[[Floats], float]) -> Estimate:
        """The figure over all rows, its interval over the draws in which it is defined."""
        value = float(figure(np.ones(self._n)))
        if np.isnan(value):
            return Estimate(None, self._n, None, clusters=self._count)
        if self._count == 1:
            return Estimate(value, self._n, None, clusters=1)
        values = np.array([figure(draw[self._cluster]) for draw in self._drawn])
        known = values[~np.isnan(values)]
        if not known.size or np.ptp(known) < 1e-12:
            return Estimate(value, self._n, None, clusters=self._count)
        low, high = np.quantile(known, [0.025, 0.975])
        interval: Interval = (float(low), float(high))
        return Estimate(value, self._n, interval, method="cluster_bootstrap",
                        clusters=self._count)
