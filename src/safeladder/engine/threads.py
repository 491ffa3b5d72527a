"""Thread settings that survive a busy machine. Imports neither torch nor numpy.

With OpenMP's default policy a thread that waits at a barrier spins. On two cores of which another
process uses one, that made a training step six times slower than with the passive policy, while
on a quiet machine the two are equal (``docs/performance.md``). The policy is read once, when the
OpenMP runtime starts, so it has to be set before torch is imported.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ThreadSettings:
    """What :func:`configure_threads` arranged."""

    num_threads: int
    """Threads of one operator."""
    passive_waiting: bool
    """False: torch had started before, so waiting threads spin and busy machines are slow."""


def usable_cores(cgroup_limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: CPU affinity, and the container's quota where there is one.

    Args:
        cgroup_limit: the kernel's file with "quota period" in microseconds, or "max period".
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:  # macOS and Windows have no affinity call
        cores = os.cpu_count() or 1
    if cgroup_limit.is_file():
        quota, _, period = cgroup_limit.read_text(encoding="ascii").strip().partition(" ")
        if quota != "max":
            cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(cores, 1)


def configure_threads(num_threads: int | None = None) -> ThreadSettings:
    """Set OpenMP's waiting policy and thread count for this process and its children.

    Also asks torch for large memory pages (Linux), which made sampling 5 to 9% faster.

    Call it before torch is imported. What the user has set in the environment
    (``OMP_WAIT_POLICY``, and ``OMP_NUM_THREADS`` where ``num_threads`` is None) is left alone.

    Args:
        num_threads: threads of one operator; None means ``OMP_NUM_THREADS``, or every usable core.
    """
    started = "torch" in sys.modules
    policy = os.environ.get("OMP_WAIT_POLICY")
    if not started:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("KMP_BLOCKTIME", "0")  # the same, for Intel's and LLVM's runtime
        # Large tensors in large pages where the kernel offers them: fewer address look-ups.
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if num_threads is None:
        num_threads = int(os.environ.get("OMP_NUM_THREADS", "0")) or usable_cores()
    if num_threads < 1:
        raise ValueError(f"num_threads must be at least 1, got {num_threads}")
    os.environ["OMP_NUM_THREADS"] = str(num_threads)
    if started:
        sys.modules["torch"].set_num_threads(num_threads)
        return ThreadSettings(num_threads, policy is not None and policy.upper() == "PASSIVE")
    return ThreadSettings(num_threads, os.environ["OMP_WAIT_POLICY"].upper() == "PASSIVE")


@contextmanager
def torch_threads(num_threads: int | None) -> Iterator[None]:
    """Torch, which runs already, computes with so many threads inside; None: as it did before."""
    torch = sys.modules["torch"]
    before = torch.get_num_threads()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
