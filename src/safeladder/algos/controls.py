"""Controls: estimators that must not teach anything, to compare a real one with."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace

import numpy as np

from safeladder.algos.base import Need, RewardTable
from safeladder.algos.cpgd import CPGDAdvantage
from safeladder.types import FloatArray


@dataclass(frozen=True)
class ShuffledRewards:
    """The same rewards, dealt out at random over the whole rollout, then estimated as usual.

    Everything but the link between an answer and its reward stays: the distribution of rewards,
    the number of updates, the sampling. The permutation depends on the seed and on the table, so
    equal runs stay equal.
    """

    seed: int = 0
    then: CPGDAdvantage = field(default_factory=CPGDAdvantage)

    @property
    def needs(self) -> frozenset[Need]:
        """What the estimator behind it needs."""
        return self.then.needs

    def __call__(self, table: RewardTable) -> list[FloatArray]:
        """One (n_i,) array per row."""
        content = table.rewards.tobytes() + table.lengths.tobytes()
        order = np.random.default_rng([self.seed, zlib.crc32(content)])
        return self.then(replace(table, rewards=order.permutation(table.rewards)))
