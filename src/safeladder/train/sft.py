"""Supervised training on token rows: language pretraining and fine-tuning on demonstrations.

The two differ only in their rows: a pretraining row trains on every token after the first, a
demonstration on the response alone. The loss is a mean over the tokens or rows of each
optimizer step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from pydantic import Field, model_validator

from safeladder.algos.sft import NegativeLogLikelihood
from safeladder.config import StrictModel
from safeladder.engine.base import Trainer
from safeladder.train.metrics import PhaseClock, step_record
from safeladder.train.rl import Evaluate, RunLog
from safeladder.train.schedule import OptimSettings
from safeladder.train.state import Checkpoints, LoopState
from safeladder.types import Batch, Datum, FloatArray, IntArray, Media


class SFTSettings(StrictModel):
    """The budget and the knobs of one supervised rung: give steps or tokens, not both."""

    num_steps: int | None = Field(None, ge=1, description="optimizer steps")
    num_tokens: int | None = Field(None, ge=1, description="trained tokens; ends at the first "
                                   "step that reaches it")
    tokens_per_step: int = Field(ge=1, description="tokens of all rows of a step, prompt included")
    optim: OptimSettings
    normalization: Literal["token_mean", "sequence_mean"] = Field(
        "token_mean", description="of a step's loss: every trained token weighs the same, or "
        "every row")
    eval_every: int = Field(0, ge=0, description="steps between validations; 0: none")
    save_every: int = Field(0, ge=0, description="steps between resumable states; 0: none")

    @model_validator(mode="after")
    def _one_budget(self) -> SFTSettings:
        if (self.num_steps is None) == (self.num_tokens is None):
            raise ValueError("give num_steps or num_tokens, and only one of them")
        if self.num_tokens is not None and self.optim.schedule != "constant":
            raise ValueError("a budget in tokens has no known number of steps to decay over: "
                             "use schedule: constant, or give num_steps")
        return self

    def finished(self, state: LoopState) -> bool:
        """Whether the budget is spent."""
        if self.num_steps is not None:
            return state.next_step >= self.num_steps
        assert self.num_tokens is not None
        return state.tokens_trained >= self.num_tokens


class RowStream(Protocol):
    """An endless, resumable stream of training rows."""

    def take_tokens(self, budget: int) -> list[Datum]:
        """Return the next rows, at least one and as many as fit into ``budget`` tokens."""
        ...

    def state_dict(self) -> dict[str, object]:
        """The position."""
        ...

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go back to a position."""
        ...


@dataclass(frozen=True)
class SFTRun:
    """Everything one supervised rung needs, already built by the ladder."""

    name: str
    trainer: Trainer
    rows: RowStream
    settings: SFTSettings
    checkpoints: Checkpoints
    log: RunLog
    validation: Sequence[Datum] = ()
    """Held-out rows; their loss is logged with every evaluation."""
    evaluate: Evaluate | None = None


async def train_sft(run: SFTRun) -> LoopState:
    """Train one supervised rung from where its newest state stands; return the final state."""
    settings, trainer, loss = run.settings, run.trainer, NegativeLogLikelihood()
    state = await run.checkpoints.restore(trainer)
    if state.next_step:
        run.rows.load_state_dict(state.data)
    run.log.resumed(state.next_step)
    while not settings.finished(state):
        clock = PhaseClock()
        rows = run.rows.take_tokens(settings.tokens_per_step)
        (minibatch,) = Batch(
            tuple(rows), tuple(range(len(rows))), settings.normalization).split(1)
        with clock("update"):
            stats = await trainer.forward_backward(minibatch, loss)
            stats += await trainer.optim_step(
                settings.optim.at(state.next_step, settings.num_steps or 1))
        clock.count("update", sum(len(datum.token_ids) for datum in minibatch))
        state.tokens_trained += sum(datum.num_trained for datum in minibatch)
        state.next_step, state.data = state.next_step + 1, run.rows.state_dict()
        run.log.record(step_record(run.name, "sft", state.next_step - 1, stats.scalars(), state,
                                   clock))
        await _after_step(run, state)
    return state


async def _after_step(run: SFTRun, state: LoopState) -> None:
    due = run.settings.eval_every and state.next_step % run.settings.eval_every == 0
    if due or (run.settings.eval_every and run.settings.finished(state)):
        clock = PhaseClock()
        with clock("evaluation"):
            metrics = {}
            if run.validation:
                metrics["validation/loss"] = await mean_nll(run.trainer, run.validation)
            if run.evaluate:
                metrics.update(await run.evaluate(await run.trainer.sampler(), state.next_step))
        run.log.record(step_record(run.name, "eval", state.next_step - 1, metrics, state, clock))
    if run.checkpoints.due(state.next_step):
        await run.checkpoints.save(run.trainer, state)


async def mean_nll(trainer: Trainer, rows: Sequence[Datum]) -> float:
    """Mean negative log-likelihood per trained token, in nats."""
    logprobs = await trainer.forward(rows)
    total = sum(float((lp * row.mask).sum()) for lp, row in zip(logprobs, rows, strict=True))
    return -total / sum(row.num_trained for row in rows)


def training_row(
    token_ids: Sequence[int] | IntArray, mask: Sequence[float] | FloatArray | None = None,
    media: Sequence[Media] = (),
) -> Datum:
    """A supervised row; without a mask every token after the first is trained on."""
    ids = np.asarray(token_ids, np.int64)
    trained = np.ones(len(ids), np.float32) if mask is None else np.asarray(mask, np.float32)
    trained = trained.copy()
    trained[0] = 0.0
    return Datum(token_ids=ids, mask=trained, advantages=np.zeros_like(trained), weights=trained,
                 media=tuple(media))
