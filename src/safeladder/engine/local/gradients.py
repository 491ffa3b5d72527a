"""Log-probabilities and gradients of training rows: the packed path and the general one.

Both give the same numbers to rounding; :func:`compute_path` picks. Losses see the trained tokens
of one micro-batch at a time; because ``Datum.weights`` carry the normalisation, the cut into
micro-batches changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from safeladder.algos.base import LossInputs, flatten
from safeladder.engine.base import Loss, Stats
from safeladder.engine.local.arena import Arena
from safeladder.engine.local.batching import PackedBatch, Plan, Row, pack, plan_packed, rows_of
from safeladder.engine.local.families import DecoderSpec
from safeladder.engine.local.folding import DecoderTensors, Folding
from safeladder.engine.local.head import HeadGradients, TokenHead
from safeladder.engine.local.media import expand_row
from safeladder.engine.local.models import LoadedModel
from safeladder.engine.local.optim import gradient_of
from safeladder.engine.local.packed import PackedDecoder
from safeladder.types import Datum, FloatArray


class NotFinite(ArithmeticError):
    """A loss is NaN or infinite; carries the rows of its micro-batch."""

    def __init__(self, rows: Sequence[Datum]) -> None:
        super().__init__("loss is not finite")
        self.rows = list(rows)


class ComputePath(Protocol):
    """How rows become log-probabilities and gradients."""

    def forward(self, data: Sequence[Datum]) -> list[FloatArray]:
        """One (T,) array per datum, 0 where mask is 0."""
        ...

    def forward_backward(self, data: Sequence[Datum], loss: Loss) -> Stats:
        """Add the gradient to the parameters' ``grad``; raise :class:`NotFinite`."""
        ...


def compute_path(
    loaded: LoadedModel, max_tokens: int, workers: int, autocast: bool,
) -> ComputePath:
    """The packed path where the model's family is known and weights are fp32, else the general."""
    spec = None if autocast else DecoderSpec.from_model(loaded.model)
    if spec is not None:
        return PackedPath(spec, max_tokens, workers)
    return GeneralPath(loaded, max_tokens, autocast)


class _Worker:
    """Scratch memory and gradients of one thread."""

    def __init__(self, spec: DecoderSpec) -> None:
        self.arena = Arena(spec.dtype, spec.device)
        self.gradients: DecoderTensors | None = None


