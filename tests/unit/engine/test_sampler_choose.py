"""Drawing tokens: what temperature, top-k, top-p and minimum length leave, and how often."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from safeladder.engine.base import SamplingParams
from safeladder.engine.local import native
from safeladder.engine.local.choose import ChoiceSettings, Chosen, choose, uniforms
from safeladder.engine.local.native import Kernels
from safeladder.errors import SamplingError

# p = 1/2, 1/4, 1/8, 1/16, 1/16 of tokens 3, 0, 4, 1, 2
LOGITS = torch.tensor([math.log(4), 0.0, 0.0, math.log(8), math.log(2)]) + 7
PROBABILITIES = [1 / 4, 1 / 16, 1 / 16, 1 / 2, 1 / 8]


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kernels | None:
    """Every test draws with the compiled code and with torch operators."""
    found = native.kernels() if request.param == "compiled" else None
    if request.param == "compiled" and found is None:
        pytest.skip("no C compiler on this machine")
    monkeypatch.setitem(globals(), "KERNELS", found)
    return found


KERNELS: Kernels | None = None


def draw(uniform: list[float], too_short: tuple[int, ...] = (), **params: object) -> Chosen:
    rows = [SamplingParams(max_tokens=9, **params)] * len(uniform)  # type: ignore[arg-type]
    settings = ChoiceSettings.of(rows, len(LOGITS), torch.device("cpu"))
    return choose(LOGITS.repeat(len(uniform), 1), settings,
                  torch.tensor(uniform, dtype=torch.float64), too_short, KERNELS)


def test_a_token_owns_its_share_of_the_unit_interval() -> None:
    edges = np.cumsum([0, *PROBABILITIES])
    eps = 1e-6
    low = draw([float(edge) + eps for edge in edges[:-1]])
    high = draw([float(edge) - eps for edge in edges[1:]])
    assert low.tokens.tolist() == high.tokens.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(low.logprobs, np.log(PROBABILITIES), rtol=1e-6)


def test_temperature_changes_draw_and_logprob() -> None:
    # at temperature 1/2 the weights are squared: 16, 1, 1, 64, 4 of 86
    chosen = draw([0.0, 0.2, 0.99], temperature=0.5)
    assert chosen.tokens.tolist() == [0, 2, 4]
    np.testing.assert_allclose(chosen.logprobs, np.log(np.array([16, 1, 4]) / 86), rtol=1e-5)


def test_greedy_takes_the_mode_and_reports_temperature_one() -> None:
    chosen = draw([0.01, 0.99], temperature=0.0)
    assert chosen.tokens.tolist() == [3, 3]
    np.testing.assert_allclose(chosen.logprobs, [math.log(0.5)] * 2, rtol=1e-6)


def test_top_k_renormalises_but_logprobs_are_full() -> None:
    # 0 and 3 are left with 1/3 and 2/3
    chosen = draw([0.32, 0.34, 0.99], top_k=2)
    assert chosen.tokens.tolist() == [0, 3, 3]
    np.testing.assert_allclose(chosen.logprobs, np.log([1 / 4, 1 / 2, 1 / 2]), rtol=1e-6)


def test_top_k_keeps_ties_at_the_border() -> None:
    assert set(draw([0.0, 0.3, 0.35, 0.5, 0.99], top_k=4).tokens.tolist()) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(("top_p", "left"), [
    (0.4, {3}), (0.499, {3}), (0.501, {3, 0}), (0.76, {3, 0, 4}), (1e-9, {3})])
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p: float, left: set[int]) -> None:
    grid = [i / 200 for i in range(200)]
    assert set(draw(grid, top_p=top_p).tokens.tolist()) == left


def test_top_p_counts_what_top_k_left() -> None:
    # after top-k 2 the shares are 2/3 and 1/3: 0.6 is reached by the first alone
    assert set(draw([0.0, 0.5, 0.99], top_k=2, top_p=0.6).tokens.tolist()) == {3}


def test_stop_tokens_are_not_drawn_before_the_minimum() -> None:
    grid = [i / 50 for i in range(50)]
    chosen = draw(grid, too_short=tuple(range(50)), stop_token_ids=(3,), min_tokens=4)
    assert 3 not in chosen.tokens
    # the others share the whole interval, their log-probabilities are the model's own
    assert chosen.tokens[0] == 0 and math.isclose(chosen.logprobs[0], math.log(1 / 4), rel_tol=1e-5)
    assert draw([0.01], too_short=(0,), stop_token_ids=(3,), temperature=0.0).tokens.tolist() == [0]
    assert 3 in draw(grid, too_short=(0,), stop_token_ids=(3,)).tokens[1:]


def test_a_stop_token_that_holds_all_probability_is_still_not_drawn() -> None:
    logits = torch.tensor([[0.0, 300.0, 0.0]])
    rows = [SamplingParams(max_tokens=2, min_tokens=2, stop_token_ids=(1,))]
    settings = ChoiceSettings.of(rows, 3, torch.device("cpu"))
    chosen = choose(logits, settings, torch.tensor([0.7], dtype=torch.float64), [0], KERNELS)
    assert chosen.tokens.tolist() == [2] and chosen.logprobs[0] == -300


def test_rows_may_differ_in_every_parameter() -> None:
    rows = [SamplingParams(9), SamplingParams(9, temperature=0.0), SamplingParams(9, top_k=1),
            SamplingParams(9, top_p=0.5), SamplingParams(9, temperature=0.5)]
    settings = ChoiceSettings.of(rows, len(LOGITS), torch.device("cpu"))
    uniform = torch.full((5,), 0.99, dtype=torch.float64)
    mixed = choose(LOGITS.repeat(5, 1), settings, uniform, (), KERNELS)
    assert mixed.tokens.tolist() == [4, 3, 3, 3, 4]
    np.testing.assert_allclose(
        mixed.logprobs, np.log([1 / 8, 1 / 2, 1 / 2, 1 / 2, 4 / 86]), rtol=1e-5)


def test_the_largest_uniform_never_draws_an_impossible_token() -> None:
    logits = torch.tensor([[0.0, 0.0, float("-inf"), float("-inf")]])
    settings = ChoiceSettings.of([SamplingParams(1)], 4, torch.device("cpu"))
    largest = torch.tensor([np.nextafter(1.0, 0.0)], dtype=torch.float64)
    assert choose(logits, settings, largest, (), KERNELS).tokens.tolist() == [1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_an_error(bad: float) -> None:
    settings = ChoiceSettings.of([SamplingParams(1)], 2, torch.device("cpu"))
    with pytest.raises(SamplingError, match="not finite"):
        choose(torch.tensor([[0.0, bad]]), settings, torch.zeros(1, dtype=torch.float64), (),
               KERNELS)


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0, 3.0])
def test_compiled_and_torch_draws_are_the_same(
    temperature: float, kernels: Kernels | None,
) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = 9 * torch.randn(300, 700, generator=generator)
    uniform = torch.rand(300, dtype=torch.float64, generator=generator)
    settings = ChoiceSettings.of([SamplingParams(1, temperature=temperature)] * 300, 700,
                                 torch.device("cpu"))
    one = choose(logits, settings, uniform, (), kernels)
    two = choose(logits, settings, uniform)
    assert torch.equal(one.tokens, two.tokens)
    torch.testing.assert_close(one.logprobs, two.logprobs, atol=1e-5, rtol=1e-6)


def test_draws_follow_the_distribution() -> None:
    """Chi-square, 4 degrees of freedom: 18.5 is exceeded once in a thousand."""
    count = 20000
    chosen = draw(uniforms(seed=12, row=3, count=count).tolist())
    seen = np.bincount(chosen.tokens.numpy(), minlength=5)
    expected = count * np.array(PROBABILITIES)
    assert ((seen - expected) ** 2 / expected).sum() < 18.5


def test_streams_differ_by_seed_and_row_and_continue() -> None:
    assert np.array_equal(uniforms(1, 2, 50)[:20], uniforms(1, 2, 20))
    streams = {tuple(uniforms(seed, row, 4)) for seed in (-1, 0, 1, 2**40) for row in range(4)}
    assert len(streams) == 16
    # a stream is part of what makes a run reproducible
    np.testing.assert_allclose(uniforms(0, 0, 2), REFERENCE, rtol=0, atol=1e-12)


REFERENCE = np.random.Generator(np.random.Philox(key=0)).random(2)
