"""Is the reward being gamed? Three figures per part of it, from the trajectories of one rollout.

A policy that learns what a verifier pays for, and not what it is meant to measure, shows it here
first: a part follows the length of the response; a part moves against the others; a part rises and
an independent verifier, which is asked but never rewarded (``monitor`` in a recipe), does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from safeladder.types import Group, Trajectory

MIN_ROWS = 3
"""With two rows every correlation is 1 or -1."""

Read = Callable[[Trajectory], float | None]


def monitor_metrics(groups_P: Sequence[Group]) -> dict[str, float]:
    r"""Correlations and gaps of one rollout; what is undefined is left out.

    With x, y centred within each group, over the trajectories where both are judged::

        r(x, y) = sum_i (x_i - mean_g x)(y_i - mean_g y) / sqrt(sum (..)^2 sum (..)^2)

    Within the group, because that is what the policy is rewarded by: that easy prompts have both
    short responses and high scores is no sign of anything. Undefined with fewer than
    ``MIN_ROWS`` rows in groups of two or more, or where one of both never differs.

    ==========================================  ============================================
    ``monitor/length/<part>``                   r with the number of sampled tokens
    ``monitor/between/<part>/<part>``           r of two parts
    ``monitor/agreement/<part>/<monitor>``      r with an independent verifier
    ``monitor/gap/<part>/<monitor>``            mean of the part - mean of the monitor; on one
                                                scale it says how much better the response looks
                                                to the rewarded verifier
    ``monitor/task_gap/<task>/<part>/<mon.>``   the same gap among the prompts of one task, in a
                                                rollout of several: a verifier that is fooled in
                                                one family only is hardly seen in the mean of all
    ==========================================  ============================================
    """
    parts = {name: _part(name) for name in _names(groups_P, "parts")}
    monitors = {name: _monitor(name) for name in _names(groups_P, "monitor")}
    found: dict[str, float | None] = {}
    for name, part in parts.items():
        found[f"monitor/length/{name}"] = _correlation(groups_P, part, _length)
        for other, monitor in monitors.items():
            found[f"monitor/agreement/{name}/{other}"] = _correlation(groups_P, part, monitor)
            found[f"monitor/gap/{name}/{other}"] = _gap(groups_P, part, monitor)
    tasks = list(dict.fromkeys(group.prompt.task for group in groups_P))
    for task in tasks if len(tasks) > 1 else ():
        mine = [group for group in groups_P if group.prompt.task == task]
        for name, part in parts.items():
            for other, monitor in monitors.items():
                found[f"monitor/task_gap/{task}/{name}/{other}"] = _gap(mine, part, monitor)
    for (name, part), (other, second) in combinations(parts.items(), 2):
        found[f"monitor/between/{name}/{other}"] = _correlation(groups_P, part, second)
    return {name: value for name, value in found.items() if value is not None}


def _names(groups_P: Sequence[Group], kind: str) -> list[str]:
    rewards = [t.reward for group in groups_P for t in group.trajectories if t.reward]
    return list(dict.fromkeys(name for reward in rewards for name in getattr(reward, kind)))


def _part(name: str) -> Read:
    return lambda t: t.reward.parts.get(name) if t.reward else None


def _monitor(name: str) -> Read:
    return lambda t: t.reward.monitor.get(name) if t.reward else None


def _length(trajectory: Trajectory) -> float:
    return float(trajectory.num_tokens)


def _pairs(group: Group, x: Read, y: Read) -> NDArray[np.float64]:
    """(n, 2) values of the trajectories where both are there."""
    pairs = [(x(t), y(t)) for t in group.trajectories]
    return np.array([pair for pair in pairs if None not in pair], np.float64).reshape(-1, 2)


def _correlation(groups_P: Sequence[Group], x: Read, y: Read) -> float | None:
    columns = [_pairs(group, x, y) for group in groups_P]
    columns = [pairs for pairs in columns if len(pairs) > 1]
    if sum(map(len, columns)) < MIN_ROWS:
        return None
    centred = np.concatenate([_centred(pairs) for pairs in columns])
    spread = np.sqrt((centred ** 2).sum(0)).prod()
    return float((centred[:, 0] * centred[:, 1]).sum() / spread) if spread > 0 else None


def _centred(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exactly 0 where a column has one value only, so that rounding poses as nothing."""
    flat = pairs.max(0) == pairs.min(0)
    values: NDArray[np.float64] = np.where(flat, 0.0, pairs - pairs.mean(0))
    return values


def _gap(groups_P: Sequence[Group], x: Read, y: Read) -> float | None:
    pairs = np.concatenate([np.zeros((0, 2)), *(_pairs(group, x, y) for group in groups_P)])
    return float((pairs[:, 0] - pairs[:, 1]).mean()) if len(pairs) else None

