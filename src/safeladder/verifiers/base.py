"""What a verifier is, and :func:`verify_all`, which asks them and survives them.

A verifier that cannot judge says so: ``Verdict(score=None, error=...)``. It may also simply
raise; :func:`verify_all` is the one place where an exception becomes an abstention, is counted
and, above a threshold, stops the run.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

from pydantic import Field, FiniteFloat

from safeladder.config import StrictModel
from safeladder.errors import ConfigError, MissingExtra
from safeladder.types import Group, Reward, Trajectory, Verdict
from safeladder.verifiers.report import NOT_APPLICABLE, VerificationReport

T = TypeVar("T")


class ItemVerifier(Protocol):
    """Judges one trajectory at a time.

    ``verify`` is a plain function for rules (called in a loop, no asyncio cost per verdict) or
    ``async def`` for whatever waits (all verdicts are awaited together, each with a time limit).
    A plain function runs inside the loop's process and nothing can stop it, so it must be quick
    for any text; slow or unsafe ones belong into :class:`~safeladder.verifiers.workers.Isolated`.
    """

    @property
    def name(self) -> str:
        """What verdicts and metrics call it."""
        ...

    def verify(self, trajectory: Trajectory) -> Verdict | Awaitable[Verdict]:
        """Judge ``trajectory.response`` against ``trajectory.prompt.reference``."""
        ...


@runtime_checkable
class BatchVerifier(Protocol):
    """Judges many trajectories in one call: it gains from the batch, or needs to see it whole."""

    @property
    def name(self) -> str:
        """What verdicts and metrics call it."""
        ...

    async def verify_many(self, trajectories: Sequence[Trajectory]) -> list[Verdict]:
        """Return one verdict per trajectory, in order."""
        ...


Verifier: TypeAlias = ItemVerifier | BatchVerifier


class Objective(Protocol):
    """How verdicts become a reward. A value: another rule is another class, not a flag."""

    def verifiers(self, task: str) -> tuple[str, ...]:
        """Names of the verifiers that judge prompts of ``task``.

        Raises:
            ConfigError: nothing is said about this task.
        """
        ...

    def rewards(self, groups_P: Sequence[Group]) -> list[list[Reward]]:
        """Combine the verdicts of every trajectory of a batch; changes nothing.

        The groups hold judged trajectories only. ``total`` is None where a required part is
        unjudged. An objective that looks at one trajectory at a time and learns nothing inherits
        all but its formula from :class:`~safeladder.verifiers.objective.PerTrajectory`.
        """
        ...

    def update(self, groups_P: Sequence[Group]) -> Mapping[str, float]:
        """Learn from a batch that has trained, once per step; return figures to log."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What it has learned, as JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to that."""
        ...


class VerifyPolicy(StrictModel):
    """What :func:`verify_all` does with slowness, failure and truncation."""

    time_limit: FiniteFloat = Field(
        default=60.0, gt=0, description="seconds per verdict, for verifiers that are awaited")
    concurrency: int = Field(
        default=64, ge=1, description="verdicts of one verifier awaited at a time")
    max_abstentions: float = Field(
        default=0.1, ge=0, le=1, description="share of trajectories a verifier may leave unjudged")
    min_abstentions: int = Field(
        default=8, ge=1, description="fewer abstentions than this in one call never stop the run")
    truncated: Literal["judge", "exclude"] | FiniteFloat = Field(
        default="judge", description="trajectories cut by a limit: judged like any other, left "
        "without a reward, or given this number as reward without being judged")


def abstention(verifier: str, error: str) -> Verdict:
    """The verdict of a verifier that could not judge."""
    return Verdict(verifier, None, error=error or "no reason given")


def not_applicable(verifier: str, reason: str) -> Verdict:
    """The verdict of a verifier that has nothing to say here (TRL's None); no failure."""
    return Verdict(verifier, None, verdict_class=NOT_APPLICABLE, error=reason)


