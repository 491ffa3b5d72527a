"""How verdicts become a reward.

An objective is a value (:class:`safeladder.verifiers.base.Objective`): which verifiers judge a
task, and what their verdicts are worth together. Each file has one, with its formula.
"""

from safeladder.verifiers.objective.build import (
    OBJECTIVES,
    AnyObjective,
    build_objective,
    normalises,
    parts_of,
)
from safeladder.verifiers.objective.constrained import Constrained, Constraint
from safeladder.verifiers.objective.deliberative import DeliberativeReward
from safeladder.verifiers.objective.floor import SafetyFloor
from safeladder.verifiers.objective.gdpo import GDPO
from safeladder.verifiers.objective.scores import (
    Gate,
    Part,
    PerTrajectory,
    TaskObjective,
    TaskTable,
)
from safeladder.verifiers.objective.weighted import Weighted

__all__ = [
    "GDPO",
    "OBJECTIVES",
    "AnyObjective",
    "Constrained",
    "Constraint",
    "DeliberativeReward",
    "Gate",
    "Part",
    "PerTrajectory",
    "SafetyFloor",
    "TaskObjective",
    "TaskTable",
    "Weighted",
    "build_objective",
    "normalises",
    "parts_of",
]
