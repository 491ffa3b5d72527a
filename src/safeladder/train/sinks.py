"""Where the figures of a run go: ``metrics.jsonl`` always, trackers on request.

``metrics.jsonl`` is the record; everything else is a view of it. Each line is

    {"rung": str, "kind": "pretrain" | "sft" | "rl" | "eval", "step": int,
     "metrics": {name: number}, "time": {"seconds": {phase: s}, "tokens_per_second": {phase: ...}}}

Trackers are optional extras; a missing one is an error that gives the install line.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from safeladder.errors import CheckpointError, ConfigError, MissingExtra
from safeladder.files import storage_error, write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Record = Mapping[str, Any]


class MetricSink(Protocol):
    """Something that takes records."""

    def log(self, record: Record) -> None:
        """Take one record."""
        ...

    def rewind(self, rung: str, next_step: int) -> None:
        """A rung goes on at ``next_step``: forget its records of this step and later ones."""
        ...

    def close(self) -> None:
        """Hand over what is still held back."""
        ...


class JsonlSink:
    """One JSON object per line, handed to the operating system at once.

    A process that is killed loses no finished line; half a line at the end (the process died
    while writing) is removed when the file is opened again.

    Raises:
        StorageError: the file cannot be written.
        CheckpointError: a line inside the file is not JSON; the message names it.
        ValueError: a figure is NaN or infinite; it would leave a line that is not JSON.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._drop_half_line()
        self._open()

    def log(self, record: Record) -> None:
        """Append a line."""
        try:
            line = json.dumps(record, allow_nan=False, default=_number)
        except ValueError as error:
            raise ValueError(f"{record.get('rung')}, step {record.get('step')}: a figure is not "
                             f"finite: {_not_finite(record)}") from error
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            raise storage_error(self._path, error) from error

    def rewind(self, rung: str, next_step: int) -> None:
        """Remove the rung's lines of ``next_step`` and later; the file is replaced whole."""
        self._file.close()
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for number, line in enumerate(lines, 1)
                if not _belongs(self._parse(line, number), rung, next_step)]
        if len(kept) < len(lines):
            write_text(self._path, "".join(kept))
        self._open()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> None:
        try:
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise storage_error(self._path, error) from error

    def _drop_half_line(self) -> None:
        if not self._path.exists():
            return
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            try:
                os.truncate(self._path, whole)
            except OSError as error:
                raise storage_error(self._path, error) from error

    def _parse(self, line: str, number: int) -> Record:
        try:
            record: Record = json.loads(line)
        except ValueError as error:
            raise CheckpointError(f"{self._path}, line {number}: not JSON ({error}); remove the "
                                  "line to go on") from None
        return record


def _belongs(record: Record, rung: str, next_step: int) -> bool:
    return bool(record["rung"] == rung and record["step"] >= next_step)


def _number(value: object) -> float:
    """JSON form of a numpy scalar."""
    if hasattr(value, "item"):
        number: float = value.item()
        return number
    raise TypeError(f"{type(value).__name__} is not a number")


def _not_finite(record: Record) -> str:
    return ", ".join(name for name, value in flat_metrics(record).items()
                     if value != value or value in (float("inf"), float("-inf")))


def flat_metrics(record: Record) -> dict[str, float]:
    """A record as one level of names: ``<rung>/<metric>``, ``<rung>/eval/<metric>``,
    ``<rung>/time/<phase>`` (seconds) and ``<rung>/tokens_per_second/<phase>``.
    """
    rung, time = record["rung"], record.get("time", {})
    prefix = f"{rung}/eval" if record["kind"] == "eval" else rung
    flat = {f"{prefix}/{name}": value for name, value in record["metrics"].items()}
    flat |= {f"{rung}/time/{phase}": s for phase, s in time.get("seconds", {}).items()}
    flat |= {f"{rung}/tokens_per_second/{phase}": speed
             for phase, speed in time.get("tokens_per_second", {}).items()}
    return flat


