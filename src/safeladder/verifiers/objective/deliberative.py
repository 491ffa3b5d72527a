"""Deliberative search: right answers, and the constraint that confidence is honest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, FiniteFloat, PrivateAttr, model_validator

from safeladder.config import StrictModel
from safeladder.types import Group, Reward, Trajectory, Verdict
from safeladder.verifiers.deliberative import ACCURACY_SHARE, FORMAT_SHARE
from safeladder.verifiers.objective.constrained import Multiplier

if TYPE_CHECKING:
    from safeladder.verifiers.objective.build import AnyObjective

SLOPE: Mapping[str, float] = {"zero_one": 1.0, "signed": 2.0}
"""What reliability gains from being 1 instead of 0, by its range."""
CAP, START = 0.5, 0.3
"""Of the multiplier with a reliability of 0 or 1; half of each for -1 or 1, which is the same."""


class DeliberativeReward(StrictModel):
    r"""Format, accuracy, and reliability at an adaptive price (arXiv 2507.16727).

    With f, a in {0, 1} (format, accuracy), rel the reliability and lambda its price::

        total = f max(0.1 f + 0.9 a + lambda rel + beta (1 - brier), 0)    None where unjudged

    lambda stays as it is for a whole rollout batch. After the batch, with m the mean share of
    reliable answers over its well-formed trajectories (tau, rho, eta: threshold, smoothing, rate)::

        e      <- rho e + (1 - rho) m                                  (e = m at first)
        lambda <- clip(lambda exp(eta (tau - e)), minimum, maximum)

    rel is 0 or 1 (``zero_one``) or -1 or 1 (``signed``); the constraint is on the share in both.
    The four cells, zero_one, well formed, beta = 0:

    ====================  ==================
    right, certain        1 + lambda
    right, uncertain      1
    wrong, uncertain      0.1 + lambda
    wrong, certain        0.1
    ====================  ==================

    Whatever lambda > 0, *certain* pays more exactly where the answer is right more often than not:
    one bit of confidence is learned, and its ten steps are not (beta > 0, a proper score, is for
    that). Once the policy says *uncertain*, a right answer earns 0.9 - lambda more than a wrong
    one: from lambda = 0.9 on (0.45 if signed, with beta 0.9 less it), failing on purpose pays. So
    a ``maximum`` that high is refused.

    ``multiplier: fixed`` keeps lambda at ``initial``, which may then be 0 (no constraint at all).
    Other tasks than ``tasks`` are rewarded by ``otherwise``. Logged at every step: ``lambda`` (what
    the batch was rewarded with), ``reliability/{mean,moving_mean,violation}``, and of all judged
    episodes ``deliberation/{certain,false_certain}``.

    With ``signed`` a wrong and certain answer is worth 0.1 - lambda: from lambda = 0.1 on less than
    a malformed one, which gets 0. Then garbage would be the way out of a false certainty, so the
    total of a well-formed episode is floored at 0 (beta adds to it). The price: above lambda = 0.1,
    *certain* pays from a share of right answers a little below one half on, (0.1 + lambda) /
    (0.1 + 3 lambda) (0.41 at 0.25); ``zero_one`` never meets the floor.

    A batch is the trajectories that train, as dynamic sampling has left them.

    Departures: tau, eta, rho, the bounds, the start, beta, the range of rel and the floor are ours
    (the paper names none).
    """

    type: Literal["deliberative"]
    verifier: str = Field(default="deliberative", description="of type deliberative")
    reliability: Literal["zero_one", "signed"] = "zero_one"
    multiplier: Literal["adaptive", "fixed"] = "adaptive"
    threshold: FiniteFloat = Field(
        default=0.85, ge=0, le=1, description="tau, share of reliable answers")
    initial: FiniteFloat | None = Field(
        default=None, ge=0, description="lambda of the first batch; None: 0.3, signed 0.15")
    minimum: FiniteFloat = Field(
        default=0.01, gt=0, description="a lambda of 0 could never grow again")
    maximum: FiniteFloat | None = Field(
        default=None, gt=0, description="cap of lambda; None: 0.5, signed 0.25")
    rate: FiniteFloat = Field(default=0.1, gt=0, description="eta, step of log lambda per batch")
    smoothing: FiniteFloat = Field(
        default=0.9, ge=0, lt=1, description="rho, share of the old mean in the moving one")
    brier: FiniteFloat = Field(default=0.0, ge=0, description="beta, weight of a proper score")
    tasks: tuple[str, ...] | None = Field(
        default=None, description="the tasks it is for; None: all")
    otherwise: AnyObjective | None = Field(
        default=None, description="the objective of all other tasks")

    _state: Multiplier = PrivateAttr()

    @model_validator(mode="after")
    def _failing_never_pays(self) -> DeliberativeReward:
        if (self.tasks is None) != (self.otherwise is None):
            raise ValueError("give both tasks and otherwise (the objective of the others), or none")
        inner: Any = self.otherwise
        while inner is not None:
            if isinstance(inner, DeliberativeReward):
                raise ValueError("otherwise must not be deliberative again: name all its tasks in "
                                 "one objective, whose lambda they share")
            inner = getattr(inner, "base", None)
        slope = SLOPE[self.reliability]
        highest = self.start if self.multiplier == "fixed" else self.cap
        if slope * highest + self.brier >= ACCURACY_SHARE - 1e-9:
            limit = (ACCURACY_SHARE - self.brier) / slope
            raise ValueError(
                f"a multiplier of {highest:g} is too high: from {limit:g} on "
                f"({self.reliability}, brier {self.brier:g}) an answer stated as uncertain earns "
                "no less when it is wrong, so that failing on purpose pays; lower maximum (or "
                "initial, or brier)")
        if self.multiplier == "adaptive" and not self.minimum <= self.start <= self.cap:
            raise ValueError("needs minimum <= initial <= maximum; a multiplier of 0 is for "
                             "multiplier: fixed")
        return self

    def model_post_init(self, context: Any) -> None:
        """The multiplier begins at its initial value."""
        self._state = Multiplier(self.start)

    @property
    def start(self) -> float:
        """Lambda of the first batch."""
        return START / SLOPE[self.reliability] if self.initial is None else self.initial

    @property
    def cap(self) -> float:
        """The highest lambda."""
        return CAP / SLOPE[self.reliability] if self.maximum is None else self.maximum

    def holds(self, task: str) -> bool:
        """Whether prompts of ``task`` are rewarded here."""
        return self.tasks is None or task in self.tasks

    def verifiers(self, task: str) -> tuple[str, ...]:
        """The one verifier, or those of the other objective."""
        if self.otherwise is None or self.holds(task):
            return (self.verifier,)
        return self.otherwise.verifiers(task)

    def rewards(self, groups_P: Sequence[Group]) -> list[list[Reward]]:
        """Apply the formula of the class; lambda stays as it is."""
        others = self._others(groups_P)
        given = iter(self.otherwise.rewards(others) if self.otherwise else ())
        return [[self.reward(t) for t in group.trajectories] if self.holds(group.prompt.task)
                else next(given) for group in groups_P]

    def reward(self, trajectory: Trajectory) -> Reward:
        """The formula, for one trajectory."""
        verdict = trajectory.verdicts[self.verifier]
        names = ("format", "accuracy", "reliability", *(("brier",) if self.brier else ()))
        if verdict.score is None:
            return Reward(None, dict.fromkeys(names))
        parts = {name: verdict.parts[name] for name in names}
        form, share = parts["format"], parts["reliability"]
        paid = 2 * share - 1 if self.reliability == "signed" else share
        inside = FORMAT_SHARE * form + ACCURACY_SHARE * parts["accuracy"] + self._state.value * paid
        if self.brier:
            inside += self.brier * (1 - parts["brier"])
        return Reward(form * max(inside, 0.0), {**parts})

    def update(self, groups_P: Sequence[Group]) -> Mapping[str, float]:
        """Move lambda; return what the batch was rewarded with and what was seen."""
        others = self._others(groups_P)
        figures = {**(self.otherwise.update(others) if self.otherwise else {}),
                   "lambda": self._state.value}
        judged = [verdict for group in groups_P if self.holds(group.prompt.task)
                  for t in group.trajectories if (verdict := self._judged(t)) is not None]
        if judged:
            certain = [verdict.parts["certain"] for verdict in judged]
            false = [verdict.parts["certain"] * (1 - verdict.parts["accuracy"])
                     for verdict in judged]
            figures["deliberation/certain"] = math.fsum(certain) / len(judged)
            figures["deliberation/false_certain"] = math.fsum(false) / len(judged)
        seen = [verdict.parts["reliability"] for verdict in judged if verdict.parts["format"]]
        if seen:
            mean = self._state.observe(seen, self.smoothing)
            assert self._state.mean is not None
            violation = self.threshold - self._state.mean
            if self.multiplier == "adaptive":
                self._state.step(violation, self.rate, self.minimum, self.cap)
            figures |= {"reliability/mean": mean, "reliability/moving_mean": self._state.mean,
                        "reliability/violation": violation}
        return figures

    def state_dict(self) -> dict[str, Any]:
        """Where lambda and the moving mean stand."""
        return {"multiplier": asdict(self._state),
                "otherwise": self.otherwise.state_dict() if self.otherwise else {}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to where they stood; ``KeyError`` when the state is of another objective."""
        self._state = Multiplier(**state["multiplier"])
        if self.otherwise:
            self.otherwise.load_state_dict(state["otherwise"])

    def _judged(self, trajectory: Trajectory) -> Verdict | None:
        verdict = trajectory.verdicts.get(self.verifier)
        return verdict if verdict is not None and verdict.score is not None else None

    def _others(self, groups_P: Sequence[Group]) -> list[Group]:
        return [group for group in groups_P if not self.holds(group.prompt.task)]
