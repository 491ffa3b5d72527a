import pytest

from safeladder.algos.ppo_clip import ClippedSurrogate
from safeladder.errors import ConfigError

from .helpers import evaluate, inputs


def test_clipped_surrogate_by_hand():
    # eps = 0.2; loss = -min(r A, clip(r, 0.8, 1.2) A); gradient by log pi = -r A, or 0 if clipped.
    #    r    A   r A   clip(r) A   loss   gradient
    #   1.0   2   2.0      2.0      -2.0    -2.0
    #   1.5   2   3.0      2.4      -2.4     0      past the bound that A > 0 favours
    #   0.5   2   1.0      1.6      -1.0    -1.0    the unfavourable side is never clipped
    #   1.5  -1  -1.5     -1.2       1.5     1.5
    #   0.5  -1  -0.5     -0.8       0.8     0      past the bound that A < 0 favours
    #   1.1  -1  -1.1     -1.1       1.1     1.1
    #   1.5   0   0        0         0       0
    given = inputs([1.0, 1.5, 0.5, 1.5, 0.5, 1.1, 1.5], [2, 2, 2, -1, -1, -1, 0])
    values, gradient = evaluate(ClippedSurrogate(), given)
    assert values == pytest.approx([-2.0, -2.4, -1.0, 1.5, 0.8, 1.1, 0.0], rel=1e-9)
    assert gradient == pytest.approx([-2.0, 0.0, -1.0, 1.5, 0.0, 1.1, 0.0], rel=1e-9)


def test_clip_higher_moves_the_upper_bound_alone():
    # DAPO's bounds 0.8 and 1.28: at r = 1.25 the gradient lives (-1.25), at 1.3 it does not and
    # the value stays at -1.28; below, A = -1 and r = 0.79 is clipped at 0.8.
    given = inputs([1.25, 1.3, 0.79], [1, 1, -1])
    values, gradient = evaluate(ClippedSurrogate(eps_low=0.2, eps_high=0.28), given)
    assert values == pytest.approx([-1.25, -1.28, 0.8], rel=1e-9)
    assert gradient == pytest.approx([-1.25, 0.0, 0.0], rel=1e-9)


def test_metrics_by_hand():
    # Clipped: r = 1.5 with A = 2, r = 0.5 with A = -1. k3 at r = 1.5: 0.5 - ln 1.5 = 0.0945349;
    # at r = 0.5: -0.5 - ln 0.5 = 0.1931472.
    metrics = ClippedSurrogate()(inputs([1.5, 1.5, 0.5, 0.5], [2, -1, -1, 2])).metrics
    assert metrics["clip_fraction"].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert metrics["kl_old"].tolist() == pytest.approx(
        [0.0945349, 0.0945349, 0.1931472, 0.1931472], rel=1e-6)
    assert metrics["ratio"].tolist() == pytest.approx([1.5, 1.5, 0.5, 0.5])


@pytest.mark.parametrize("settings", [
    {"eps_low": 0.0}, {"eps_low": 1.5}, {"eps_high": -0.1}, {"eps_high": float("nan")}])
def test_impossible_bounds_are_refused(settings: dict[str, float]):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        ClippedSurrogate(**settings)
