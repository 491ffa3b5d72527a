"""Gradients of known decoder families through the packed forward and backward.

Images go through the model's own vision tower with autograd, each different one of a micro-batch
once; the hand-written backward ends at their embeddings, and autograd goes on from there.

With several workers, threads share the micro-batches of a step. Each runs its operators on one
core; torch gives up Python's lock inside them, so for small models two threads are a good deal
faster than one thread whose operators use two cores. Micro-batches are dealt out by size alone
and gradients are added in the workers' order: a number of workers always gives the same bits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from safeladder.engine.base import Loss, Stats
from safeladder.engine.local.arena import Arena
from safeladder.engine.local.batching import PackedBatch, Plan, Row, pack, plan_packed
from safeladder.engine.local.families import DecoderSpec
from safeladder.engine.local.folding import DecoderTensors, Folding, GradientOf
from safeladder.engine.local.head import HeadGradients, TokenHead
from safeladder.engine.local.losses import differentiate
from safeladder.engine.local.media import ExpandedRow
from safeladder.engine.local.packed import PackedDecoder
from safeladder.engine.local.vision import ImageEncoder

Store = Callable[[Row, Tensor], None]
"""Takes the (num_trained,) log-probabilities of one row."""


@dataclass(frozen=True)
class _Gradients:
    """What one worker has summed up."""

    decoder: DecoderTensors
    vision: list[Tensor | None]
    """Of each trained parameter of the vision half; None: it took no part."""

    def add(self, other: _Gradients) -> None:
        for total, part in zip(self.decoder.tensors(), other.decoder.tensors(), strict=True):
            total.add_(part)
        self.add_vision(other.vision)

    def add_vision(self, parts: Sequence[Tensor | None]) -> None:
        self.vision[:] = [added(total, part)
                          for total, part in zip(self.vision, parts, strict=True)]


class PackedPath:
    """Log-probabilities and gradients of rows of a known family.

    Args:
        spec: the model's parameters.
        max_tokens: computed tokens per micro-batch.
        workers: threads.
        images: the vision half of an image-text model; without it rows must have no images.
    """

    def __init__(self, spec: DecoderSpec, max_tokens: int, workers: int = 1,
                 images: ImageEncoder | None = None) -> None:
        self._spec, self._max_tokens, self._num_workers = spec, max_tokens, workers
        self.images = images
        """The vision half, where rows may have images."""
        self._decoder, self._folding = PackedDecoder(spec), Folding(spec)
        self._arenas = [Arena(spec.dtype, spec.device) for _ in range(workers)]
        self._threads = ThreadPoolExecutor(workers, "trainer") if workers > 1 else None
        self._storing = threading.Lock()

    def forward(self, rows: Sequence[Row], store: Store) -> None:
        """Hand the log-probabilities of every row to ``store``."""
        weights = self._folding.fold()

        def run(worker: int, plan: Plan) -> None:
            arena = self._arenas[worker]
            batch = pack(plan, self._spec.dtype, self._spec.device)
            with torch.no_grad():
                embeddings = self._embeddings(batch)
            hidden = self._decoder.forward(weights, batch, arena, False, embeddings).hidden
            head = self._head(weights, batch, hidden, arena)
            parts = head.logprobs.split([row.num_trained for row in batch.rows])
            with self._storing:
                for row, part in zip(batch.rows, parts, strict=True):
                    store(row, part)

        self._share(rows, run)

    def forward_backward(self, rows: Sequence[Row], loss: Loss, gradient_of: GradientOf) -> Stats:
        """Add the gradient of ``sum(loss_T * weights_T)`` to what ``gradient_of`` gives.

        Raises:
            NotFinite: the loss is; nothing was added.
        """
        weights = self._folding.fold()
        seeing = [] if self.images is None else self.images.trained()
        gradients: list[_Gradients | None] = [None] * self._num_workers
        stats: dict[int, Stats] = {}

        def run(worker: int, plan: Plan) -> None:
            mine = gradients[worker]
            if mine is None:
                gradients[worker] = mine = _Gradients(
                    weights.zeros_like(), [None] * len(seeing))
            stats[plan[0].rows[0].index] = self._one(weights, plan, loss, seeing, mine, worker)

        self._share(rows, run)
        first, *others = [part for part in gradients if part is not None]
        for other in others:
            first.add(other)
        self._folding.unfold(first.decoder, gradient_of)
        for parameter, total in zip(seeing, first.vision, strict=True):
            if total is None:
                continue
            target = gradient_of(parameter)
            if target is not None:
                target.add_(total)
        return sum((stats[index] for index in sorted(stats)), Stats())

    @torch.no_grad()
    def logits(self, token_ids: Tensor) -> Tensor:
        """(T,) token ids -> (T, vocabulary) logits, to be compared with the model's own."""
        return self._logits(PackedBatch.single(token_ids, self._spec.dtype))

    @torch.no_grad()
    def image_logits(self, row: ExpandedRow, last: int) -> Tensor:
        """(last, vocabulary) logits at the last positions of a row with images, to be compared with
        the model's own.
        """
        assert self.images is not None
        ids = torch.from_numpy(row.token_ids).to(self._spec.device)
        return self._logits(
            PackedBatch.single(ids, self._spec.dtype, self.images.located(row)), last)

    def _logits(self, batch: PackedBatch, last: int = 0) -> Tensor:
        """At the last positions of a batch; 0: at all."""
        weights = self._folding.fold()
        hidden = self._decoder.forward(
            weights, batch, self._arenas[0], False, self._embeddings(batch)).hidden
        logits = hidden[-last:] @ weights.head.t()
        return logits if weights.head_bias is None else logits + weights.head_bias

    def _embeddings(self, batch: PackedBatch) -> Tensor | None:
        """(U, E) of the images of a micro-batch; None where it has none."""
        if batch.images is None or self.images is None:
            return None
        return torch.cat(self.images.embeddings(batch.images.images)).to(self._spec.dtype)

    def _one(self, weights: DecoderTensors, plan: Plan, loss: Loss,
             seeing: Sequence[Tensor], gradients: _Gradients, worker: int) -> Stats:
        """Forward and backward of one micro-batch; ``seeing`` are the trained vision weights."""
        arena = self._arenas[worker]
        batch = pack(plan, self._spec.dtype, self._spec.device)
        with torch.set_grad_enabled(bool(seeing)):
            embeddings = self._embeddings(batch)
        activations = self._decoder.forward(weights, batch, arena, True, embeddings)
        head = self._head(weights, batch, activations.hidden, arena)
        start = differentiate(batch.rows, loss, head.logprobs, head.entropy)
        grad_hidden = arena.empty(*activations.hidden.shape)
        chosen = grad_hidden
        if batch.predicting is not None:
            chosen = arena.empty(len(batch.predicting), grad_hidden.shape[1])
        head.backward(start.logprobs, start.entropy, chosen,
                      HeadGradients(gradients.decoder.head, gradients.decoder.head_bias))
        if batch.predicting is not None:
            grad_hidden.zero_().index_copy_(0, batch.predicting, chosen)
        grad_images = self._decoder.backward(
            weights, batch, activations, grad_hidden, gradients.decoder, arena)
        if embeddings is not None and embeddings.requires_grad:
            gradients.add_vision(torch.autograd.grad(
                embeddings, seeing, grad_images, allow_unused=True))
        return start.stats

    def _head(self, weights: DecoderTensors, batch: PackedBatch, hidden: Tensor,
              arena: Arena) -> TokenHead:
        if batch.predicting is not None:
            hidden = hidden.index_select(0, batch.predicting)
        head = TokenHead(hidden, weights.head, weights.head_bias, batch.targets,
                         batch.temperature, arena)
        head.forward()
        return head

    def _share(self, rows: Sequence[Row], run: Callable[[int, Plan], None]) -> None:
        """Call ``run(worker, plan)`` for every micro-batch."""
        plans = plan_packed(rows, self._max_tokens, self._num_workers)

        def work(worker: int, mine: Sequence[int]) -> None:
            for number in mine:
                self._arenas[worker].clear()
                run(worker, plans[number])

        if self._threads is None:
            work(0, range(len(plans)))
            return
        sizes = [sum(family.num_tokens for family in plan) for plan in plans]
        with one_thread_per_operator():
            jobs = [self._threads.submit(work, worker, mine)
                    for worker, mine in enumerate(deal(sizes, self._num_workers))]
            wait(jobs)
        for job in jobs:
            job.result()


def added(total: Tensor | None, part: Tensor | None) -> Tensor | None:
    """The sum of two gradients, of which None is nothing; ``total`` is overwritten.

    The first part is copied: of two parameters that meet in a sum, such as class and position
    embeddings, autograd may return views of one gradient.
    """
    if part is None:
        return total
    return part.clone() if total is None else total.add_(part)


def deal(sizes: Sequence[int], num_workers: int) -> list[list[int]]:
    """Give each micro-batch, the largest first, to the worker that has least to do.

    Args:
        sizes: tokens of each micro-batch.
        num_workers: how many.

    Returns:
        The numbers of each worker's micro-batches.
    """
    hands: list[list[int]] = [[] for _ in range(num_workers)]
    loads = [0] * num_workers
    for number in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        worker = loads.index(min(loads))
        hands[worker].append(number)
        loads[worker] += sizes[number]
    return hands


@contextmanager
def one_thread_per_operator() -> Iterator[None]:
    """Keep torch from sharing single operators between cores that have work of their own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
