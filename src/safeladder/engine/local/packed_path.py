"""Gradients of known decoder families through the packed forward and backward.

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

import torch
from torch import Tensor

from safeladder.engine.base import Loss, Stats
from safeladder.engine.local.arena import Arena
from safeladder.engine.local.batching import PackedBatch, Plan, Row, pack, plan_packed
from safeladder.engine.local.families import DecoderSpec
from safeladder.engine.local.folding import DecoderTensors, Folding, GradientOf
from safeladder.engine.local.head import HeadGradients, TokenHead
from safeladder.engine.local.losses import differentiate
from safeladder.engine.local.packed import PackedDecoder

Store = Callable[[Row, Tensor], None]
"""Takes the (num_trained,) log-probabilities of one row."""


class PackedPath:
    """Log-probabilities and gradients of rows without images.

    Args:
        spec: the model's parameters.
        max_tokens: computed tokens per micro-batch.
        workers: threads.
    """

    def __init__(self, spec: DecoderSpec, max_tokens: int, workers: int = 1) -> None:
        self._spec, self._max_tokens, self._num_workers = spec, max_tokens, workers
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
            hidden = self._decoder.forward(weights, batch, arena, keep=False).hidden
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
        gradients: list[DecoderTensors | None] = [None] * self._num_workers
        stats: dict[int, Stats] = {}

        def run(worker: int, plan: Plan) -> None:
            mine = gradients[worker]
            if mine is None:
                gradients[worker] = mine = weights.zeros_like()
            stats[plan[0].rows[0].index] = self._one(weights, plan, loss, mine, worker)

        self._share(rows, run)
        first, *others = [part for part in gradients if part is not None]
        for other in others:
            for total, part in zip(first.tensors(), other.tensors(), strict=True):
                total.add_(part)
        self._folding.unfold(first, gradient_of)
        return sum((stats[index] for index in sorted(stats)), Stats())

    @torch.no_grad()
    def logits(self, token_ids: Tensor) -> Tensor:
        """(T,) token ids -> (T, vocabulary) logits, to be compared with the model's own."""
        weights = self._folding.fold()
        batch = PackedBatch.single(token_ids, self._spec.dtype)
        hidden = self._decoder.forward(weights, batch, self._arenas[0], keep=False).hidden
        logits = hidden @ weights.head.t()
        return logits if weights.head_bias is None else logits + weights.head_bias

    def _one(self, weights: DecoderTensors, plan: Plan, loss: Loss, gradients: DecoderTensors,
             worker: int) -> Stats:
        """Forward and backward of one micro-batch."""
        arena = self._arenas[worker]
        batch = pack(plan, self._spec.dtype, self._spec.device)
        activations = self._decoder.forward(weights, batch, arena, keep=True)
        head = self._head(weights, batch, activations.hidden, arena)
        start = differentiate(batch.rows, loss, head.logprobs, head.entropy)
        grad_hidden = arena.empty(*activations.hidden.shape)
        chosen = grad_hidden
        if batch.predicting is not None:
            chosen = arena.empty(len(batch.predicting), grad_hidden.shape[1])
        head.backward(start.logprobs, start.entropy, chosen,
                      HeadGradients(gradients.head, gradients.head_bias))
        if batch.predicting is not None:
            grad_hidden.zero_().index_copy_(0, batch.predicting, chosen)
        self._decoder.backward(weights, batch, activations, grad_hidden, gradients, arena)
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
