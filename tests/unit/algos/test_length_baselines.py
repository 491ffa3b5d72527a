"""What CANON-Eff is compared with: a plain penalty, and right answers that pay for length."""

import pytest

from safeladder.algos.efficient_reasoning import EfficientReasoningAdvantage
from safeladder.algos.kl import KLReward
from safeladder.algos.length_penalty import LengthPenalty
from safeladder.algos.ppo_clip import ClippedSurrogate
from safeladder.algos.presets import build_algorithm
from safeladder.algos.rloo import RLOOAdvantage
from safeladder.errors import ConfigError

from .helpers import evaluate, inputs, table


def test_the_plain_penalty_by_hand():
    # 0.2 of the limit of 100 tokens, and no more beyond it.
    terms = [LengthPenalty(coef=0.2)(tokens, 100) for tokens in (0, 25, 100, 120)]
    assert terms == pytest.approx([0.0, -0.05, -0.2, -0.2], abs=1e-12)


def test_right_answers_pay_by_their_relative_length_by_hand():
    # Right answers have 2, 4 and 6 tokens: mean 4, std sqrt(8 / 3), z = -+sqrt(3 / 2) and 0;
    # sigmoid 0.2271025, 0.5, 0.7728975. coef 0.2: R' = 0.9545795, 0.9, 0.8454205; wrong stays 0.
    # Sum 2.7. Leave-one-out over 4 rows: R' - (2.7 - R') / 3 = (4 R' - 2.7) / 3:
    # 0.3727727, 0.3, 0.2272273, and -0.9 for the wrong one, whatever its length.
    estimator = EfficientReasoningAdvantage(coef=0.2)
    for wrong_length in (1, 9):
        rows = estimator(table([1, 1, 0, 1], lengths=[2, 6, wrong_length, 4]))
        assert [row[0] for row in rows] == pytest.approx(
            [0.3727727, 0.2272273, -0.9, 0.3], rel=1e-6)
    # On-policy PPO gradient: minus the advantage.
    _, gradient = evaluate(
        ClippedSurrogate(), inputs([1.0] * 4, [row[0] for row in rows], row=range(4)))
    assert gradient == pytest.approx([-0.3727727, -0.2272273, 0.9, -0.3], rel=1e-6)


def test_a_single_right_answer_pays_half_of_the_term_and_partial_credit_none():
    # Rewards 1, 0.5, 0 with minimum 1: 1 - 0.1 / 2 = 0.95. A = 0.95 - 0.25 = 0.7;
    # 0.5 - 0.475 = 0.025; 0 - 0.725.
    rows = EfficientReasoningAdvantage(coef=0.1)(table([1, 0.5, 0], lengths=[5, 9, 1]))
    assert [row[0] for row in rows] == pytest.approx([0.7, 0.025, -0.725])


def test_a_right_answer_is_not_lost_to_rounding():
    # 0.7 + 0.2 + 0.1 = 0.9999999999999999 is 1: 1 - 0.1 / 2 = 0.95; A = 0.95 - 0 and 0 - 0.95.
    rows = EfficientReasoningAdvantage(coef=0.1)(table([0.7 + 0.2 + 0.1, 0.0]))
    assert 0.7 + 0.2 + 0.1 < 1
    assert [row[0] for row in rows] == pytest.approx([0.95, -0.95], rel=1e-6)


@pytest.mark.parametrize("spec", [
    {"preset": "dapo"}, {"preset": "rloo", "overlong": {"type": "length_penalty"}}])
def test_a_length_term_would_make_right_answers_wrong(spec):
    spec = {**spec, "advantage": {"type": "efficient_reasoning"}}
    with pytest.raises(ConfigError, match="overlong takes right answers below the minimum"):
        build_algorithm(spec)
    assert build_algorithm({**spec, "overlong": None}).overlong is None


def test_right_answers_of_one_length_differ_in_nothing():
    rows = EfficientReasoningAdvantage()(table([3, 3, 3], lengths=[4, 4, 4]))
    assert [row.tolist() for row in rows] == [[0.0] * 4] * 3


def test_every_prompt_has_its_own_lengths():
    # Two prompts, each with a short and a long right answer: z = -+1 in both, though the lengths of
    # the second are far apart. sigmoid(1) - sigmoid(-1) = tanh(1 / 2); coef 0.1, two rows:
    # A = +-0.1 tanh(1 / 2) = +-0.0462117.
    rows = EfficientReasoningAdvantage(coef=0.1)(table([1] * 4, [0, 0, 1, 1], [3, 4, 10, 900]))
    size = 0.0462117
    assert [row[0] for row in rows] == pytest.approx([size, -size, size, -size], rel=1e-6)


def test_kl_comes_off_after_the_length():
    # Both right and of one length: 0.95 each. k1 sums 0.2 and 0, coef 1: 0.75 and 0.95.
    estimator = EfficientReasoningAdvantage(then=RLOOAdvantage(KLReward(coef=1.0)))
    rows = estimator(table([1, 1], lengths=[1, 1], kl=[[0.2], [0.0]]))
    assert [row[0] for row in rows] == pytest.approx([-0.2, 0.2], rel=1e-6)
    assert estimator.needs == {"old", "ref"} and EfficientReasoningAdvantage().needs == frozenset()


@pytest.mark.parametrize("make", [
    lambda: LengthPenalty(coef=-0.1), lambda: LengthPenalty(coef=float("inf")),
    lambda: EfficientReasoningAdvantage(coef=1.0),
    lambda: EfficientReasoningAdvantage(minimum=0.0)])
def test_impossible_settings_are_refused(make):
    with pytest.raises(ConfigError):
        make()
