import numpy as np
import pytest
import torch

from safeladder.algos.base import LossInputs, PenalizedLoss
from safeladder.algos.entropy import EntropyBonus
from safeladder.algos.kl import KLPenalty, KLReward
from safeladder.algos.ppo_clip import ClippedSurrogate
from safeladder.errors import ConfigError

from .helpers import evaluate, inputs, table


def test_k3_in_the_loss_by_hand():
    # log pi = -2, ref = -2.5: u = 0.5, k3 = exp(-0.5) - 1 + 0.5 = 0.1065307,
    # gradient 1 - exp(-0.5) = 0.3934693; ref = -1: u = -1, k3 = e - 2 = 0.7182818,
    # gradient 1 - e = -1.7182818. Both times coef 0.1.
    values, gradient = evaluate(KLPenalty(0.1, "k3"), inputs([1, 1], [0, 0], ref=[-2.5, -1.0]))
    assert values == pytest.approx([0.01065307, 0.07182818], rel=1e-6)
    assert gradient == pytest.approx([0.03934693, -0.17182818], rel=1e-6)


def test_k2_in_the_loss_by_hand():
    # u = 0.5: 0.125, gradient 0.5; u = -1: 0.5, gradient -1. Coef 0.1.
    values, gradient = evaluate(KLPenalty(0.1, "k2"), inputs([1, 1], [0, 0], ref=[-2.5, -1.0]))
    assert values == pytest.approx([0.0125, 0.05])
    assert gradient == pytest.approx([0.05, -0.1])


def test_the_estimate_can_be_clamped_and_the_metric_is_not():
    # u = -3: exp(3) - 1 - 3 = 16.0855369, clamped at 10 with gradient 0.
    loss = KLPenalty(1.0, "k3", max_value=10.0)
    given = inputs([1.0], [0.0], ref=[1.0])
    values, gradient = evaluate(loss, given)
    assert values == [10.0] and gradient == [0.0]
    assert loss(given).metrics["kl_ref"].item() == pytest.approx(16.0855369, rel=1e-6)


def test_k1_in_the_loss_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match="k1 in the loss has an expected gradient of 0"):
        KLPenalty(0.1, "k1")
    with pytest.raises(ConfigError, match="k2 is not an unbiased estimate"):
        KLReward(0.1, "k2")


def test_a_missing_reference_or_entropy_is_said():
    with pytest.raises(ValueError, match="ref_logprobs are missing"):
        KLPenalty()(inputs([1.0], [0.0]))
    with pytest.raises(ValueError, match="needs the entropy"):
        EntropyBonus()(inputs([1.0], [0.0]))
    with pytest.raises(ValueError, match="needs a reference"):
        KLReward()(table([1.0]))


def expected_gradient(estimator: str) -> list[float]:
    """The estimator's gradient by the logits, averaged exactly over a three-token policy."""
    logits = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    ref = torch.log_softmax(torch.tensor([-0.4, 0.6, 0.1], dtype=torch.float64), 0)
    logprobs = torch.log_softmax(logits, 0)
    given = LossInputs(logprobs, logprobs.detach(), torch.zeros(3), torch.zeros(3).long(), 1, ref)
    values = (logprobs - ref if estimator == "k1" else KLPenalty(1.0, estimator)(given).loss)
    (gradient,) = torch.autograd.grad((logprobs.detach().exp() * values).sum(), logits)
    return gradient.tolist()


def true_gradient(reverse: bool) -> list[float]:
    logits = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    ref = torch.log_softmax(torch.tensor([-0.4, 0.6, 0.1], dtype=torch.float64), 0)
    new = torch.log_softmax(logits, 0)
    kl = (new.exp() * (new - ref)).sum() if reverse else (ref.exp() * (ref - new)).sum()
    (gradient,) = torch.autograd.grad(kl, logits)
    return gradient.tolist()


def test_what_each_estimator_restrains_when_it_is_a_loss():
    assert expected_gradient("k1") == pytest.approx([0, 0, 0], abs=1e-12)
    assert expected_gradient("k2") == pytest.approx(true_gradient(reverse=True), rel=1e-9)
    assert expected_gradient("k3") == pytest.approx(true_gradient(reverse=False), rel=1e-9)


def test_kl_in_the_reward_by_hand():
    # k1 = 0.5 and -1; k3: exp(-0.5) - 1 + 0.5 = 0.1065307 and e - 2 = 0.7182818. Coef 0.1.
    judged = table([1.0, 0.0], lengths=[2, 0], kl=[[0.5, -1.0], []])
    k1, k3 = KLReward(0.1, "k1")(judged), KLReward(0.1, "k3")(judged)
    assert k1[0].tolist() == pytest.approx([0.05, -0.1])
    assert k3[0].tolist() == pytest.approx([0.01065307, 0.07182818], rel=1e-6)
    assert k1[1].shape == (0,)
    assert np.isfinite(KLReward(1.0, "k3")(table([0.0], kl=[[-500.0]]))[0]).all()


def test_entropy_bonus_by_hand():
    given = inputs([1.0, 1.0], [0, 0], entropy=[0.7, 1.2])
    values = EntropyBonus(0.1)(given).loss
    (gradient,) = torch.autograd.grad(values.sum(), given.entropy)
    assert values.tolist() == pytest.approx([-0.07, -0.12])
    assert gradient.tolist() == pytest.approx([-0.1, -0.1])


def test_penalties_add_up_and_so_do_their_needs_and_metrics():
    # r = 1, A = 2: -2. u = 0.5 with k2: 0.1 * 0.125. Entropy: -0.1 * 0.7.
    loss = PenalizedLoss(ClippedSurrogate(), (KLPenalty(0.1, "k2"), EntropyBonus(0.1)))
    given = inputs([1.0], [2.0], ref=[-2.5], entropy=[0.7])
    output = loss(given)
    assert output.loss.tolist() == pytest.approx([-2 + 0.0125 - 0.07])
    assert loss.needs == {"old", "ref", "entropy"}
    assert {"clip_fraction", "kl_old", "kl_ref"} <= set(output.metrics)