class TensorBoardSink:
    """Event files under ``<run>/tensorboard/<rung>``.

    A rewound rung starts a new file that tells TensorBoard to hide the points from that step on.
    """

    def __init__(self, run_dir: Path) -> None:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError:
            raise MissingExtra("tensorboard", "tensorboard", "the TensorBoard sink") from None
        self._folder = run_dir / "tensorboard"
        self._writers: dict[str, SummaryWriter] = {}

    def log(self, record: Record) -> None:
        """Add one point per figure."""
        writer = self._writer(record["rung"], None)
        for name, value in flat_metrics(record).items():
            writer.add_scalar(name, value, record["step"])

    def rewind(self, rung: str, next_step: int) -> None:
        """Hide the rung's points of ``next_step`` and later."""
        if rung in self._writers:
            self._writers.pop(rung).close()
        self._writer(rung, next_step)

    def close(self) -> None:
        """Write what is held back."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, rung: str, purge_step: int | None) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        if rung not in self._writers:
            self._writers[rung] = SummaryWriter(str(self._folder / rung), purge_step=purge_step)
        return self._writers[rung]


class WandbSink:
    """Weights & Biases: one run per run directory, every rung with a step axis of its own.

    It cannot take points back: after a resume, points from the resumed step on appear again.
    ``WANDB_MODE=offline`` (or ``disabled``) is theirs to read.
    """

    def __init__(self, run_dir: Path) -> None:
        try:
            import wandb
        except ImportError:
            raise MissingExtra("wandb", "wandb", "the W&B sink") from None
        self._run = wandb.init(project="safeladder", name=run_dir.name, id=_identity(run_dir),
                               dir=str(run_dir), resume="allow")
        self._rungs: set[str] = set()

    def log(self, record: Record) -> None:
        """Log one record."""
        rung = record["rung"]
        if rung not in self._rungs:
            self._run.define_metric(f"{rung}/step")
            self._run.define_metric(f"{rung}/*", step_metric=f"{rung}/step")
            self._rungs.add(rung)
        self._run.log({**flat_metrics(record), f"{rung}/step": record["step"]})

    def rewind(self, rung: str, next_step: int) -> None:
        """Nothing to do: see the class."""

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class TrackioSink:
    """trackio: one run per run directory, kept on this machine.

    It cannot take points back: after a resume, points from the resumed step on appear again.
    """

    def __init__(self, run_dir: Path) -> None:
        try:
            import trackio
        except ImportError:
            raise MissingExtra("trackio", "trackio", "the trackio sink") from None
        self._run = trackio.init(project="safeladder", name=_identity(run_dir), resume="allow")
        self._finish: Callable[[], None] = trackio.finish

    def log(self, record: Record) -> None:
        """Log one record."""
        self._run.log({**flat_metrics(record), f"{record['rung']}/step": record["step"]})

    def rewind(self, rung: str, next_step: int) -> None:
        """Nothing to do: see the class."""

    def close(self) -> None:
        """End the run."""
        self._finish()


def _identity(run_dir: Path) -> str:
    """A name that a resumed run has again, in the characters trackers allow."""
    path = run_dir.resolve()
    return re.sub(r"[^\w.-]", "-", f"{path.parent.name}-{path.name}")


TRACKERS: Mapping[str, Callable[[Path], MetricSink]] = {
    "tensorboard": TensorBoardSink,
    "trackio": TrackioSink,
    "wandb": WandbSink,
}
"""Sinks beside ``metrics.jsonl``, by the name a recipe gives them."""


def build_sinks(names: Sequence[str], run_dir: Path) -> list[MetricSink]:
    """The sink of ``metrics.jsonl``, then one per name.

    Raises:
        ConfigError: a name is unknown.
        MissingExtra: a tracker is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            near = difflib.get_close_matches(name, TRACKERS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(TRACKERS)}"
            raise ConfigError(f"unknown metric sink {name!r} ({hint})")
    trackers = [TRACKERS[name](run_dir) for name in dict.fromkeys(names)]
    return [JsonlSink(run_dir / "metrics.jsonl"), *trackers]
