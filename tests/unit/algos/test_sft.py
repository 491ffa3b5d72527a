import math

import pytest
import torch

from safeladder.algos.sft import NegativeLogLikelihood

from .helpers import evaluate, inputs


def test_nll_by_hand():
    # log pi_old is -2, so ratios e^2/2 and e^2/4 make p = 1/2 and p = 1/4:
    # -log 1/2 = 0.693147, -log 1/4 = 1.386294; the gradient by log p is -1.
    given = inputs([math.e**2 / 2, math.e**2 / 4], [0.0, 0.0])
    values, gradient = evaluate(NegativeLogLikelihood(), given)
    assert values == pytest.approx([0.693147, 1.386294], rel=1e-6)
    assert gradient == [-1.0, -1.0]


def test_advantages_play_no_part_and_nothing_else_is_needed():
    loss = NegativeLogLikelihood()
    assert loss.needs == frozenset()
    plus, minus = (loss(inputs([1.5], [a])).loss for a in (3.0, -3.0))
    assert torch.equal(plus, minus)
