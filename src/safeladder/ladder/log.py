"""What a loop reports goes to the metric sinks, the trace files and the progress display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from safeladder.ladder.judges import CostWatch
from safeladder.ladder.run_dir import RunDir
from safeladder.ladder.traces import TraceKey, write_traces
from safeladder.train.progress import ProgressDisplay
from safeladder.train.sinks import MetricSink
from safeladder.types import Group


@dataclass(frozen=True)
class RungLog:
    """The :class:`safeladder.train.rl.RunLog` of one rung."""

    rung: str
    run: RunDir
    sinks: Sequence[MetricSink]
    display: ProgressDisplay
    total_steps: int | None
    temperature: float = 1.0
    costs: CostWatch = field(default_factory=lambda: CostWatch({}))

    def record(self, record: Mapping[str, Any]) -> None:
        """Pass one line on to every sink and to the display.

        What judges cost stands under ``time``: a cached reply costs nothing, so that a resumed run
        pays other sums for the same metrics.
        """
        costs = self.costs.since_last()
        if costs:
            record = {**record, "time": {**record["time"], "judges": costs}}
        for sink in self.sinks:
            sink.log(record)
        if record["kind"] == "eval":
            self.display.message(_evaluation_line(record))
            return
        speeds = record["time"]["tokens_per_second"]
        shown = {**record["metrics"]}
        if speeds:
            shown["tokens_per_second"] = speeds.get("sampling") or next(iter(speeds.values()))
        self.display.step(record["step"], shown)

    def traces(self, step: int, groups_P: Sequence[Group]) -> None:
        """Write the trajectories of one step."""
        write_traces(self.run.traces, TraceKey(self.rung, step, "train", self.temperature),
                     (t for group in groups_P for t in group.trajectories))

    def resumed(self, next_step: int) -> None:
        """Forget what was logged of ``next_step`` and later, and start the display there."""
        for sink in self.sinks:
            sink.rewind(self.rung, next_step)
        self.display.rung_started(self.rung, self.total_steps, first_step=next_step)


def _evaluation_line(record: Mapping[str, Any]) -> str:
    figures = "  ".join(f"{name} {value:.3f}" for name, value in record["metrics"].items()
                        if not name.startswith("tokens/"))
    return f"{record['rung']} after {record['step'] + 1} steps: {figures}"
