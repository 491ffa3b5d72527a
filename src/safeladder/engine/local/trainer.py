"""The trainer of the local engine: one process, torch and a Hugging Face model."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from safeladder.engine.base import Capability, Loss, OptimParams, Stats
from safeladder.engine.local.gradients import NotFinite, compute_path, trainable
from safeladder.engine.local.models import LoadedModel, save_checkpoint
from safeladder.engine.local.optim import Optimizer, hidden_matrices
from safeladder.engine.local.sampler import LocalSampler, SamplingEngine, SamplingLimits
from safeladder.errors import CheckpointError, NonFiniteLoss
from safeladder.files import atomic_folder
from safeladder.types import Datum, FloatArray

Result = TypeVar("Result")


class LocalTrainer:
    """Implements :class:`safeladder.engine.base.Trainer`.

    Args:
        loaded: the model; its weights are moved in place.
        precision: ``bf16`` runs the forward under autocast (weights stay fp32); the sampler then
            samples from the fp32 weights, and ``mismatch_kl`` shows the gap.
        workers: threads that share the micro-batches of a step; more than one sets torch to one
            thread per operator, which for small models is the faster use of two cores.
        max_tokens_per_microbatch: bound on memory; it changes no result but by rounding.
        max_rows: rows sampled at once.
        failure_folder: where rows that broke a loss are saved; None: the working directory.
    """

    def __init__(
        self, loaded: LoadedModel, *, precision: Literal["fp32", "bf16"] = "fp32",
        workers: int = 1, max_tokens_per_microbatch: int = 2048, max_rows: int = 128,
        failure_folder: Path | None = None,
    ) -> None:
        if workers > 1:
            torch.set_num_threads(1)
        self.loaded = loaded
        self._precision = precision
        self._path = compute_path(loaded, max_tokens_per_microbatch, workers, precision == "bf16")
        named = trainable(loaded.model)
        self._named = named
        self._optimizer = Optimizer(named, hidden_matrices(loaded.model, [n for n, _ in named]))
        self._sampling = SamplingEngine(loaded, SamplingLimits(max_rows=max_rows))
        self._version = 0
        self._failures = failure_folder or Path()
        self._turn = asyncio.Lock()

    @property
    def capabilities(self) -> frozenset[Capability]:
        """All but ``exact_logprobs`` under bf16, and ``media`` for models that take images."""
        found = {Capability.TRAINS, Capability.LOGPROBS, Capability.SEEDED}
        if self._precision == "fp32":
            found.add(Capability.EXACT_LOGPROBS)
        if self.loaded.processor is not None:
            found.add(Capability.MEDIA)
        return frozenset(found)

    @property
    def policy_version(self) -> int:
        """Number of optimizer steps taken."""
        return self._version

    async def forward(self, data: Sequence[Datum]) -> list[FloatArray]:
        """Return one (T,) array of log-probabilities per datum, 0 where mask is 0."""
        return await self._in_turn(lambda: self._path.forward(data))

    async def forward_backward(self, data: Sequence[Datum], loss: Loss) -> Stats:
        """Add the gradient of ``sum(loss_T * weights_T)`` over all data to what is there.

        Raises:
            NonFiniteLoss: the loss is NaN or infinite; gradients are cleared, nothing is updated.
        """
        return await self._in_turn(lambda: self._forward_backward(data, loss))

    def _forward_backward(self, data: Sequence[Datum], loss: Loss) -> Stats:
        try:
            return self._path.forward_backward(data, loss)
        except NotFinite as error:
            self._optimizer.clear()
            place = self._save_rows(error.rows)
            raise NonFiniteLoss(
                f"the loss of update {self._version} is not finite; the {len(error.rows)} rows of "
                f"its micro-batch are in {place}: lower the learning rate, or look at them"
            ) from None

    async def optim_step(self, params: OptimParams) -> Stats:
        """Clip, update, clear the gradient, count one policy version up.

        Raises:
            NonFiniteLoss: the gradient is not finite; it is cleared, nothing is updated.
        """
        return await self._in_turn(lambda: self._optim_step(params))

    def _optim_step(self, params: OptimParams) -> Stats:
        for name, parameter in self._named:
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                self._optimizer.clear()
                raise NonFiniteLoss(f"update {self._version}: the gradient of {name} is not finite "
                                    "though the loss was; nothing was updated: lower the learning "
                                    "rate")
        norm = self._optimizer.step(params)
        self._version += 1
        means = {"grad_norm": (norm, 1.0), "learning_rate": (params.learning_rate, 1.0)}
        return Stats(means=means)

    async def sampler(self) -> LocalSampler:
        """A sampler of the current weights; it refuses once they have moved on."""
        return await self._in_turn(
            lambda: self._sampling.sampler(self._version, lambda: self._version))

    async def frozen_sampler(self) -> LocalSampler:
        """A sampler of a copy of the current weights that never goes stale."""
        return await self._in_turn(lambda: self._sampling.frozen_sampler(self._version))

    async def save_state(self, path: Path) -> None:
        """Write weights, optimizer and version to the folder ``path`` (must not exist).

        Raises:
            StorageError: it is there already, or cannot be written.
        """
        await self._in_turn(lambda: self._save_state(Path(path)))

    def _save_state(self, path: Path) -> None:
        with atomic_folder(path) as folder:
            save_file({name: p.detach().contiguous() for name, p in self._named},
                      folder / "weights.safetensors")
            torch.save(self._optimizer.state_dict(), folder / "optimizer.pt")
            (folder / "trainer.json").write_text(json.dumps({"policy_version": self._version}))

    async def load_state(self, path: Path) -> None:
        """Restore what :meth:`save_state` wrote, to the bit.

        Raises:
            CheckpointError: a file is missing or damaged, or belongs to another model.
        """
        await self._in_turn(lambda: self._load_state(Path(path)))

    @torch.no_grad()
    def _load_state(self, path: Path) -> None:
        try:
            weights = load_file(path / "weights.safetensors")
            optimizer = torch.load(path / "optimizer.pt", weights_only=True)
            version = json.loads((path / "trainer.json").read_text())["policy_version"]
        except Exception as error:
            raise CheckpointError(f"{path}: not a trainer's state ({error})") from error
        if weights.keys() != {name for name, _ in self._named}:
            raise CheckpointError(f"{path}: the state belongs to another model")
        for name, parameter in self._named:
            parameter.copy_(weights[name])
        self._optimizer.load_state_dict(optimizer)
        self._optimizer.clear()
        self._version = int(version)

    async def save_checkpoint(self, path: Path) -> None:
        """Write a Hugging Face checkpoint (weights, config, tokenizer) to the folder ``path``."""
        await self._in_turn(lambda: save_checkpoint(self.loaded, Path(path)))

    async def _in_turn(self, work: Callable[[], Result]) -> Result:
        """Calls run in the order of submission: asyncio's lock is first come, first served."""
        async with self._turn:
            return work()

    def _save_rows(self, rows: Sequence[Datum]) -> Path:
        self._failures.mkdir(parents=True, exist_ok=True)
        path = self._failures / f"not-finite-{self._version}-{time.time_ns()}.npz"
        arrays: dict[str, Any] = {}
        for i, row in enumerate(rows):
            for name in ("token_ids", "mask", "advantages", "weights", "sampler_logprobs",
                         "old_logprobs", "ref_logprobs"):
                value = getattr(row, name)
                if value is not None:
                    arrays[f"{i}.{name}"] = value
        np.savez(path, **arrays)
        return path
