import pytest

from safeladder.algos.kl import KLReward
from safeladder.algos.reinforce_pp import (
    REINFORCE_PP,
    REINFORCE_PP_BASELINE,
    ReinforcePPAdvantage,
    ReinforcePPBaselineAdvantage,
)

from .helpers import evaluate, inputs, table


def test_whitening_weighs_by_tokens_by_hand():
    # Tokens 3, 3, 3, -1: mean 2, variance (1 + 1 + 1 + 9) / 3 = 4, so 0.5 and -1.5.
    advantages = ReinforcePPAdvantage()(table([3, -1], [0, 1], lengths=[3, 1]))
    assert advantages[0].tolist() == pytest.approx([0.5] * 3, rel=1e-6)
    assert advantages[1].tolist() == pytest.approx([-1.5], rel=1e-6)


def test_kl_still_to_come_lowers_the_return_by_hand():
    # coef 1, k1 of row 0: 0.5, 0.25. Returns: 1 - 0.75 = 0.25, 1 - 0.25 = 0.75; row 1: 0.
    # Mean 1/3, variance (0.0069444 + 0.1736111 + 0.1111111) / 2 = 0.1458333, std 0.3818813:
    # -0.0833333 / 0.3818813 = -0.2182179; 0.4166667 / ... = 1.0910895; -0.8728716.
    judged = table([1, 0], [0, 1], lengths=[2, 1], kl=[[0.5, 0.25], [0.0]])
    advantages = ReinforcePPAdvantage(KLReward(coef=1.0, estimator="k1"))(judged)
    assert advantages[0].tolist() == pytest.approx([-0.2182179, 1.0910895], rel=1e-6)
    assert advantages[1].tolist() == pytest.approx([-0.8728716], rel=1e-6)


def test_baseline_variant_by_hand():
    # Group mean 0.5: tokens 0.5, 0.5, 0.5, -0.5; mean 0.25, variance
    # (3 * 0.0625 + 0.5625) / 3 = 0.25, so 0.5 and -1.5 (again weighing by tokens).
    advantages = ReinforcePPBaselineAdvantage()(table([1, 0], lengths=[3, 1]))
    assert advantages[0].tolist() == pytest.approx([0.5] * 3, rel=1e-6)
    assert advantages[1].tolist() == pytest.approx([-1.5], rel=1e-6)


def test_logic_rl_loss_by_hand():
    # r = 1, A = 2: -2. log pi = -2, ref = -2.5: k3 = 0.1065307. Entropy 0.7.
    # -2 + 0.001 * 0.1065307 - 0.001 * 0.7 = -2.0005935; gradient -2 + 0.001 * 0.3934693.
    given = inputs([1.0], [2.0], ref=[-2.5], entropy=[0.7])
    values, gradient = evaluate(REINFORCE_PP.loss, given)
    assert values == pytest.approx([-2.000593469], rel=1e-9)
    assert gradient == pytest.approx([-1.9996065307], rel=1e-9)
    assert REINFORCE_PP.needs == {"old", "ref", "entropy"}
    assert REINFORCE_PP.normalization == "token_mean"


def test_baseline_variant_has_k2_in_the_loss():
    # k2 = 0.125 at u = 0.5: -2 + 0.001 * 0.125; gradient -2 + 0.001 * 0.5.
    values, gradient = evaluate(REINFORCE_PP_BASELINE.loss, inputs([1.0], [2.0], ref=[-2.5]))
    assert values == pytest.approx([-1.999875], rel=1e-9)
    assert gradient == pytest.approx([-1.9995], rel=1e-9)


def test_one_token_and_equal_tokens_are_zero():
    assert ReinforcePPAdvantage()(table([5.0]))[0].tolist() == [0.0]
    # 0.1 has no exact mean; rounding must not be blown up by the division.
    equal = ReinforcePPAdvantage()(table([0.1] * 7, lengths=[3] * 7))
    assert all(row.tolist() == [0.0] * 3 for row in equal)
