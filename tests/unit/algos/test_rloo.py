import math

import pytest

from safeladder.algos.kl import KLReward
from safeladder.algos.rloo import RLOO, RLOOAdvantage, RLOOLoss

from .helpers import evaluate, inputs, table


def test_leave_one_out_by_hand():
    # 1 - (0 + 0 + 1) / 3 = 2/3; 0 - (1 + 0 + 1) / 3 = -2/3.
    advantages = RLOOAdvantage()(table([1, 0, 0, 1], lengths=[2, 1, 1, 1]))
    assert advantages[0].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert [row[0] for row in advantages] == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3])


def test_kl_comes_off_the_reward_before_the_baseline():
    # coef 0.1, k1 sums 0.4, 0, 0, -0.2: R' = 0.96, 0, 0, 1.02.
    # A = 0.96 - 1.02 / 3 = 0.62; 0 - 1.98 / 3 = -0.66; the same; 1.02 - 0.96 / 3 = 0.70.
    judged = table([1, 0, 0, 1], lengths=[2, 1, 1, 1], kl=[[0.1, 0.3], [0], [0], [-0.2]])
    estimator = RLOOAdvantage(KLReward(coef=0.1, estimator="k1"))
    assert [row[0] for row in estimator(judged)] == pytest.approx(
        [0.62, -0.66, -0.66, 0.70], rel=1e-6)
    assert estimator.needs == {"old", "ref"}
    assert RLOO.needs == {"old", "ref"}


def test_sequence_ratio_loss_by_hand():
    # Row 0: d = 0.1 + 0.2, s = exp(0.3) = 1.3498588, A = 1, clipped at 1.2: -1.2, gradient 0.
    # Row 1: d = 0.05 - 0.2, s = exp(-0.15) = 0.8607080, A = 2: -1.7214160.
    # Every token carries its row's loss; with sequence_mean weights 1 / (2 * 2) the sum is
    # (-1.2 - 1.7214160) / 2 = -1.4607080, and each token of row 1 gets -s A / 2 = -0.8607080.
    ratios = [math.exp(d) for d in (0.1, 0.2, 0.05, -0.2)]
    given = inputs(ratios, [1, 1, 2, 2], row=[0, 0, 1, 1])
    values, gradient = evaluate(RLOOLoss(), given, weights=[0.25] * 4)
    assert values == pytest.approx([-1.2, -1.2, -1.7214160, -1.7214160], rel=1e-6)
    assert sum(values) / 4 == pytest.approx(-1.4607080, rel=1e-6)
    assert gradient == pytest.approx([0.0, 0.0, -0.8607080, -0.8607080], rel=1e-6)


def test_clipping_is_reported_for_the_whole_row():
    given = inputs([1.2, 1.2, 1.1], [1, 1, 1], row=[0, 0, 1])
    metrics = RLOOLoss()(given).metrics
    assert metrics["clip_fraction"].tolist() == [1.0, 1.0, 0.0]
    assert metrics["sequence_ratio"].tolist() == pytest.approx([1.44, 1.44, 1.1])
