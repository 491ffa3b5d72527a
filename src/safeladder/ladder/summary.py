"""``summary.json``: the figures of a climb, and what it ran on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import psutil
from pydantic import Field

import safeladder
from safeladder.config import StrictModel, validate
from safeladder.errors import CheckpointError
from safeladder.files import write_text
from safeladder.ladder.gates import GateOutcome
from safeladder.ladder.run_dir import RunDir

if TYPE_CHECKING:
    from safeladder.ladder.recipe import Recipe


class Figure(StrictModel):
    """One evaluated figure (:class:`safeladder.eval.statistics.Estimate`)."""

    value: float | None = Field(description="None: nothing could be judged")
    n: int = Field(ge=0, description="judged answers")
    ci95: tuple[float, float] | None = Field(description="[low, high]; None: no spread to be seen")
    unjudged: int = Field(default=0, ge=0, description="answers that could not be judged")
    method: str | None = Field(default=None, description="wilson or cluster_bootstrap")
    clusters: int = Field(default=0, ge=0, description="distinct structures among those judged")


class RungSummary(StrictModel):
    """One rung: what it cost and what it left."""

    name: str
    seconds: float = Field(ge=0, description="training and evaluation, over all its processes")
    steps: int = Field(ge=0)
    tokens_trained: int = Field(default=0, ge=0)
    tokens_sampled: int = Field(default=0, ge=0)
    start: str = Field(default="", description="the checkpoint it started from")
    attempts: int = Field(default=1, ge=1, description="how often it was trained; steps, tokens "
                          "and figures are of the last time")
    gates: list[GateOutcome] = Field(default_factory=list, description="what became of its gates")
    accepted: bool = Field(default=True, description="False: it failed a gate, and what follows "
                           "starts from where it started")
    eval: dict[str, Figure]


class Difference(StrictModel):
    """A figure of one rung minus that of another, paired prompt by prompt
    (:class:`safeladder.eval.statistics.PairedDifference`).
    """

    before: str = Field(description="a rung's name")
    after: str = Field(description="a rung's name; the value is after minus before")
    figure: str = Field(description="with its suffix")
    value: float | None = Field(description="None: nothing was judged on both sides")
    n: int = Field(ge=0, description="prompts judged on both sides")
    ci95: tuple[float, float] | None
    unjudged: int = Field(default=0, ge=0)
    clusters: int = Field(default=0, ge=0)


class TrainedVerifier(StrictModel):
    """A verifier that the climb trained before its first rung."""

    name: str
    kind: str = Field(description="generative, classifier or light")
    recipe: str = Field(description="as the climb's recipe names it")
    folder: str = Field(description="within the run; two of one training share it")
    rows: int = Field(ge=0, description="it was trained on")
    seconds: float = Field(ge=0, description="training and test; 0: trained with another's")
    accuracy: Figure | None = Field(
        None, description="on its recipe's test rows; None: it has none")
    ece: Figure | None = Field(None, description="of its probabilities, on the same rows")


class Summary(StrictModel):
    """The whole file."""

    recipe: str
    rungs: list[RungSummary]
    baselines: list[RungSummary]
    comparisons: list[Difference] = Field(
        default_factory=list, description="every rung against the one it goes on from, and the "
        "last that stands against the first and every baseline")
    verifiers: list[TrainedVerifier] = Field(
        default_factory=list, description="those that the climb trained itself")
    total_seconds: float = Field(
        ge=0, description="sum over trained verifiers, rungs and baselines")
    peak_rss_bytes: int = Field(ge=0, description="over the process tree; see MemoryWatch")
    versions: dict[str, str]


def write_summary(
    run: RunDir, recipe: Recipe, peak_rss_bytes: int, comparisons: Sequence[Difference] = (),
) -> Summary:
    """Gather what the rungs left and write ``summary.json``, whole or not at all.

    Raises:
        CheckpointError: a rung is not finished, or what it left cannot be read.
        StorageError: the file cannot be written.
    """
    manifest = run.manifest()
    parts = {rung.name: _rung_summary(run, rung.name, rung.evaluate) for rung in recipe.rungs}
    verifiers = trained_verifiers(manifest)
    earlier = [int(state.get("peak_rss_bytes", 0)) for state in manifest["rungs"].values()]
    summary = Summary(
        recipe=recipe.name,
        rungs=[parts[rung.name] for rung in recipe.rungs if not rung.baseline],
        baselines=[parts[rung.name] for rung in recipe.rungs if rung.baseline],
        comparisons=list(comparisons), verifiers=verifiers,
        total_seconds=sum([*(one.seconds for one in verifiers),
                           *(part.seconds for part in parts.values())]),
        peak_rss_bytes=max([peak_rss_bytes, *earlier]), versions=manifest["versions"])
    write_text(run.summary, json.dumps(summary.model_dump(mode="json"), indent=2) + "\n")
    return summary


def read_summary(path: Path) -> Summary:
    """Read and check ``summary.json``.

    Raises:
        CheckpointError: it is missing or not JSON.
        ConfigError: it is JSON, but no summary; the message names the key.
    """
    return validate(Summary, _read_json(path), str(path))


def read_figures(path: Path) -> dict[str, Figure]:
    """Read the ``evaluation.json`` of a rung.

    Raises:
        CheckpointError: it is missing or not JSON.
        ConfigError: a figure is not complete; the message names it.
    """
    return {name: validate(Figure, value, f"{path}, {name}")
            for name, value in _read_json(path).items()}


def read_trained(path: Path) -> TrainedVerifier:
    """Read what a trained verifier's folder says of its training.

    Raises:
        CheckpointError: the file is missing or not JSON.
        ConfigError: it is not complete; the message names the key.
    """
    return validate(TrainedVerifier, _read_json(path), str(path))


def trained_verifiers(manifest: Mapping[str, Any]) -> list[TrainedVerifier]:
    """What a manifest says of the verifiers that the climb trained.

    Raises:
        ConfigError: an entry is not complete.
    """
    return [validate(TrainedVerifier, entry, f"manifest.json, verifiers.{name}")
            for name, entry in manifest.get("verifiers", {}).items()]


def _rung_summary(run: RunDir, name: str, evaluated: bool) -> RungSummary:
    state = run.rung_state(name)
    if state.get("status") != "done":
        raise CheckpointError(f"{run.path}: rung {name!r} is not finished; go on with --resume")
    return RungSummary(
        name=name, seconds=state["seconds"], steps=state["steps"],
        tokens_trained=state.get("tokens_trained", 0),
        tokens_sampled=state.get("tokens_sampled", 0), start=state.get("start", ""),
        **gate_states(state), eval=read_figures(run.evaluation(name)) if evaluated else {})


def gate_states(state: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of a rung's gates, as :class:`RungSummary` has it."""
    return {"attempts": state.get("attempt", 0) + 1, "gates": state.get("gates", []),
            "accepted": state.get("accepted", True)}


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(data).__name__}")
    return data


