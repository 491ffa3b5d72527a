"""The worker process of :mod:`safeladder.verifiers.workers`: read a request, write a verdict.

Requests arrive as pickles from the process that owns this one. Replies leave as lines of JSON,
because this process may run a verifier that was taken over by the text it judged, and its owner
must be able to read them safely.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import os
import pickle
import resource
import threading
import time
from typing import Any, BinaryIO, cast

from safeladder.types import Trajectory, Verdict
from safeladder.verifiers.base import BatchVerifier, Verifier, describe

_MAX_TEXT = 2000


def main() -> None:
    """Serve until the owner closes the pipe or is gone."""
    requests, replies = _private_pipes()
    threading.Thread(target=_end_with_owner, args=(os.getppid(),), daemon=True).start()
    settings = pickle.load(requests)
    try:
        verifier: Verifier = pickle.loads(settings["verifier"])
        prepare = getattr(verifier, "prepare", None)
        if prepare is not None:
            prepare()
    except BaseException as error:  # the owner decides; this side only carries it over
        _send(replies, _line("raised", {"error": describe(error)}))
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if settings["memory_mb"] is not None:
        size = settings["memory_mb"] * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    _send(replies, _line("ready", {}))
    while True:
        try:
            trajectory = pickle.load(requests)
        except EOFError:
            return
        _limit_cpu(settings["time_limit"])
        _send(replies, _judge(verifier, trajectory, settings["memory_mb"]))
        del trajectory


def _judge(verifier: Verifier, trajectory: Trajectory, memory_mb: int | None) -> bytes:
    """One reply. It is encoded in here, as a verdict may hold what JSON cannot."""
    try:
        if isinstance(verifier, BatchVerifier):
            verdict = asyncio.run(_await(verifier.verify_many([trajectory])))[0]
        else:
            result = verifier.verify(trajectory)
            verdict = asyncio.run(_await(result)) if inspect.isawaitable(result) else result
        return _line("verdict", _plain(verdict))
    except MemoryError:
        return _line("broken", {"error": f"memory limit {memory_mb} MB"})
    except SystemError as error:
        return _line("broken", {"error": describe(error)})
    except BaseException as error:  # the owner decides; this side only carries it over
        return _line("raised", {"error": describe(error)})


async def _await(work: Any) -> Any:
    return await work


def _plain(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON takes it."""
    if not isinstance(verdict, Verdict):
        raise TypeError(f"expected a Verdict, the verifier returned {type(verdict).__name__}")
    probabilities = verdict.probabilities
    return {
        "verifier": verdict.verifier, "score": _number(verdict.score),
        "verdict_class": verdict.verdict_class, "reason": verdict.reason[:_MAX_TEXT],
        "probabilities": probabilities and {k: float(v) for k, v in probabilities.items()},
        "error": verdict.error and verdict.error[:_MAX_TEXT],
        "parts": {k: float(v) for k, v in verdict.parts.items()}, "origin": verdict.origin}


def _number(score: float | None) -> float | None:
    return None if score is None else float(score)


def _line(kind: str, body: dict[str, Any]) -> bytes:
    return json.dumps([kind, body]).encode() + b"\n"


def _send(replies: BinaryIO, line: bytes) -> None:
    replies.write(line)
    replies.flush()


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the two pipes for ourselves: a verifier that reads or prints meets the null device."""
    requests, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    return os.fdopen(requests, "rb"), cast(BinaryIO, os.fdopen(replies, "wb"))


def _limit_cpu(seconds: float) -> None:
    """A second line of defence, should the owner be killed while a verdict never ends."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    limit = math.ceil(time.process_time() + 10 * seconds + 10)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def _end_with_owner(owner: int) -> None:
    while os.getppid() == owner:
        time.sleep(1.0)
    os._exit(1)
