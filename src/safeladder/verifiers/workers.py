"""Killable worker processes for verifiers that may hang, crash or eat memory.

A thread cannot be stopped and an alarm works in the main thread only, so a slow rule belongs into
a child process. Each worker is a fresh Python (nothing of the caller's program is imported or
forked) that judges one trajectory at a time; the deadline is kept here, by polling its pipe,
so any thread may wait. A worker that is late, dead or out of memory is killed with all its
children and replaced, and its trajectory becomes an abstention that says which of these it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import queue
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from pydantic import Field, FiniteFloat

from safeladder.config import StrictModel
from safeladder.errors import ConfigError
from safeladder.types import Trajectory, Verdict
from safeladder.verifiers.base import Verifier, abstention
from safeladder.verifiers.cases import Case

_BOOT = ("import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
         "from safeladder.verifiers.worker_main import main; main()")
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Isolation(StrictModel):
    """How a verifier's worker processes are held."""

    workers: int = Field(default=2, ge=1, description="processes")
    time_limit: FiniteFloat = Field(
        default=5.0, gt=0, description="seconds of wall clock per verdict")
    memory_mb: int | None = Field(
        default=2048, ge=64, description="address space per process, MiB; null: unlimited (needed "
        "by verifiers that use a GPU)")
    start_limit: FiniteFloat = Field(
        default=60.0, gt=0, description="seconds a process may take to import what it needs")


class Isolated:
    """A verifier inside a pool of worker processes; itself a batch verifier. POSIX only.

    Processes start at first use (or :meth:`start`), live until :meth:`close`, and end with the
    process that owns them. At most ``isolation.workers`` trajectories are in flight; verdicts
    come back in order. What the verifier prints is dropped.

    Abstentions read ``time limit 5.0 s``, ``memory limit 2048 MB``,
    ``worker died: signal SIGSEGV``, ``worker died: exit code 3`` or ``ValueError: ...``.

    Args:
        verifier: Any picklable verifier whose class lives in an importable module.
        isolation: Number of processes and their limits.
    """

    def __init__(self, verifier: Verifier, isolation: Isolation | None = None) -> None:
        self.verifier = verifier
        self.isolation = isolation or Isolation()
        settings = {"verifier": pickle.dumps(verifier), "memory_mb": self.isolation.memory_mb,
                    "time_limit": self.isolation.time_limit}
        workers = [_Worker(verifier.name, settings, self.isolation.start_limit)
                   for _ in range(self.isolation.workers)]
        self._workers = workers
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(len(workers), f"verifier-{verifier.name}")
        self._finalizer = weakref.finalize(self, _stop_all, workers)

    @property
    def name(self) -> str:
        """The verifier's own name."""
        return self.verifier.name

    @property
    def cases(self) -> Sequence[Case]:
        """The verifier's own gold cases."""
        return tuple(getattr(self.verifier, "cases", ()))

    def start(self) -> None:
        """Start all processes now.

        Raises:
            ConfigError: the verifier cannot be built in a process of its own.
        """
        list(self._threads.map(_Worker.ensure, self._workers))

    async def verify_many(self, trajectories: Sequence[Trajectory]) -> list[Verdict]:
        """Judge all; see the class for how failures read.

        Raises:
            ConfigError: the verifier cannot be built in a process of its own.
        """
        loop = asyncio.get_running_loop()
        futures = [loop.run_in_executor(self._threads, self.judge, trajectory)
                   for trajectory in trajectories]
        try:
            return list(await asyncio.gather(*futures))
        finally:
            for future in futures:
                future.cancel()

    def judge(self, trajectory: Trajectory) -> Verdict:
        """Judge one trajectory, from any thread; waits for an idle worker."""
        payload = pickle.dumps(trajectory)
        worker = self._idle.get()
        try:
            return worker.judge(payload, self.isolation)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End all processes and threads; verdicts under way are dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._finalizer()

    def __enter__(self) -> Isolated:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _LateError(Exception):
    """The deadline passed before the worker answered."""


class _DeadError(Exception):
    """The worker ended before it answered."""


class _Reply(NamedTuple):
    kind: str
    """``ready``, ``verdict``, ``raised``, or ``broken``: raised, and not fit to go on."""
    body: Mapping[str, Any]


class _Worker:
    """One child process; started when needed, replaced when broken. Used by one thread a time."""

    def __init__(self, name: str, settings: Mapping[str, Any], start_limit: float) -> None:
        self.name = name
        self.settings = settings
        self.start_limit = start_limit
        self.process: subprocess.Popen[bytes] | None = None
        self.closed = False
        self._lock = threading.Lock()
        self._buffer = bytearray()

    def judge(self, payload: bytes, isolation: Isolation) -> Verdict:
        try:
            self.ensure()
            reply = self._exchange(payload, isolation.time_limit)
        except _LateError:
            self.stop()
            return abstention(self.name, f"time limit {isolation.time_limit} s")
        except _DeadError:
            return abstention(self.name, f"worker died: {self.stop()}")
        if reply.kind == "verdict":
            return Verdict(**reply.body)
        if reply.kind == "broken":
            # What is left of the heap is not trusted with the next trajectory.
            self.stop()
        return abstention(self.name, reply.body["error"])

    def ensure(self) -> None:
        """Start the process unless it runs."""
        if self.process is not None and self.process.poll() is None:
            return
        self.stop()
        with self._lock:
            if self.closed:
                raise _DeadError
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, json.dumps(sys.path)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                start_new_session=True, env={**os.environ, **_ONE_THREAD})
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
        try:
            reply = self._exchange(pickle.dumps(self.settings), self.start_limit)
        except (_LateError, _DeadError) as error:
            ended = self.stop()
            late = f"it was not ready after {self.start_limit} s"
            why = late if isinstance(error, _LateError) else f"it died: {ended}"
            raise ConfigError(f"verifier {self.name!r}: no worker process: {why}") from None
        if reply.kind != "ready":
            self.stop()
            raise ConfigError(f"verifier {self.name!r} cannot be built in a worker process "
                              f"({reply.body['error']}); its class and functions must live in an "
                              "importable module")

    def _exchange(self, payload: bytes, seconds: float) -> _Reply:
        """Write one request, read one line of JSON, before the deadline."""
        assert self.process and self.process.stdin and self.process.stdout
        deadline = time.monotonic() + seconds
        target, origin = self.process.stdin.fileno(), self.process.stdout.fileno()
        rest = memoryview(payload)
        try:
            while rest:
                _wait(target, select.POLLOUT, deadline)
                with contextlib.suppress(BlockingIOError):
                    rest = rest[os.write(target, rest[:65536]):]
            while b"\n" not in self._buffer:
                _wait(origin, select.POLLIN, deadline)
                chunk = os.read(origin, 65536)
                if not chunk:
                    raise _DeadError
                self._buffer += chunk
        except BrokenPipeError:
            raise _DeadError from None
        line, _, self._buffer = self._buffer.partition(b"\n")
        return _Reply(*json.loads(line))

    def stop(self) -> str:
        """Kill the process and all it started; say how it had ended (or that we ended it)."""
        with self._lock:
            process, self.process = self.process, None
            self._buffer.clear()
        if process is None:
            return "it was closed"
        try:
            # A worker that closed its pipe is given a moment to end, so that its own exit
            # status is reported and not our signal.
            code = process.wait(0.2) if process.poll() is None else process.returncode
        except subprocess.TimeoutExpired:
            code = None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        if code is None:
            return "it stopped answering"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _wait(fd: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise _LateError


def _stop_all(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.closed = True
        worker.stop()
