"""``safeladder doctor``: what this machine and this installation can do, and what to mend."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, what was found, and what to do about it."""

    group: str
    name: str
    value: str
    state: State = "ok"
    advice: str = ""


class Extra(NamedTuple):
    """An optional dependency group, the modules that show it is there, and what it adds."""

    name: str
    modules: tuple[str, ...]
    adds: str


EXTRAS: tuple[Extra, ...] = (
    Extra("remote", ("httpx",), "sampling from OpenAI-compatible endpoints (judges, teachers)"),
    Extra("data", ("datasets", "reasoning_gym"),
          "data from Hugging Face datasets, and reasoning-gym tasks with their scorers"),
    Extra("ifeval", ("py3langid",), "the verifier of instructions that can be checked (IFEval)"),
    Extra("search", ("bm25s",), "searching passages (the search environment)"),
    Extra("light", ("sklearn",), "training light verifiers (judging with one needs nothing more)"),
    Extra("math", ("math_verify",), "the verifier of mathematical expressions"),
    Extra("code", ("pydantic_monty",), "the verifier that runs programs, in a sandbox"),
    Extra("peft", ("peft",), "LoRA training"),
    Extra("vision", ("PIL",), "reading image files"),
    Extra("tensorboard", ("tensorboard",), "metrics in TensorBoard"),
    Extra("trackio", ("trackio",), "metrics in trackio"),
    Extra("wandb", ("wandb",), "metrics in Weights & Biases"),
)
CORE = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pydantic", "pyarrow",
        "plotly", "psutil")
GIB = 1024 ** 3


def run_doctor() -> None:
    """Print the report."""
    Console().print(render(doctor_report()))


def doctor_report(folder: Path = Path()) -> list[Check]:
    """Look at everything; ``folder`` is where runs would go. Nothing is left behind."""
    return [*_versions(), *_processor(), *_devices(), *_memory(), *_folders(folder), *_extras()]


def _versions() -> Iterator[Check]:
    import safeladder

    yield Check("versions", "safeladder", safeladder.__version__)
    yield Check("versions", "python", f"{platform.python_version()} on {platform.platform()}")
    for name in CORE:
        version = installed_version(name)
        if version is None:
            yield Check("versions", name, "missing", "problem", "pip install --upgrade safeladder")
        else:
            yield Check("versions", name, version)


def installed_version(package: str) -> str | None:
    """The version of an installed package, None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> Iterator[Check]:
    import psutil

    from safeladder.engine.threads import usable_cores
    from safeladder.ladder.summary import cpu_name

    usable = usable_cores()
    physical = psutil.cpu_count(logical=False)
    yield Check("processor", "name", cpu_name())
    yield Check("processor", "cores",
                f"{usable} usable of {os.cpu_count()} logical, {physical or 'unknown'} physical")
    load = psutil.getloadavg()[0]
    busy = load > 0.5 * usable
    yield Check("processor", "load", f"{load:.1f} over the last minute", "note" if busy else "ok",
                "other programs are at work; speed figures would suffer" if busy else "")
    yield threads_check(os.environ.get("OMP_NUM_THREADS"), usable)
    yield waiting_check(os.environ.get("OMP_WAIT_POLICY"))


def threads_check(setting: str | None, usable: int) -> Check:
    """What ``OMP_NUM_THREADS`` means for a climb."""
    name = "OMP_NUM_THREADS"
    if setting is None:
        return Check("processor", name, f"not set: a climb takes {usable}, or what its recipe says")
    if not setting.isdigit() or int(setting) < 1:
        return Check("processor", name, setting, "problem", "set it to a number of threads")
    if int(setting) > usable:
        return Check("processor", name, setting, "note", f"more threads than the {usable} usable "
                     "cores make training slower")
    return Check("processor", name, setting)


def waiting_check(setting: str | None) -> Check:
    """What ``OMP_WAIT_POLICY`` means for a climb."""
    name = "OMP_WAIT_POLICY"
    if setting is None:
        return Check("processor", name, "not set: a climb sets PASSIVE")
    if setting.upper() != "PASSIVE":
        return Check("processor", name, setting, "note", "unset it or set PASSIVE: waiting threads "
                     "that spin make training several times slower on a busy machine")
    return Check("processor", name, setting)


def _devices() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("devices", "torch", f"cannot be imported ({error})", "problem",
                    "reinstall torch for this platform")
        return
    yield Check("devices", "cpu", f"{torch.get_num_threads()} torch threads, "
                f"vectors: {torch.backends.cpu.get_cpu_capability()}")
    for i in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(i).total_memory
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        yield Check("devices", f"cuda:{i}",
                    f"{torch.cuda.get_device_name(i)}, {memory / GIB:.0f} GiB, {bf16}")
    if torch.cuda.device_count() == 0:
        yield Check("devices", "cuda", "none found")
    mps = "available" if torch.backends.mps.is_available() else "none found"
    yield Check("devices", "mps", mps)


def _memory() -> Iterator[Check]:
    import psutil

    memory = psutil.virtual_memory()
    low = memory.available < 2 * GIB
    yield Check("memory", "main memory", f"{memory.available / GIB:.1f} GiB available of "
                f"{memory.total / GIB:.1f} GiB", "note" if low else "ok",
                "less than 2 GiB is available" if low else "")


def _folders(folder: Path) -> Iterator[Check]:
    cache = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    yield folder_check("runs", folder / "runs")
    yield folder_check("model cache", cache)


def folder_check(name: str, folder: Path) -> Check:
    """Whether files can be written into a folder (or where it would be made), and how much."""
    existing = next(path for path in [folder, *folder.absolute().parents] if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Check("folders", name, f"{folder}: cannot write ({error.strerror})", "problem",
                     "choose another with --out" if name == "runs" else "set HF_HOME to another")
    free = shutil.disk_usage(existing).free
    low = free < GIB
    return Check("folders", name, f"{folder}: {free / GIB:.1f} GiB free", "note" if low else "ok",
                 "less than 1 GiB is left" if low else "")


def _extras() -> Iterator[Check]:
    for extra in EXTRAS:
        missing = [name for name in extra.modules if importlib.util.find_spec(name) is None]
        if missing:
            yield Check("extras", extra.name, f"not installed; adds {extra.adds}", "note",
                        f"pip install 'safeladder[{extra.name}]'")
        else:
            yield Check("extras", extra.name, f"installed: {extra.adds}")


MARKS: dict[State, Text] = {
    "ok": Text("ok", "green"), "note": Text("note", "yellow"), "problem": Text("!!", "bold red")}


def render(checks: Sequence[Check]) -> Table:
    """The checks as a table, a group at a time; advice stands under what it is about."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for style in ("bold", None, None):
        table.add_column(style=style, no_wrap=True)
    table.add_column(overflow="fold")
    group = ""
    for check in checks:
        value = Text(check.value)
        if check.advice:
            value.append(f"\n-> {check.advice}", "cyan")
        if check.group != group and group:
            table.add_row()
        table.add_row("" if check.group == group else check.group, MARKS[check.state], check.name,
                      value)
        group = check.group
    return table
