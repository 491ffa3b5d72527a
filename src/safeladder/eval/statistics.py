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

Sources: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209; Efron and Tibshirani, An Introduction to
the Bootstrap (1993), chapter 13. Departure: none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from safeladder.errors import DataError
from safeladder.eval.items import EvalItem

Interval = tuple[float, float]
Method = Literal["wilson", "cluster_bootstrap"]

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
    sums, counts = _by_cluster(values, clusters)
    generator = np.random.default_rng(seed)
    means = []
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        drawn = generator.integers(0, len(sums), (rows, len(sums)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


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


def _clusters_differ(values: Sequence[float], clusters: Sequence[str]) -> bool:
    """Whether a bootstrap has anything to draw from; rounding does not count."""
    sums, counts = _by_cluster(values, clusters)
    return bool(np.ptp(sums / counts) > 1e-12)


def correct(item: EvalItem) -> float | None:
    """The value :func:`paired_difference` compares unless told otherwise."""
    return item.correct


def paired_difference(
    a: Sequence[Sequence[EvalItem]], b: Sequence[Sequence[EvalItem]],
    value: Callable[[EvalItem], float | None] = correct, seed: int = 0,
    resamples: int = RESAMPLES,
) -> PairedDifference:
    """Mean of ``a - b`` prompt by prompt, averaged over seeds, with its 95% interval.

    ``a[s]`` and ``b[s]`` are the items of seed s; every run must hold the same prompts. Several
    answers to one prompt are averaged first. A prompt counts only if every answer to it was
    judged, on both sides and under every seed; the others are counted in ``unjudged``. So the
    value is the plain mean of ``per_seed``.

    Raises:
        DataError: the runs do not hold the same prompts, or the numbers of seeds differ.
    """
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
    unjudged = len(clusters) - len(prompts)
    if not prompts:
        return PairedDifference(None, 0, None, unjudged, ())
    means = [math.fsum(d[p] for d in seeds) / len(seeds) for p in prompts]
    names = [clusters[p] for p in prompts]
    ci95 = (cluster_bootstrap(means, names, seed, resamples)
            if _clusters_differ(means, names) else None)
    return PairedDifference(
        value=math.fsum(means) / len(means), n=len(prompts), ci95=ci95, unjudged=unjudged,
        clusters=len(set(names)),
        per_seed=tuple(math.fsum(d[p] for p in prompts) / len(prompts) for d in seeds))


def _per_prompt(
    items: Sequence[EvalItem], value: Callable[[EvalItem], float | None],
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
