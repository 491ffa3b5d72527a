"""Means with 95% intervals, and paired differences between two evaluations.

Puzzles that share a structure are not independent, so the interval of a mean is taken over
clusters. Two methods, chosen by the data alone, never by which looks better:

``wilson``
    Wilson's score interval, for values that are all 0 or 1 when (a) every cluster holds one item,
    so that items are independent, or (b) all values are equal. In case (b) a bootstrap can only
    draw the same value again and would claim an interval of width 0; then the number of clusters
    stands for n (one observation per cluster), which is the cautious end.
``cluster_bootstrap``
    All else: clusters are drawn with replacement, as many as there are; each draw's mean is the
    sum of its values over the number of its items; the interval goes from the 2.5% to the 97.5%
    quantile of the draws (percentile method, seeded). With fewer than about 20 clusters it is
    somewhat too narrow.

Where the data show no spread between clusters (one cluster only, or clusters whose means are all
equal and not all 0 or all 1), there is a value and no interval (None).

A *macro mean* is the mean of the means of F families, each of which counts the same however many
items it has:

``macro_bootstrap``
    In each draw every family's clusters are drawn with replacement, as many as it has, and the
    draw's value is the mean of the families' means. A family whose values are all 0 or all 1 is
    the same in every draw; its own (Wilson) interval is not lost: with b the bootstrap's distances
    and w_f those of such families, the interval is value -/+ sqrt(b^2 + sum_f (w_f / F)^2) (square
    and add, also known as MOVER).

Sources: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209; Efron and Tibshirani, An Introduction to
the Bootstrap (1993), chapter 13; for square and add, Zou and Donner, Stat. Med. 27 (2008) 1693.
Departure: none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from safeladder.errors import DataError
from safeladder.eval.items import EvalItem

Interval = tuple[float, float]
Method = Literal["wilson", "cluster_bootstrap", "macro_bootstrap"]

Z95 = 1.959963984540054
"""97.5% quantile of the standard normal distribution."""
RESAMPLES = 10_000
_CHUNK = 500


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval. ``value`` is None when nothing could be judged."""

    value: float | None
    n: int
    """Judged items."""
    ci95: Interval | None
    unjudged: int = 0
    """Items left out because they could not be judged."""
    method: Method | None = None
    clusters: int = 0


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a minus b over the same prompts.

    The interval says how the difference would vary over puzzles. Seeds are averaged first and not
    drawn again, so it does not say how it would vary over seeds: ``per_seed`` lists every one.
    """

    value: float | None
    n: int
    """Prompts that were judged on both sides under every seed."""
    ci95: Interval | None
    unjudged: int
    """Prompts left out because one side was not judged under some seed."""
    per_seed: tuple[float, ...]
    """The difference under each seed, over the same n prompts."""
    clusters: int = 0


def wilson(successes: float, n: int) -> Interval:
    """Wilson's 95% interval of a proportion ``successes / n``."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"wilson needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    p, z2 = successes / n, Z95 * Z95
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return low, high


