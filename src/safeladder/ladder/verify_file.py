"""Judge a file of responses with verifiers: ``safeladder verify`` and the eval command."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safeladder.data.responses import LabelledResponse, json_line, read_responses, response_cells
from safeladder.errors import ConfigError
from safeladder.files import atomic_file
from safeladder.ladder.verifier_spec import OpenedVerifier, open_verifier
from safeladder.types import Group, Reward, Trajectory, Verdict
from safeladder.verifiers.base import Verifier, VerifyPolicy, verify_all
from safeladder.verifiers.objective import PerTrajectory
from safeladder.verifiers.registry import close_verifiers
from safeladder.verifiers.report import VerificationReport


class AllVerifiers(PerTrajectory):
    """The objective of judging alone: every verifier judges every row, and nothing is rewarded."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)

    def verifiers(self, task: str) -> tuple[str, ...]:
        """All of them, whatever the task."""
        return self._names

    def reward(self, trajectory: Trajectory) -> Reward:
        """None: verdicts are what is wanted."""
        return Reward(None)


def judge_rows(
    rows: Sequence[LabelledResponse], verifiers: Mapping[str, Verifier], time_limit: float = 60.0,
) -> tuple[list[Mapping[str, Verdict]], VerificationReport]:
    """The verdicts on each row, in order; abstentions are counted and never stop it."""
    trajectories = [row.trajectory() for row in rows]
    groups = [Group(trajectory.prompt, [trajectory]) for trajectory in trajectories]
    policy = VerifyPolicy(time_limit=time_limit, max_abstentions=1.0)
    report = asyncio.run(verify_all(groups, verifiers, AllVerifiers(list(verifiers)), policy))
    return [trajectory.verdicts for trajectory in trajectories], report


def verify_file(path: Path, names: Sequence[str], out: Path) -> VerificationReport:
    """Judge every row of ``path`` and write it, with its verdicts, to ``out``.

    A row gets the column ``verdicts``: name of the verifier -> score, class, probabilities,
    parts, reason, error; a score of null means that it could not judge.

    Raises:
        DataError: the file cannot be read; ConfigError, CheckpointError: a verifier cannot be
            built, or two have one name; StorageError: ``out`` cannot be written.
    """
    rows = read_responses(path)
    opened = [open_verifier(name) for name in names]
    verifiers = {one.name: one.verifier for one in _distinct(opened)}
    try:
        verdicts, report = judge_rows(rows, verifiers)
    finally:
        close_verifiers(verifiers)
    with atomic_file(out) as partial, partial.open("w", encoding="utf-8") as file:
        for row, found in zip(rows, verdicts, strict=True):
            cells = {**response_cells(row, out),
                     "verdicts": {name: verdict_cells(verdict) for name, verdict in found.items()}}
            file.write(json_line(cells))
    return report


def verdict_cells(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON; what is empty is left out, the score never."""
    cells: dict[str, Any] = {"score": verdict.score}
    more = {"class": verdict.verdict_class, "reason": verdict.reason, "error": verdict.error,
            "probabilities": dict(verdict.probabilities or {}), "parts": dict(verdict.parts)}
    return cells | {key: value for key, value in more.items() if value}


def _distinct(opened: Sequence[OpenedVerifier]) -> Sequence[OpenedVerifier]:
    names = [one.name for one in opened]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two verifiers are called {twice[0]!r}: give one a 'name' in a YAML "
                          "file of its own")
    return opened
