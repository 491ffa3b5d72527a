"""What holds for all of them: edges, invariants, metrics, and micro-batching."""

import pickle
from collections.abc import Iterable
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.algos.base import LossInputs, PolicyLoss, RewardTable, flatten
from safeladder.algos.presets import ADVANTAGES, LOSSES, PRESETS
from safeladder.algos.sft import NegativeLogLikelihood
from safeladder.types import Batch, Datum, Normalization

from .helpers import evaluate, inputs, table

GROUP_RELATIVE = ["cpgd", "grpo", "dr_grpo", "rloo"]


@pytest.mark.parametrize("name", ADVANTAGES)
def test_an_empty_table_gives_no_advantages(name: str):
    assert ADVANTAGES[name]()(table([])) == []


@pytest.mark.parametrize("name", ADVANTAGES)
def test_equal_rewards_give_exactly_zero(name: str):
    advantages = ADVANTAGES[name]()(table([0.1] * 6, [0, 0, 0, 1, 1, 1], lengths=[2] * 6))
    assert all(row.tolist() == [0.0, 0.0] for row in advantages)


@pytest.mark.parametrize(
    "name", [*GROUP_RELATIVE, "reinforce_pp_baseline", "canon_eff", "efficient_reasoning"])
def test_a_group_of_one_gives_exactly_zero(name: str):
    advantages = ADVANTAGES[name]()(table([3.0, -1.0], [0, 1]))
    assert [row.tolist() for row in advantages] == [[0.0], [0.0]]


@pytest.mark.parametrize("name", ADVANTAGES)
def test_a_row_without_trained_tokens_gets_an_empty_array(name: str):
    advantages = ADVANTAGES[name]()(table([1.0, 0.0, 1.0], lengths=[2, 0, 1]))
    assert [row.shape for row in advantages] == [(2,), (0,), (1,)]


TABLES = st.lists(
    st.tuples(st.floats(-1e6, 1e6), st.integers(0, 3), st.integers(0, 4)), max_size=12)


@pytest.mark.parametrize("name", ADVANTAGES)
@settings(max_examples=40, deadline=None)
@given(rows=TABLES)
def test_advantages_are_finite_and_fit_their_rows(
    name: str, rows: list[tuple[float, int, int]],
):
    rewards, groups, lengths = ([row[i] for row in rows] for i in range(3))
    advantages = ADVANTAGES[name]()(table(rewards, groups, lengths))
    assert [len(row) for row in advantages] == lengths
    assert all(np.isfinite(row).all() for row in advantages)


@pytest.mark.parametrize("name", GROUP_RELATIVE)
def test_group_relative_advantages_ignore_a_shift_and_sum_to_zero(name: str):
    rewards, groups = [1.0, 0.0, 0.5, 2.0, 5.0], [0, 0, 0, 1, 1]
    plain = ADVANTAGES[name]()(table(rewards, groups))
    shifted = ADVANTAGES[name]()(table([r + 8.0 for r in rewards], groups))
    assert np.concatenate(plain) == pytest.approx(np.concatenate(shifted), rel=1e-6)
    assert sum(row[0] for row in plain[:3]) == pytest.approx(0.0, abs=1e-6)


def test_a_table_refuses_wrong_shapes_and_unjudged_rows():
    with pytest.raises(ValueError, match="must be"):
        RewardTable(np.zeros(2), np.zeros(3, np.int64), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="not finite"):
        table([float("nan")])
    with pytest.raises(ValueError, match="one \\(n_i,\\) array per row"):
        table([1.0], lengths=[2], kl=[[0.1]])


def test_loss_inputs_refuse_wrong_shapes():
    n = torch.zeros(3)
    with pytest.raises(ValueError, match="advantages has shape"):
        LossInputs(n, n, torch.zeros(2), n.long(), 1)
    with pytest.raises(ValueError, match="must be \\(N,\\)"):
        LossInputs(n[None], n[None], n[None], n[None].long(), 1)


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_ratios_stay_finite(name: str):
    # 800 nats either way overflow a float64 ratio, and 0 * inf would be NaN.
    given = inputs([1.0] * 6, [1, -1, 0, 1, -1, 0], row=range(6))
    given.logprobs.data += torch.tensor([800.0] * 3 + [-800.0] * 3)
    output = LOSSES[name]()(given)
    (gradient,) = torch.autograd.grad(output.loss.sum(), given.logprobs)
    assert output.loss.isfinite().all() and gradient.isfinite().all()
    assert all(values.isfinite().all() for values in output.metrics.values())


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "cpgd"])
def test_zero_advantage_has_zero_gradient(name: str):
    # CPGD's drift pulls back even then, except on-policy (test_cpgd.py).
    _, gradient = evaluate(LOSSES[name](), inputs([1.0, 1.5, 0.5], [0, 0, 0], row=[0, 0, 1]))
    assert gradient == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", LOSSES)
def test_on_policy_rows_of_one_token_have_gradient_minus_advantage(name: str):
    _, gradient = evaluate(LOSSES[name](), inputs([1.0, 1.0, 1.0], [2, -0.5, 0], row=[0, 1, 2]))
    assert gradient == pytest.approx([-2.0, 0.5, 0.0])


