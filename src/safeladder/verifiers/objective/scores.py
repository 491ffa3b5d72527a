"""What every objective is made of: parts with weights, gates, and how a score is looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import Field, FiniteFloat, field_validator, model_validator

from safeladder.config import StrictModel
from safeladder.errors import ConfigError
from safeladder.types import Group, Reward, Trajectory, Verdict
from safeladder.verifiers.report import NOT_APPLICABLE

ANY_TASK = "*"


class Part(StrictModel):
    """One summand of a reward."""

    weight: FiniteFloat = 1.0
    stand_in: FiniteFloat | None = Field(
        default=None, description="score that stands in when the part is unjudged (an optional "
        "part); without it the part is required: unjudged means no reward at all")


class Gate(StrictModel):
    """A condition on one score; when it fails, the reward is ``otherwise``, whatever else."""

    minimum: FiniteFloat
    otherwise: FiniteFloat


class TaskObjective(StrictModel):
    """The parts, gates and monitors of one task.

    A key is ``verifier`` (its score) or ``verifier.part`` (a named part of its score); the last
    word is the name under which it is reported.
    """

    parts: dict[str, Part] = Field(min_length=1)
    gates: dict[str, Gate] = Field(default_factory=dict)
    monitor: tuple[str, ...] = Field(
        default=(), description="scores that are judged and logged but never rewarded, to see "
        "whether the rewarded ones still mean what they should")

    @field_validator("parts", mode="before")
    @classmethod
    def _weights(cls, value: Any) -> Any:
        """``safety: 0.5`` is short for ``safety: {weight: 0.5}``."""
        if not isinstance(value, dict):
            return value
        return {key: part if isinstance(part, dict | Part) else {"weight": part}
                for key, part in value.items()}

    @model_validator(mode="after")
    def _distinct(self) -> TaskObjective:
        names = [short(key) for key in self.parts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two parts are named {twice[0]!r}")
        rewarded = {verifier_of(key) for key in [*self.parts, *self.gates]}
        for key in self.monitor:
            if verifier_of(key) in rewarded:
                raise ValueError(f"monitor {key!r} is rewarded too, so it cannot tell whether the "
                                 "reward is gamed: name a verifier of its own")
        return self

    @property
    def verifiers(self) -> tuple[str, ...]:
        """Names of the verifiers that are asked."""
        return tuple(dict.fromkeys(
            verifier_of(key) for key in [*self.gates, *self.parts, *self.monitor]))


class TaskTable(StrictModel):
    """What an objective says task by task."""

    tasks: dict[str, TaskObjective] = Field(min_length=1)
    """``Prompt.task`` -> its objective; ``"*"`` takes every task not named."""

    def verifiers(self, task: str) -> tuple[str, ...]:
        """Names of the verifiers that judge prompts of ``task``."""
        return self.of(task).verifiers

    def of(self, task: str) -> TaskObjective:
        """The entry of a task.

        Raises:
            ConfigError: there is none.
        """
        chosen = self.tasks.get(task) or self.tasks.get(ANY_TASK)
        if chosen is None:
            raise ConfigError(f"objective: no entry for task {task!r} (known: "
                              f"{', '.join(self.tasks)}); add one, or one for '*'")
        return chosen


class Stateless:
    """What an objective that learns nothing has to say of its state."""

    def update(self, groups_P: Sequence[Group]) -> Mapping[str, float]:
        """Nothing to learn, nothing to log."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing."""


class PerTrajectory(Stateless):
    """All of an objective that looks at one trajectory at a time, but its formula."""

    def reward(self, trajectory: Trajectory) -> Reward:
        """Combine the verdicts of one trajectory."""
        raise NotImplementedError

    def rewards(self, groups_P: Sequence[Group]) -> list[list[Reward]]:
        """:meth:`reward` of every trajectory."""
        return [[self.reward(trajectory) for trajectory in group.trajectories]
                for group in groups_P]


class PartScores(NamedTuple):
    """The scores of one trajectory's parts."""

    shown: dict[str, float | None]
    """Name -> the unweighted score, None where there is none: ``Reward.parts``."""
    counted: dict[str, float] | None
    """Key -> the score that counts (the stand-in where one stands in), over the parts that apply.
    None when a required part is unjudged or no part applies: then there is no total."""


def part_scores(chosen: TaskObjective, verdicts: Mapping[str, Verdict]) -> PartScores:
    """Look up every part of a task's objective."""
    scores = {key: score_of(key, verdicts) for key in chosen.parts}
    shown = {short(key): score for key, score in scores.items()}
    counted: dict[str, float] = {}
    for key, part in chosen.parts.items():
        score = scores[key]
        if score is None:
            if not applies(key, verdicts):
                continue
            if part.stand_in is None:
                return PartScores(shown, None)
            score = part.stand_in
        counted[key] = score
    return PartScores(shown, counted or None)


def monitor_scores(
    chosen: TaskObjective, verdicts: Mapping[str, Verdict],
) -> dict[str, float | None]:
    """Key -> score of every monitor: ``Reward.monitor``."""
    return {key: score_of(key, verdicts) for key in chosen.monitor}


def short(key: str) -> str:
    """The name a score is reported under."""
    return key.rpartition(".")[2]


def verifier_of(key: str) -> str:
    """The verifier whose score it is."""
    return key.partition(".")[0]


def applies(key: str, verdicts: Mapping[str, Verdict]) -> bool:
    """Whether the verifier has anything to say of the trajectory at all."""
    return verdicts[verifier_of(key)].verdict_class != NOT_APPLICABLE


def score_of(key: str, verdicts: Mapping[str, Verdict]) -> float | None:
    """A verifier's score or a named part of it; None where unjudged.

    Raises:
        ConfigError: the verifier's score has no such part.
    """
    verifier, _, part = key.partition(".")
    verdict = verdicts[verifier]
    if not part or verdict.score is None:
        return verdict.score
    if part not in verdict.parts:
        raise ConfigError(f"objective: verifier {verifier!r} has no part {part!r} (it has: "
                          f"{', '.join(verdict.parts) or 'none'})")
    return verdict.parts[part]
