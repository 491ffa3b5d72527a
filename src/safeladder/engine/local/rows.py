"""The rows being sampled: what was asked for them and what they have become so far."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from safeladder.engine.base import SamplingParams
from safeladder.engine.local.choose import ChoiceSettings, Chosen, uniforms
from safeladder.engine.local.runner import PromptInput
from safeladder.types import Completion

_Kind = TypeVar("_Kind", bound=np.generic)


@dataclass(eq=False)
class Request:
    """One call of ``sample`` or ``stream`` that waits for its completions."""

    prompt: PromptInput
    params: SamplingParams
    n: int
    future: asyncio.Future[list[Completion]]
    stream: asyncio.Queue[int | None] | None = None
    """Where a streaming request wants its tokens, None after the last."""
    admitted: int = 0
    """Rows that have been started, in order."""
    completions: dict[int, Completion] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Nobody waits any more: answered, failed or cancelled."""
        return self.future.done()

    def finish(self, row: int, completion: Completion) -> None:
        """Store a finished row; answer once all n are there."""
        self.completions[row] = completion
        if len(self.completions) == self.n and not self.done:
            self.future.set_result([self.completions[i] for i in range(self.n)])
            self._close_stream()

    def fail(self, error: BaseException) -> None:
        """Answer with an error."""
        if not self.done:
            self.future.set_exception(error)
            self._close_stream()

    def _close_stream(self) -> None:
        if self.stream is not None:
            self.stream.put_nowait(None)


class Rows:
    """Bookkeeping of the live rows as arrays, so that a step costs no Python loop over rows.

    The order of rows is that of the runner's batch; :meth:`reorder` follows when it compacts.
    """

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._stop_sets: dict[tuple[int, ...], int] = {}
        self._stops = np.zeros((0, vocab_size), dtype=np.bool_)
        self._settings: ChoiceSettings | None = None
        self.owners: list[tuple[Request, int]] = []
        """For each row its request and its number in it."""
        self._streaming: list[int] = []
        self._count = np.zeros(0, np.int64)
        self._max_tokens = np.zeros(0, np.int64)
        self._min_tokens = np.zeros(0, np.int64)
        self._stop_set = np.zeros(0, np.int64)
        self._uniforms = np.zeros((0, 0), np.float64)
        self._tokens = np.zeros((0, 0), np.int64)
        self._logprobs = np.zeros((0, 0), np.float32)

    def __len__(self) -> int:
        return len(self.owners)

    def add(self, request: Request, row: int) -> None:
        """Append a row."""
        params, index = request.params, len(self.owners)
        self._reserve(index + 1, params.max_tokens)
        self.owners.append((request, row))
        self._count[index] = 0
        self._max_tokens[index] = params.max_tokens
        self._min_tokens[index] = params.min_tokens
        self._stop_set[index] = self._stop_set_of(params.stop_token_ids)
        self._uniforms[index, : params.max_tokens] = uniforms(params.seed, row, params.max_tokens)
        self._changed()

    def settings(self) -> ChoiceSettings:
        """Sampling parameters of all rows."""
        if self._settings is None:
            self._settings = ChoiceSettings.of(
                [request.params for request, _ in self.owners], self._vocab_size, self._device)
        return self._settings

    def uniform(self) -> torch.Tensor:
        """The number each row draws its next token with, (R,) fp64."""
        live = np.arange(len(self))
        return torch.from_numpy(self._uniforms[live, self._count[live]]).to(self._device)

    def too_short(self) -> list[int]:
        """Rows that may not stop yet."""
        live = slice(0, len(self))
        short: list[int] = np.flatnonzero(self._count[live] < self._min_tokens[live]).tolist()
        return short

    def record(self, chosen: Chosen) -> list[int]:
        """Append one token to every row; return the rows that are finished."""
        size = len(self)
        live, place = np.arange(size), self._count[:size]
        tokens = chosen.tokens.numpy(force=True)
        self._tokens[live, place] = tokens
        self._logprobs[live, place] = chosen.logprobs.numpy(force=True)
        self._count[:size] += 1
        stopped = self._stops[self._stop_set[:size], tokens]
        for row in self._streaming:
            stream = self.owners[row][0].stream
            assert stream is not None
            stream.put_nowait(int(tokens[row]))
        finished: list[int] = np.flatnonzero(
            stopped | (self._count[:size] >= self._max_tokens[:size])).tolist()
        return finished

    def tokens(self, row: int) -> tuple[int, ...]:
        """What a row has become so far."""
        return tuple(self._tokens[row, : self._count[row]].tolist())

    def completion(self, row: int, policy_version: int) -> Completion:
        """The finished row as the caller gets it."""
        count = self._count[row]
        last = self._tokens[row, count - 1]
        stopped = bool(self._stops[self._stop_set[row], last])
        return Completion(self.tokens(row), self._logprobs[row, :count].copy(),
                          "stop" if stopped else "length", policy_version)

    def reorder(self, order: Sequence[int]) -> None:
        """Keep these rows, in this order."""
        kept, source = len(order), np.asarray(order, dtype=np.int64)
        self.owners = [self.owners[i] for i in order]
        moved = np.flatnonzero(source != np.arange(kept))
        for array in (self._count, self._max_tokens, self._min_tokens, self._stop_set,
                      self._uniforms, self._tokens, self._logprobs):
            array[moved] = array[source[moved]]
        self._changed()

    def clear(self) -> None:
        """Forget all rows."""
        self.owners = []
        self._changed()

    def _changed(self) -> None:
        self._settings = None
        self._streaming = [row for row, (request, _) in enumerate(self.owners)
                           if request.stream is not None]

    def _stop_set_of(self, token_ids: tuple[int, ...]) -> int:
        if token_ids not in self._stop_sets:
            self._stop_sets[token_ids] = len(self._stops)
            table = np.zeros((1, self._vocab_size), dtype=np.bool_)
            table[0, list(token_ids)] = True
            self._stops = np.concatenate((self._stops, table))
        return self._stop_sets[token_ids]

    def _reserve(self, rows: int, width: int) -> None:
        have, columns = self._tokens.shape
        if rows <= have and width <= columns:
            return
        have = max(rows, have if rows <= have else 2 * have)
        columns = max(width, columns)
        self._count = _grown(self._count, (have,))
        self._max_tokens = _grown(self._max_tokens, (have,))
        self._min_tokens = _grown(self._min_tokens, (have,))
        self._stop_set = _grown(self._stop_set, (have,))
        self._uniforms = _grown(self._uniforms, (have, columns))
        self._tokens = _grown(self._tokens, (have, columns))
        self._logprobs = _grown(self._logprobs, (have, columns))


def _grown(array: NDArray[_Kind], shape: tuple[int, ...]) -> NDArray[_Kind]:
    fresh = np.zeros(shape, array.dtype)
    fresh[tuple(slice(0, size) for size in array.shape)] = array
    return fresh