@pytest.mark.parametrize("name", LOSSES)
def test_metrics_are_per_token_and_without_gradient(name: str):
    output = LOSSES[name]()(inputs([1.0, 1.7, 0.3], [1, 1, -1], row=[0, 0, 1]))
    assert {"clip_fraction", "kl_old"} <= set(output.metrics)
    for values in (output.loss, *output.metrics.values()):
        assert values.shape == (3,)
    assert not any(values.requires_grad for values in output.metrics.values())


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_values(name: str):
    algorithm = PRESETS[name]
    assert pickle.loads(pickle.dumps(algorithm)) == algorithm
    assert hash(algorithm) == hash(pickle.loads(pickle.dumps(algorithm)))


def some_batch(normalization: Normalization) -> Batch:
    """Three prompts, seven ragged rows, all log-probabilities given."""
    rng = np.random.default_rng(3)
    datums = []
    for prompt, trained in [(2, 3), (1, 6), (3, 1), (2, 4), (1, 2), (4, 5), (2, 2)]:
        length = prompt + trained
        mask = (np.arange(length) >= prompt).astype(np.float32)

        def noise(scale: float, mask: np.ndarray = mask) -> np.ndarray:
            return (mask * rng.normal(-1.0, scale, len(mask))).astype(np.float32)

        datums.append(Datum(
            token_ids=rng.integers(0, 9, length), mask=mask, weights=mask,
            advantages=np.float32(rng.normal()) * mask, old_logprobs=noise(0.4),
            ref_logprobs=noise(0.4)))
    return Batch(tuple(datums), (0, 0, 0, 1, 1, 2, 2), normalization, length_constant=9)


def total(
    loss: PolicyLoss, minibatch: tuple[Datum, ...], micro: Iterable[list[int]],
) -> tuple[float, list[float]]:
    """sum(loss * weights) and its gradient, accumulated over micro-batches of these rows."""
    rng = torch.Generator().manual_seed(7)
    logprobs, entropies = ([
        (torch.randn(len(d.token_ids), generator=rng, dtype=torch.float64) * 0.4 - 1)
        .requires_grad_() for d in minibatch] for _ in range(2))
    value = 0.0
    for rows in micro:
        given, weights = flatten([minibatch[i] for i in rows], [logprobs[i] for i in rows],
                                 [entropies[i] for i in rows])
        part = (loss(given).loss * weights).sum()
        part.backward()
        value += part.item()
    leaves = logprobs + entropies
    return value, [x for leaf in leaves if leaf.grad is not None for x in leaf.grad.tolist()]


SPLITS = [[[0], [1], [2], [3], [4], [5], [6]], [[6, 0, 3], [2], [5, 4, 1]]]


@pytest.mark.parametrize("micro", SPLITS)
@pytest.mark.parametrize("name", [*PRESETS, "sft"])
def test_micro_batching_cannot_change_loss_or_gradient(name: str, micro: list[list[int]]):
    loss = NegativeLogLikelihood() if name == "sft" else PRESETS[name].loss
    norm: Normalization = "token_mean" if name == "sft" else PRESETS[name].normalization
    for normalization in {norm, *get_args(Normalization)}:
        (minibatch,) = some_batch(normalization).split(1)
        whole = total(loss, minibatch, [list(range(7))])
        parts = total(loss, minibatch, micro)
        assert parts[0] == pytest.approx(whole[0], rel=1e-12)
        assert parts[1] == pytest.approx(whole[1], rel=1e-12, abs=1e-15)
        assert any(whole[1])


def test_flatten_selects_trained_tokens_in_order():
    mask = np.array([0, 0, 1, 1], np.float32)
    first = Datum(np.arange(4), mask, advantages=2 * mask, weights=mask / 4,
                  old_logprobs=np.array([0, 0, -1, -2], np.float32))
    second = Datum(np.arange(2), mask[1:3], advantages=-mask[1:3], weights=mask[1:3],
                   old_logprobs=np.array([0, -3], np.float32))
    live = [torch.tensor([9.0, 9, -1.5, -2.5]), torch.tensor([9.0, -3.5])]
    flat, weights = flatten([first, second], live)
    assert flat.logprobs.tolist() == [-1.5, -2.5, -3.5]
    assert flat.old_logprobs.tolist() == [-1.0, -2.0, -3.0]
    assert flat.advantages.tolist() == [2.0, 2.0, -1.0]
    assert flat.row.tolist() == [0, 0, 1] and flat.num_rows == 2
    assert weights.tolist() == [0.25, 0.25, 1.0]
    assert flat.ref_logprobs is None
    on_policy, _ = flatten([Datum(np.arange(2), mask[1:3], mask[1:3], mask[1:3])], live[1:])
    assert torch.equal(on_policy.old_logprobs, on_policy.logprobs)
    with pytest.raises(ValueError, match="for all rows or for none"):
        flatten([first, Datum(np.arange(2), mask[1:3], mask[1:3], mask[1:3])], live)
