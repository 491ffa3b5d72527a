import pytest

from safeladder.algos.cispo import CISPOLoss
from safeladder.errors import ConfigError

from .helpers import evaluate, inputs


def test_cispo_by_hand():
    # max_ratio = 2, log pi = -2 + ln r; loss = -min(r, 2) A log pi; gradient = -min(r, 2) A.
    #    r    A   weight   log pi       loss                             gradient
    #   1.5   1    1.5    -1.5945349   -1.5 (-1.5945349)  =  2.3918024    -1.5
    #   4.0  -1    2.0    -0.6137056    2.0 (-0.6137056)  = -1.2274113     2.0   clipped, not lost
    #   0.1   2    0.1    -4.3025851   -0.2 (-4.3025851)  =  0.8605170    -0.2   no lower bound
    given = inputs([1.5, 4.0, 0.1], [1, -1, 2])
    values, gradient = evaluate(CISPOLoss(max_ratio=2.0), given)
    assert values == pytest.approx([2.3918024, -1.2274113, 0.8605170], rel=1e-6)
    assert gradient == pytest.approx([-1.5, 2.0, -0.2], rel=1e-9)


def test_the_bound_is_the_ratio_itself():
    metrics = CISPOLoss(max_ratio=5.0)(inputs([4.9, 5.1, 5.1], [1, 1, -1])).metrics
    assert metrics["clip_fraction"].tolist() == [0.0, 1.0, 1.0]
    with pytest.raises(ConfigError, match="max_ratio"):
        CISPOLoss(max_ratio=0.2)
