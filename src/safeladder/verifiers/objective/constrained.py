"""Lagrangian constraints: a score that must reach a threshold on average, at an adaptive price."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, FiniteFloat, PrivateAttr, model_validator

from safeladder.config import StrictModel
from safeladder.types import Group, Reward, Trajectory
from safeladder.verifiers.objective.scores import applies, score_of, short, verifier_of

if TYPE_CHECKING:
    from safeladder.verifiers.objective.build import AnyObjective


class Constraint(StrictModel):
    """E[c] >= threshold for one score c, and how its multiplier moves."""

    threshold: FiniteFloat
    initial: FiniteFloat = Field(default=0.3, gt=0, description="multiplier of the first batch")
    minimum: FiniteFloat = Field(
        default=0.01, gt=0, description="a multiplier of 0 could never grow again")
    maximum: FiniteFloat = Field(
        default=5.0, gt=0, description="above some bound nothing but the constraint is learned")
    rate: FiniteFloat = Field(default=0.1, gt=0, description="step of the logarithm per batch")
    smoothing: FiniteFloat = Field(
        default=0.9, ge=0, lt=1, description="share of the old mean in the moving one")
    tasks: tuple[str, ...] | None = Field(
        default=None, description="the tasks it holds for; None: all")

    @model_validator(mode="after")
    def _ordered(self) -> Constraint:
        if not self.minimum <= self.initial <= self.maximum:
            raise ValueError("needs minimum <= initial <= maximum")
        return self

    def holds(self, task: str) -> bool:
        """Whether prompts of ``task`` are constrained."""
        return self.tasks is None or task in self.tasks


@dataclass
class Multiplier:
    """Where one constraint stands."""

    value: float
    mean: float | None = None
    """Moving mean of the score; None before the first batch."""

    def observe(self, seen: Sequence[float], smoothing: float) -> float:
        """Take the scores of a batch (at least one) into the moving mean; return their mean."""
        mean = math.fsum(seen) / len(seen)
        self.mean = mean if self.mean is None else smoothing * self.mean + (1 - smoothing) * mean
        return mean

    def step(self, violation: float, rate: float, minimum: float, maximum: float) -> None:
        """Grow with a positive violation, shrink with a negative one, within the bounds."""
        self.value = min(max(self.value * math.exp(rate * violation), minimum), maximum)


class Constrained(StrictModel):
    r"""Another objective under constraints E[c_k] >= tau_k (Lagrangian, multiplicative weights).

    With that objective's total r and multipliers lambda_k, which stay as they are for a whole
    rollout batch::

        total = r + sum_k lambda_k (c_k - tau_k)      None if r or a c_k is unjudged

    and after the batch, with m_k the mean of c_k over its judged trajectories::

        e_k      <- rho e_k + (1 - rho) m_k                            (e_k = m_k at first)
        lambda_k <- clip(lambda_k exp(eta (tau_k - e_k)), lowest, highest)

    It is the adaptive multiplier of deliberative search (arXiv 2507.16727) in a general form. The
    moving mean, the rate, the bounds and the start are ours: the paper names none. A constraint
    that does not apply to a trajectory (its task, or its verifier says so) adds nothing. A batch
    is the trajectories that train, as dynamic sampling has left them.

    ``lambda`` of the batch, the means and the violation tau - e are logged at every step as
    ``constraint/<score>/{multiplier,mean,moving_mean,violation}``.
    """

    type: Literal["constrained"]
    base: AnyObjective
    constraints: dict[str, Constraint] = Field(min_length=1)
    """``verifier`` or ``verifier.part`` -> its constraint."""

    _multipliers: dict[str, Multiplier] = PrivateAttr(default_factory=dict)

    def model_post_init(self, context: Any) -> None:
        """Every multiplier begins at its initial value."""
        self._multipliers = {key: Multiplier(c.initial) for key, c in self.constraints.items()}

    def verifiers(self, task: str) -> tuple[str, ...]:
        """Those of the other objective, and the constraints'."""
        own = [verifier_of(key) for key, c in self.constraints.items() if c.holds(task)]
        return tuple(dict.fromkeys([*self.base.verifiers(task), *own]))

    def rewards(self, groups_P: Sequence[Group]) -> list[list[Reward]]:
        """Apply the formula of the class; the multipliers stay as they are."""
        return [[self._constrained(trajectory, reward) for trajectory, reward in
                 zip(group.trajectories, rewards, strict=True)]
                for group, rewards in zip(groups_P, self.base.rewards(groups_P), strict=True)]

    def update(self, groups_P: Sequence[Group]) -> Mapping[str, float]:
        """Move the multipliers; return what the batch was rewarded with and what was seen."""
        figures = dict(self.base.update(groups_P))
        for key, constraint in self.constraints.items():
            state, name = self._multipliers[key], f"constraint/{key}"
            figures[f"{name}/multiplier"] = state.value
            seen = [score for group in groups_P if constraint.holds(group.prompt.task)
                    for t in group.trajectories if (score := _seen(key, t)) is not None]
            if not seen:
                continue
            mean = state.observe(seen, constraint.smoothing)
            assert state.mean is not None
            violation = constraint.threshold - state.mean
            state.step(violation, constraint.rate, constraint.minimum, constraint.maximum)
            figures |= {f"{name}/mean": mean, f"{name}/moving_mean": state.mean,
                        f"{name}/violation": violation}
        return figures

    def state_dict(self) -> dict[str, Any]:
        """Where the multipliers stand."""
        return {"multipliers": {key: asdict(m) for key, m in self._multipliers.items()},
                "base": self.base.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to where they stood; ``KeyError`` when the state is of other constraints."""
        self._multipliers.update(
            {key: Multiplier(**state["multipliers"][key]) for key in self.constraints})
        self.base.load_state_dict(state["base"])

    def _constrained(self, trajectory: Trajectory, reward: Reward) -> Reward:
        total, parts = reward.total, dict(reward.parts)
        for key, constraint in self.constraints.items():
            if not constraint.holds(trajectory.prompt.task) or not applies(key,
                                                                           trajectory.verdicts):
                continue
            score = score_of(key, trajectory.verdicts)
            parts.setdefault(short(key), score)
            if total is not None:
                total = None if score is None else (
                    total + self._multipliers[key].value * (score - constraint.threshold))
        return Reward(total, parts, reward.monitor)


def _seen(key: str, trajectory: Trajectory) -> float | None:
    """The score; None where nobody was asked (a failed or excluded trajectory) or could judge."""
    return score_of(key, trajectory.verdicts) if verifier_of(key) in trajectory.verdicts else None
