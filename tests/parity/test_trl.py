"""Our losses, gradients and advantages against TRL's own methods, to 1e-6 relative.

TRL's ``_compute_loss`` and ``_generate_and_score_completions`` are called unbound, with a stub in
the place of the trainer that holds exactly the attributes they read on these paths. Their inputs
are float64 with values a float32 holds, so that both sides compute from the same numbers; what is
left is the float32 rounding of ``Datum.weights`` and of advantages. Our side goes the whole way:
``Batch.split`` writes the weights, and the total is ``sum(loss * weights)``.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from safeladder.algos.base import RewardTable, flatten
from safeladder.algos.presets import build_algorithm
from safeladder.types import Batch, Datum

TOLERANCE = 1e-6
LENGTHS = (5, 1, 9, 3, 7, 2, 9, 4)
MAX_TOKENS = 9
PROMPT_TOKENS = 2


@pytest.fixture(scope="module")
def trl() -> Any:
    """TRL's two trainers (seconds to import, so only when these tests run)."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    from trl.trainer.grpo_trainer import GRPOTrainer
    from trl.trainer.rloo_trainer import RLOOTrainer

    return SimpleNamespace(grpo=GRPOTrainer, rloo=RLOOTrainer)


class Rows(NamedTuple):
    """Padded (B, T) float64 tensors."""

    mask: torch.Tensor
    new: torch.Tensor
    old: torch.Tensor
    ref: torch.Tensor
    advantages: torch.Tensor
    """(B,)"""


def some_rows(seed: int) -> Rows:
    """Ragged rows whose ratios fall on both sides of every bound."""
    rng = np.random.default_rng(seed)
    shape = (len(LENGTHS), MAX_TOKENS)
    mask = torch.from_numpy((np.arange(MAX_TOKENS) < np.array(LENGTHS)[:, None]).astype(np.int64))

    def values(*size: int, mean: float = 0.0, std: float = 1.0) -> torch.Tensor:
        return torch.from_numpy(rng.normal(mean, std, size).astype(np.float32)).double()

    old = values(*shape, mean=-1.5, std=0.5)
    new = (old + values(*shape, std=0.4)).requires_grad_()
    ref = (old + values(*shape, std=0.3)).float().double()
    return Rows(mask, new, old, ref, values(len(LENGTHS)))


def accelerator() -> SimpleNamespace:
    """One process: gathering and reducing change nothing."""
    return SimpleNamespace(
        device=torch.device("cpu"), num_processes=1, process_index=0, sync_gradients=True,
        gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, reduction=None: x)


