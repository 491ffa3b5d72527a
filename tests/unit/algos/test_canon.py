"""CANON-Eff: advantages by hand, what ties and odd groups mean, and the gradients they give."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.algos.canon import CANON_EFF, CanonEffAdvantage, long_share
from safeladder.algos.cpgd import CPGDLoss
from safeladder.algos.dr_grpo import DrGRPOAdvantage
from safeladder.algos.presets import build_algorithm
from safeladder.errors import ConfigError

from .helpers import evaluate, inputs, table


def first(estimator, rewards, lengths, groups=None) -> list[float]:
    """The advantage of each row (of its first token)."""
    return [float(row[0]) for row in estimator(table(rewards, groups, lengths))]


def test_equation_9_by_hand():
    # Short: lengths 1, 2, rewards 1, 0, mean 0.5. Long: lengths 3, 4, rewards 1, 1, mean 1.
    # alpha = 0.9: short 1 - 0.9 = 0.1 and 0 - 0.9 = -0.9; long 0.9 - 0.5 = 0.4 twice.
    rewards, lengths = [1, 1, 0, 1], [4, 1, 2, 3]
    assert first(CanonEffAdvantage(mu=1.0, alpha=0.9), rewards, lengths) == pytest.approx(
        [0.4, 0.1, -0.9, 0.4])
    # Intra: short 1 - 0.5, 0 - 0.5; long 1 - 1 twice. alpha has no say.
    assert first(CanonEffAdvantage(mu=0.0, alpha=0.9), rewards, lengths) == pytest.approx(
        [0.0, 0.5, -0.5, 0.0], abs=1e-7)
    # mu = 0.5: the means of the two. mu = 0.25: a quarter and three quarters.
    assert first(CanonEffAdvantage(), rewards, lengths) == pytest.approx([0.2, 0.3, -0.7, 0.2])
    assert first(CanonEffAdvantage(mu=0.25), rewards, lengths) == pytest.approx(
        [0.1, 0.4, -0.6, 0.1])


def test_every_token_has_its_rows_value_and_groups_do_not_mix():
    # Group 0: lengths 1 and 3, rewards 1, 1: +-0.05. Group 1: lengths 2 and 1, rewards 1, 0:
    # long and right 0.5 (0.9 - 0) + 0.5 (1 - 1) = 0.45; short and wrong 0.5 (0 - 0.9) = -0.45.
    rows = CanonEffAdvantage()(table([1, 1, 1, 0], [0, 1, 0, 1], [1, 2, 3, 1]))
    assert [row.tolist() for row in rows] == [
        pytest.approx([0.05]), pytest.approx([0.45, 0.45]), pytest.approx([-0.05] * 3),
        pytest.approx([-0.45])]


def test_all_right_favours_short_by_mu_times_one_minus_alpha():
    assert first(CanonEffAdvantage(mu=1.0), [1] * 4, [9, 1, 8, 2]) == pytest.approx(
        [-0.1, 0.1, -0.1, 0.1])
    assert first(CanonEffAdvantage(mu=0.5, alpha=0.5), [2] * 4, [9, 1, 8, 2]) == pytest.approx(
        [-0.5, 0.5, -0.5, 0.5])
    assert first(CanonEffAdvantage(alpha=1.0), [0.1] * 4, [9, 1, 8, 2]) == [0.0] * 4


@pytest.mark.parametrize("failure", [0.0, -1.5, -3.0])
def test_where_all_fail_length_costs_nothing(failure: float):
    assert first(CanonEffAdvantage(mu=1.0, alpha=0.5), [failure] * 5, range(1, 6)) == [0.0] * 5


def test_a_failure_below_zero_never_makes_long_answers_better():
    # Rewards 3 for right, -3 for wrong (Logic-RL's). Short: -3, 3; long: -3, -3.
    # alpha = 1, mu = 1: short against -3: 0, 6; long against 0: -3, -3. No reward of the long half
    # is above 0, so alpha = 0.9 changes nothing; eq. 9 to the letter would give the wrong long
    # ones 0.9 * -3 - 0 = -2.7, better off for their length.
    expected = pytest.approx([0.0, 6.0, -3.0, -3.0])
    for alpha in (1.0, 0.9):
        assert first(CanonEffAdvantage(1.0, alpha), [-3, 3, -3, -3], [1, 2, 3, 4]) == expected


def test_the_middle_of_an_odd_group_belongs_to_both_halves():
    # Lengths 1, 2, 3, rewards 1, 0, 1; shares of the long half 0, 1/2, 1.
    # m_S = (1 + 0 / 2) / 1.5 = 2/3, m_L = (0 / 2 + 1) / 1.5 = 2/3. mu = 1, alpha = 0.9:
    # short 1 - 0.9 * 2/3 = 0.4; long 0.9 - 2/3 = 7/30;
    # middle: half of (0 - 0.9 * 2/3) and half of (0 - 2/3): -0.3 - 1/3 = -19/30.
    assert first(CanonEffAdvantage(mu=1.0), [1, 0, 1], [1, 2, 3]) == pytest.approx(
        [0.4, -19 / 30, 7 / 30])


def test_equal_lengths_on_the_cut_are_half_long_each():
    # Rewards 1, 1, 0, 1; shares 0, 1/2, 1/2, 1: m_S = (1 + 1/2) / 2 = m_L = 0.75.
    # mu = 1, alpha = 0.9: short 1 - 0.675 = 0.325; long 0.9 - 0.75 = 0.15; of the two between, the
    # right one the mean of these, 0.2375, the wrong one the mean of -0.675 and -0.75.
    assert first(CanonEffAdvantage(mu=1.0), [1, 1, 0, 1], [1, 2, 2, 3]) == pytest.approx(
        [0.325, 0.2375, -0.7125, 0.15])


@pytest.mark.parametrize(("lengths", "shares"), [
    ([5], [0.5]), ([2, 2], [0.5, 0.5]), ([1, 2], [0, 1]), ([3, 1, 2], [1, 0, 0.5]),
    ([1, 2, 2, 3], [0, 0.5, 0.5, 1]), ([1, 1, 1, 2], [1 / 3, 1 / 3, 1 / 3, 1]),
    # 2.5 of 5 are long: the three of length 2 share them.
    ([1, 1, 2, 2, 2], [0, 0, 5 / 6, 5 / 6, 5 / 6]), ([7, 7, 1, 1], [1, 1, 0, 0])])
def test_shares_of_the_long_half_by_hand(lengths: list[int], shares: list[float]):
    assert long_share(np.array(lengths)).tolist() == pytest.approx(shares)


def test_groups_of_one_length_feel_no_length():
    # Shares 1/2: both means are 0.5. alpha = 1: R - 0.5 whatever mu is.
    for mu in (0.0, 0.3, 1.0):
        assert first(CanonEffAdvantage(mu, 1.0), [1, 0, 0, 1], [7] * 4) == [0.5, -0.5, -0.5, 0.5]
    # alpha = 0.9, mu = 1: half of (1 - 0.45) and half of (0.9 - 0.5): 0.475, on either right row.
    assert first(CanonEffAdvantage(1.0, 0.9), [1, 0, 0, 1], [7] * 4) == pytest.approx(
        [0.475, -0.475, -0.475, 0.475])
    assert first(CanonEffAdvantage(1.0, 0.9), [1] * 3, [7] * 3) == [0.0] * 3


GROUPS = st.lists(st.tuples(st.sampled_from([0.0, 1.0, 0.1, -1.5, 3.0]), st.integers(1, 6)),
                  min_size=1, max_size=9)
SHARE = st.floats(0, 1)


@settings(max_examples=150, deadline=None)
@given(rows=GROUPS)
def test_half_weight_without_alpha_is_dr_grpo(rows: list[tuple[float, int]]):
    rewards, lengths = zip(*rows, strict=True)
    assert first(CanonEffAdvantage(0.5, 1.0), rewards, lengths) == pytest.approx(
        first(DrGRPOAdvantage(), rewards, lengths), rel=1e-6, abs=1e-6)


@settings(max_examples=150, deadline=None)
@given(rows=GROUPS, mu=SHARE, alpha=SHARE, seed=st.integers(0, 99))
def test_order_does_not_matter_groups_sum_to_zero_and_equals_are_equal(
    rows: list[tuple[float, int]], mu: float, alpha: float, seed: int,
):
    estimator = CanonEffAdvantage(mu, alpha)
    rewards, lengths = zip(*rows, strict=True)
    values = first(estimator, rewards, lengths)
    assert sum(values) == pytest.approx(0.0, abs=1e-5)
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    shuffled = first(estimator, [rewards[i] for i in order], [lengths[i] for i in order])
    assert shuffled == pytest.approx([values[i] for i in order], abs=1e-6)
    for row, value in zip(rows, values, strict=True):
        assert value == values[rows.index(row)]


@settings(max_examples=150, deadline=None)
@given(rows=GROUPS, mu=SHARE, alpha=SHARE)
def test_alpha_helps_short_answers_and_never_long_ones(
    rows: list[tuple[float, int]], mu: float, alpha: float,
):
    rewards, lengths = zip(*rows, strict=True)
    shares = long_share(np.array(lengths))
    plain = first(CanonEffAdvantage(mu, 1.0), rewards, lengths)
    weighted = first(CanonEffAdvantage(mu, alpha), rewards, lengths)
    for share, before, after in zip(shares, plain, weighted, strict=True):
        assert share < 1 or after <= before + 1e-6
        assert share > 0 or after >= before - 1e-6


def test_the_gradient_of_two_right_answers_pulls_to_the_short_one():
    # Lengths 1 and 3, both right: +-0.05. On-policy, weights 1 / (2 rows * 4 tokens) = 0.125
    # (constant, L = 4): the short token gets -0.05 / 8, each long token +0.05 / 8.
    advantages = np.concatenate(CanonEffAdvantage()(table([1, 1], lengths=[1, 3])))
    for loss in (CANON_EFF.loss, CPGDLoss()):
        _, gradient = evaluate(
            loss, inputs([1.0] * 4, advantages.tolist(), row=[0, 1, 1, 1]), weights=[0.125] * 4)
        assert gradient == pytest.approx([-0.00625, 0.00625, 0.00625, 0.00625], rel=1e-6)


def test_the_preset_is_the_papers_training_and_composes_with_any_loss():
    assert build_algorithm("canon_eff") == CANON_EFF
    assert CANON_EFF.normalization == "constant" and CANON_EFF.needs == {"old"}
    mixed = build_algorithm(
        {"preset": "cpgd", "advantage": {"type": "canon_eff", "mu": 0.5, "alpha": 0.96}})
    assert mixed.loss == CPGDLoss() and mixed.advantage == CanonEffAdvantage(0.5, 0.96)


@pytest.mark.parametrize("fields", [{"mu": 1.5}, {"mu": -0.1}, {"alpha": 1.1}, {"alpha": -1.0}])
def test_impossible_settings_are_refused(fields: dict[str, float]):
    with pytest.raises(ConfigError, match="must be in"):
        CanonEffAdvantage(**fields)