class PackedPath:
    """The hand-written forward and backward; ``workers`` threads share the micro-batches.

    Micro-batch i belongs to worker i mod workers and gradients are added in the workers' order,
    so a number of workers always gives the same bits.
    """

    def __init__(self, spec: DecoderSpec, max_tokens: int, workers: int) -> None:
        self._spec, self._max_tokens = spec, max_tokens
        self._decoder, self._folding = PackedDecoder(spec), Folding(spec)
        self._workers = [_Worker(spec) for _ in range(workers)]
        self._threads = ThreadPoolExecutor(workers) if workers > 1 else None

    def forward(self, data: Sequence[Datum]) -> list[FloatArray]:
        """Log-probabilities without gradient."""
        weights = self._folding.fold()
        result: list[FloatArray] = [np.zeros(len(datum.token_ids), np.float32) for datum in data]

        def run(worker: _Worker, plans: Sequence[Plan]) -> None:
            for plan in plans:
                worker.arena.clear()
                batch = pack(plan, self._spec.dtype, self._spec.device)
                hidden = self._decoder.forward(weights, batch, worker.arena, False).hidden
                head = self._head(weights, batch, hidden, worker.arena)
                parts = head.logprobs.split([int(row.predicts.sum()) for row in batch.rows])
                for row, part in zip(batch.rows, parts, strict=True):
                    result[row.index][row.datum.mask > 0] = part.float().cpu().numpy()

        self._share(plan_packed(rows_of(data), self._max_tokens, len(self._workers)), run)
        return result

    def forward_backward(self, data: Sequence[Datum], loss: Loss) -> Stats:
        """Add the gradient; see :class:`ComputePath`."""
        weights = self._folding.fold()
        plans = plan_packed(rows_of(data), self._max_tokens, len(self._workers))
        stats: dict[int, Stats] = {}
        numbers = {id(plan): number for number, plan in enumerate(plans)}

        def run(worker: _Worker, mine: Sequence[Plan]) -> None:
            worker.gradients = weights.zeros_like()
            for plan in mine:
                stats[numbers[id(plan)]] = self._one(weights, plan, loss, worker)

        self._share(plans, run)
        first = self._workers[0].gradients
        assert first is not None
        for worker in self._workers[1:]:
            if worker.gradients is not None:
                for target, part in zip(first.tensors(), worker.gradients.tensors(), strict=True):
                    target.add_(part)
                worker.gradients = None
        self._folding.unfold(first, gradient_of)
        self._workers[0].gradients = None
        return sum((stats[number] for number in range(len(plans))), Stats())

    def _share(self, plans: Sequence[Plan], run: Any) -> None:
        count = len(self._workers)
        if self._threads is None:
            run(self._workers[0], plans)
            return
        jobs = [self._threads.submit(run, worker, plans[i::count])
                for i, worker in enumerate(self._workers)]
        for job in jobs:
            job.result()

    def _one(self, weights: DecoderTensors, plan: Plan, loss: Loss, worker: _Worker) -> Stats:
        worker.arena.clear()
        arena, gradients = worker.arena, worker.gradients
        assert gradients is not None
        batch = pack(plan, self._spec.dtype, self._spec.device)
        activations = self._decoder.forward(weights, batch, arena, True)
        head = self._head(weights, batch, activations.hidden, arena)
        logprobs = head.logprobs.clone().requires_grad_()
        entropy = head.entropy.clone().requires_grad_("entropy" in loss.needs)
        with torch.enable_grad():
            total, stats = apply_loss(_loss_inputs(batch, logprobs, entropy), _column(
                batch.rows, "weights", logprobs), loss, _column(batch.rows, "sampler_logprobs",
                                                               logprobs))
            if not torch.isfinite(total):
                raise NotFinite([row.datum for row in batch.rows])
            total.backward()
        grad_logprobs = torch.zeros_like(logprobs) if logprobs.grad is None else logprobs.grad
        grad_hidden = arena.empty(*activations.hidden.shape)
        out = grad_hidden if batch.predicting is None else arena.empty(
            len(logprobs), grad_hidden.shape[1])
        head.backward(grad_logprobs, entropy.grad, out,
                      HeadGradients(gradients.head, gradients.head_bias))
        if batch.predicting is not None:
            grad_hidden.zero_().index_copy_(0, batch.predicting, out)
        self._decoder.backward(weights, batch, activations, grad_hidden, gradients, arena)
        return stats

    def _head(self, weights: DecoderTensors, batch: PackedBatch, hidden: Tensor,
              arena: Arena) -> TokenHead:
        chosen = hidden if batch.predicting is None else hidden.index_select(0, batch.predicting)
        head = TokenHead(chosen, weights.head, weights.head_bias, batch.targets,
                         batch.temperature, arena)
        head.forward()
        return head


