"""Where a loop stands, on disk: written whole or not at all, restored to the bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from safeladder.engine.base import Trainer
from safeladder.errors import CheckpointError
from safeladder.files import atomic_folder, write_text


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
    carried: dict[str, Any] = field(default_factory=dict)
    """What :attr:`Checkpoints.carried` held, by name."""


class Carried(Protocol):
    """Something beside the trainer that moves on from step to step."""

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to there."""
        ...


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
    carried: Mapping[str, Carried] = field(default_factory=dict)
    """What is saved with every state and restored with it (an objective's multipliers)."""

    def due(self, next_step: int) -> bool:
        """Whether a state belongs after this many steps."""
        return self.every > 0 and next_step % self.every == 0

    async def save(self, trainer: Trainer, state: LoopState) -> None:
        """Write a state.

        Raises:
            StorageError: the disk is full or the folder is read-only; older states are intact.
        """
        path = self.folder / f"step-{state.next_step:08d}"
        shutil.rmtree(path, ignore_errors=True)
        with atomic_folder(path) as partial:
            await trainer.save_state(partial / "trainer")
            state.carried = {name: part.state_dict() for name, part in self.carried.items()}
            write_text(partial / "loop.json", json.dumps(asdict(state)))
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
            for name, part in self.carried.items():
                part.load_state_dict(state.carried.get(name, {}))
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
