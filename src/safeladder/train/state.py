"""Where a loop stands, on disk: written whole or not at all, restored to the bit."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safeladder.engine.base import Trainer
from safeladder.errors import CheckpointError, StorageError


@dataclass
class LoopState:
    """What a loop carries from one step to the next, beside the trainer's own state."""

    next_step: int = 0
    tokens_sampled: int = 0
    """All sampled tokens since the rung began."""
    tokens_trained: int = 0
    """All tokens that went through forward_backward with mask 1."""
    data: dict[str, Any] = field(default_factory=dict)
    """The prompt stream's position."""


@dataclass(frozen=True)
class Checkpoints:
    """The resumable states of one loop: ``folder/step-00000120/{loop.json, trainer/}``.

    A state is written beside its place and renamed, so a folder with that name is complete.
    The newest ``keep`` are kept.
    """

    folder: Path
    every: int = 0
    """Steps between states; 0 keeps none."""
    keep: int = 2

    def due(self, next_step: int) -> bool:
        """Whether a state belongs after this many steps."""
        return self.every > 0 and next_step % self.every == 0

    async def save(self, trainer: Trainer, state: LoopState) -> None:
        """Write a state.

        Raises:
            StorageError: the disk is full or the folder is read-only; older states are intact.
        """
        name = f"step-{state.next_step:08d}"
        partial = self.folder / f".{name}.partial"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            await trainer.save_state(partial / "trainer")
            write_text(partial / "loop.json", json.dumps(asdict(state)))
            shutil.rmtree(self.folder / name, ignore_errors=True)
            os.replace(partial, self.folder / name)
            sync_folder(self.folder)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise storage_error(self.folder, error) from error
        for old in self.steps()[:-self.keep]:
            shutil.rmtree(old)

    def steps(self) -> list[Path]:
        """Complete states, oldest first."""
        return sorted(self.folder.glob("step-*"))

    async def restore(self, trainer: Trainer) -> LoopState:
        """Load the newest state into the trainer; a fresh :class:`LoopState` if there is none.

        Raises:
            CheckpointError: the newest state cannot be read; the message names it.
        """
        states = self.steps()
        if not states:
            return LoopState()
        newest = states[-1]
        try:
            state = LoopState(**json.loads((newest / "loop.json").read_text()))
            await trainer.load_state(newest / "trainer")
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"{newest}: this state cannot be read ({error}); delete the folder to resume from "
                f"{'the one before it' if len(states) > 1 else 'the start of the rung'}"
            ) from error
        return state

    def clear(self) -> None:
        """Forget all states (the rung is finished)."""
        shutil.rmtree(self.folder, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, and onto the disk.

    Raises:
        StorageError: the disk is full or the folder is read-only.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise storage_error(path, error) from error


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def storage_error(path: Path, error: OSError) -> StorageError:
    """The one line a user gets when something cannot be written."""
    if isinstance(error, StorageError):
        return error
    return StorageError(f"{path}: cannot write ({error.strerror or error}); free space or choose "
                        "another folder with --out, then go on with --resume")
