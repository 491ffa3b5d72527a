"""How many rows of each kind may stay so that none is more than a share of what stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def cap_of(counts: Sequence[int], max_share: float, max_drop: float) -> int:
    """The cap k of rows per kind; of a kind with c rows min(c, k) stay.

    With kept(k) = sum_j min(c_j, k), k is the largest with k <= max_share * kept(k). The share of
    the largest kind, k / kept(k), never falls as k grows, so that a search by halves finds it.
    With fewer than 1 / max_share kinds no k will do; then the smallest count is taken, at which
    all shares are equal. If more than ``max_drop`` of all would go, k is the smallest at which no
    more go.

    Example: counts 80, 15, 5, max_share 0.5: k = 20 keeps 20 + 15 + 5 = 40, of which 20 is half.
    """
    most, total = max(counts, default=0), sum(counts)

    def kept(cap: int) -> int:
        return sum(min(count, cap) for count in counts)

    if most <= max_share * total:
        return most
    fitting = _last(most, lambda cap: cap <= max_share * kept(cap)) or min(counts)
    # 1 - max_drop in floating point lies a hair beside the share meant: 0.3 of 10 rows are 3.
    enough = _last(most, lambda cap: kept(cap) < (1 - max_drop) * total - 1e-9) + 1
    return max(fitting, min(enough, most))


def _last(limit: int, holds: Callable[[int], bool]) -> int:
    """The largest number in 1..limit for which ``holds``, true up to somewhere; 0 if for none."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low
