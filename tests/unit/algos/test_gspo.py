import math

import pytest

from safeladder.algos.gspo import GSPO, GSPOLoss

from .helpers import evaluate, inputs


def test_length_normalised_ratio_by_hand():
    # eps = 0.2. Row 0: mean d = (0.1 + 0.2) / 2, s = exp(0.15) = 1.1618342, A = 1: -1.1618342;
    # gradient of the mean over 2 rows by each of its 2 tokens: -s A / (2 * 2) = -0.2904586.
    # Row 1: mean d = (0.05 - 0.65) / 2, s = exp(-0.3) = 0.7408182, A = -1: clipped at 0.8, 0.8.
    # Mean over rows: (-1.1618342 + 0.8) / 2 = -0.1809171.
    ratios = [math.exp(d) for d in (0.1, 0.2, 0.05, -0.65)]
    given = inputs(ratios, [1, 1, -1, -1], row=[0, 0, 1, 1])
    values, gradient = evaluate(GSPOLoss(0.2, 0.2), given, weights=[0.25] * 4)
    assert values == pytest.approx([-1.1618342, -1.1618342, 0.8, 0.8], rel=1e-6)
    assert sum(values) / 4 == pytest.approx(-0.1809171, rel=1e-6)
    assert gradient == pytest.approx([-0.2904586, -0.2904586, 0.0, 0.0], rel=1e-6)


def test_a_row_of_one_token_is_ppo_clip():
    values, gradient = evaluate(GSPOLoss(0.2, 0.2), inputs([1.1, 1.3], [1, 1], row=[0, 1]))
    assert values == pytest.approx([-1.1, -1.2])
    assert gradient == pytest.approx([-1.1, 0.0])


def test_the_papers_bounds_are_tight():
    # exp(5e-4) = 1.0005 is past 1 + 4e-4, exp(-3.5e-4) past 1 - 3e-4.
    metrics = GSPO.loss(inputs([1.0005, 0.99965, 1.0003], [1, -1, 1], row=[0, 1, 2])).metrics
    assert metrics["clip_fraction"].tolist() == [1.0, 1.0, 0.0]
