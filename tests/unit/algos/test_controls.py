import numpy as np

from safeladder.algos.controls import ShuffledRewards
from safeladder.algos.cpgd import CPGDAdvantage

from .helpers import as_lists, table

REWARDS = [float(x) for x in range(32)]
GROUPS = [i // 4 for i in range(32)]


def test_shuffling_breaks_the_link_and_keeps_the_rewards():
    # One group of all rows, weight equal: the advantage is the reward it was dealt - mean 15.5.
    dealt = np.concatenate(ShuffledRewards(then=CPGDAdvantage("equal"))(table(REWARDS))) + 15.5
    assert sorted(dealt.tolist()) == REWARDS
    assert dealt.tolist() != REWARDS
    assert abs(np.corrcoef(dealt, REWARDS)[0, 1]) < 0.5


def test_the_deal_depends_on_the_seed_and_the_rollout_alone():
    first, again, other = (as_lists(ShuffledRewards(seed=s)(table(REWARDS, GROUPS)))
                           for s in (0, 0, 1))
    assert first == again and first != other
    lengths = [2] * 32
    longer = [row[0] for row in ShuffledRewards()(table(REWARDS, GROUPS, lengths))]
    assert longer != [row[0] for row in first]
