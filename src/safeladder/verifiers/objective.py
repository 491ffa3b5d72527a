"""How verdicts become a reward.

An objective is a value with two methods (:class:`safeladder.verifiers.base.Objective`): which
verifiers judge a task, and what their verdicts are worth together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, FiniteFloat, field_validator, model_validator

from safeladder.config import StrictModel, validate
from safeladder.errors import ConfigError
from safeladder.types import Reward, Trajectory, Verdict
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
    """The parts and gates of one task.

    A key is ``verifier`` (its score) or ``verifier.part`` (a named part of its score); the last
    word is the name under which it is reported.
    """

    parts: dict[str, Part] = Field(min_length=1)
    gates: dict[str, Gate] = Field(default_factory=dict)

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
        names = [_short(key) for key in self.parts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two parts are named {twice[0]!r}")
        return self


class Weighted(StrictModel):
    r"""A weighted sum per task, behind gates.

    With scores s_k, weights w_k, stand-ins d_k and gates g (minimum m_g, otherwise o_g)::

        total = None                  if the score of a gate is unjudged
              = o_g                   of the first gate g with s_g < m_g
              = None                  if a part without stand-in is unjudged
              = sum_k w_k s_k         over the parts that apply (d_k for s_k where unjudged)

    A part whose verifier says "not applicable" drops out of the sum; if none applies, the total
    is None. ``Reward.parts`` holds the unweighted s_k, None where unjudged.
    """

    type: Literal["weighted"] = "weighted"
    tasks: dict[str, TaskObjective] = Field(min_length=1)
    """``Prompt.task`` -> its objective; ``"*"`` takes every task not named."""

    def verifiers(self, task: str) -> tuple[str, ...]:
        """Names of the verifiers that judge prompts of ``task``."""
        chosen = self._of(task)
        return tuple(dict.fromkeys(key.partition(".")[0] for key in [*chosen.gates, *chosen.parts]))

    def reward(self, trajectory: Trajectory) -> Reward:
        """Apply the formula of the class."""
        chosen = self._of(trajectory.prompt.task)
        verdicts = trajectory.verdicts
        scores = {key: _score(key, verdicts) for key in chosen.parts}
        parts = {_short(key): score for key, score in scores.items()}
        for key, gate in chosen.gates.items():
            score = _score(key, verdicts)
            if score is None:
                return Reward(None, parts)
            if score < gate.minimum:
                return Reward(gate.otherwise, parts)
        total: float | None = None
        for key, part in chosen.parts.items():
            score = scores[key]
            if score is None:
                if verdicts[key.partition(".")[0]].verdict_class == NOT_APPLICABLE:
                    continue
                if part.stand_in is None:
                    return Reward(None, parts)
                score = part.stand_in
            total = (total or 0.0) + part.weight * score
        return Reward(total, parts)

    def _of(self, task: str) -> TaskObjective:
        chosen = self.tasks.get(task) or self.tasks.get(ANY_TASK)
        if chosen is None:
            raise ConfigError(f"objective: no entry for task {task!r} (known: "
                              f"{', '.join(self.tasks)}); add one, or one for '*'")
        return chosen


def build_objective(spec: Mapping[str, Any], where: str = "objective") -> Weighted:
    """Build an objective from a recipe's mapping.

    Raises:
        ConfigError: unknown key or wrong value; the message starts with ``where``.
    """
    return validate(Weighted, dict(spec), where)


def _short(key: str) -> str:
    return key.rpartition(".")[2]


def _score(key: str, verdicts: Mapping[str, Verdict]) -> float | None:
    verifier, _, part = key.partition(".")
    verdict = verdicts[verifier]
    if not part or verdict.score is None:
        return verdict.score
    if part not in verdict.parts:
        raise ConfigError(f"objective: verifier {verifier!r} has no part {part!r} (it has: "
                          f"{', '.join(verdict.parts) or 'none'})")
    return verdict.parts[part]
