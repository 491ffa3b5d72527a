"""What the benchmarks share: a gate for busy machines, interleaved repeats, machine peaks."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

PROC_STAT = Path("/proc/stat")


def cpu_seconds() -> tuple[float, float]:
    """CPU seconds used since boot by everything, and by this process with its children."""
    ticks = os.sysconf("SC_CLK_TCK")
    fields = PROC_STAT.read_text(encoding="ascii").splitlines()[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    own = os.times()
    living = 0.0                        # children_user counts those that have ended
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            living += times.user + times.system
    return ((user + nice + system + irq + softirq + steal) / ticks,
            own.user + own.system + own.children_user + own.children_system + living)


class MachineBusy(SystemExit):
    """The machine did not become quiet; exit code 3."""

    def __init__(self, message: str) -> None:
        print(message)
        super().__init__(3)


@dataclass
class Gate:
    """Repeats a run during which other processes used more than ``max_others`` cores.

    ``enabled=False`` accepts every run; what the others used is recorded all the same.
    """

    enabled: bool
    max_others: float = 0.15
    attempts: int = 20
    worst: float = 0.0
    rejected: int = 0

    def __post_init__(self) -> None:
        if self.enabled and not PROC_STAT.exists():
            raise SystemExit("the quiet-machine gate reads /proc/stat, which this system lacks: "
                             "pass --no-gate")

    def seconds(self, run: Callable[[], object]) -> float:
        """Wall-clock seconds of one accepted run."""
        for _ in range(self.attempts):
            elapsed, others = _timed(run)
            if not self.enabled or others <= self.max_others:
                self.worst = max(self.worst, others)
                return elapsed
            self.rejected += 1
            print(f"  others used {others:.2f} cores: run again", flush=True)
            time.sleep(5)
        raise MachineBusy(f"{self.attempts} runs in a row were disturbed: try again on a quiet "
                          "machine, or pass --no-gate")

    def summary(self) -> dict[str, object]:
        """For the result: whether runs were gated, and what others used at most."""
        return {"enabled": self.enabled, "max_other_cores_allowed": self.max_others,
                "max_other_cores_seen": round(self.worst, 3), "runs_rejected": self.rejected}


def _timed(run: Callable[[], object]) -> tuple[float, float]:
    if not PROC_STAT.exists():
        start = time.perf_counter()
        run()
        return time.perf_counter() - start, 0.0
    all_before, own_before = cpu_seconds()
    start = time.perf_counter()
    run()
    elapsed = time.perf_counter() - start
    all_after, own_after = cpu_seconds()
    return elapsed, max(0.0, (all_after - all_before) - (own_after - own_before)) / elapsed


def interleaved(
    gate: Gate, runs: Mapping[str, Callable[[], object]], repeats: int,
) -> dict[str, list[float]]:
    """Seconds of each run, in turns (a, b, a, b, ...), after one warm-up each."""
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats):
        for name, run in runs.items():
            seconds[name].append(gate.seconds(run))
            print(f"  repeat {repeat + 1} {name}: {seconds[name][-1]:.3f} s", flush=True)
    return seconds


def peak_flops(repeats: int = 9) -> float:
    """fp32 multiply-adds of a large square product, counted twice, per second (the best run)."""
    import torch

    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return 2 * 1024**3 / min(_best(lambda: torch.mm(a, b)) for _ in range(repeats))


def read_bandwidth(num_bytes: int, repeats: int = 9) -> float:
    """Bytes per second read by summing a tensor of ``num_bytes`` (the best run)."""
    import torch

    data = torch.ones(num_bytes // 4)
    return num_bytes / min(_best(data.sum) for _ in range(repeats))


def _best(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def median(seconds: list[float]) -> float:
    """The middle one."""
    return statistics.median(seconds)
