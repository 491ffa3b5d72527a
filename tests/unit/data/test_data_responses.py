"""The schema of responses is read, written and complained about."""

import json
from pathlib import Path

import numpy as np
import pytest

from safeladder.data.responses import LabelledResponse, read_responses, write_responses
from safeladder.errors import DataError
from safeladder.types import Media, Message, Prompt


def test_rows_survive_writing_and_reading(tmp_path: Path) -> None:
    pixels = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    parts = ({"type": "image"}, {"type": "text", "text": "Is this safe?"})
    rows = [
        LabelledResponse(Prompt("a:0", (Message("user", "Hi"),), source="a"), "Hello", "safe", "g"),
        LabelledResponse(Prompt("a:1", (Message("user", parts),), {"x": [1]}, "a", "safety",
                                (Media(pixels=pixels),), {"level": 2}), "<think>no</think>No.")]
    path = tmp_path / "rows.jsonl"
    assert write_responses(path, rows) == 2
    first, second = read_responses(path)
    assert (first.prompt.id, second.prompt.id) == ("a:0", "a:1")
    assert (first.response, first.label, first.group) == ("Hello", "safe", "g")
    assert first.prompt.messages == rows[0].prompt.messages and first.prompt.source == "a"
    assert second.label is None and second.prompt.reference == {"x": [1]}
    assert second.prompt.task == "safety" and second.prompt.meta == {"level": 2}
    (media,) = second.prompt.media
    assert media.path is not None and media.path.startswith(str(tmp_path / "rows_media"))
    assert second.trajectory().response == rows[1].response
    assert second.trajectory().turns[0].media == second.prompt.media


@pytest.mark.parametrize(("row", "message"), [
    ({"prompt": "a"}, "rows.jsonl:2: no response"),
    ({"response": "a"}, "rows.jsonl:2: no prompt"),
    ({"prompt": "a", "response": "b", "label": 3}, "rows.jsonl:2: the label must be a text"),
])
def test_a_wrong_row_is_named(tmp_path: Path, row: dict[str, object], message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "response": "b"}\n' + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=message):
        read_responses(path)