def describe(error: BaseException) -> str:
    """One line for an exception."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


async def verify_all(
    groups: Iterable[Group],
    verifiers: Mapping[str, Verifier],
    objective: Objective,
    policy: VerifyPolicy | None = None,
) -> VerificationReport:
    """Fill ``verdicts`` and ``reward`` of every trajectory.

    ``objective.verifiers(prompt.task)`` says who judges a prompt. Trajectories that ended in an
    error are not judged and get ``Reward(None)``; truncated ones follow ``policy.truncated``.

    Raises:
        ConfigError: a task without a route, or a route to an unknown verifier.
        MissingExtra: a verifier's package is not installed.
        TooManyAbstentions: a verifier left more unjudged than the policy allows, of all or of
            one data source; every verdict is in place by then.
    """
    policy = policy or VerifyPolicy()
    started = time.perf_counter()
    report = VerificationReport()
    judged, queues = _route(groups, objective, policy, report)
    for name in queues:
        if name not in verifiers:
            known = ", ".join(verifiers) or "none"
            raise ConfigError(f"the objective asks for verifier {name!r}; known: {known}")
    seconds = await asyncio.gather(
        *(_run(name, verifiers[name], rows, policy) for name, rows in queues.items()))
    for group, rewards in zip(judged, objective.rewards(judged), strict=True):
        for trajectory, reward in zip(group.trajectories, rewards, strict=True):
            trajectory.reward = reward
            report.unrewarded += reward.total is None
    for (name, rows), spent in zip(queues.items(), seconds, strict=True):
        report.add(name, rows, spent)
    report.seconds = time.perf_counter() - started
    report.check(policy.max_abstentions, policy.min_abstentions)
    return report


def _route(
    groups: Iterable[Group], objective: Objective, policy: VerifyPolicy,
    report: VerificationReport,
) -> tuple[list[Group], dict[str, list[Trajectory]]]:
    """The trajectories to be judged, in their groups, and the same by verifier."""
    judged: list[Group] = []
    queues: dict[str, list[Trajectory]] = {}
    for group in groups:
        names = objective.verifiers(group.prompt.task)
        kept: list[Trajectory] = []
        for trajectory in group.trajectories:
            report.trajectories += 1
            trajectory.verdicts = {}
            if trajectory.status.is_error:
                report.failed += 1
                report.unrewarded += 1
                trajectory.reward = Reward(None)
                continue
            if trajectory.status.is_truncated:
                report.truncated += 1
                if policy.truncated != "judge":
                    excluded = policy.truncated == "exclude"
                    report.unrewarded += excluded
                    trajectory.reward = Reward(None if excluded else float(policy.truncated))
                    continue
            kept.append(trajectory)
            for name in names:
                queues.setdefault(name, []).append(trajectory)
        judged.append(Group(group.prompt, kept))
    return judged, queues


class _TimeLimitError(Exception):
    """The policy's clock ran out."""


class _Boundary:
    """The one broad except: what escapes a verifier becomes its abstention on ``rows``.

    A class, not a generator, because rules pay for it once per verdict. Errors of the set-up
    are no abstentions: they would be the same for every row.
    """

    __slots__ = ("name", "rows")

    def __init__(self, name: str, rows: Sequence[Trajectory]) -> None:
        self.name = name
        self.rows = rows

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if error is None:
            return False
        if not isinstance(error, Exception) or isinstance(error, ConfigError | MissingExtra):
            return False
        text = str(error) if isinstance(error, _TimeLimitError) else describe(error)
        for row in self.rows:
            row.verdicts[self.name] = abstention(self.name, text)
        return True


def _record(name: str, row: Trajectory, verdict: object) -> None:
    if not isinstance(verdict, Verdict):
        raise TypeError(f"expected a Verdict, the verifier returned {type(verdict).__name__}")
    row.verdicts[name] = verdict


async def _run(
    name: str, verifier: Verifier, rows: Sequence[Trajectory], policy: VerifyPolicy,
) -> float:
    """Let one verifier judge its rows; return the seconds it took."""
    started = time.perf_counter()
    if isinstance(verifier, BatchVerifier):
        with _Boundary(name, rows):
            verdicts = await _within(policy.time_limit * len(rows), verifier.verify_many(rows))
            if len(verdicts) != len(rows):
                raise ValueError(f"{len(verdicts)} verdicts for {len(rows)} trajectories")
            for row, verdict in zip(rows, verdicts, strict=True):
                _record(name, row, verdict)
        return time.perf_counter() - started
    waiting: list[tuple[Trajectory, Awaitable[Verdict]]] = []
    for row in rows:
        with _Boundary(name, (row,)):
            result = verifier.verify(row)
            if inspect.isawaitable(result):
                waiting.append((row, result))
            else:
                _record(name, row, result)
    if waiting:
        slots = asyncio.Semaphore(policy.concurrency)
        await asyncio.gather(*(_await_one(name, row, verdict, slots, policy.time_limit)
                               for row, verdict in waiting))
    return time.perf_counter() - started


async def _await_one(
    name: str, row: Trajectory, verdict: Awaitable[Verdict], slots: asyncio.Semaphore,
    time_limit: float,
) -> None:
    with _Boundary(name, (row,)):
        async with slots:
            _record(name, row, await _within(time_limit, verdict))


async def _within(seconds: float, work: Awaitable[T]) -> T:
    """Await, but not longer; a TimeoutError of the verifier's own stays what it is."""
    clock = asyncio.timeout(seconds)
    try:
        async with clock:
            return await work
    except TimeoutError:
        if clock.expired():
            raise _TimeLimitError(f"time limit {seconds} s") from None
        raise
