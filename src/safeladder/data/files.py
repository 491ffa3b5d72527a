"""Read JSON lines and Parquet with the place of every row; write verl's Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safeladder.data.images import encoded
from safeladder.errors import DataError
from safeladder.files import atomic_file
from safeladder.types import Message, Prompt


class PlacedRow(NamedTuple):
    """A row and its place."""

    where: str
    """File and line (JSON lines) or row number from 0, as errors name it."""
    cells: Mapping[str, Any]
    folder: Path = Path()
    """Where relative image paths start."""


def find_files(path: str, base: Path) -> list[Path]:
    """The file, or the files that a pattern such as ``shard-*.parquet`` matches, in name order.

    Raises:
        DataError: there is none.
    """
    full = base / path
    if full.is_file():
        return [full]
    found: list[Path] = []
    if any(c in path for c in "*?["):
        anchor = Path(full.anchor or ".")
        pattern = str(full.relative_to(full.anchor)) if full.anchor else str(full)
        found = sorted(p for p in anchor.glob(pattern) if p.is_file())
    if not found:
        raise DataError(f"{full}: no such file")
    return found


def read_jsonl(path: Path) -> Iterator[PlacedRow]:
    """Yield the objects of a file of JSON lines; blank lines are passed over.

    Raises:
        DataError: a line is not a JSON object, or the file is not UTF-8; file and line are named.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line.rstrip())
            except UnicodeDecodeError:
                raise DataError(f"{where}: not UTF-8") from None
            except json.JSONDecodeError as error:
                raise DataError(f"{where}, column {error.colno}: not JSON: {error.msg}") from None
            if not isinstance(row, dict):
                raise DataError(f"{where}: expected an object, got {type(row).__name__}")
            yield PlacedRow(where, row, path.parent)


def read_parquet(path: Path) -> Iterator[PlacedRow]:
    """Yield the rows of a Parquet file, numbered from 0 in errors.

    Raises:
        DataError: it is no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        number = 0
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                yield PlacedRow(f"{path}, row {number}", row, path.parent)
                number += 1
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a Parquet file: {str(error).splitlines()[0]}") from None


def write_verl_parquet(prompts: Sequence[Prompt], path: Path | str, split: str = "train") -> None:
    """Write prompts in verl's schema, so that verl, SkyRL and SafeLadder read them alike.

    ``reference`` becomes ``reward_model.ground_truth``, ``task`` ``ability``, ``source``
    ``data_source``; ``extra_info`` holds index, split and id, and ``meta`` as JSON text. A rendered
    prompt is written as it is, as Logic-RL does; images as encoded bytes, ``<image>`` in the text.

    Raises:
        DataError: the references do not fit one column type.
        StorageError: the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    rows = [_verl_row(prompt, number, split) for number, prompt in enumerate(prompts)]
    if any(prompt.media for prompt in prompts):
        for row, prompt in zip(rows, prompts, strict=True):
            # In every row, as the columns of the table are those of its first row.
            row["images"] = [{"bytes": encoded(media), "path": None} for media in prompt.media]
    try:
        table = pa.Table.from_pylist(rows)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{path}: the references are of several types, and a Parquet column has "
                        f"one ({error}); write one file per task") from None
    with atomic_file(path) as partial:
        pq.write_table(table, partial)


def _verl_row(prompt: Prompt, number: int, split: str) -> dict[str, Any]:
    if prompt.rendered is not None:
        messages = [{"content": prompt.rendered, "role": "user"}]
    else:
        messages = [{"content": _marked_text(m), "role": m.role} for m in prompt.messages]
    return {
        "data_source": prompt.source,
        "prompt": messages,
        "ability": prompt.task,
        "reward_model": {"ground_truth": prompt.reference,
                         "style": "model" if prompt.reference is None else "rule"},
        "extra_info": {"id": prompt.id, "index": number, "split": split,
                       "meta": json.dumps(dict(prompt.meta), sort_keys=True)},
    }


def _marked_text(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "".join(part["text"] if part["type"] == "text" else "<image>"
                   for part in message.content)
