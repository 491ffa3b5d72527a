"""Traces: the images of an evaluation are kept once; those of training are not."""

import numpy as np
from PIL import Image

from safeladder.data.images import encode_png
from safeladder.ladder.report_data import read_trace
from safeladder.ladder.traces import TraceKey, write_traces
from safeladder.types import Media, Message, Prompt, Trajectory

RED = np.full((4, 6, 3), (255, 0, 0), np.uint8)


def answered(name: str, *media: Media) -> Trajectory:
    prompt = Prompt(name, (Message("user", "what is it ?"),), media=media)
    return Trajectory.finished(prompt, "red")


def test_images_of_an_evaluation_are_written_once(tmp_path):
    elsewhere = tmp_path / "blue.png"
    elsewhere.write_bytes(encode_png(RED[:2]))
    rows = [answered("a", Media(pixels=RED)), answered("b", Media(pixels=RED.copy())),
            answered("c", Media(path=str(elsewhere))), answered("d")]
    traces = tmp_path / "traces"
    path = write_traces(traces, TraceKey("rl", -1, "test", 0.0), iter(rows))
    media = [row["media"] for row in read_trace(path)]
    assert media[0] == media[1] == [f"media/{Media(pixels=RED).digest}.png"]
    assert media[2] == [str(elsewhere)] and media[3] == []
    (kept,) = (traces / "media").iterdir()
    assert np.array_equal(np.asarray(Image.open(kept)), RED)


def test_training_keeps_no_images(tmp_path):
    rows = [answered("a", Media(pixels=RED))]
    path = write_traces(tmp_path, TraceKey("rl", 3, "train", 1.0), rows)
    assert [row["media"] for row in read_trace(path)] == [[]]
    assert not (tmp_path / "media").exists()
