import math

import pytest
import torch

from safeladder.algos.cpgd import CPGDAdvantage, CPGDLoss
from safeladder.errors import ConfigError

from .helpers import OLD, as_lists, evaluate, inputs, table


def test_equation_2_by_hand():
    # eps = 0.2, alpha = 0.5, c = 2, log pi_old = -2, d = ln r, new = -2 + d, w = min(r - 1, 2).
    # loss = -Phi + 0.5 w new, gradient = -(A, or 0 past the favourable bound) + 0.5 w.
    #    r    A   Phi                           0.5 w new                        loss       grad
    #   1.1   2   2 (0.0953102)   =  0.1906204  0.05 (-1.9046898) = -0.0952345  -0.2858549  -1.95
    #   1.5   2   2 ln 1.2        =  0.3646431  0.25 (-1.5945349) = -0.3986337  -0.7632768   0.25
    #   0.5   2   2 (-0.6931472)  = -1.3862944 -0.25 (-2.6931472) =  0.6732868   2.0595812  -2.25
    #   0.5  -1  -ln 0.8          =  0.2231436 -0.25 (-2.6931472) =  0.6732868   0.4501432  -0.25
    #   4.0  -1  -ln 4            = -1.3862944  1.00 (-0.6137056) = -0.6137056   0.7725887   2.0
    #   1.5   0   0                             0.25 (-1.5945349) = -0.3986337  -0.3986337   0.25
    given = inputs([1.1, 1.5, 0.5, 0.5, 4.0, 1.5], [2, 2, 2, -1, -1, 0])
    values, gradient = evaluate(CPGDLoss(eps=0.2, drift_coef=0.5, drift_cap=2.0), given)
    assert values == pytest.approx(
        [-0.2858549, -0.7632768, 2.0595812, 0.4501432, 0.7725887, -0.3986337], rel=1e-6)
    assert gradient == pytest.approx([-1.95, 0.25, -2.25, -0.25, 2.0, 0.25], rel=1e-9)


def test_on_policy_the_drift_has_no_gradient_and_phi_has_minus_a():
    _, gradient = evaluate(CPGDLoss(drift_coef=7.0), inputs([1.0, 1.0, 1.0], [2, -3, 0]))
    assert gradient == [-2.0, 3.0, 0.0]


def test_beyond_the_favourable_bound_only_the_drift_is_left():
    # A > 0 above ln 1.2, A < 0 below ln 0.8; alpha = 0: gradient 0. The other side keeps -A,
    # without a ratio in front (PPO has 100 here).
    given = inputs([1.21, 0.79, 0.001, 100.0], [1, -1, 1, -1])
    _, gradient = evaluate(CPGDLoss(drift_coef=0.0), given)
    assert gradient == [0.0, 0.0, -1.0, 1.0]


def test_the_drift_gradient_is_capped_at_alpha_c():
    # r = e^1000 overflows a float; the weight is min(r - 1, c) = 2 and alpha = 0.01: 0.02.
    given = inputs([math.inf], [0.0])
    given.logprobs.data.fill_(OLD + 1000)
    values, gradient = evaluate(CPGDLoss(), given)
    assert gradient == pytest.approx([0.01 * 2.0])
    assert math.isfinite(values[0])


def test_values_differ_from_the_authors_code_by_a_constant_and_gradients_do_not():
    # Theirs clamps log pi itself at log pi_old + ln(1 +- eps): A log pi_old more, same slope.
    given = inputs([1.1, 1.5, 0.5, 0.7], [2, 2, -1, 1.5])
    new, old, a = given.logprobs, given.old_logprobs, given.advantages
    clamped = torch.where(a > 0, torch.minimum(new, old + math.log(1.2)),
                          torch.maximum(new, old + math.log(0.8)))
    theirs = -clamped * a
    (their_gradient,) = torch.autograd.grad(theirs.sum(), new)
    values, gradient = evaluate(CPGDLoss(eps=0.2, drift_coef=0.0), given)
    assert values == pytest.approx((theirs + a * old).tolist(), rel=1e-12)
    assert gradient == pytest.approx(their_gradient.tolist(), rel=1e-12)