class GeneralPath:
    """Any Hugging Face model through its own forward, padded; takes images and LoRA."""

    def __init__(self, loaded: LoadedModel, max_tokens: int, autocast: bool) -> None:
        self._loaded, self._max_tokens, self._autocast = loaded, max_tokens, autocast

    def forward(self, data: Sequence[Datum]) -> list[FloatArray]:
        """Log-probabilities without gradient."""
        result: list[FloatArray] = [np.zeros(0, np.float32)] * len(data)
        with torch.no_grad():
            for members in self._micro_batches(data):
                logprobs, _ = self._run([data[i] for i in members], False)
                for i, values in zip(members, logprobs, strict=True):
                    result[i] = values.float().cpu().numpy() * data[i].mask
        return result

    def forward_backward(self, data: Sequence[Datum], loss: Loss) -> Stats:
        """Add the gradient; see :class:`ComputePath`."""
        stats = Stats()
        for members in self._micro_batches(data):
            rows = [data[i] for i in members]
            logprobs, entropy = self._run(rows, "entropy" in loss.needs)
            inputs, weights = flatten(rows, logprobs, entropy)
            sampled = [row.sampler_logprobs for row in rows]
            sampler = None if any(s is None for s in sampled) else torch.from_numpy(
                np.concatenate([s[row.mask > 0] for s, row in zip(sampled, rows, strict=True)
                                if s is not None])).to(weights)
            total, more = apply_loss(inputs, weights, loss, sampler)
            if not torch.isfinite(total):
                raise NotFinite(rows)
            total.backward()
            stats += more
        return stats

    def _micro_batches(self, data: Sequence[Datum]) -> list[list[int]]:
        """Rows of like length together, at most ``max_tokens`` padded tokens each."""
        order = sorted(range(len(data)), key=lambda i: -len(data[i].token_ids))
        parts: list[list[int]] = []
        for i in order:
            if parts and (len(parts[-1]) + 1) * len(data[parts[-1][0]].token_ids) \
                    <= self._max_tokens:
                parts[-1].append(i)
            else:
                parts.append([i])
        return parts

    def _run(
        self, rows: Sequence[Datum], entropy_gradient: bool,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """(T,) log-probabilities and entropies per row; position 0 holds 0."""
        expanded = [expand_row(self._loaded, row.token_ids, row.media) for row in rows]
        width = max(len(shown.token_ids) for shown in expanded)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        attention = torch.zeros_like(ids)
        for i, shown in enumerate(expanded):
            ids[i, :len(shown.token_ids)] = torch.from_numpy(shown.token_ids)
            attention[i, :len(shown.token_ids)] = 1
        device = self._loaded.device
        names = dict.fromkeys(name for shown in expanded for name in shown.tensors)
        tensors = {name: torch.cat([shown.tensors[name] for shown in expanded
                                    if name in shown.tensors]).to(device) for name in names}
        with self._precision():
            logits = self._loaded.model(input_ids=ids.to(device),
                                        attention_mask=attention.to(device), **tensors).logits
        logprobs, entropies = [], []
        for i, (row, shown) in enumerate(zip(rows, expanded, strict=True)):
            lp, entropy = _row_figures(logits[i], row, torch.from_numpy(shown.positions).to(device),
                                       entropy_gradient)
            logprobs.append(lp)
            entropies.append(entropy)
        return logprobs, entropies

    def _precision(self) -> AbstractContextManager[Any]:
        if self._autocast:
            return torch.autocast(self._loaded.device.type, torch.bfloat16)
        return nullcontext()


def _row_figures(
    logits: Tensor, row: Datum, positions: Tensor, entropy_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """(T,) log-probabilities and entropies of one row from (S, V) logits."""
    before = logits[positions[1:] - 1].float() / row.temperature
    log_p = before.log_softmax(-1)
    targets = torch.from_numpy(row.token_ids[1:]).to(logits.device)
    chosen = log_p.gather(-1, targets[:, None])[:, 0]
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        entropy = -(log_p.exp() * log_p).sum(-1)
    zero = chosen.new_zeros(1)
    return torch.cat([zero, chosen]), torch.cat([zero, entropy])


def apply_loss(
    inputs: LossInputs, weights: Tensor, loss: Loss, sampler_logprobs: Tensor | None,
) -> tuple[Tensor, Stats]:
    """``sum(loss_T * weights_T)`` of one micro-batch and its figures.

    Beside the loss's own metrics: ``entropy``; ``kl_ref`` (k3 of live against reference) where
    there is one; ``mismatch_kl`` (k3 of sampler against live), which measures the engines' gap
    before the first update of a rollout and policy drift after it.
    """
    loss_T, metrics = loss(inputs)
    total = (loss_T * weights).sum()
    with torch.no_grad():
        live, figures = inputs.logprobs.detach(), dict(metrics)
        if inputs.entropy is not None:
            figures["entropy"] = inputs.entropy.detach()
        if inputs.ref_logprobs is not None:
            gap = inputs.ref_logprobs - live
            figures["kl_ref"] = gap.exp() - 1 - gap
        if sampler_logprobs is not None:
            gap = live - sampler_logprobs
            figures["mismatch_kl"] = gap.exp() - 1 - gap
        means = {name: (float(values.sum()), float(values.numel()))
                 for name, values in figures.items()}
    return total, Stats(sums={"loss": float(total.detach())}, means=means)


def _loss_inputs(batch: PackedBatch, logprobs: Tensor, entropy: Tensor) -> LossInputs:
    rows = batch.rows
    old = _column(rows, "old_logprobs", logprobs)
    advantages = _column(rows, "advantages", logprobs)
    assert advantages is not None
    return LossInputs(
        logprobs=logprobs, old_logprobs=logprobs.detach() if old is None else old,
        advantages=advantages, row=batch.row_of_token, num_rows=len(rows),
        ref_logprobs=_column(rows, "ref_logprobs", logprobs), entropy=entropy)


def _column(rows: Sequence[Row], name: str, like: Tensor) -> Tensor:
    """The trained entries of one array of all rows, or None where no row has it."""
    values = [getattr(row.datum, name) for row in rows]
    present = [row.trained(value) for row, value in zip(rows, values, strict=True)
               if value is not None]
    if not present:
        return None  # type: ignore[return-value]
    if len(present) < len(rows):
        raise ValueError(f"{name} must be given for all rows or for none")
    return torch.from_numpy(np.concatenate(present)).to(like)


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that an optimizer moves."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]
