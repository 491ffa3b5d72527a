"""GRPO, Dr. GRPO and DAPO: what they add to PPO's clip."""

import pytest

from safeladder.algos.dapo import DAPO, SoftOverlong
from safeladder.algos.dr_grpo import DrGRPOAdvantage
from safeladder.algos.grpo import GRPO, GRPOAdvantage
from safeladder.errors import ConfigError

from .helpers import as_lists, evaluate, inputs, table


def test_grpo_advantages_by_hand():
    # mean 0.5, std sqrt(4 * 0.25 / 3) = 0.5773503: 0.5 / (0.5773503 + 0.0001) = 0.8658754.
    # Second group: rewards 3 and -1, mean 1, std sqrt(8) = 2.8284271: 2 / 2.8285271 = 0.7070818.
    judged = table([1, 0, 3, 0, 1, -1], [0, 0, 1, 0, 0, 1], lengths=[2, 1, 1, 1, 1, 1])
    advantages = GRPOAdvantage()(judged)
    assert advantages[0].tolist() == pytest.approx([0.8658754, 0.8658754], rel=1e-6)
    assert [row[0] for row in advantages] == pytest.approx(
        [0.8658754, -0.8658754, 0.7070818, -0.8658754, 0.8658754, -0.7070818], rel=1e-6)


def test_dr_grpo_advantages_by_hand():
    # Rewards 3, -1, 1 have mean 1; no std.
    assert as_lists(DrGRPOAdvantage()(table([3, -1, 1], lengths=[1, 2, 1]))) == [
        [2.0], [-2.0, -2.0], [0.0]]


def test_grpo_adds_beta_k3_to_the_surrogate():
    # r = 1.1, A = 1: -1.1. log pi = -2 + ln 1.1 = -1.9046898, ref = -2: u = 0.0953102,
    # k3 = exp(-u) - 1 + u = 1 / 1.1 - 1 + 0.0953102 = 0.0044011; 0.04 k3 = 0.0001760.
    # Gradient: -1.1 + 0.04 (1 - 1 / 1.1) = -1.1 + 0.0036364 = -1.0963636.
    values, gradient = evaluate(GRPO.loss, inputs([1.1], [1.0], ref=[-2.0]))
    assert values == pytest.approx([-1.1 + 0.04 * 0.0044010889], rel=1e-9)
    assert gradient == pytest.approx([-1.0963636], rel=1e-6)
    assert GRPO.needs == {"old", "ref"}


@pytest.mark.parametrize(("tokens", "term"), [
    (0, 0.0), (80, 0.0), (85, -0.25), (90, -0.5), (100, -1.0), (120, -1.0)])
def test_soft_overlong_by_hand(tokens: int, term: float):
    # L = 100 tokens, C = 20: 0 up to 80, then (80 - n) / 20, -1 from 100 on.
    assert SoftOverlong()(tokens, 100) == pytest.approx(term, abs=1e-12)


def test_soft_overlong_is_the_papers_at_its_limits():
    # L = 20480, C = 4096: 16384 tokens are free, 18432 cost half.
    assert SoftOverlong()(16384, 20480) == pytest.approx(0.0, abs=1e-12)
    assert SoftOverlong()(18432, 20480) == pytest.approx(-0.5)
    assert SoftOverlong(scale=0.5)(20480, 20480) == pytest.approx(-0.5)


def test_dapo_is_the_whole_recipe():
    assert DAPO.dynamic_sampling and DAPO.mask_truncated and DAPO.overlong == SoftOverlong()
    assert DAPO.normalization == "token_mean"
    assert DAPO.needs == {"old"}


@pytest.mark.parametrize("make", [
    lambda: SoftOverlong(cache_share=0.0), lambda: SoftOverlong(scale=-1.0),
    lambda: GRPOAdvantage(std_eps=0.0)])
def test_impossible_settings_are_refused(make):
    with pytest.raises(ConfigError):
        make()
