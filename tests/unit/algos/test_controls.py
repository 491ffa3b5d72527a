import numpy as np

from safeladder.algos.base import RewardTable
from safeladder.algos.controls import ShuffledRewards
from safeladder.algos.presets import build_algorithm


def table():
    return RewardTable(rewards=np.array([3.0, 3, 3, 3, -3, -3, -3, -3]),
                       groups=np.array([0] * 4 + [1] * 4), lengths=np.full(8, 2))


def test_rewards_are_dealt_out_anew_and_always_alike():
    # Dealt as they are, both groups are flat: all advantages 0. Shuffled, they are not.
    algorithm = build_algorithm({"preset": "cpgd", "advantage": {"type": "shuffled", "seed": 1}})
    assert isinstance(algorithm.advantage, ShuffledRewards)
    first = [row.tolist() for row in algorithm.advantage(table())]
    assert first == [row.tolist() for row in algorithm.advantage(table())]
    assert any(value != 0 for row in first for value in row)
    assert first != [row.tolist() for row in ShuffledRewards(seed=2)(table())]


def test_what_stands_behind_it_can_be_set():
    algorithm = build_algorithm({
        "preset": "cpgd", "advantage": {"type": "shuffled", "then": {"weight": "equal"}}})
    assert algorithm.advantage.then.weight == "equal"
