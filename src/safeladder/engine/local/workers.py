"""Shares of a batch in threads of one torch thread each.

The operators of a decode step are short. Splitting each of them over threads costs a wake-up per
operator; splitting the rows costs one per step, and torch and the compiled code release the
interpreter's lock while they work.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier
from typing import TypeVar

import torch

_Result = TypeVar("_Result")
_MIN_ROWS = 24
"""Rows per share below which waking a thread costs more than it saves."""


def row_shares(rows: int, threads: int) -> list[slice]:
    """Split ``rows`` rows into at most ``threads`` equal shares worth a thread."""
    count = max(1, min(threads, rows // _MIN_ROWS))
    edges = [rows * i // count for i in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def run_parallel(tasks: Sequence[Callable[[], _Result]]) -> list[_Result]:
    """Run all tasks at the same time; return their results in order."""
    return list(_pool(len(tasks)).map(lambda task: task(), tasks))


@functools.cache
def _pool(size: int) -> ThreadPoolExecutor:
    threads = torch.get_num_threads()
    ready = Barrier(size + 1)

    def start() -> None:
        # The first question of a thread also gives it the default: ask before setting.
        torch.get_num_threads()
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(size, "safeladder-decode", initializer=start)
    for _ in range(size):
        pool.submit(int)
    ready.wait()
    # The setting of a thread is its own, but also the default of threads started later.
    torch.set_num_threads(threads)
    return pool
