"""The smallest honest trainer: a table of next-token logits by last token (a bigram model).

It has real gradients, a real optimizer and real state, and takes milliseconds, so that loops can
be tested without a network.
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from safeladder.algos.base import flatten
from safeladder.engine.base import Capability, Loss, OptimParams, Stats
from safeladder.engine.fake.sampler import FakeSampler, TableModel
from safeladder.errors import CheckpointError, ModelError, NonFiniteLoss, StorageError
from safeladder.render.decode import Tokenizer
from safeladder.types import Datum, FloatArray

STATE_FILE = "state.pt"


class FakeTrainer:
    """Implements ``Trainer`` for a (V, V) table; AdamW, fp32, CPU.

    Args:
        vocab_size: V.
        seed: of the table's start, normal with standard deviation ``scale``.
        scale: 0 starts with the uniform distribution.
        tokenizer: handed to the samplers, for their ``chat``.
    """

    def __init__(
        self, vocab_size: int, seed: int = 0, scale: float = 1.0,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(vocab_size, vocab_size, generator=generator) * scale
        self._table = torch.nn.Parameter(start)
        self._optimizer = torch.optim.AdamW([self._table])
        self._tokenizer = tokenizer
        self._version = 0

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Everything but images."""
        return frozenset({Capability.LOGPROBS, Capability.EXACT_LOGPROBS, Capability.SEEDED,
                          Capability.TRAINS})

    @property
    def policy_version(self) -> int:
        """Number of optimizer steps taken."""
        return self._version

    async def forward(self, data: Sequence[Datum]) -> list[FloatArray]:
        """Return (T,) log-probabilities per datum, 0 where mask is 0."""
        with torch.no_grad():
            return [(self._logprobs(datum)[0] * torch.from_numpy(datum.mask)).numpy()
                    for datum in data]

    async def forward_backward(self, data: Sequence[Datum], loss: Loss) -> Stats:
        """Add the gradient of ``sum(loss_T * weights_T)``.

        Raises:
            NonFiniteLoss: the loss is NaN or infinite; the gradient is as it was before.
        """
        both = [self._logprobs(datum) for datum in data]
        entropies = [entropy if "entropy" in loss.needs else entropy.detach()
                     for _, entropy in both]
        inputs, weights = flatten(data, [logprobs for logprobs, _ in both], entropies)
        output = loss(inputs)
        total = (output.loss * weights).sum()
        if not torch.isfinite(total):
            raise NonFiniteLoss(f"the loss is {float(total.detach())} over {len(data)} rows")
        total.backward()
        count = float(len(weights))
        metrics = {"entropy": inputs.entropy, **output.metrics}
        means = {name: (float(values.detach().sum()), count)
                 for name, values in metrics.items() if values is not None}
        return Stats(sums={"loss": float(total.detach())}, means=means)

    async def optim_step(self, params: OptimParams) -> Stats:
        """Clip, update, clear the gradient, count one version up.

        Raises:
            ModelError: a Muon rate is set; a table has no hidden matrices.
        """
        if params.muon_learning_rate is not None:
            raise ModelError("the fake trainer has no hidden matrices for Muon: leave "
                             "muon_learning_rate out")
        norm = torch.nn.utils.clip_grad_norm_([self._table], params.max_grad_norm)
        for group in self._optimizer.param_groups:
            group.update(lr=params.learning_rate, weight_decay=params.weight_decay,
                         betas=(params.beta1, params.beta2), eps=params.eps)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._version += 1
        return Stats(means={"grad_norm": (float(norm), 1.0)})

    async def sampler(self) -> FakeSampler:
        """A sampler of the current weights; stale after the next step."""
        return FakeSampler(self._frozen(), self._tokenizer, self._version,
                           current_version=lambda: self._version)

    async def frozen_sampler(self) -> FakeSampler:
        """A sampler of a copy of the current weights; never stale."""
        return FakeSampler(self._frozen(), self._tokenizer, self._version)

    async def save_state(self, path: Path) -> None:
        """Write table, optimizer and version; the folder appears whole or not at all.

        Raises:
            StorageError: ``path`` exists or cannot be written.
        """
        if path.exists():
            raise StorageError(f"{path} exists already: choose another folder")
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            unfinished.mkdir(parents=True)
            torch.save({"table": self._table.detach(), "optimizer": self._optimizer.state_dict(),
                        "version": self._version}, unfinished / STATE_FILE)
            unfinished.rename(path)
        except (OSError, RuntimeError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise StorageError(f"{path}: cannot be written ({error})") from error

    async def load_state(self, path: Path) -> None:
        """Restore what :meth:`save_state` wrote, to the bit.

        Raises:
            CheckpointError: there is nothing, or a table of another size.
        """
        try:
            state = torch.load(path / STATE_FILE, weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise CheckpointError(f"{path}: no readable state ({error})") from error
        if state["table"].shape != self._table.shape:
            raise CheckpointError(f"{path}: a table of {tuple(state['table'].shape)}, expected "
                                  f"{tuple(self._table.shape)}")
        with torch.no_grad():
            self._table.copy_(state["table"])
        self._table.grad = None
        self._optimizer.load_state_dict(state["optimizer"])
        self._version = state["version"]

    async def save_checkpoint(self, path: Path) -> None:
        """A table is no Hugging Face model.

        Raises:
            ModelError: always.
        """
        raise ModelError("a table has no Hugging Face form: use engine.local for checkpoints")

    def _frozen(self) -> TableModel:
        return TableModel(self._table.detach().double().numpy().copy())

    def _logprobs(self, datum: Datum) -> tuple[Tensor, Tensor]:
        """(T,) log-probabilities and entropies; position 0 holds 0."""
        ids = torch.from_numpy(datum.token_ids)
        scores = torch.log_softmax(self._table[ids[:-1]] / datum.temperature, dim=-1)
        chosen = scores.gather(1, ids[1:, None]).squeeze(1)
        entropy = -(scores.exp() * scores).sum(-1)
        zero = scores.new_zeros(1)
        return torch.cat([zero, chosen]), torch.cat([zero, entropy])
