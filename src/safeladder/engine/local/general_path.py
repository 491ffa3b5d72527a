"""Gradients of any Hugging Face model through its own forward and autograd.

Rows are padded on the right and sorted by length. This path takes what the packed
one does not: other families, adapters, autocast, long rows.

With several workers, threads share the micro-batches of a step, each with its own gradients, as
on the packed path (:mod:`.packed_path`): most of a backward runs without Python's lock. Gradients
are added in the workers' order, so a number of workers always gives the same bits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from safeladder.engine.base import Loss, Stats
from safeladder.engine.local.batching import Row
from safeladder.engine.local.losses import differentiate
from safeladder.engine.local.media import ExpandedRow, collate, expand_row
from safeladder.engine.local.models import LoadedModel
from safeladder.engine.local.packed_path import added, deal, one_thread_per_operator
from safeladder.types import IntArray

Store = Callable[[Row, Tensor], None]


@dataclass(frozen=True)
class _Shown:
    """A row as the model sees it."""

    row: Row
    expanded: ExpandedRow

    @property
    def length(self) -> int:
        return len(self.expanded.token_ids)

    @property
    def predicting(self) -> IntArray:
        """Positions whose output predicts the trained tokens."""
        chosen: IntArray = self.expanded.positions[self.row.positions - 1]
        return chosen


class GeneralPath:
    """Log-probabilities and gradients of any rows.

    Args:
        loaded: the model.
        max_tokens: padded tokens per micro-batch.
        autocast: run the forward in bf16 where torch thinks it safe.
        workers: threads of :meth:`forward_backward`.
    """

    def __init__(
        self, loaded: LoadedModel, max_tokens: int, autocast: bool, workers: int = 1,
    ) -> None:
        self._loaded, self._max_tokens, self._autocast = loaded, max_tokens, autocast
        self._workers = workers
        self._threads = ThreadPoolExecutor(workers, "trainer") if workers > 1 else None
        parameters = inspect.signature(loaded.model.forward).parameters
        self._keeps = "logits_to_keep" in parameters

    @torch.no_grad()
    def forward(self, rows: Sequence[Row], store: Store) -> None:
        """Hand the log-probabilities of every row to ``store``."""
        for part in self._micro_batches(rows):
            logprobs, _ = self._figures(part, with_entropy_gradient=False)
            counts = [shown.row.num_trained for shown in part]
            for shown, values in zip(part, logprobs.split(counts), strict=True):
                store(shown.row, values)

    def forward_backward(self, rows: Sequence[Row], loss: Loss) -> Stats:
        """Add the gradient of ``sum(loss_T * weights_T)`` to the parameters' ``grad``.

        Raises:
            NotFinite: the loss is; micro-batches before this one have added theirs.
        """
        parts = self._micro_batches(rows)
        if self._threads is None or len(parts) == 1:
            return sum((self._one(part, loss) for part in parts), Stats())
        parameters = [p for p in self._loaded.model.parameters() if p.requires_grad]

        def work(mine: Sequence[int]) -> tuple[list[Tensor | None], dict[int, Stats]]:
            total: list[Tensor | None] = [None] * len(parameters)
            return total, {number: self._one(parts[number], loss, parameters, total)
                           for number in mine}

        hands = deal([len(part) * part[0].length for part in parts], self._workers)
        with one_thread_per_operator():
            jobs = [self._threads.submit(work, hand) for hand in hands if hand]
            wait(jobs)
        stats: dict[int, Stats] = {}
        for job in jobs:
            total, some = job.result()
            stats |= some
            for parameter, gradient in zip(parameters, total, strict=True):
                parameter.grad = added(parameter.grad, gradient)
        return sum((stats[number] for number in sorted(stats)), Stats())

    def _one(self, part: Sequence[_Shown], loss: Loss, parameters: Sequence[Tensor] = (),
             total: list[Tensor | None] | None = None) -> Stats:
        """Forward and backward of one micro-batch.

        Its gradients are added to ``total``, one place per parameter; without it to the
        parameters' ``grad``, as autograd itself adds them (no second set of gradients exists).
        """
        logprobs, entropy = self._figures(part, "entropy" in loss.needs)
        start = differentiate([shown.row for shown in part], loss, logprobs, entropy)
        outputs, begin = [logprobs], [start.logprobs]
        if start.entropy is not None:
            outputs, begin = [logprobs, entropy], [start.logprobs, start.entropy]
        if total is None:
            torch.autograd.backward(outputs, begin)
            return start.stats
        found = torch.autograd.grad(outputs, parameters, begin, allow_unused=True)
        total[:] = [added(known, gradient)
                    for known, gradient in zip(total, found, strict=True)]
        return start.stats

    def _micro_batches(self, rows: Sequence[Row]) -> list[list[_Shown]]:
        shown = [_Shown(row, self._expand(row)) for row in rows]
        shown.sort(key=lambda item: (-item.length, item.row.index))
        total = sum(item.length for item in shown)
        budget = min(self._max_tokens, -(-total // self._workers))
        parts: list[list[_Shown]] = []
        for item in shown:
            if parts and (len(parts[-1]) + 1) * parts[-1][0].length <= budget:
                parts[-1].append(item)
            else:
                parts.append([item])
        return parts

    def _expand(self, row: Row) -> ExpandedRow:
        datum = row.datum
        # The last trained token predicts nothing. With images all is kept: one may come later.
        end = len(datum.token_ids) if datum.media else row.stop - 1
        return expand_row(self._loaded, datum.token_ids[:end], datum.media)

    def _figures(self, part: Sequence[_Shown], with_entropy_gradient: bool,
                 ) -> tuple[Tensor, Tensor]:
        """(n,) log-probabilities and entropies of the trained tokens, row after row."""
        inputs = collate(self._loaded, [shown.expanded for shown in part])
        width = inputs["input_ids"].shape[1]
        first = min(int(shown.predicting[0]) for shown in part)
        extra = {"logits_to_keep": width - first} if self._keeps else {}
        with self._precision():
            logits = self._loaded.model(**inputs, use_cache=False, **extra).logits
        offset = width - logits.shape[1]
        places = [i * logits.shape[1] + shown.predicting - offset for i, shown in enumerate(part)]
        flat = logits.flatten(0, 1)[_tensor(np.concatenate(places), logits)].float()
        temperatures = np.repeat([shown.row.datum.temperature for shown in part],
                                 [shown.row.num_trained for shown in part])
        log_p = (flat / _tensor(temperatures, flat).to(flat)[:, None]).log_softmax(-1)
        targets = np.concatenate([shown.row.trained(shown.row.datum.token_ids) for shown in part])
        logprobs = log_p.gather(1, _tensor(targets, flat)[:, None])[:, 0]
        with torch.set_grad_enabled(with_entropy_gradient and torch.is_grad_enabled()):
            entropy = -(log_p.exp() * log_p).sum(-1)
        return logprobs, entropy

    def _precision(self) -> AbstractContextManager[None]:
        if self._autocast:
            return torch.autocast(self._loaded.device.type, torch.bfloat16)
        return nullcontext()


def _tensor(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like.device)
