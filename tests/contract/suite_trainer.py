"""What every Trainer must do. One case per engine; checks are chosen by declared capability."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safeladder.algos.base import LossInputs, LossOutput
from safeladder.algos.presets import PRESETS
from safeladder.algos.sft import NegativeLogLikelihood
from safeladder.engine.base import Capability, Loss, OptimParams, SamplingParams, Stats, Trainer
from safeladder.errors import CheckpointError, NonFiniteLoss, StaleSampler, StorageError
from safeladder.types import Batch, Datum, Media


@dataclass(frozen=True)
class TrainerCase:
    """How to make an engine's trainer, and what the checks need to know of it.

    All ``makes`` give trainers with equal weights that differ in settings which must not matter
    (size of micro-batches, workers): results agree within ``atol``.
    """

    makes: tuple[Callable[[], Trainer], ...]
    vocab_size: int
    image_token_id: int | None = None
    learning_rate: float = 0.02
    """At which one step moves log-probabilities by some tenths."""
    atol: float = 2e-5
    bitwise: bool = True
    """Equal calls give equal bits."""

    def make(self) -> Trainer:
        """A fresh trainer, the same every time."""
        return self.makes[0]()

    @property
    def linear(self) -> OptimParams:
        """AdamW whose large eps makes the step nearly proportional to the gradient, so that what
        two trainers say after a step shows how far their gradients were apart.
        """
        return OptimParams(learning_rate=self.learning_rate, eps=1.0, beta1=0.0, beta2=0.0,
                           max_grad_norm=np.inf)


Check = Callable[[TrainerCase, Path], Awaitable[None]]
CHECKS: list[Any] = []


def check(*needs: Capability) -> Callable[[Check], Check]:
    def register(function: Check) -> Check:
        CHECKS.append(pytest.param((function, frozenset(needs)), id=function.__name__))
        return function
    return register


def run_check(entry: tuple[Check, frozenset[Capability]], case: TrainerCase, path: Path) -> None:
    function, needs = entry
    missing = needs - case.make().capabilities
    if missing:
        pytest.skip(f"does not declare {', '.join(missing)}")
    asyncio.run(function(case, path))  # type: ignore[arg-type]


def rollout(case: TrainerCase, prompts: int = 2, group: int = 3, **more: Any) -> list[Datum]:
    """Groups with shared prompts and responses of unequal lengths."""
    rng = np.random.default_rng(0)
    top = case.vocab_size if case.image_token_id is None else case.image_token_id
    data = []
    for _ in range(prompts):
        prompt = rng.integers(1, top, rng.integers(2, 6))
        for _ in range(group):
            ids = np.concatenate([prompt, rng.integers(1, top, rng.integers(1, 8))])
            mask = (np.arange(len(ids)) >= len(prompt)).astype(np.float32)
            near = (-2 + 0.2 * rng.normal(size=len(ids)).astype(np.float32)) * mask
            data.append(Datum(
                token_ids=ids, mask=mask, weights=mask / 20, advantages=mask * rng.normal(),
                sampler_logprobs=near, old_logprobs=near, ref_logprobs=near - 0.1 * mask, **more))
    return [replace(d, advantages=d.advantages.astype(np.float32)) for d in data]


async def logprobs_after(trainer: Trainer, params: OptimParams, parts: Sequence[Sequence[Datum]],
                         loss: Loss) -> np.ndarray[Any, Any]:
    """The log-probabilities of all rows, in the first part's order, after one step on ``parts``,
    one call each.
    """
    for part in parts:
        await trainer.forward_backward(part, loss)
    await trainer.optim_step(params)
    return np.concatenate(await trainer.forward([datum for part in parts for datum in part]))


@check()
async def forward_scores_the_trained_tokens_alone(case: TrainerCase, path: Path) -> None:
    trainer, data = case.make(), rollout(case)
    for datum, values in zip(data, await trainer.forward(data), strict=True):
        assert values.dtype == np.float32 and values.shape == datum.mask.shape
        assert (values[datum.mask == 0] == 0).all() and (values[datum.mask == 1] < 0).all()


@check()
async def figures_are_weighted_sums_and_plain_means(case: TrainerCase, path: Path) -> None:
    trainer, data = case.make(), rollout(case)
    logprobs = await trainer.forward(data)
    stats = await trainer.forward_backward(data, NegativeLogLikelihood())
    expected = -sum((lp * d.weights).sum() for lp, d in zip(logprobs, data, strict=True))
    assert stats.scalars()["loss"] == pytest.approx(expected, abs=case.atol)
    assert stats.means["entropy"][1] == sum(d.num_trained for d in data)
    assert 0 < stats.scalars()["entropy"] <= np.log(case.vocab_size) + 1e-5


@check()
async def the_cut_into_calls_does_not_matter(case: TrainerCase, path: Path) -> None:
    """Accumulation: one call or one call per row."""
    data = rollout(case)
    for name in ("cpgd", "grpo", "dapo", "gspo"):
        loss = PRESETS[name].loss
        whole = await logprobs_after(case.make(), case.linear, [data], loss)
        single = await logprobs_after(case.make(), case.linear, [[d] for d in data], loss)
        np.testing.assert_allclose(single, whole, atol=case.atol, err_msg=name)
        start = np.concatenate(await case.make().forward(data))
        assert abs(whole - start).max() > 50 * case.atol, name


@check()
async def settings_of_speed_do_not_matter(case: TrainerCase, path: Path) -> None:
    """Packing and data parallelism, for every algorithm."""
    data = rollout(case)
    for name, algorithm in PRESETS.items():
        (batch,) = Batch(tuple(data), (0, 0, 0, 1, 1, 1), algorithm.normalization, 8).split(1)
        first = await logprobs_after(case.make(), case.linear, [batch], algorithm.loss)
        for make in case.makes[1:]:
            other = await logprobs_after(make(), case.linear, [batch], algorithm.loss)
            np.testing.assert_allclose(other, first, atol=case.atol, err_msg=name)


@check()
async def equal_calls_give_equal_bits(case: TrainerCase, path: Path) -> None:
    if not case.bitwise:
        pytest.skip("does not claim it")
    data = rollout(case)
    for make in case.makes:
        runs = [await logprobs_after(make(), case.linear, [data], PRESETS["cpgd"].loss)
                for _ in range(2)]
        np.testing.assert_array_equal(*runs)


@check()
async def zero_advantage_gives_zero_gradient(case: TrainerCase, path: Path) -> None:
    data = [replace(d, advantages=d.mask * 0, old_logprobs=None) for d in rollout(case)]
    for name in ("dapo", "rloo", "gspo", "cispo"):
        trainer = case.make()
        await trainer.forward_backward(data, PRESETS[name].loss)
        stats = await trainer.optim_step(case.linear)
        assert stats.scalars()["grad_norm"] == 0, name


@check()
async def temperature_divides_the_logits(case: TrainerCase, path: Path) -> None:
    trainer = case.make()
    cool = np.concatenate(await trainer.forward(rollout(case, temperature=0.25)))
    warm = np.concatenate(await trainer.forward(rollout(case)))
    stats = await trainer.forward_backward(rollout(case, temperature=0.25), PRESETS["cpgd"].loss)
    sharp = stats.scalars()["entropy"]
    stats = await trainer.forward_backward(rollout(case), PRESETS["cpgd"].loss)
    assert sharp < stats.scalars()["entropy"] and cool.min() < warm.min()
    sampler = await trainer.sampler()
    if Capability.EXACT_LOGPROBS in sampler.capabilities:
        datum = rollout(case, temperature=0.25)[0]
        scored = await sampler.logprobs(datum.token_ids.tolist(), temperature=0.25)
        (own,) = await trainer.forward([datum])
        np.testing.assert_allclose(own, scored * datum.mask, atol=1e-4)


@check(Capability.EXACT_LOGPROBS)
async def sampler_and_trainer_agree(case: TrainerCase, path: Path) -> None:
    trainer = case.make()
    await logprobs_after(trainer, case.linear, [rollout(case)], NegativeLogLikelihood())
    sampler = await trainer.sampler()
    prompt = (3, 1, 4)
    params = SamplingParams(max_tokens=9, temperature=0.7, seed=2)
    data = []
    for completion in await sampler.sample(prompt, params, 4):
        ids = np.array(prompt + completion.token_ids)
        mask = np.float32([0] * 3 + [1] * len(completion.token_ids))
        sampled = np.concatenate([np.zeros(3, np.float32), completion.sampler_logprobs])
        data.append(Datum(token_ids=ids, mask=mask, advantages=mask, weights=mask,
                          sampler_logprobs=sampled, temperature=0.7))
    for datum, own in zip(data, await trainer.forward(data), strict=True):
        np.testing.assert_allclose(own, datum.sampler_logprobs, atol=1e-4)
    stats = await trainer.forward_backward(data, PRESETS["dapo"].loss)
    if "mismatch_kl" in stats.means:
        assert abs(stats.scalars()["mismatch_kl"]) < 1e-7


@check()
async def a_step_makes_samplers_stale_but_not_frozen_ones(case: TrainerCase, path: Path) -> None:
    trainer, data = case.make(), rollout(case)
    sampler, frozen = await trainer.sampler(), await trainer.frozen_sampler()
    assert trainer.policy_version == sampler.policy_version == 0
    before = await frozen.logprobs((3, 1, 4, 1))
    await logprobs_after(trainer, case.linear, [data], NegativeLogLikelihood())
    assert trainer.policy_version == 1
    with pytest.raises(StaleSampler):
        await sampler.logprobs((3, 1, 4, 1))
    with pytest.raises(StaleSampler):
        await sampler.sample((3, 1), SamplingParams(max_tokens=1))
    np.testing.assert_array_equal(await frozen.logprobs((3, 1, 4, 1)), before)
    new = await trainer.sampler()
    assert new.policy_version == 1
    assert abs(await new.logprobs((3, 1, 4, 1)) - before).max() > case.atol


@check()
async def steps_lower_the_loss(case: TrainerCase, path: Path) -> None:
    trainer, data = case.make(), rollout(case)
    losses = []
    for _ in range(12):
        stats = await trainer.forward_backward(data, NegativeLogLikelihood())
        losses.append(stats.scalars()["loss"])
        stats = await trainer.optim_step(OptimParams(learning_rate=case.learning_rate))
        assert stats.scalars()["grad_norm"] > 0
    assert losses[-1] < 0.8 * losses[0]


@check()
async def clipping_bounds_the_step(case: TrainerCase, path: Path) -> None:
    data = rollout(case)

    async def moved(limit: float) -> float:
        trainer = case.make()
        start = np.concatenate(await trainer.forward(data))
        await trainer.forward_backward(data, NegativeLogLikelihood())
        stats = await trainer.optim_step(replace(case.linear, max_grad_norm=limit))
        assert stats.scalars()["grad_norm"] > 0.1     # as it was before clipping
        return float(abs(np.concatenate(await trainer.forward(data)) - start).max())

    assert await moved(0.01) < 0.2 * await moved(np.inf)


@check()
async def calls_run_in_the_order_they_were_made(case: TrainerCase, path: Path) -> None:
    data, loss = rollout(case), NegativeLogLikelihood()
    expected = await logprobs_after(case.make(), case.linear, [data], loss)
    trainer = case.make()
    calls = [trainer.forward_backward(data, loss), trainer.optim_step(case.linear),
             trainer.forward(data)]
    _, _, after = await asyncio.gather(*calls)
    np.testing.assert_array_equal(np.concatenate(after), expected)


@check()
async def a_resumed_run_has_the_same_bits(case: TrainerCase, path: Path) -> None:
    """save, step equals save, load elsewhere, step."""
    data, params = rollout(case), OptimParams(learning_rate=0.01, weight_decay=0.1)

    async def step(trainer: Trainer) -> Stats:
        stats = await trainer.forward_backward(data, NegativeLogLikelihood())
        return stats + await trainer.optim_step(params)

    trainer = case.make()
    await step(trainer)
    await step(trainer)
    await trainer.save_state(path / "state")
    stats = await step(trainer)
    other = case.make()
    await other.forward_backward(data, NegativeLogLikelihood())     # to be forgotten
    await other.load_state(path / "state")
    assert other.policy_version == 2
    assert (await step(other)).scalars() == stats.scalars()
    np.testing.assert_array_equal(np.concatenate(await other.forward(data)),
                                  np.concatenate(await trainer.forward(data)))


@check()
async def a_state_is_never_overwritten_and_never_half_read(case: TrainerCase, path: Path) -> None:
    trainer = case.make()
    await trainer.save_state(path / "state")
    with pytest.raises(StorageError, match="state"):
        await trainer.save_state(path / "state")
    with pytest.raises(CheckpointError, match="nowhere"):
        await trainer.load_state(path / "nowhere")
    assert [entry.name for entry in path.iterdir()] == ["state"]


@dataclass(frozen=True)
class _Broken:
    needs: frozenset[Any] = frozenset()

    def __call__(self, inputs: LossInputs) -> LossOutput:
        return LossOutput(inputs.logprobs / 0.0, {})


@check()
async def a_loss_that_is_not_finite_updates_nothing(case: TrainerCase, path: Path) -> None:
    trainer, data = case.make(), rollout(case)
    before = np.concatenate(await trainer.forward(data))
    with pytest.raises(NonFiniteLoss):
        await trainer.forward_backward(data, _Broken())
    stats = await trainer.optim_step(case.linear)
    assert stats.scalars()["grad_norm"] == 0
    np.testing.assert_array_equal(np.concatenate(await trainer.forward(data)), before)


@check(Capability.MEDIA)
async def the_image_matters(case: TrainerCase, path: Path) -> None:
    assert case.image_token_id is not None
    trainer = case.make()
    ids = np.array([3, case.image_token_id, 5, 6, 7])
    mask = np.float32([0, 0, 0, 1, 1])
    figures = []
    for seed in (0, 0, 1):
        pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
        row = Datum(token_ids=ids, mask=mask, advantages=mask, weights=mask,
                    media=(Media(pixels=pixels),))
        (own,) = await trainer.forward([row])
        stats = await trainer.forward_backward([row], NegativeLogLikelihood())
        scored = await (await trainer.sampler()).logprobs(ids.tolist(), row.media)
        np.testing.assert_allclose(own, scored * mask, atol=1e-4)
        figures.append(stats.scalars()["loss"])
    assert figures[0] == figures[1] and abs(figures[0] - figures[2]) > 1e-4
    assert (await trainer.optim_step(case.linear)).scalars()["grad_norm"] > 0
