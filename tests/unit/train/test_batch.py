"""Trajectories to datums: masks, advantages and who is left out."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from safeladder.algos.length_penalty import LengthPenalty
from safeladder.algos.presets import build_algorithm
from safeladder.train.batch import BatchSettings, build_batch, training_reward, trajectory_datums
from safeladder.train.metrics import rollout_metrics
from safeladder.types import Completion, Group, Prompt, Reward, Status, Trajectory, Turn

SETTINGS = BatchSettings(max_tokens=10, temperature=0.5, old_logprobs="sampler")
PROMPT = Prompt("p", ())


def turn(prompt_ids, ids):
    logprobs = -np.arange(1, len(ids) + 1, dtype=np.float32)
    return Turn(tuple(prompt_ids), Completion(tuple(ids), logprobs, "stop", 0), "text")


def trajectory(ids, total, status=Status.COMPLETED):
    return Trajectory(PROMPT, (turn([5, 6], ids),), status, reward=Reward(total, {"answer": total}))


def build(groups, preset="dr_grpo", **changes):
    algorithm = replace(build_algorithm({"preset": preset}), **changes)
    return asyncio.run(build_batch(groups, algorithm, None, None, SETTINGS)), algorithm


def test_turns_that_continue_share_a_datum_and_only_completions_train():
    first, second = turn([5, 6], [7, 2]), turn([5, 6, 7, 2, 9], [8])
    (datum,) = trajectory_datums(Trajectory(PROMPT, (first, second), Status.COMPLETED), 0.5)
    assert datum.token_ids.tolist() == [5, 6, 7, 2, 9, 8]
    assert datum.mask.tolist() == [0, 0, 1, 1, 0, 1]
    assert datum.sampler_logprobs.tolist() == [0, 0, -1, -2, 0, -1]
    assert datum.temperature == 0.5
    edited = turn([5, 4, 7], [8])
    datums = trajectory_datums(Trajectory(PROMPT, (first, edited), Status.COMPLETED), 0.5)
    assert [d.token_ids.tolist() for d in datums] == [[5, 6, 7, 2], [5, 4, 7, 8]]


def test_advantages_are_relative_to_the_judged_of_the_group():
    # Judged rewards 3 and -1: mean 1, advantages 2 and -2. The unjudged row enters nothing.
    group = Group(PROMPT, [trajectory([7, 2], 3.0), trajectory([7], None), trajectory([8], -1.0)])
    batch, _ = build([group])
    assert [d.advantages.tolist() for d in batch.datums] == [[0, 0, 2, 2], [0, 0, -2]]
    assert batch.prompt_index == (0, 0)
    assert batch.datums[0].old_logprobs.tolist() == [0, 0, -1, -2]


def test_the_length_term_is_of_the_longest_turn():
    # The limit is 10 per response. Turns of 3, 5 and 4 tokens: 1 - 0.2 * 5 / 10, not of all 12.
    turns = tuple(turn([5], range(n)) for n in (3, 5, 4))
    row = Trajectory(PROMPT, turns, Status.COMPLETED, reward=Reward(1.0))
    algorithm = replace(build_algorithm("dr_grpo"), overlong=LengthPenalty(coef=0.2))
    assert training_reward(row, algorithm, 10) == pytest.approx(0.9)


def test_masked_truncated_rows_count_in_the_mean_but_do_not_train():
    group = Group(PROMPT, [trajectory([7, 2], 3.0),
                           trajectory([8], -1.0, Status.TRUNCATED_LENGTH)])
    batch, _ = build([group], mask_truncated=True)
    assert batch.datums[0].advantages.max() == 2
    assert [d.num_trained for d in batch.datums] == [2, 0]
    (minibatch,) = batch.split(1)
    assert len(minibatch) == 1


def test_failed_rollouts_leave_no_datum():
    failed = Trajectory(PROMPT, (), Status.ERROR_SAMPLER, reward=Reward(None), error="gone")
    batch, algorithm = build([Group(PROMPT, [trajectory([7], 1.0), failed])])
    assert len(batch.datums) == 1
    metrics = rollout_metrics([Group(PROMPT, [trajectory([7], 1.0), failed])], algorithm, 10)
    assert metrics["unjudged"] == 1
    assert metrics["reward/mean"] == 1
    assert metrics["response/errors"] == 0.5
    assert metrics["groups/zero_std"] == 1


@pytest.mark.parametrize("flat", [True, False])
def test_share_of_groups_without_signal(flat):
    group = Group(PROMPT, [trajectory([7], 1.0), trajectory([7], 1.0 if flat else 0.0)])
    _, algorithm = build([group])
    assert rollout_metrics([group], algorithm, 10)["groups/zero_std"] == float(flat)
