"""CANON-Eff: conditional advantages by response length (arXiv 2509.23962, eq. 3-5 and 9).

The responses to a prompt are sorted by length and cut into a short and a long half. With m_S and
m_L the halves' mean rewards:

    A_inter = R - alpha m_L       in the short half           (eq. 9; alpha = 1 is eq. 3)
              alpha R - m_S       in the long half
    A_intra = R - mean of the own half                        (eq. 4)
    A       = mu A_inter + (1 - mu) A_intra                   (eq. 5),   no division by a std

mu = 0.5 with alpha = 1 is Dr. GRPO (eq. 7). alpha < 1 adds mu (1 - alpha) m_L to the short half and
takes mu (1 - alpha) R from the long half: length costs only where there is reward to lose, nothing
where all answers fail. Where all are right the short half gets +mu (1 - alpha), the long half
-mu (1 - alpha), however much they differ in length.

mu = 0.5 is the paper's setting for CANON-Eff (its section 5.3), so that alpha is the one
difference from Dr. GRPO; mu = 1 (CANON-Inter) doubles what the halves differ by, mu = 0
(CANON-Intra) ignores alpha. alpha = 0.9 is the example of its section 4.3; its tables have 0.96
(26% fewer tokens at 0.4 points less accuracy) and 0.88, its frontier goes down to 0.5.

SafeWork-R1's length-based estimator CALE (arXiv 2507.18576) is not public in its exact form.
CANON-Eff is its published successor by the same authors, and it is what this file has.

Departures and choices
- Odd groups and tied lengths: half of the group's *weight* is long, and responses of one length
  share what falls to them equally. So the middle one of three belongs to both halves by half, and
  two of equal length on the cut are each half long. The authors' code cuts at row n // 2: the long
  half of an odd group has one more, and which of two equally long responses is punished depends on
  their order in the batch. Here equal length and equal reward mean equal advantage; groups whose
  responses all have one length feel no length at all (alpha = 1 gives Dr. GRPO for every mu); a
  group of one gives exactly 0 (the code compares it with baselines of 0); mu = 0.5 with alpha = 1
  is Dr. GRPO in every group, not in even ones alone; and the advantages of a group always sum to 0.
- alpha weighs rewards above 0 alone. The paper's rewards are 0 and 1, so this changes nothing
  there; with negative rewards for failure (Logic-RL's) eq. 9 would push all-wrong groups towards
  *longer* answers. What a failure earns must be 0 or less for length to cost nothing there.
- mu is a constant: the schedules of the paper's CANON-Dynamic are not built, nor its grouping by
  entropy. Their mu = 1 - batch accuracy needs a reward that is an accuracy.
- The code divides advantages by max_tokens; here that is the ``constant`` normalisation.

Scale: A is in units of the reward, as Dr. GRPO's and unlike GRPO's or CPGD's with the std, which
are about 1 whatever the reward. A recipe that changes the estimator alone changes the size of its
steps: with rewards 0 and 1 the advantages are at most 1, and the length's part of them is at most
mu (1 - alpha) = 0.05.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safeladder.algos.base import Algorithm, Need, RewardTable, broadcast, is_flat, require
from safeladder.algos.ppo_clip import ClippedSurrogate
from safeladder.types import FloatArray


@dataclass(frozen=True)
class CanonEffAdvantage:
    """Reward against the means of the short and the long half, with less weight on the long."""

    mu: float = 0.5
    """Share of the comparison with the other half."""
    alpha: float = 0.9
    """Weight of the long half's rewards; 1: no preference for either half."""

    def __post_init__(self) -> None:
        require(0 <= self.mu <= 1, f"mu must be in [0, 1], got {self.mu}")
        require(0 <= self.alpha <= 1, f"alpha must be in [0, 1], got {self.alpha}")

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing."""
        return frozenset()

    def __call__(self, table: RewardTable) -> list[FloatArray]:
        """One (n_i,) array per row, the same value on each of its tokens."""
        values = np.zeros_like(table.rewards)
        for rows in table.group_rows():
            values[rows] = self._group(table.rewards[rows], long_share(table.lengths[rows]))
        return broadcast(values, table)

    def _group(
        self, rewards: NDArray[np.float64], share: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """(G,) advantages of one group.

        A row that is long by w has w times the advantage of the long half plus 1 - w times that of
        the short half. Collected by m_S and m_L that is one baseline, and alpha's term.
        """
        short, long = _mean(rewards, 1 - share), _mean(rewards, share)
        weight_of_long = self.mu * (1 - share) + (1 - self.mu) * share
        baseline = short + weight_of_long * (long - short)
        earned = rewards.clip(min=0.0)
        pressure = (1 - share) * _mean(earned, share) - share * earned
        values: NDArray[np.float64] = rewards - baseline + self.mu * (1 - self.alpha) * pressure
        return values


def long_share(lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """(G,) how far each row belongs to the long half: 0, 1, or between at the cut.

    The shares sum to G / 2, and rows of equal length have equal shares.
    """
    half = len(lengths) / 2
    below = (lengths[:, None] > lengths[None, :]).sum(axis=1)
    tied = (lengths[:, None] == lengths[None, :]).sum(axis=1)
    share: NDArray[np.float64] = ((below + tied - half) / tied).clip(0.0, 1.0)
    return share


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Weighted mean; exactly the value where all are equal."""
    return float(values[0] if is_flat(values) else np.average(values, weights=weights))


CANON_EFF = Algorithm(
    CanonEffAdvantage(), ClippedSurrogate(eps_low=0.2, eps_high=0.28), normalization="constant")
"""The paper's training: clip-higher, no KL, no entropy bonus, no length bias, as in Dr. GRPO."""
