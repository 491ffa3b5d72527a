"""A safety floor: below it nothing else can earn more than a fixed amount."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import FiniteFloat

from safeladder.config import StrictModel
from safeladder.types import Group, Reward, Trajectory
from safeladder.verifiers.objective.scores import applies, score_of, short, verifier_of

if TYPE_CHECKING:
    from safeladder.verifiers.objective.build import AnyObjective


class SafetyFloor(StrictModel):
    r"""Another objective with a floor under one score.

    With that objective's total r, the score s (of safety, say), the minimum m and the cap c::

        total = None          if r is None or s is unjudged
              = min(r, c)     if s < m
              = r             otherwise, and where the score does not apply

    An unsafe answer cannot buy itself back by being helpful or well formed: it never earns more
    than c. Unlike a gate it keeps what is worse than c as it is, so that among unsafe answers the
    badly formed ones still earn less.
    """

    type: Literal["floor"]
    base: AnyObjective
    score: str
    """``verifier`` or ``verifier.part``."""
    minimum: FiniteFloat
    cap: FiniteFloat
    tasks: tuple[str, ...] | None = None
    """The tasks it holds for; None: all."""

    def verifiers(self, task: str) -> tuple[str, ...]:
        """Those of the other objective, and the floor's."""
        own = (verifier_of(self.score),) if self._holds(task) else ()
        return tuple(dict.fromkeys([*self.base.verifiers(task), *own]))

    def rewards(self, groups_P: Sequence[Group]) -> list[list[Reward]]:
        """Apply the formula of the class."""
        return [[self._floored(trajectory, reward) for trajectory, reward in
                 zip(group.trajectories, rewards, strict=True)]
                for group, rewards in zip(groups_P, self.base.rewards(groups_P), strict=True)]

    def update(self, groups_P: Sequence[Group]) -> Mapping[str, float]:
        """What the other objective learns."""
        return self.base.update(groups_P)

    def state_dict(self) -> dict[str, Any]:
        """What the other objective has learned."""
        return self.base.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the other objective."""
        self.base.load_state_dict(state)

    def _floored(self, trajectory: Trajectory, reward: Reward) -> Reward:
        if not self._holds(trajectory.prompt.task) or not applies(self.score, trajectory.verdicts):
            return reward
        score = score_of(self.score, trajectory.verdicts)
        parts = {short(self.score): score, **reward.parts}
        if reward.total is None or score is None:
            return Reward(None, parts, reward.monitor)
        total = min(reward.total, self.cap) if score < self.minimum else reward.total
        return Reward(total, parts, reward.monitor)

    def _holds(self, task: str) -> bool:
        return self.tasks is None or task in self.tasks
