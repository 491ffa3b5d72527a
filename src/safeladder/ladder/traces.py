"""Every trajectory of a run as Parquet: ``traces/<rung>-<what>.parquet``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeladder.data.images import encoded
from safeladder.files import atomic_file
from safeladder.types import Media, Trajectory


@dataclass(frozen=True)
class TraceKey:
    """What a trace file belongs to. ``step`` is -1 for the evaluation at a rung's end."""

    rung: str
    step: int
    split: str
    temperature: float

    @property
    def filename(self) -> str:
        """``logic_rl-train-step000012.parquet``, ``logic_rl-test-t1.parquet``."""
        if self.step >= 0:
            return f"{self.rung}-{self.split}-step{self.step:06d}.parquet"
        return f"{self.rung}-{self.split}-t{self.temperature:g}.parquet"


def write_traces(folder: Path, key: TraceKey, trajectories: Iterable[Trajectory]) -> Path:
    """Write one file, replacing it whole; the columns are those of :func:`trace_row`. Of an
    evaluation, the images of the prompts are kept as well, for the report.

    Raises:
        StorageError: the disk is full or the folder is read-only.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, trajectories = folder / key.filename, list(trajectories)
    rows = [trace_row(key, trajectory) for trajectory in trajectories]
    if key.step < 0:
        rows = [{**row, "media": json.dumps([_stored(media, folder) for media in t.prompt.media])}
                for row, t in zip(rows, trajectories, strict=True)]
    table = pa.Table.from_pylist(rows, schema=_schema(pa))
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary)
    return path


def _stored(media: Media, folder: Path) -> str:
    """Where the image of an evaluation prompt lies: its own path, or ``media/<hash>.png`` beside
    the traces, written once.
    """
    if media.path is not None:
        return str(Path(media.path).resolve())
    name = f"media/{media.digest}.png"
    if not (folder / name).exists():
        with atomic_file(folder / name) as temporary:
            temporary.write_bytes(encoded(media))
    return name


def trace_row(key: TraceKey, trajectory: Trajectory) -> dict[str, Any]:
    """One trajectory as a flat row; structured values are JSON texts."""
    prompt, reward = trajectory.prompt, trajectory.reward
    deciding = trajectory.deciding_verdicts
    verdicts = {
        name: {"score": v.score, "verdict_class": v.verdict_class, "parts": dict(v.parts),
               "error": v.error, **({"origin": v.origin, "reason": v.reason} if v.origin else {}),
               **({} if name in deciding else {"monitor": True})}
        for name, v in trajectory.verdicts.items()}
    return {
        "rung": key.rung, "step": key.step, "split": key.split, "temperature": key.temperature,
        "prompt_id": prompt.id, "source": prompt.source, "task": prompt.task,
        "prompt_text": prompt.rendered or "\n".join(m.text for m in prompt.messages),
        "messages": None if prompt.rendered is not None else json.dumps(
            [message.to_dict() for message in prompt.messages]),
        "response": trajectory.response, "reference": json.dumps(prompt.reference),
        "meta": json.dumps(dict(prompt.meta)), "status": str(trajectory.status),
        "error": trajectory.error, "verdicts": json.dumps(verdicts),
        "reward_total": None if reward is None else reward.total,
        "parts": json.dumps(dict(reward.parts) if reward else {}),
        "num_tokens": trajectory.num_tokens, "turns": json.dumps(_turns(trajectory)),
        "media": "[]",
    }


def _turns(trajectory: Trajectory) -> list[dict[str, Any]]:
    """Each response with what the environment said to it; none where there was one turn alone."""
    if len(trajectory.turns) < 2:
        return []
    return [{"response": turn.response, "environment": [m.text for m in turn.environment_messages]}
            for turn in trajectory.turns]


def _schema(pa: Any) -> Any:
    text, number = pa.string(), pa.float64()
    kinds = {"step": pa.int64(), "temperature": number, "reward_total": number,
             "num_tokens": pa.int64()}
    names = ("rung", "step", "split", "temperature", "prompt_id", "source", "task", "prompt_text",
             "messages", "response", "reference", "meta", "status", "error", "verdicts",
             "reward_total", "parts", "num_tokens", "turns", "media")
    return pa.schema([(name, kinds.get(name, text)) for name in names])
