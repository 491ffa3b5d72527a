"""Reinforcement learning from verifiers: the loop of every RL rung.

One step: prompts, rollout, verdicts, batch, one optimizer step per minibatch. All schedules and
all state live here; the engine only runs verbs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from pydantic import Field, model_validator

from safeladder.algos.base import Algorithm
from safeladder.config import StrictModel
from safeladder.engine.base import Sampler, SamplingParams, Stats, Trainer
from safeladder.errors import BatchArithmeticError
from safeladder.train.batch import BatchSettings, OldLogprobs, build_batch
from safeladder.train.metrics import PhaseClock, rollout_metrics, step_record
from safeladder.train.schedule import OptimSettings
from safeladder.train.state import Checkpoints, LoopState
from safeladder.types import Group, Prompt
from safeladder.verifiers.base import Objective


class RLSettings(StrictModel):
    """The budget and the knobs of one RL rung (budgets are steps, never wall clock)."""

    num_steps: int = Field(ge=1, description="rollouts; each gives ``minibatches`` updates")
    prompts_per_step: int = Field(ge=1)
    group_size: int = Field(ge=1, description="trajectories per prompt, G")
    minibatches: int = Field(1, ge=1, description="optimizer steps per rollout")
    max_tokens: int = Field(ge=1, description="tokens per completion")
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    old_logprobs: OldLogprobs = Field("trainer", description="whose log-probabilities are pi_old")
    optim: OptimSettings
    max_resampling: int = Field(
        4, ge=1, description="dynamic sampling: rollouts per step at most; more is an error")
    eval_every: int = Field(0, ge=0, description="steps between validations; 0: none")
    save_every: int = Field(0, ge=0, description="steps between resumable states; 0: none")
    trace_every: int = Field(1, ge=0, description="steps between trace files; 0: none")

    @model_validator(mode="after")
    def _check_arithmetic(self) -> RLSettings:
        if self.minibatches > self.prompts_per_step:
            raise ValueError(
                f"minibatches ({self.minibatches}) must not exceed prompts_per_step "
                f"({self.prompts_per_step}): every minibatch needs at least one prompt's group")
        return self


class PromptStream(Protocol):
    """An endless, resumable stream of prompts."""

    def take(self, count: int) -> list[Prompt]:
        """Return the next ``count`` prompts."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The position."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a position."""
        ...


class RunLog(Protocol):
    """Where a loop reports: metrics, traces, progress."""

    def record(self, record: Mapping[str, Any]) -> None:
        """One line of ``metrics.jsonl``."""
        ...

    def traces(self, step: int, groups_P: Sequence[Group]) -> None:
        """The trajectories of one step."""
        ...

    def resumed(self, next_step: int) -> None:
        """Forget what was logged of this step and later ones."""
        ...


class RolloutAndVerify(Protocol):
    """Prompts in, judged groups and abstention counts out."""

    async def __call__(
        self, policy: Sampler, prompts_P: Sequence[Prompt], group_size: int,
        params: SamplingParams, clock: PhaseClock,
    ) -> tuple[list[Group], Mapping[str, float]]:
        """Sample and judge ``group_size`` trajectories for each prompt."""
        ...


Evaluate = Callable[[Sampler, int], Awaitable[Mapping[str, float]]]


@dataclass(frozen=True)
class RLRun:
    """Everything one RL rung needs, already built by the ladder."""

    name: str
    seed: int
    trainer: Trainer
    data: PromptStream
    collect: RolloutAndVerify
    objective: Objective
    """The one that ``collect`` rewards by."""
    algorithm: Algorithm
    reference: Sampler | None
    settings: RLSettings
    stop_token_ids: tuple[int, ...]
    checkpoints: Checkpoints
    log: RunLog
    evaluate: Evaluate | None = None


async def train_rl(run: RLRun) -> LoopState:
    """Climb one RL rung from where its newest state stands; return the final state.

    Raises:
        NonFiniteLoss, TooManyAbstentions, StorageError, CheckpointError: see ``errors``.
    """
    settings, algorithm, trainer = run.settings, run.algorithm, run.trainer
    state = await run.checkpoints.restore(trainer)
    if state.next_step:
        run.data.load_state_dict(state.data)
    run.log.resumed(state.next_step)
    policy = await trainer.sampler()                                 # pi_old = pi_theta
    for step in range(state.next_step, settings.num_steps):
        clock = PhaseClock()
        groups_P, counts = await _collect_groups(run, policy, step, clock)
        with clock("batch"):
            batch = await build_batch(groups_P, algorithm, trainer, run.reference,
                                      _batch_settings(settings))
        stats = Stats()
        with clock("update"):
            for i, minibatch in enumerate(batch.split(settings.minibatches)):
                part = await trainer.forward_backward(minibatch, algorithm.loss)
                # Only before the first update do sampler and trainer hold the same weights.
                stats += part.without("mismatch_kl") if i else part
                stats += await trainer.optim_step(settings.optim.at(
                    step * settings.minibatches + i, settings.num_steps * settings.minibatches))
                state.tokens_trained += sum(datum.num_trained for datum in minibatch)
                clock.count("update", sum(len(datum.token_ids) for datum in minibatch))
        policy = await trainer.sampler()                             # pi_old <- pi_theta
        metrics = {**rollout_metrics(groups_P, algorithm, settings.max_tokens),
                   **run.objective.update(groups_P)}                 # multipliers of the next batch
        state.tokens_sampled += int(counts["tokens/sampled"])
        state.next_step, state.data = step + 1, run.data.state_dict()
        run.log.record(step_record(run.name, "rl", step, {**metrics, **counts, **stats.scalars()},
                                   state, clock))
        if settings.trace_every and step % settings.trace_every == 0:
            run.log.traces(step, groups_P)
        await _after_step(run, state)
    return state


async def _after_step(run: RLRun, state: LoopState) -> None:
    """Validate and save when due. Validation takes a sampler of its own, so that what it leaves
    in a prefix cache cannot change the numbers of the next rollout.
    """
    settings = run.settings
    if run.evaluate and settings.eval_every and state.next_step % settings.eval_every == 0:
        clock = PhaseClock()
        with clock("evaluation"):
            metrics = await run.evaluate(await run.trainer.sampler(), state.next_step)
        run.log.record(step_record(run.name, "eval", state.next_step - 1, metrics, state, clock))
    if run.checkpoints.due(state.next_step):
        await run.checkpoints.save(run.trainer, state)


def _batch_settings(settings: RLSettings) -> BatchSettings:
    return BatchSettings(settings.max_tokens, settings.temperature, settings.old_logprobs)


async def _collect_groups(
    run: RLRun, policy: Sampler, step: int, clock: PhaseClock,
) -> tuple[list[Group], Mapping[str, float]]:
    """The groups of one step. With dynamic sampling (DAPO) groups whose rewards are all equal
    are dropped and further prompts drawn until the batch is full.

    Raises:
        BatchArithmeticError: it is still not full after ``max_resampling`` rollouts.
    """
    settings, wanted = run.settings, run.settings.prompts_per_step
    kept: list[Group] = []
    totals: dict[str, float] = {}
    for attempt in range(settings.max_resampling):
        params = SamplingParams(
            max_tokens=settings.max_tokens, temperature=settings.temperature, top_p=settings.top_p,
            top_k=settings.top_k, stop_token_ids=run.stop_token_ids,
            seed=int(np.random.SeedSequence([run.seed, step, attempt]).generate_state(1)[0]))
        prompts_P = run.data.take(wanted)
        groups_P, counts = await run.collect(policy, prompts_P, settings.group_size, params, clock)
        for key, value in counts.items():
            totals[key] = totals.get(key, 0.0) + value
        if not run.algorithm.dynamic_sampling:
            return groups_P, totals
        totals["groups/drawn"] = totals.get("groups/drawn", 0.0) + len(groups_P)
        kept += [group for group in groups_P if _has_signal(group)]
        totals["groups/dropped"] = totals["groups/drawn"] - len(kept)
        if len(kept) >= wanted:
            return kept[:wanted], totals
    raise BatchArithmeticError(
        f"{run.name}, step {step}: dynamic sampling found {len(kept)} of {wanted} groups with "
        f"unequal rewards in {settings.max_resampling} rollouts; raise max_resampling, lower "
        "prompts_per_step, or choose easier or harder prompts")


def _has_signal(group: Group) -> bool:
    """Whether the verifiers' rewards differ; a length term alone does not make a signal."""
    rewards = {t.reward.total for t in group.trajectories if t.reward} - {None}
    return len(rewards) > 1
