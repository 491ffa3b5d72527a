"""Responses and what is known of them: one JSON-lines schema for judging responses, for training
verifiers and for measuring them.

=============  ===========================================================================
column         is
=============  ===========================================================================
``prompt``     text or messages (or ``messages``, ``question``, ``problem``); required
``response``   the assistant's text, reasoning included; required
``media``      an image or a list: path (relative to the file), data URI, bytes; optional
``reference``  what a rule compares with, any JSON value; optional
``task``       routes the row to its verifiers; optional, "general"
``label``      the class a person or a rule gave the response; optional
``group``      rows of one group never part in a split (a behaviour, a composition);
               optional, the prompt's text
=============  ===========================================================================

Further columns go to ``Prompt.meta``; ``source`` names the data source that figures are split by.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safeladder.data.files import PlacedRow, read_jsonl
from safeladder.data.images import encoded
from safeladder.data.rows import Columns, RowFormat, to_prompt
from safeladder.errors import DataError
from safeladder.files import atomic_file
from safeladder.types import Prompt, Trajectory

OWN_COLUMNS = ("response", "label", "group")
OWN_CELLS = frozenset({*OWN_COLUMNS, "id", "messages", "media", "reference", "task", "source"})
"""What a row says of itself; a column of the prompt's under such a name is not written."""


@dataclass(frozen=True)
class LabelledResponse:
    """One response to one prompt."""

    prompt: Prompt
    response: str
    label: str | None = None
    group: str = ""
    """What a split keeps together."""

    def trajectory(self) -> Trajectory:
        """What verifiers are given."""
        return Trajectory.finished(self.prompt, self.response)


def read_responses(path: Path) -> list[LabelledResponse]:
    """Read a file of the schema above.

    Raises:
        DataError: no such file, a row without prompt or response, or with a value that cannot be
            used; file and line are named.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    rows = [_read(row, number, path.stem) for number, row in enumerate(read_jsonl(path))]
    if not rows:
        raise DataError(f"{path}: no rows")
    return rows


def write_responses(path: Path, rows: Iterable[LabelledResponse]) -> int:
    """Write the schema above; images go beside the file, as ``<name>_media/<hash>.png``.

    Raises:
        StorageError: something cannot be written.
    """
    count = 0
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json_line(response_cells(row, path)))
            count += 1
    return count


def json_line(cells: Mapping[str, Any]) -> str:
    """One row as a line of JSON. What is not valid Unicode (half of a surrogate pair) is escaped,
    so that any text can be written, and is read back as it was.
    """
    line = json.dumps(cells, ensure_ascii=False, allow_nan=False)
    if not line.isascii():
        try:
            line.encode()
        except UnicodeEncodeError:
            line = json.dumps(cells, allow_nan=False)
    return line + "\n"


def _read(row: PlacedRow, number: int, source: str) -> LabelledResponse:
    response, label = row.cells.get("response"), row.cells.get("label")
    if not isinstance(response, str):
        raise DataError(f"{row.where}: no response; expected a text in the column 'response' "
                        f"(found: {', '.join(map(str, row.cells)) or 'nothing'})")
    if label is not None and not isinstance(label, str):
        raise DataError(f"{row.where}: the label must be a text, found {label!r}")
    images = "media" if row.cells.get("media") else None
    form = RowFormat(source, Columns(images=images, drop=OWN_COLUMNS), rendered="never")
    prompt = to_prompt(row, number, form)
    if row.cells.get("id") is not None:
        prompt = replace(prompt, id=str(row.cells["id"]))
    group = row.cells.get("group") or "\n".join(m.text for m in prompt.messages)
    return LabelledResponse(prompt, response, label, str(group))


def response_cells(row: LabelledResponse, path: Path) -> dict[str, Any]:
    """One row as JSON, to be written into ``path``; its images are stored beside that file."""
    prompt = row.prompt
    cells: dict[str, Any] = {
        "id": prompt.id, "messages": [message.to_dict() for message in prompt.messages],
        "response": row.response, "task": prompt.task, "source": prompt.source}
    if prompt.media:
        cells["media"] = [_store(media, path) for media in prompt.media]
    if prompt.reference is not None:
        cells["reference"] = prompt.reference
    if row.label is not None:
        cells["label"] = row.label
    # a column of the prompt's own never takes the place of what this row says
    return {**{k: v for k, v in prompt.meta.items() if k not in OWN_CELLS}, **cells,
            "group": row.group}


def _store(media: Any, path: Path) -> str:
    target = path.parent / f"{path.stem}_media" / f"{media.digest}.png"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(target) as partial:
            partial.write_bytes(encoded(media))
    return str(target.relative_to(path.parent))
