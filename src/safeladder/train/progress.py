"""The live display of a climb: bars in a terminal, one line per step elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text


class Figure(NamedTuple):
    """A metric worth a place on the line, its short name and its format."""

    metric: str
    label: str
    form: str


FIGURES: tuple[Figure, ...] = (
    Figure("loss", "loss", ".4f"),
    Figure("reward/mean", "reward", "+.3f"),
    Figure("accuracy", "accuracy", ".3f"),
    Figure("response/mean_tokens", "tokens", ".0f"),
    Figure("validation/loss", "val_loss", ".4f"),
    Figure("tokens_per_second", "tok/s", ".0f"),
)
"""Shown when the step has them, in this order; every metric is in ``metrics.jsonl``."""


def figures(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """(short name, text) of the figures a step shows. An RL step shows no loss: it says little."""
    hidden = {"loss"} if "reward/mean" in metrics else set()
    return [(figure.label, format(metrics[figure.metric], figure.form))
            for figure in FIGURES if figure.metric in metrics and figure.metric not in hidden]


class ProgressDisplay(Protocol):
    """What a climb reports to while it runs. Use as a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def rung_started(self, name: str, total_steps: int | None, unit: str = "step",
                     first_step: int = 0) -> None:
        """A rung or phase begins (a resumed one at ``first_step``). No total: no time left."""
        ...

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Step number ``step`` (counted from 0) is done."""
        ...

    def rung_finished(self, text: str = "") -> None:
        """The rung is done; ``text`` says how it ended."""
        ...

    def message(self, text: str) -> None:
        """A line of its own."""
        ...


class RungClock:
    """Elapsed time and time left of one rung, from the steps done in this process."""

    def __init__(self, total_steps: int | None, first_step: int,
                 now: Callable[[], float] = time.monotonic) -> None:
        self._total = total_steps
        self._first = first_step
        self._now = now
        self._started = now()

    @property
    def elapsed(self) -> float:
        """Seconds since the rung began here."""
        return self._now() - self._started

    def left(self, done: int) -> float | None:
        """Seconds left after ``done`` steps at the mean speed so far; None if unknown."""
        here = done - self._first
        if self._total is None or here < 1:
            return None
        return self.elapsed / here * max(self._total - done, 0)


class LineProgress:
    """One line per step: ``logic_rl step 12/90 reward +1.250 accuracy 0.610 left 1m05s``."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._name, self._unit = "", "step"
        self._total: int | None = None
        self._clock = RungClock(None, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream.flush()

    def rung_started(self, name: str, total_steps: int | None, unit: str = "step",
                     first_step: int = 0) -> None:
        """Print that the rung begins."""
        self._name, self._unit, self._total = name, unit, total_steps
        self._clock = RungClock(total_steps, first_step)
        total = "" if total_steps is None else f" {unit}s {total_steps}"
        resumed = f" resumed at {unit} {first_step}" if first_step else ""
        self._print(f"{name} started{total}{resumed}")

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print the line of one step."""
        total = "" if self._total is None else f"/{self._total}"
        shown = "".join(f" {label} {text}" for label, text in figures(metrics))
        left = self._clock.left(step + 1)
        remaining = "" if left is None else f" left {duration(left)}"
        self._print(f"{self._name} {self._unit} {step + 1}{total}{shown}{remaining}")

    def rung_finished(self, text: str = "") -> None:
        """Print that the rung is done."""
        self._print(f"{self._name} finished in {duration(self._clock.elapsed)}"
                    f"{': ' if text else ''}{text}")

    def message(self, text: str) -> None:
        """Print a line."""
        self._print(text)

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class TerminalProgress:
    """The bar of the running rung, its figures under it, finished rungs as lines above.

    Redrawn with the steps, at most ten times a second and without a thread of its own, so that it
    takes nothing from the training.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._bar = Progress(
            TextColumn("[bold]{task.description}"), BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"), TextColumn("[dim]{task.fields[left]}"))
        self._figures = Text(no_wrap=True, overflow="ellipsis")
        self._live = Live(Group(self._bar, self._figures), console=console or Console(),
                          auto_refresh=False)
        self._task: TaskID | None = None
        self._name, self._unit = "", "step"
        self._total: int | None = None
        self._clock = RungClock(None, 0)
        self._drawn = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._draw(now=True)
        self._live.stop()

    def rung_started(self, name: str, total_steps: int | None, unit: str = "step",
                     first_step: int = 0) -> None:
        """Show a bar."""
        self._end_bar()
        self._name, self._unit, self._total = name, unit, total_steps
        self._clock = RungClock(total_steps, first_step)
        self._task = self._bar.add_task(name, total=total_steps, completed=first_step,
                                        count=self._count(first_step), left="")
        self._draw(now=True)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Move the bar and show the figures of the step."""
        if self._task is None:
            raise RuntimeError("step() before rung_started()")
        left = self._clock.left(step + 1)
        self._bar.update(self._task, completed=step + 1, count=self._count(step + 1),
                         left="" if left is None else f"{duration(left)} left")
        parts = [Text.assemble((f"{label} ", "dim"), text) for label, text in figures(metrics)]
        self._figures.plain = ""
        self._figures.append_text(Text("  ").join([Text(""), *parts]))
        self._draw(now=step + 1 == self._total)

    def rung_finished(self, text: str = "") -> None:
        """Replace the bar by a line that stays."""
        took = duration(self._clock.elapsed)
        name = self._name
        self._end_bar()
        self._draw(now=True)
        self._live.console.print(
            Text.assemble((name, "bold"), f" finished in {took}{': ' if text else ''}{text}"))

    def message(self, text: str) -> None:
        """Print a line above the bar."""
        self._live.console.print(Text(text))

    def _end_bar(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        self._figures.plain = ""

    def _count(self, done: int) -> str:
        return f"{self._unit} {done}" + ("" if self._total is None else f"/{self._total}")

    def _draw(self, now: bool) -> None:
        moment = time.monotonic()
        if now or moment - self._drawn >= 0.1:
            self._live.refresh()
            self._drawn = moment


def make_progress(stream: TextIO | None = None) -> ProgressDisplay:
    """Bars when ``stream`` (default: standard output) is a terminal, else lines."""
    stream = stream or sys.stdout
    return TerminalProgress(Console(file=stream)) if stream.isatty() else LineProgress(stream)


def duration(seconds: float) -> str:
    """``45s``, ``3m07s``, ``2h05m``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
