"""Schedules by hand; the row stream resumes to the row; states are whole or not there."""

import asyncio
import json

import numpy as np
import pytest

from safeladder.errors import CheckpointError, DataError, StorageError
from safeladder.files import write_text
from safeladder.train.rows import ShuffledRows
from safeladder.train.schedule import OptimSettings
from safeladder.train.sft import SFTSettings, training_row
from safeladder.train.state import Checkpoints, LoopState


def test_schedules_by_hand():
    linear = OptimSettings(learning_rate=2.0, schedule="linear", warmup_steps=2, min_ratio=0.1)
    # 10 steps: warm-up 1/2, 1; then from 1 at step 2 down to 0.1 at step 10.
    assert linear.at(0, 10).learning_rate == pytest.approx(1.0)
    assert linear.at(1, 10).learning_rate == pytest.approx(2.0)
    assert linear.at(2, 10).learning_rate == pytest.approx(2.0)
    assert linear.at(6, 10).learning_rate == pytest.approx(2 * (0.1 + 0.9 * 0.5))
    cosine = OptimSettings(learning_rate=1.0, schedule="cosine", muon_learning_rate=0.1)
    assert cosine.at(5, 10).learning_rate == pytest.approx(0.5)
    assert cosine.at(5, 10).muon_learning_rate == pytest.approx(0.05)
    step = OptimSettings(learning_rate=1.0, schedule="step", step_at=0.6, min_ratio=0.25)
    # 10 steps: the first six (0 to 5) at the peak, the other four at a quarter of it
    assert [step.at(i, 10).learning_rate for i in (0, 5, 6, 9)] == [1.0, 1.0, 0.25, 0.25]


def test_a_budget_is_steps_or_tokens():
    optim = {"learning_rate": 1.0}
    with pytest.raises(ValueError, match="only one of them"):
        SFTSettings(num_steps=1, num_tokens=1, tokens_per_step=8, optim=optim)
    with pytest.raises(ValueError, match="constant"):
        SFTSettings(num_tokens=1, tokens_per_step=8, optim={**optim, "schedule": "linear"})
    settings = SFTSettings(num_tokens=10, tokens_per_step=8, optim=optim)
    assert not settings.finished(LoopState(next_step=99, tokens_trained=9))
    assert settings.finished(LoopState(tokens_trained=10))


def rows(count=7):
    return [training_row(range(2 + i)) for i in range(count)]


def lengths(taken):
    return [len(row.token_ids) for row in taken]


def test_rows_fill_the_budget_and_come_once_per_epoch():
    stream = ShuffledRows(rows(), seed=3)
    seen = []
    while len(seen) < 7:
        taken = stream.take_tokens(9)
        assert sum(lengths(taken)) <= 9 or len(taken) == 1
        seen += lengths(taken)
    assert sorted(seen[:7]) == [2, 3, 4, 5, 6, 7, 8]


def test_the_position_resumes_exactly_and_knows_its_rows():
    stream = ShuffledRows(rows(), seed=3)
    for _ in range(5):
        stream.take_tokens(9)
    state = json.loads(json.dumps(stream.state_dict()))
    expected = [lengths(stream.take_tokens(9)) for _ in range(20)]
    other = ShuffledRows(rows(), seed=3)
    other.load_state_dict(state)
    assert [lengths(other.take_tokens(9)) for _ in range(20)] == expected
    with pytest.raises(DataError, match="changed"):
        ShuffledRows(rows(6), seed=3).load_state_dict(state)
    with pytest.raises(DataError, match="no training rows"):
        ShuffledRows([], seed=0)


def test_the_first_token_is_never_trained():
    assert training_row([5, 6, 7]).mask.tolist() == [0, 1, 1]
    assert training_row([5, 6, 7], [1, 0, 1]).mask.tolist() == [0, 0, 1]


class FileTrainer:
    """The part of a trainer that Checkpoints needs: one number on disk."""

    def __init__(self):
        self.value = 0.0

    async def save_state(self, path):
        path.mkdir()
        np.save(path / "value.npy", self.value)

    async def load_state(self, path):
        self.value = float(np.load(path / "value.npy"))


def test_states_are_kept_restored_and_reported(tmp_path):
    trainer, checkpoints = FileTrainer(), Checkpoints(tmp_path / "state", every=2, keep=2)
    assert [step for step in range(1, 7) if checkpoints.due(step)] == [2, 4, 6]
    assert asyncio.run(checkpoints.restore(trainer)) == LoopState()
    for step in (2, 4, 6):
        trainer.value = step / 10
        asyncio.run(checkpoints.save(trainer, LoopState(next_step=step, data={"at": step})))
    assert [p.name for p in checkpoints.steps()] == ["step-00000004", "step-00000006"]
    trainer.value = -1.0
    state = asyncio.run(checkpoints.restore(trainer))
    assert (state.next_step, state.data, trainer.value) == (6, {"at": 6}, 0.6)
    # What a kill inside a save leaves is no state.
    (tmp_path / "state" / ".step-00000008.partial").mkdir()
    assert len(checkpoints.steps()) == 2
    (checkpoints.steps()[-1] / "loop.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"step-00000006.*delete the folder"):
        asyncio.run(checkpoints.restore(trainer))


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_text(blocked / "x.json", "{}")
    with pytest.raises(StorageError, match="cannot write"):
        asyncio.run(Checkpoints(blocked / "state").save(FileTrainer(), LoopState()))
