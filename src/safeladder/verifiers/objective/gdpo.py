"""GDPO: every reward normalised on its own before they are added up (arXiv 2601.05242)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, model_validator

from safeladder.types import Group, Reward
from safeladder.verifiers.objective.scores import (
    PartScores,
    Stateless,
    TaskTable,
    monitor_scores,
    part_scores,
)


class GDPO(Stateless, TaskTable):
    r"""Group reward-decoupled normalisation (arXiv 2601.05242).

    With score s_ik of part k on trajectory i of group g(i), weights w_k and n - 1 in every std::

        z_ik  = (s_ik - mean_g s_k) / (std_g s_k + eps)
        a_i   = sum_k w_k z_ik                                  over the parts that apply to i
        total = (a_i - mean a) / (std a + eps)                  over all trajectories of the batch

    So no part drowns the others by its scale, and a group whose better answer is better in two
    parts trains more than one where it is better in one; GRPO, dividing by the std of the sum,
    cannot tell them apart. Where all scores of a part in a group are equal, and in a group of
    one, z is exactly 0.

    The total is an advantage already. Pair it with an algorithm whose advantages only subtract
    the group's mean (``dr_grpo``, ``cpgd`` without division by the std): the mean of a group is 0
    before the last line, so that they leave it alone; dividing by the group's std a second time
    would undo that line. A batch is what one rollout returned, so under dynamic sampling each
    rollout is a batch of its own.

    Departures: a trajectory with a required part unjudged has no total and enters no mean or std;
    a part that does not apply to a trajectory is left out of its sum, not counted as 0 before
    normalising. eps is TRL's; with the paper's own weights all w_k = 1.

    Totals of different batches do not compare: ``Reward.parts`` has the plain scores.
    """

    type: Literal["gdpo"]
    eps: FiniteFloat = Field(default=1e-4, gt=0, description="added to every std")

    @model_validator(mode="after")
    def _no_gates(self) -> GDPO:
        for task, chosen in self.tasks.items():
            if chosen.gates:
                raise ValueError(f"task {task!r} has gates, whose rewards are on the scale of "
                                 "plain scores; put 'type: floor' around gdpo instead")
        return self

    def rewards(self, groups_P: Sequence[Group]) -> list[list[Reward]]:
        """Apply the formula of the class to one batch."""
        scores_P = [[part_scores(self.of(t.prompt.task), t.verdicts) for t in group.trajectories]
                    for group in groups_P]
        sums_P = [self._sums(group, scores) for group, scores in
                  zip(groups_P, scores_P, strict=True)]
        flat = iter(normalised(np.array([a for sums in sums_P for a in sums if a is not None]),
                               self.eps).tolist())
        return [[Reward(None if a is None else next(flat), scores.shown,
                        monitor_scores(self.of(t.prompt.task), t.verdicts))
                 for t, scores, a in zip(group.trajectories, scores_G, sums, strict=True)]
                for group, scores_G, sums in zip(groups_P, scores_P, sums_P, strict=True)]

    def _sums(self, group: Group, scores_G: Sequence[PartScores]) -> list[float | None]:
        """a_i of one group; None without a total."""
        judged = {i: scores.counted for i, scores in enumerate(scores_G)
                  if scores.counted is not None}
        sums: list[float | None] = [0.0 if i in judged else None for i in range(len(scores_G))]
        for key, part in self.of(group.prompt.task).parts.items():
            rows = [i for i, counted in judged.items() if key in counted]
            z = normalised(np.array([judged[i][key] for i in rows]), self.eps)
            for i, value in zip(rows, z.tolist(), strict=True):
                sums[i] = (sums[i] or 0.0) + part.weight * value
        return sums


def normalised(values: NDArray[np.float64], eps: float) -> NDArray[np.float64]:
    """(N,) -> (value - mean) / (std + eps); exactly 0 where all are equal, or there is one."""
    if values.size < 2 or values.max() == values.min():
        return np.zeros_like(values)
    scaled: NDArray[np.float64] = (values - values.mean()) / (values.std(ddof=1) + eps)
    return scaled
