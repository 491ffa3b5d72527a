"""The additive objective: a weighted sum per task, behind gates."""

from __future__ import annotations

from typing import Literal

from safeladder.types import Reward, Trajectory
from safeladder.verifiers.objective.scores import (
    PerTrajectory,
    TaskTable,
    monitor_scores,
    part_scores,
    score_of,
)


class Weighted(PerTrajectory, TaskTable):
    r"""A weighted sum per task, behind gates.

    With scores s_k, weights w_k, stand-ins d_k and gates g (minimum m_g, otherwise o_g)::

        total = None                  if the score of a gate is unjudged
              = o_g                   of the first gate g with s_g < m_g
              = None                  if a part without stand-in is unjudged
              = sum_k w_k s_k         over the parts that apply (d_k for s_k where unjudged)

    A part whose verifier says "not applicable" drops out of the sum; if none applies, the total
    is None. ``Reward.parts`` holds the unweighted s_k, None where unjudged. SafeLadder's recipe
    (arXiv 2507.18576: format, task verifier, helpfulness) is one of these; ``docs/verifiers.md``
    has it.
    """

    type: Literal["weighted"] = "weighted"

    def reward(self, trajectory: Trajectory) -> Reward:
        """Apply the formula of the class."""
        chosen, verdicts = self.of(trajectory.prompt.task), trajectory.verdicts
        parts, counted = part_scores(chosen, verdicts)
        monitor = monitor_scores(chosen, verdicts)
        for key, gate in chosen.gates.items():
            score = score_of(key, verdicts)
            if score is None:
                return Reward(None, parts, monitor)
            if score < gate.minimum:
                return Reward(gate.otherwise, parts, monitor)
        if counted is None:
            return Reward(None, parts, monitor)
        total = 0.0
        for key, score in counted.items():
            total += chosen.parts[key].weight * score
        return Reward(total, parts, monitor)
