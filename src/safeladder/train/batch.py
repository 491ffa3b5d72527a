"""Judged trajectories to one training batch: advantages, masks, log-probabilities."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from safeladder.algos.base import Algorithm, RewardTable
from safeladder.engine.base import Sampler, Trainer
from safeladder.types import Batch, Datum, FloatArray, Group, Status, Trajectory, Turn

OldLogprobs = Literal["sampler", "trainer"]


@dataclass(frozen=True)
class BatchSettings:
    """What :func:`build_batch` needs beside the trajectories.

    ``old_logprobs`` says whose log-probabilities at theta_old the loss compares with: the
    trainer's (one more forward pass) or the sampler's, which is the same to fp32 rounding where
    the engine declares ``EXACT_LOGPROBS``. ``mismatch_kl`` shows the gap at every step.
    """

    max_tokens: int
    temperature: float
    old_logprobs: OldLogprobs = "trainer"


class Row(NamedTuple):
    """One trajectory with its reward and the datums it trains through."""

    group: int
    trajectory: Trajectory
    reward: float
    datums: list[Datum]


def trajectory_datums(trajectory: Trajectory, temperature: float) -> list[Datum]:
    """Flat rows of one trajectory: the sampled tokens have mask 1, all others 0.

    Turns whose prompt continues the tokens so far share one datum (tokens in, tokens out:
    nothing is tokenized again); a turn that starts from an edited context starts a new one.
    """
    datums: list[Datum] = []
    pending: list[Turn] = []
    for turn in trajectory.turns:
        if pending and not _continues(pending[-1], turn):
            datums.append(_flatten(pending, temperature))
            pending = []
        pending.append(turn)
    if pending:
        datums.append(_flatten(pending, temperature))
    return datums


def _continues(before: Turn, after: Turn) -> bool:
    so_far = before.prompt_ids + before.completion.token_ids
    same_images = after.media[:len(before.media)] == before.media
    return same_images and after.prompt_ids[:len(so_far)] == so_far


def _flatten(turns: Sequence[Turn], temperature: float) -> Datum:
    last = turns[-1]
    token_ids = np.array(last.prompt_ids + last.completion.token_ids, np.int64)
    mask = np.zeros(len(token_ids), np.float32)
    logprobs = np.zeros(len(token_ids), np.float32)
    for turn in turns:
        start, length = len(turn.prompt_ids), len(turn.completion.token_ids)
        mask[start:start + length] = 1.0
        logprobs[start:start + length] = turn.completion.sampler_logprobs
    return Datum(token_ids=token_ids, mask=mask, advantages=np.zeros_like(mask), weights=mask,
                 sampler_logprobs=logprobs, media=last.media, temperature=temperature)


def training_reward(
    trajectory: Trajectory, algorithm: Algorithm, max_tokens: int,
) -> float | None:
    """The reward the advantages see: the verifiers' total plus the algorithm's length term, which
    is of the longest response of an episode, because ``max_tokens`` limits each of them.
    """
    if trajectory.reward is None or trajectory.reward.total is None:
        return None
    shaping = algorithm.overlong
    longest = max((len(turn.completion.token_ids) for turn in trajectory.turns), default=0)
    extra = shaping(longest, max_tokens) if shaping else 0.0
    return trajectory.reward.total + extra


async def build_batch(
    groups_P: Sequence[Group], algorithm: Algorithm, trainer: Trainer, reference: Sampler | None,
    settings: BatchSettings,
) -> Batch:
    """Turn judged groups into the datums of one rollout.

    Unjudged trajectories (reward None) are left out altogether: they enter no group statistics
    and train with weight 0. So do truncated ones when the algorithm masks them, after they have
    counted in the statistics.
    """
    rows = [
        Row(p, trajectory, reward, trajectory_datums(trajectory, settings.temperature))
        for p, group in enumerate(groups_P) for trajectory in group.trajectories
        if (reward := training_reward(trajectory, algorithm, settings.max_tokens)) is not None
        and trajectory.turns
    ]
    rows = await _with_logprobs(rows, algorithm, trainer, reference, settings)
    advantages = algorithm.advantage(_reward_table(rows, "ref" in algorithm.needs))
    datums: list[Datum] = []
    prompt_index: list[int] = []
    for row, values in zip(rows, advantages, strict=True):
        masked = algorithm.mask_truncated and row.trajectory.status is Status.TRUNCATED_LENGTH
        for datum in _spread(row.datums, values):
            datums.append(replace(datum, mask=np.zeros_like(datum.mask)) if masked else datum)
            prompt_index.append(row.group)
    return Batch(tuple(datums), tuple(prompt_index), algorithm.normalization, settings.max_tokens)


async def _with_logprobs(
    rows: list[Row], algorithm: Algorithm, trainer: Trainer, reference: Sampler | None,
    settings: BatchSettings,
) -> list[Row]:
    flat = [datum for row in rows for datum in row.datums]
    if settings.old_logprobs == "trainer":
        old = await trainer.forward(flat)
    else:
        old = [datum.sampler_logprobs for datum in flat if datum.sampler_logprobs is not None]
    flat = [replace(d, old_logprobs=o) for d, o in zip(flat, old, strict=True)]
    if "ref" in algorithm.needs:
        if reference is None:
            raise ValueError("this algorithm compares with a reference; none was given")
        scored = await asyncio.gather(*(
            reference.logprobs(d.token_ids.tolist(), d.media, d.temperature) for d in flat))
        flat = [replace(d, ref_logprobs=r * d.mask) for d, r in zip(flat, scored, strict=True)]
    remaining = iter(flat)
    return [row._replace(datums=[next(remaining) for _ in row.datums]) for row in rows]


def _reward_table(rows: Sequence[Row], with_kl: bool) -> RewardTable:
    kl: list[FloatArray] | None = None
    if with_kl:
        kl = [np.concatenate([_trained_kl(datum) for datum in row.datums]) for row in rows]
    return RewardTable(
        rewards=np.array([row.reward for row in rows], np.float64),
        groups=np.array([row.group for row in rows], np.int64),
        lengths=np.array([sum(d.num_trained for d in row.datums) for row in rows], np.int64),
        kl=kl)


def _trained_kl(datum: Datum) -> FloatArray:
    """(n_i,) k1 = log pi_old - log pi_ref on the trained tokens."""
    assert datum.old_logprobs is not None and datum.ref_logprobs is not None
    trained = datum.mask > 0
    return (datum.old_logprobs - datum.ref_logprobs)[trained]


def _spread(datums: Sequence[Datum], values: FloatArray) -> list[Datum]:
    """Write (n_i,) advantages of a trajectory onto the trained tokens of its datums."""
    result, start = [], 0
    for datum in datums:
        advantages = np.zeros_like(datum.mask)
        advantages[datum.mask > 0] = values[start:start + datum.num_trained]
        start += datum.num_trained
        result.append(replace(datum, advantages=advantages))
    return result