def cluster_bootstrap(
    values: Sequence[float], clusters: Sequence[str], seed: int = 0, resamples: int = RESAMPLES,
) -> Interval:
    """Percentile 95% interval of the mean, clusters drawn with replacement.

    The order of the items does not matter; equal inputs give equal bits.
    """
    means = _resampled_means(values, clusters, np.random.default_rng(seed), resamples)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _resampled_means(
    values: Sequence[float], clusters: Sequence[str], generator: np.random.Generator,
    resamples: int,
) -> NDArray[np.float64]:
    """(resamples,) means, clusters drawn with replacement."""
    sums, counts = _by_cluster(values, clusters)
    means = []
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        drawn = generator.integers(0, len(sums), (rows, len(sums)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)


def _by_cluster(
    values: Sequence[float], clusters: Sequence[str],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(C,) sums and (C,) counts, clusters in the order of their names."""
    total: dict[str, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        total.setdefault(cluster, []).append(value)
    columns = [total[name] for name in sorted(total)]
    sums = np.array([math.fsum(column) for column in columns])
    return sums, np.array([float(len(column)) for column in columns])


def estimate(
    values: Sequence[float | None], clusters: Sequence[str], seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Mean of the judged values with its 95% interval (which method: see the module)."""
    judged = [(v, c) for v, c in zip(values, clusters, strict=True) if v is not None]
    unjudged = len(values) - len(judged)
    if not judged:
        return Estimate(None, 0, None, unjudged)
    kept, names = [v for v, _ in judged], [c for _, c in judged]
    mean, n, n_clusters = math.fsum(kept) / len(kept), len(kept), len(set(names))
    binary, constant = set(kept) <= {0.0, 1.0}, len(set(kept)) == 1
    if binary and (constant or n_clusters == n):
        ci95 = wilson(mean * n_clusters if constant else math.fsum(kept), n_clusters)
        return Estimate(mean, n, ci95, unjudged, "wilson", n_clusters)
    if not _clusters_differ(kept, names):
        return Estimate(mean, n, None, unjudged, None, n_clusters)
    ci95 = cluster_bootstrap(kept, names, seed, resamples)
    return Estimate(mean, n, ci95, unjudged, "cluster_bootstrap", n_clusters)


class Column(NamedTuple):
    """The values of one family, and the cluster of each."""

    values: Sequence[float | None]
    clusters: Sequence[str]


def macro_estimate(
    families: Sequence[Column], seed: int = 0, resamples: int = RESAMPLES,
) -> Estimate:
    """Mean of the families' means with its 95% interval (see the module).

    A family of which nothing could be judged leaves the mean unjudged: what is missing must not
    make it better or worse. A family that has a value but no interval leaves it without one.
    """
    parts = [estimate(*family, seed, resamples) for family in families]
    values = [part.value for part in parts if part.value is not None]
    unjudged = sum(part.unjudged for part in parts)
    if len(values) < len(parts) or not parts:
        return Estimate(None, 0, None, unjudged)
    judged = [_judged(family) for family in families]
    mean, still = math.fsum(values) / len(values), []
    for column, part in zip(judged, parts, strict=True):
        if not _clusters_differ(*column):
            still.append(None if part.ci95 is None else (part.value or 0.0, part.ci95))
    ci95 = _macro_interval(judged, mean, still, seed, resamples)
    return Estimate(mean, sum(part.n for part in parts), ci95, unjudged,
                    "macro_bootstrap" if ci95 else None, sum(part.clusters for part in parts))


Judged = tuple[list[float], list[str]]


def _judged(column: Column) -> Judged:
    kept = [(v, c) for v, c in zip(column.values, column.clusters, strict=True) if v is not None]
    return [v for v, _ in kept], [c for _, c in kept]


def _macro_interval(
    families: Sequence[Judged], mean: float, still: Sequence[tuple[float, Interval] | None],
    seed: int, resamples: int,
) -> Interval | None:
    """``still``: value and interval of each family that is the same in every draw; None where
    such a family has no interval.
    """
    if any(part is None for part in still):
        return None
    generator, draws = np.random.default_rng(seed), np.zeros(resamples)
    for values, clusters in families:
        draws += _resampled_means(values, clusters, generator, resamples) / len(families)
    low, high = np.quantile(draws, [0.025, 0.975])
    down, up = [mean - float(low)], [float(high) - mean]
    for value, (bottom, top) in (part for part in still if part is not None):
        down.append((value - bottom) / len(families))
        up.append((top - value) / len(families))
    return mean - math.hypot(*down), mean + math.hypot(*up)


def _clusters_differ(values: Sequence[float], clusters: Sequence[str]) -> bool:
    """Whether a bootstrap has anything to draw from; rounding does not count."""
    sums, counts = _by_cluster(values, clusters)
    return bool(np.ptp(sums / counts) > 1e-12)


def correct(item: EvalItem) -> float | None:
    """The value :func:`paired_difference` compares unless told otherwise."""
    return item.correct


Value = Callable[[Any], float | None]
Runs = Sequence[Sequence["Answered"]]


class Answered(Protocol):
    """What a paired difference needs to know of an item."""

    @property
    def prompt_id(self) -> str:
        """The prompt that both sides answered."""
        ...

    @property
    def cluster(self) -> str:
        """What it depends on others by."""
        ...


def paired_difference(
    a: Runs, b: Runs, value: Value = correct, seed: int = 0, resamples: int = RESAMPLES,
) -> PairedDifference:
    """Mean of ``a - b`` prompt by prompt, averaged over seeds, with its 95% interval.

    ``a[s]`` and ``b[s]`` are the items of seed s; every run must hold the same prompts. Several
    answers to one prompt are averaged first. A prompt counts only if every answer to it was
    judged, on both sides and under every seed; the others are counted in ``unjudged``. So the
    value is the plain mean of ``per_seed``.

    Raises:
        DataError: the runs do not hold the same prompts, or the numbers of seeds differ.
    """
    pairs = _pair(a, b, value)
    if not pairs.means:
        return PairedDifference(None, 0, None, pairs.unjudged, ())
    ci95 = (cluster_bootstrap(pairs.means, pairs.clusters, seed, resamples)
            if _clusters_differ(pairs.means, pairs.clusters) else None)
    return PairedDifference(
        value=math.fsum(pairs.means) / len(pairs.means), n=len(pairs.means), ci95=ci95,
        unjudged=pairs.unjudged, clusters=len(set(pairs.clusters)), per_seed=pairs.per_seed)


def macro_paired_difference(
    families: Sequence[tuple[Runs, Runs]], value: Value = correct, seed: int = 0,
    resamples: int = RESAMPLES,
) -> PairedDifference:
    """Difference of two macro means: the mean of the families' paired differences.

    Each family is a pair (a, b) as :func:`paired_difference` takes it. The interval is the macro
    bootstrap of the module; a family whose prompts all differ by the same whole number c (both
    sides right everywhere, say) counts as c -/+ the upper end of Wilson's interval of 0 of its
    clusters, within [-1, 1].

    Raises:
        DataError: as :func:`paired_difference`, or the families have unlike numbers of seeds.
    """
    pairs = [_pair(a, b, value) for a, b in families]
    unjudged = sum(pair.unjudged for pair in pairs)
    if not pairs or not all(pair.means for pair in pairs):
        return PairedDifference(None, 0, None, unjudged, ())
    if len({len(pair.per_seed) for pair in pairs}) > 1:
        raise DataError("a macro mean's families must have been evaluated under equally many seeds")
    per_seed = tuple(math.fsum(column) / len(pairs)
                     for column in zip(*(pair.per_seed for pair in pairs), strict=True))
    columns: list[Judged] = [(pair.means, pair.clusters) for pair in pairs]
    mean = math.fsum(math.fsum(means) / len(means) for means, _ in columns) / len(columns)
    still = [_still_difference(*column) for column in columns if not _clusters_differ(*column)]
    return PairedDifference(
        value=mean, n=sum(len(means) for means, _ in columns),
        ci95=_macro_interval(columns, mean, still, seed, resamples), unjudged=unjudged,
        per_seed=per_seed, clusters=sum(len(set(names)) for _, names in columns))


def _still_difference(
    means: Sequence[float], clusters: Sequence[str],
) -> tuple[float, Interval] | None:
    if len(set(means)) > 1 or means[0] not in (-1.0, 0.0, 1.0):
        return None
    reach = wilson(0, len(set(clusters)))[1]
    return means[0], (max(means[0] - reach, -1.0), min(means[0] + reach, 1.0))


class _Pairs(NamedTuple):
    means: list[float]
    """Difference of each prompt that was judged throughout, averaged over seeds."""
    clusters: list[str]
    unjudged: int
    per_seed: tuple[float, ...]


def _pair(a: Runs, b: Runs, value: Value) -> _Pairs:
    if len(a) != len(b) or not a:
        raise DataError(f"a paired difference needs as many seeds on both sides (one at least), "
                        f"got {len(a)} and {len(b)}")
    clusters = {item.prompt_id: item.cluster for item in a[0]}
    runs = [(_per_prompt(x, value), _per_prompt(y, value)) for x, y in zip(a, b, strict=True)]
    for seed_index, (x, y) in enumerate(runs):
        if x.keys() != clusters.keys() or y.keys() != clusters.keys():
            raise DataError(f"seed {seed_index}: the two evaluations do not hold the same prompts; "
                            "evaluate both on the same split with the same settings")
    seeds = [{p: d for p in clusters if (d := _minus(x[p], y[p])) is not None} for x, y in runs]
    prompts = [p for p in clusters if all(p in differences for differences in seeds)]
    return _Pairs(
        means=[math.fsum(d[p] for d in seeds) / len(seeds) for p in prompts],
        clusters=[clusters[p] for p in prompts], unjudged=len(clusters) - len(prompts),
        per_seed=tuple(math.fsum(d[p] for p in prompts) / len(prompts) for d in seeds)
        if prompts else ())


def _per_prompt(
    items: Sequence[Answered], value: Value,
) -> Mapping[str, float | None]:
    """Mean value of each prompt; None as soon as one of its answers could not be judged."""
    answers: dict[str, list[float | None]] = {}
    for item in items:
        answers.setdefault(item.prompt_id, []).append(value(item))
    return {prompt: _mean_or_none(column) for prompt, column in answers.items()}


def _mean_or_none(column: Sequence[float | None]) -> float | None:
    judged = [value for value in column if value is not None]
    return math.fsum(judged) / len(judged) if len(judged) == len(column) else None


def _minus(x: float | None, y: float | None) -> float | None:
    return None if x is None or y is None else x - y
