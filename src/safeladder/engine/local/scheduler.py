"""Continuous batching: rows join when there is room, and leave when they are finished."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch

from safeladder.engine.local.choose import choose
from safeladder.engine.local.native import kernels
from safeladder.engine.local.rows import Request, Rows
from safeladder.engine.local.runner import Counters, PromptInput, Runner


class Scheduler:
    """Keeps one runner's batch full, in order of submission.

    Args:
        runner: holds the batch.
        rows: bookkeeping of the same batch.
        policy_version: what completions carry.
        max_rows: most rows in the batch.
        counters: where work is counted.
    """

    def __init__(self, runner: Runner, rows: Rows, policy_version: int, max_rows: int,
                 counters: Counters) -> None:
        self._runner = runner
        self._rows = rows
        self._policy_version = policy_version
        self._max_rows = max_rows
        self._counters = counters
        self._waiting: deque[Request] = deque()
        self._joining: list[Request] = []
        """Neither waiting nor in the batch: their prompts are being encoded."""
        self._last = torch.empty(0, dtype=torch.int64)

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._waiting or len(self._rows))

    def submit(self, request: Request) -> None:
        """Put a request at the end of the queue."""
        self._waiting.append(request)

    def advance(self) -> None:
        """Give every row one token, admitting first what there is room for."""
        self._drop([row for row, (request, _) in enumerate(self._rows.owners) if request.done])
        logits = [self._runner.step(self._last)] if len(self._rows) else []
        admissible = list(self._admissible())
        self._joining = [request for request, _ in admissible]
        if admissible:
            logits.append(self._runner.admit([request.prompt for request, _ in admissible],
                                             [count for _, count in admissible]))
            for request, count in admissible:
                for row in range(request.admitted - count, request.admitted):
                    self._rows.add(request, row)
        self._joining = []
        if not logits:
            return
        chosen = choose(logits[0] if len(logits) == 1 else torch.cat(logits),
                        self._rows.settings(), self._rows.uniform(), self._rows.too_short(),
                        kernels())
        self._counters.sampled_tokens += len(self._rows)
        finished = self._rows.record(chosen)
        self._last = chosen.tokens
        for row in finished:
            request, number = self._rows.owners[row]
            self._runner.remember(row, request.prompt, self._rows.tokens(row))
            request.finish(number, self._rows.completion(row, self._policy_version))
        self._drop(finished)

    def fail(self, error: BaseException) -> None:
        """Answer all requests with an error and start afresh."""
        owners = {request for request, _ in self._rows.owners}
        for request in owners | set(self._waiting) | set(self._joining):
            request.fail(error)
        self._waiting.clear()
        self._joining = []
        self._rows.clear()
        self._runner.reset()

    def _admissible(self) -> Iterator[tuple[Request, int]]:
        """The requests to admit now, each with the number of its rows that there is room for."""
        while self._waiting and self._waiting[0].done:
            self._waiting.popleft()
        room = self._max_rows - len(self._rows)
        wanted = sum(request.n - request.admitted for request in self._waiting)
        # One encoding of several prompts is much cheaper than one for each row that gets free.
        enough = min(wanted, self._max_rows // 8) if len(self._rows) else 1
        if not self._waiting or room < enough or not self._runner.is_open(len(self._rows)):
            return
        before: list[PromptInput] = []
        while self._waiting and room > 0:
            request = self._waiting[0]
            if request.done:
                self._waiting.popleft()
                continue
            if not self._runner.accepts(request.prompt, before):
                return
            count = min(room, request.n - request.admitted)
            request.admitted += count
            room -= count
            before.append(request.prompt)
            if request.admitted == request.n:
                self._waiting.popleft()
            yield request, count

    def _drop(self, rows: list[int]) -> None:
        if rows:
            order = self._runner.drop(rows)
            self._rows.reorder(order)
            self._last = self._last[torch.tensor(order, dtype=torch.int64)]
