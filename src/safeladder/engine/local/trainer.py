"""The trainer of the local engine: one process, torch and a Hugging Face model."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from safeladder.engine.base import Capability, Loss, OptimParams, Stats
from safeladder.engine.local.compute import Compute, trainable
from safeladder.engine.local.losses import OPTIONAL_COLUMNS, NotFinite
from safeladder.engine.local.models import LoadedModel, save_checkpoint
from safeladder.engine.local.optim import Optimizer, hidden_matrices
from safeladder.engine.local.sampler import LocalSampler, SamplingEngine, SamplingOptions
from safeladder.errors import CheckpointError, NonFiniteLoss
from safeladder.files import atomic_folder
from safeladder.types import Datum, FloatArray

Result = TypeVar("Result")
_WEIGHTS, _OPTIMIZER, _META = "weights.safetensors", "optimizer.safetensors", "trainer.json"


class _Job(Generic[Result]):
    """One call: its work, later its outcome."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self.done = False
        self._result: Result | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        self.done = True
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error

    def outcome(self) -> Result:
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # Result may itself be None


class LocalTrainer:
    """Implements :class:`safeladder.engine.base.Trainer`.

    Calls take their place in the order when they are made, and run when one of them, or a later
    one, is awaited; the computing happens in the awaiting thread (and in ``workers`` more).

    Args:
        loaded: the model; its weights are moved in place.
        precision: ``bf16`` runs the forward under autocast (weights stay fp32); the sampler then
            samples from the fp32 weights, and ``mismatch_kl`` shows the gap.
        workers: threads that share the micro-batches of a step (:mod:`.packed_path`). The result
            differs from one worker's by rounding only, and a number of workers always gives the
            same bits.
        max_tokens_per_microbatch: tokens that are computed at a time. It bounds memory and
            changes results by rounding only.
        max_rows: rows sampled at once.
        failure_folder: where rows that broke a loss are saved; None: the working directory.
    """

    def __init__(
        self, loaded: LoadedModel, *, precision: Literal["fp32", "bf16"] = "fp32",
        workers: int = 1, max_tokens_per_microbatch: int = 2048, max_rows: int = 128,
        failure_folder: Path | None = None,
    ) -> None:
        self.loaded = loaded
        self._precision = precision
        self._compute = Compute(loaded, max_tokens_per_microbatch, workers, precision == "bf16")
        self._parameters = trainable(loaded.model)
        self._optimizer = Optimizer(self._parameters, hidden_matrices(loaded.model))
        self._sampling = SamplingEngine(loaded, SamplingOptions(max_rows=max_rows, workers=workers))
        self._version = 0
        self._failures = failure_folder or Path()
        self._queue: deque[_Job[Any]] = deque()

    @property
    def capabilities(self) -> frozenset[Capability]:
        """All but ``exact_logprobs`` under bf16, and ``media`` for models that take images."""
        found = {Capability.TRAINS, Capability.LOGPROBS, Capability.SEEDED}
        if self._precision == "fp32" and self.loaded.dtype == torch.float32:
            found.add(Capability.EXACT_LOGPROBS)
        if self.loaded.processor is not None:
            found.add(Capability.MEDIA)
        return frozenset(found)

    @property
    def policy_version(self) -> int:
        """Number of optimizer steps taken."""
        return self._version

    @property
    def is_packed(self) -> bool:
        """Whether rows of text take the packed path."""
        return self._compute.is_packed

    def forward(self, data: Sequence[Datum]) -> Coroutine[Any, Any, list[FloatArray]]:
        """Return one (T,) array of log-probabilities per datum, 0 where mask is 0.

        They are those of logits / ``datum.temperature``, as in :meth:`forward_backward`.
        """
        return self._submit(lambda: self._compute.forward(data))

    def forward_backward(self, data: Sequence[Datum], loss: Loss) -> Coroutine[Any, Any, Stats]:
        """Add the gradient of ``sum(loss_T * weights_T)`` over all data to what is there.

        Returns:
            ``loss`` (a sum) and means over trained tokens of the loss's own metrics, ``entropy``,
            ``kl_ref``, ``kl_old``, ``mismatch_kl``, and ``max_ratio_gap`` (:mod:`.losses`).

        Raises:
            NonFiniteLoss: the loss or a gradient is NaN or infinite. The rows are saved, the
                gradient summed up so far is cleared, nothing is updated.
            ValueError: an optional log-probability is set on some of the rows only.
        """
        return self._submit(lambda: self._forward_backward(data, loss))

    def optim_step(self, params: OptimParams) -> Coroutine[Any, Any, Stats]:
        """Clip, update, clear the gradient, count one policy version up.

        Returns:
            ``grad_norm`` before clipping and ``learning_rate``.
        """
        return self._submit(lambda: self._optim_step(params))

    def sampler(self) -> Coroutine[Any, Any, LocalSampler]:
        """A sampler of the current weights; it refuses once they have moved on."""
        return self._submit(lambda: self._sampling.sampler(self._version, lambda: self._version))

    def frozen_sampler(self) -> Coroutine[Any, Any, LocalSampler]:
        """A sampler of a copy of the current weights that never goes stale."""
        return self._submit(lambda: self._sampling.frozen_sampler(self._version))

    def save_state(self, path: Path) -> Coroutine[Any, Any, None]:
        """Write trained weights, optimizer and version to the folder ``path`` (must not exist).

        Raises:
            StorageError: it is there already, or cannot be written.
        """
        return self._submit(lambda: self._save_state(Path(path)))

    def load_state(self, path: Path) -> Coroutine[Any, Any, None]:
        """Restore what :meth:`save_state` wrote, to the bit; gradients are cleared.

        Raises:
            CheckpointError: a file is missing or damaged, or belongs to another model.
        """
        return self._submit(lambda: self._load_state(Path(path)))

    def save_checkpoint(self, path: Path) -> Coroutine[Any, Any, None]:
        """Write a Hugging Face checkpoint (weights, config, tokenizer) to the folder ``path``.

        Raises:
            StorageError: it is there already, or cannot be written.
        """
        return self._submit(lambda: save_checkpoint(self.loaded, Path(path)))

    # ------------------------------------------------------------------ the work itself

    def _submit(self, work: Callable[[], Result]) -> Coroutine[Any, Any, Result]:
        job = _Job(work)
        self._queue.append(job)
        return self._until_done(job)

    async def _until_done(self, job: _Job[Result]) -> Result:
        while not job.done:
            self._queue.popleft().run()
        return job.outcome()

    def _forward_backward(self, data: Sequence[Datum], loss: Loss) -> Stats:
        try:
            return self._compute.forward_backward(data, loss)
        except NotFinite as error:
            self._optimizer.clear()
            place = self._save_rows(error.rows)
            raise NonFiniteLoss(
                f"the {error.what} of update {self._version} is not finite; its {len(error.rows)} "
                f"rows are in {place}: look at them, or lower the learning rate") from None

    def _optim_step(self, params: OptimParams) -> Stats:
        norm = self._optimizer.step(params)
        self._version += 1
        return Stats(means={"grad_norm": (norm, 1.0),
                            "learning_rate": (params.learning_rate, 1.0)})

    def _save_state(self, path: Path) -> None:
        with atomic_folder(path) as folder:
            save_file({name: p.detach().contiguous() for name, p in self._parameters.items()},
                      folder / _WEIGHTS)
            save_file(self._optimizer.state(), folder / _OPTIMIZER)
            (folder / _META).write_text(json.dumps({"policy_version": self._version}))

    @torch.no_grad()
    def _load_state(self, path: Path) -> None:
        try:
            weights = load_file(path / _WEIGHTS)
            optimizer = load_file(path / _OPTIMIZER)
            version = int(json.loads((path / _META).read_text())["policy_version"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise CheckpointError(f"{path} is no whole trainer state ({error}): resume from "
                                  "another one") from error
        shapes = {name: p.shape for name, p in self._parameters.items()}
        if {name: value.shape for name, value in weights.items()} != shapes:
            raise CheckpointError(f"{path} belongs to another model: its weights have other names "
                                  "or shapes")
        for name, parameter in self._parameters.items():
            parameter.copy_(weights[name])
        self._optimizer.load_state(optimizer)
        self._version = version

    def _save_rows(self, rows: Sequence[Datum]) -> str:
        """Save rows to a new file; return where they are, or why they are nowhere."""
        path = self._failures / f"not-finite-{self._version}-{time.time_ns()}.npz"
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for number, row in enumerate(rows):
            for name in ("token_ids", "mask", "advantages", "weights", *OPTIONAL_COLUMNS):
                if getattr(row, name) is not None:
                    arrays[f"{number}/{name}"] = getattr(row, name)
            arrays[f"{number}/temperature"] = np.array(row.temperature)
            arrays[f"{number}/media"] = np.array([item.digest for item in row.media])
        try:
            self._failures.mkdir(parents=True, exist_ok=True)
            np.savez(path, allow_pickle=False, **arrays)
        except OSError as error:
            # the loss is what the user must hear of, not the full disk
            return f"no file ({error.strerror or error})"
        return str(path)