class MemoryWatch:
    """Peak resident memory of this process and its children, while the context is open.

    A thread adds up the resident sets every ``interval`` seconds; pages that processes share
    count in each of them, so the sum is an upper bound of what it saw, and what rises and falls
    between two looks goes unseen. Where the system keeps a high-water mark of this process
    (Linux), the peak is at least that.
    """

    def __init__(self, interval: float = 0.5) -> None:
        self._interval = interval
        self._process = psutil.Process()
        self._seen = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch", daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    @property
    def peak_bytes(self) -> int:
        """The peak so far, in bytes."""
        self._look()
        return max(self._seen, own_high_water_bytes() or 0)

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self._look()

    def _look(self) -> None:
        total = 0
        for process in [self._process, *self._process.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue  # it ended between the listing and the look
        self._seen = max(self._seen, total)


def own_high_water_bytes() -> int | None:
    """The kernel's high-water mark of this process's resident set; None where there is none."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    for line in status.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pyarrow", "plotly",
            "pydantic")


def versions() -> dict[str, str]:
    """What figures and speed depend on: packages, code, machine, threads."""
    found = {"safeladder": safeladder.__version__, "git_revision": git_revision(),
             "python": platform.python_version()}
    found |= {package: importlib.metadata.version(package) for package in PACKAGES}
    return found | {"os": platform.platform(), "cpu": cpu_name(),
                    "cpu_cores": str(os.cpu_count()), "threads": _threads()}


def git_revision() -> str:
    """The commit this package runs from, ``-dirty`` if files under it differ from it; or, where
    it does not run from a checkout, a word that says so.
    """
    package = Path(safeladder.__file__)
    head = _git(package.parent, "rev-parse", "HEAD")
    if head is None or _git(package.parent, "ls-files", "--error-unmatch", package.name) is None:
        return "not a git checkout"
    return head + ("-dirty" if _git(package.parent, "status", "--porcelain", "--", ".") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    """Standard output of git; None where there is no git, no repository, or it says no."""
    try:
        result = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True,
                                text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def cpu_name() -> str:
    """The processor's name."""
    table = Path("/proc/cpuinfo")
    if table.exists():
        for line in table.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _threads() -> str:
    """Threads torch computes with, if it is loaded; else what the environment asks for."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return str(torch.get_num_threads())
    return os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