def loss_stub(rows: Rows, **settings: Any) -> SimpleNamespace:
    """What ``_compute_loss`` reads of a trainer."""
    stub = SimpleNamespace(
        accelerator=accelerator(), model=SimpleNamespace(training=True),
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        aux_loss_enabled=False, beta=0.0, current_gradient_accumulation_steps=1,
        epsilon_high=0.2, epsilon_low=0.2, importance_sampling_level="token", loss_type="grpo",
        max_completion_length=MAX_TOKENS, off_policy_mask_threshold=None,
        top_entropy_quantile=1.0, use_vllm=False, vllm_importance_sampling_correction=False,
        _entropy_bonus_enabled=False, _metrics={"train": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (
            rows.new, torch.zeros_like(rows.new), None))
    for name, value in settings.items():
        setattr(stub, name, value)
    return stub


class Outcome(NamedTuple):
    """A loss, its gradient by the log-probabilities of trained tokens, and the clipped share."""

    loss: float
    gradient: list[float]
    clip_fraction: float | None


def of_trl(trainer: type, stub: SimpleNamespace, rows: Rows) -> Outcome:
    ids = torch.zeros_like(rows.mask)
    loss = trainer._compute_loss(stub, None, {
        "prompt_ids": ids[:, :PROMPT_TOKENS], "prompt_mask": ids[:, :PROMPT_TOKENS] + 1,
        "completion_ids": ids, "completion_mask": rows.mask, "advantages": rows.advantages,
        "old_per_token_logps": rows.old, "ref_per_token_logps": rows.ref,
        "old_logps": (rows.old * rows.mask).sum(1), "num_items_in_batch": rows.mask.sum()})
    (gradient,) = torch.autograd.grad(loss, rows.new)
    assert not gradient[rows.mask == 0].any()
    clipped = stub._metrics["train"].get("clip_ratio/region_mean")
    return Outcome(loss.item(), gradient[rows.mask == 1].tolist(), clipped and clipped[0])


def of_ours(spec: dict[str, object], rows: Rows) -> Outcome:
    algorithm = build_algorithm(spec)
    batch = Batch(tuple(as_datum(rows, i) for i in range(len(LENGTHS))),
                  tuple(i // 2 for i in range(len(LENGTHS))), algorithm.normalization, MAX_TOKENS)
    (minibatch,) = batch.split(1)
    prompt = rows.new.new_zeros(PROMPT_TOKENS)
    live = [torch.cat([prompt, row[:n]]) for row, n in zip(rows.new, LENGTHS, strict=True)]
    inputs, weights = flatten(minibatch, live)
    output = algorithm.loss(inputs)
    loss = (output.loss * weights).sum()
    (gradient,) = torch.autograd.grad(loss, rows.new)
    return Outcome(loss.item(), gradient[rows.mask == 1].tolist(),
                   output.metrics["clip_fraction"].mean().item())


def as_datum(rows: Rows, i: int) -> Datum:
    """Row i with its prompt in front, as a rollout would have made it."""

    def column(values: torch.Tensor) -> np.ndarray:
        padded = np.zeros(PROMPT_TOKENS + LENGTHS[i], np.float32)
        padded[PROMPT_TOKENS:] = values[:LENGTHS[i]].detach().numpy()
        return padded

    mask = column(rows.mask[i])
    return Datum(np.zeros(len(mask), np.int64), mask, advantages=mask * rows.advantages[i].numpy()
                 .astype(np.float32), weights=mask, old_logprobs=column(rows.old[i]),
                 ref_logprobs=column(rows.ref[i]))


NO_KL: dict[str, object] = {"kl": None}
WIDE: dict[str, object] = {"eps_low": 0.2, "eps_high": 0.3}
CASES = {
    "grpo": ({"preset": "grpo"}, {"beta": 0.04}),
    "grpo without KL": ({"preset": "grpo", **NO_KL}, {}),
    "dr_grpo": ({"preset": "dr_grpo"}, {"loss_type": "dr_grpo"}),
    "dr_grpo with KL": (
        {"preset": "dr_grpo", "kl": {"coef": 0.1}}, {"loss_type": "dr_grpo", "beta": 0.1}),
    "dapo": ({"preset": "dapo"}, {"loss_type": "dapo", "epsilon_high": 0.28}),
    "dapo with KL": ({"preset": "dapo", "kl": {"coef": 0.1}},
                     {"loss_type": "dapo", "epsilon_high": 0.28, "beta": 0.1}),
    "bnpo": ({"preset": "grpo", **NO_KL, "normalization": "token_mean"}, {"loss_type": "bnpo"}),
    "cispo": ({"preset": "cispo"}, {"loss_type": "cispo", "epsilon_high": 5.0}),
    "cispo, tight bound, KL": (
        {"preset": "cispo", "loss": {"max_ratio": 1.2}, "kl": {"coef": 0.1}},
        {"loss_type": "cispo", "epsilon_high": 1.2, "beta": 0.1}),
    "gspo": ({"preset": "gspo"}, {"importance_sampling_level": "sequence",
                                  "epsilon_low": 3e-4, "epsilon_high": 4e-4}),
    "gspo, wide bounds, KL": (
        {"preset": "gspo", "loss": WIDE, "kl": {"coef": 0.1}},
        {"importance_sampling_level": "sequence", "epsilon_high": 0.3, "beta": 0.1}),
}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient(trl: Any, case: str, seed: int):
    spec, settings = CASES[case]
    rows = some_rows(seed)
    theirs = of_trl(trl.grpo, loss_stub(rows, **settings), rows)
    ours = of_ours(spec, rows)
    assert ours.loss == pytest.approx(theirs.loss, rel=TOLERANCE)
    assert ours.gradient == pytest.approx(theirs.gradient, rel=TOLERANCE)
    assert any(theirs.gradient)
    per_token = settings.get("importance_sampling_level") != "sequence"
    if theirs.clip_fraction is not None and per_token:
        assert ours.clip_fraction == pytest.approx(theirs.clip_fraction, rel=TOLERANCE)
        assert ours.clip_fraction > 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rloo_loss_and_gradient(trl: Any, seed: int):
    rows = some_rows(seed)
    theirs = of_trl(trl.rloo, loss_stub(rows), rows)
    ours = of_ours({"preset": "rloo"}, rows)
    assert ours.loss == pytest.approx(theirs.loss, rel=TOLERANCE)
    assert ours.gradient == pytest.approx(theirs.gradient, rel=TOLERANCE)


GROUP_SIZE = 4
REWARDS = [3.0, -0.5, -1.0, -3.0,   1.0, 1.0, 1.0, 1.0,   0.1, 0.7, 0.1, 0.1]


def trl_advantages(trainer: type, rows: Rows, **settings: Any) -> list[float]:
    """What TRL's scoring of a generation batch makes of REWARDS."""
    model, ref_model = SimpleNamespace(training=True, is_gradient_checkpointing=False), object()
    logps = {id(model): rows.old, id(ref_model): rows.ref}
    stub = SimpleNamespace(
        accelerator=accelerator(), model=model, ref_model=ref_model, beta=0.0, num_iterations=1,
        args=SimpleNamespace(steps_per_generation=1, gradient_accumulation_steps=1,
                             per_device_train_batch_size=len(REWARDS),
                             gradient_checkpointing_kwargs=None),
        environment_factories=None, environments=None, tools=None, use_vllm=False,
        vllm_importance_sampling_correction=False, mask_truncated_completions=False,
        pad_to_multiple_of=None, reward_clip_range=None, normalize_advantages=False,
        num_generations=GROUP_SIZE, scale_rewards="group", log_multimodal=False,
        multi_objective_aggregation="sum_then_normalize", reward_weights=torch.ones(1).double(),
        reward_func_names=["reward"], _tokenizer=SimpleNamespace(pad_token_id=0),
        _metrics={"train": defaultdict(list)},
        _logs={"prompt": [], "completion": [], "advantages": [], "rewards": defaultdict(list),
               "extra": defaultdict(list)},
        _pending_extra_logs={}, _pending_metrics={},
        _calculate_rewards=lambda *args: torch.tensor(REWARDS, dtype=torch.float64)[:, None],
        _get_per_token_logps_and_entropies=lambda model, *args, **kwargs: (
            logps[id(model)], None, None))
    for name, value in settings.items():
        setattr(stub, name, value)
    inputs = [{"prompt": "?"} for _ in REWARDS]
    scored = trainer._generate_and_score_completions(stub, inputs)
    return scored["advantages"].tolist()


def generate_for_grpo(prompts: list[str]) -> tuple[Any, ...]:
    ids = [[1, 1] for _ in prompts]
    return ids, ids, None, prompts, None, None, None, None


def generate_for_rloo(prompts: list[str]) -> tuple[Any, ...]:
    return tuple(generate_for_grpo(prompts)[i] for i in (0, 1, 3))


def our_advantages(spec: dict[str, object], rows: Rows | None = None) -> list[float]:
    groups = np.arange(len(REWARDS)) // GROUP_SIZE
    kl = None if rows is None else list((rows.old - rows.ref).numpy().astype(np.float32))
    table = RewardTable(np.array(REWARDS), groups, np.full(len(REWARDS), 2), kl)
    return [float(row[0]) for row in build_algorithm(spec).advantage(table)]


@pytest.mark.parametrize(("preset", "scale"), [("grpo", "group"), ("dr_grpo", "none")])
def test_group_advantages(trl: Any, preset: str, scale: str):
    theirs = trl_advantages(trl.grpo, some_rows(0), scale_rewards=scale,
                            _generate=generate_for_grpo)
    assert our_advantages({"preset": preset}) == pytest.approx(theirs, rel=TOLERANCE, abs=1e-12)
    assert theirs[0] > 0


@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_leave_one_out_advantages(trl: Any, beta: float):
    rng = np.random.default_rng(5)
    old, ref = (torch.from_numpy(rng.normal(-1, 0.5, (len(REWARDS), 2)).astype(np.float32))
                .double() for _ in range(2))
    rows = some_rows(0)._replace(old=old, ref=ref)
    theirs = trl_advantages(trl.rloo, rows, beta=beta, _generate=generate_for_rloo)
    kl = {"coef": beta, "estimator": "k1"} if beta else None
    ours = our_advantages({"preset": "rloo", "advantage": {"kl": kl}}, rows if beta else None)
    assert ours == pytest.approx(theirs, rel=TOLERANCE, abs=1e-12)
