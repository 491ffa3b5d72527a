import importlib.util
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safeladder.errors import CheckpointError, ConfigError, MissingExtra, StorageError
from safeladder.train.sinks import JsonlSink, TensorBoardSink, build_sinks, flat_metrics


def record(rung: str, step: int, kind: str = "rl", **metrics: float) -> dict[str, Any]:
    return {"rung": rung, "kind": kind, "step": step, "metrics": metrics or {"loss": float(step)},
            "time": {"seconds": {"update": 0.5}, "tokens_per_second": {"update": 100.0}}}


def lines(path: Path) -> list[tuple[str, str, int]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [(row["rung"], row["kind"], row["step"]) for row in rows]


def test_a_line_is_there_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = JsonlSink(path)
    sink.log(record("sft", 0, loss=1.5))
    assert json.loads(path.read_text()) == record("sft", 0, loss=1.5)
    sink.close()


def test_rewind_forgets_this_rung_from_that_step_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = JsonlSink(path)
    for step in range(3):
        sink.log(record("sft", step, "sft"))
    for step in range(4):
        sink.log(record("rl", step))
    sink.log(record("rl", 3, "eval"))
    sink.rewind("rl", 2)
    sink.log(record("rl", 2))
    sink.close()
    assert lines(path) == [("sft", "sft", 0), ("sft", "sft", 1), ("sft", "sft", 2),
                           ("rl", "rl", 0), ("rl", "rl", 1), ("rl", "rl", 2)]


def test_a_fresh_rung_rewinds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = JsonlSink(path)
    sink.log(record("sft", 5, "sft"))
    sink.rewind("rl", 0)
    sink.close()
    assert lines(path) == [("sft", "sft", 5)]


def test_half_a_line_left_by_a_killed_process_goes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(record("rl", 0)) + '\n{"rung": "rl", "kin')
    sink = JsonlSink(path)
    sink.log(record("rl", 1))
    sink.close()
    assert lines(path) == [("rl", "rl", 0), ("rl", "rl", 1)]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(record("rl", 0)) + "\nnonsense\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl, line 2: not JSON"):
        JsonlSink(path).rewind("rl", 0)


def test_a_figure_that_is_not_finite_is_named_and_not_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = JsonlSink(path)
    with pytest.raises(ValueError, match="rl, step 7: a figure is not finite: rl/grad_norm"):
        sink.log(record("rl", 7, loss=1.0, grad_norm=float("nan")))
    sink.close()
    assert path.read_text() == ""


def test_numpy_scalars_become_numbers(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = JsonlSink(path)
    sink.log(record("rl", 0, loss=np.float32(0.5)))  # type: ignore[arg-type]  # as numpy gives it
    sink.close()
    assert json.loads(path.read_text())["metrics"] == {"loss": 0.5}


@contextmanager
def small_files_only() -> Iterator[None]:
    """No longer than the write under test: the runner's own output may be a file, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    with (pytest.raises(StorageError, match=r"cannot write .*metrics\.jsonl"),
          small_files_only()):
        sink.log(record("rl", 0))


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        JsonlSink(tmp_path / "file" / "metrics.jsonl")


def test_flat_names_tell_evaluation_from_training() -> None:
    assert flat_metrics(record("rl", 0, "eval", accuracy=0.5)) == {
        "rl/eval/accuracy": 0.5, "rl/time/update": 0.5, "rl/tokens_per_second/update": 100.0}
    assert "rl/accuracy" in flat_metrics(record("rl", 0, accuracy=0.5))


def test_the_jsonl_sink_is_always_there(tmp_path: Path) -> None:
    (sink,) = build_sinks([], tmp_path)
    assert isinstance(sink, JsonlSink)
    sink.close()


def test_an_unknown_sink_gets_a_near_miss_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'tensorboard'"):
        build_sinks(["tensorbord"], tmp_path)
    with pytest.raises(ConfigError, match="known: tensorboard, trackio, wandb"):
        build_sinks(["xyz"], tmp_path)


def test_tensorboard_hides_what_was_rewound(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = TensorBoardSink(tmp_path)
    for step in range(4):
        sink.log(record("rl", step, loss=10.0 + step))
    sink.rewind("rl", 2)
    sink.log(record("rl", 2, loss=99.0))
    sink.close()
    events = EventAccumulator(str(tmp_path / "tensorboard" / "rl"))
    events.Reload()
    points = [(e.step, e.value) for e in events.Scalars("rl/loss")]
    assert points == [(0, 10.0), (1, 11.0), (2, 99.0)]


def test_wandb_writes_offline_or_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    if importlib.util.find_spec("wandb") is None:
        with pytest.raises(MissingExtra, match=r"pip install 'safeladder\[wandb\]'"):
            build_sinks(["wandb"], tmp_path)
        return
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    _, sink = build_sinks(["wandb"], tmp_path)
    sink.log(record("rl", 0, loss=0.25))
    sink.close()
    (written,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"rl/loss" in written.read_bytes()


def test_trackio_writes_here_or_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    if importlib.util.find_spec("trackio") is None:
        with pytest.raises(MissingExtra, match=r"pip install 'safeladder\[trackio\]'"):
            build_sinks(["trackio"], tmp_path)
        return
    _, sink = build_sinks(["trackio"], tmp_path)
    sink.log(record("rl", 0, loss=0.25))
    sink.close()
    assert list((tmp_path / "trackio").rglob("*.db"))