def test_the_bound_goes_from_tight_to_loose():
    # lambda = 0.5, eps = 0.2, |y| = 2: eps_1 = 0.2 (0.5 + 0.5 / 2) = 0.15, eps_2 = 0.2.
    # r = 1.18 is past the first bound (ln 1.15 = 0.1397619), within the second (0.1655144).
    # The second row has one token, so its bound is 0.2 at once; rows are interleaved.
    loss = CPGDLoss(eps=0.2, drift_coef=0.0, first_eps_share=0.5)
    given = inputs([1.18, 1.18, 1.18], [1, 1, 1], row=[0, 1, 0])
    values, gradient = evaluate(loss, given)
    assert values == pytest.approx([-0.1397619, -0.1655144, -0.1655144], rel=1e-6)
    assert gradient == [0.0, -1.0, -1.0]


def test_metrics():
    metrics = CPGDLoss(drift_cap=2.0)(inputs([1.3, 0.7, 4.0, 1.3], [1, -1, -1, 0])).metrics
    assert metrics["clip_fraction"].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert metrics["drift_capped"].tolist() == [0.0, 0.0, 1.0, 0.0]
    # 0.3 - ln 1.3 = 0.0376357
    assert metrics["kl_old"][0].item() == pytest.approx(0.0376357, rel=1e-6)


REWARDS, GROUPS = [1, 0, 0, 1, 1, 1], [0, 0, 0, 0, 7, 7]


def test_advantage_weights_by_hand():
    # Group 0: mean 0.5, centred +-0.5, std (over n - 1) sqrt(4 * 0.25 / 3) = 0.5773503.
    # Group 7 is flat: 0. clip_filter: 2 prompts, 1 with a signal, omega = 2.
    judged = table(REWARDS, GROUPS, lengths=[2, 1, 1, 1, 1, 1])
    equal = CPGDAdvantage("equal")(judged)
    assert as_lists(equal) == [[0.5, 0.5], [-0.5], [-0.5], [0.5], [0.0], [0.0]]
    std = CPGDAdvantage("std")(judged)
    assert [row[0] for row in std] == pytest.approx(
        [0.8660254, -0.8660254, -0.8660254, 0.8660254, 0, 0], rel=1e-6)
    clip_filter = CPGDAdvantage("clip_filter")(judged)
    assert as_lists(clip_filter) == [[1.0, 1.0], [-1.0], [-1.0], [1.0], [0.0], [0.0]]


def test_clip_filter_counts_prompts_over_the_whole_rollout_and_is_capped():
    # 5 prompts, 1 with a signal: min(3, 5) = 3; 3 prompts, 2 with a signal: 1.5.
    one = table([1, 0, 1, 1, 1, 1], [0, 0, 1, 2, 3, 4])
    assert CPGDAdvantage("clip_filter")(one)[0].tolist() == [1.5]
    two = table([1, 0, 4, 2, 5], [0, 0, 1, 1, 2])
    assert as_lists(CPGDAdvantage("clip_filter")(two)) == [[0.75], [-0.75], [1.5], [-1.5], [0.0]]


def test_clip_filter_of_a_rollout_without_signal_is_zero():
    assert as_lists(CPGDAdvantage("clip_filter")(table([1, 1, 0, 0], [0, 0, 1, 1]))) == [[0.0]] * 4


@pytest.mark.parametrize("make", [
    lambda: CPGDLoss(eps=1.0), lambda: CPGDLoss(eps=0.0), lambda: CPGDLoss(drift_coef=-1.0),
    lambda: CPGDLoss(drift_cap=0.0), lambda: CPGDLoss(first_eps_share=1.1),
    lambda: CPGDAdvantage("sqrt"), lambda: CPGDAdvantage(weight_cap=0.5)])
def test_impossible_settings_are_refused(make):
    with pytest.raises(ConfigError):
        make()
