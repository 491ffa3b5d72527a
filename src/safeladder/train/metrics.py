"""What a loop logs at every step: figures of the rollout, of the update, and where time went."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from safeladder.algos.base import Algorithm
from safeladder.train.batch import training_reward
from safeladder.train.monitor import monitor_metrics
from safeladder.train.state import LoopState
from safeladder.types import Group, Trajectory


class PhaseClock:
    """Seconds and tokens by phase. Use as ``with clock("sampling"): ...``; phases may recur."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.tokens: dict[str, int] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Add the time spent inside to ``phase``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - started

    def count(self, phase: str, tokens: int) -> None:
        """Book tokens on a phase."""
        self.tokens[phase] = self.tokens.get(phase, 0) + tokens

    def to_dict(self) -> dict[str, dict[str, float]]:
        """``{"seconds": {...}, "tokens_per_second": {...}}``."""
        speed = {phase: count / self.seconds[phase] for phase, count in self.tokens.items()
                 if self.seconds.get(phase)}
        return {"seconds": dict(self.seconds), "tokens_per_second": speed}


def step_record(
    rung: str, kind: str, step: int, metrics: Mapping[str, float], state: LoopState,
    clock: PhaseClock,
) -> dict[str, Any]:
    """One line of ``metrics.jsonl``: what must be equal on every run under ``metrics``, what the
    clock says under ``time``.
    """
    totals = {"tokens/sampled_total": state.tokens_sampled,
              "tokens/trained_total": state.tokens_trained}
    return {"rung": rung, "kind": kind, "step": step, "metrics": {**metrics, **totals},
            "time": clock.to_dict()}


def rollout_metrics(
    groups_P: Sequence[Group], algorithm: Algorithm, max_tokens: int,
) -> dict[str, float]:
    """Figures of one rollout: rewards, parts, accuracy, lengths, group statistics, and what says
    whether the reward is gamed (:func:`monitor_metrics`).

    ``reward/*`` are the verifiers' totals; ``accuracy`` is the share whose verdict is of the class
    ``correct``, among those with any class; ``groups/zero_std`` is the share of groups that give
    no signal; unjudged trajectories are counted (``unjudged``) and enter no mean.
    """
    trajectories = [t for group in groups_P for t in group.trajectories]
    rewards = [t.reward.total for t in trajectories if t.reward and t.reward.total is not None]
    metrics: dict[str, float] = {"unjudged": float(len(trajectories) - len(rewards))}
    if rewards:
        metrics["reward/mean"] = float(np.mean(rewards))
        metrics["reward/std"] = float(np.std(rewards))
    metrics.update(_means("reward/part", (t.reward.parts for t in trajectories if t.reward)))
    metrics.update(_class_shares(trajectories))
    classed = [classes for t in trajectories if (classes := {
        v.verdict_class for v in t.deciding_verdicts.values()
        if v.score is not None and v.verdict_class is not None})]
    if classed:
        metrics["accuracy"] = _share("correct" in classes for classes in classed)
    lengths = np.array([t.num_tokens for t in trajectories], float)
    if len(lengths):
        metrics["response/mean_tokens"] = float(lengths.mean())
        metrics["response/max_tokens"] = float(lengths.max())
        metrics["response/truncated"] = _share(t.status.is_truncated for t in trajectories)
        metrics["response/errors"] = _share(t.status.is_error for t in trajectories)
    metrics["groups/zero_std"] = _share(
        len({training_reward(t, algorithm, max_tokens) for t in g.trajectories} - {None}) < 2
        for g in groups_P)
    return metrics | monitor_metrics(groups_P)


def _share(values: Iterable[bool]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0


def _means(
    prefix: str, rows: Iterable[Mapping[str, float | None]],
) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None:
                values.setdefault(name, []).append(value)
    return {f"{prefix}/{name}": float(np.mean(column)) for name, column in values.items()}


def _class_shares(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """``verdict/<verifier>/<class>``: share of each class among the trajectories judged."""
    counts: dict[str, dict[str, int]] = {}
    for trajectory in trajectories:
        for name, verdict in trajectory.verdicts.items():
            if verdict.score is not None and verdict.verdict_class is not None:
                column = counts.setdefault(name, {})
                column[verdict.verdict_class] = column.get(verdict.verdict_class, 0) + 1
    return {f"verdict/{name}/{label}": n / sum(column.values())
            for name, column in counts.items() for label, n in sorted(column.items())}
