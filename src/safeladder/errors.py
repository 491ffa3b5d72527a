"""The errors a user can mend, each one line: what, where, how to mend.

Programs catch :class:`SafeLadderError` at their outermost frame, print the line and exit with
code 2. Everything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import importlib
from typing import Any


class SafeLadderError(Exception):
    """Root of all errors that a user can mend."""


class ConfigError(SafeLadderError, ValueError):
    """A recipe or an override is wrong; the message names the key."""


class DataError(SafeLadderError, ValueError):
    """A dataset row cannot be used; the message names file and line."""


class CheckpointError(SafeLadderError, OSError):
    """A checkpoint is missing, incomplete or does not fit the model."""


class StorageError(SafeLadderError, OSError):
    """Nothing could be written: the disk is full or the folder is read-only."""


class ModelError(SafeLadderError, ValueError):
    """A model or tokenizer lacks what is asked of it (a chat template, an image processor)."""


class MissingExtra(SafeLadderError, ImportError):
    """An optional dependency is needed; the message gives the ``pip install`` line."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}: pip install 'safeladder[{extra}]'")


def import_extra(module: str, extra: str, purpose: str) -> Any:
    """Import an optional dependency.

    Raises:
        MissingExtra: it is not installed. If it is and cannot be imported, its own error is raised.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise MissingExtra(module.partition(".")[0].replace("_", "-"), extra, purpose) from None


class StaleSampler(SafeLadderError, RuntimeError):
    """A sampler was used after the weights it was pinned to had moved on."""


class NonFiniteLoss(SafeLadderError, ArithmeticError):
    """A loss or gradient is not finite; the rows that caused it were saved to a file."""


class TooManyAbstentions(SafeLadderError, RuntimeError):
    """Verifiers could not judge more of the trajectories than the recipe allows."""


class GateFailed(SafeLadderError, RuntimeError):
    """A rung failed a gate, and its recipe says to stop."""


class BatchArithmeticError(ConfigError):
    """Batch sizes that do not divide; the message names the knob to change."""


class SamplingError(SafeLadderError, RuntimeError):
    """An engine could not sample; a rollout records it as a status."""


class ToolError(SafeLadderError, RuntimeError):
    """A tool of an environment failed; a rollout records it as a status."""
