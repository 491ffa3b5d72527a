"""What a report reads from a run directory, finished or not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from safeladder.config import read_yaml
from safeladder.errors import CheckpointError
from safeladder.eval.deliberation import Answer, blank_answer, with_parts
from safeladder.eval.items import EvalItem, Opinion, cluster_of, judge
from safeladder.ladder.run_dir import RunDir
from safeladder.ladder.summary import (
    Difference,
    Figure,
    RungSummary,
    gate_states,
    read_figures,
    read_summary,
    trained_verifiers,
)
from safeladder.ladder.traces import TraceKey

Row = Mapping[str, Any]
MAX_TRAINING_FILES = 200
"""Trace files of one rung's training that are read; of more, as many evenly spaced ones."""


class Series(NamedTuple):
    """One metric of one rung over its steps."""

    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class RungEntry:
    """A rung as the recipe lists it, with what it left if it is done."""

    name: str
    kind: str
    baseline: bool
    disclosure: str
    """What has to stand in the same sentence as its figures; empty if nothing has."""
    summary: RungSummary | None

    @property
    def figures(self) -> Mapping[str, Figure]:
        """Its evaluated figures; none before it is done."""
        return self.summary.eval if self.summary else {}

    @property
    def accepted(self) -> bool:
        """Whether no gate holds it back."""
        return self.summary is None or self.summary.accepted


@dataclass(frozen=True)
class RunData:
    """A run directory, read."""

    run: RunDir
    recipe: Mapping[str, Any]
    manifest: Mapping[str, Any]
    rungs: Sequence[RungEntry]
    records: Sequence[Row]
    peak_rss_bytes: int | None
    total_seconds: float
    finished: bool
    comparisons: Sequence[Difference] = ()
    """Those of ``summary.json``."""

    @property
    def climbed(self) -> list[RungEntry]:
        """The rungs with figures, in order, comparisons left out."""
        return [rung for rung in self.rungs if rung.figures and not rung.baseline]

    @property
    def baselines(self) -> list[RungEntry]:
        """The comparisons with figures."""
        return [rung for rung in self.rungs if rung.figures and rung.baseline]

    def against(self, baseline: RungEntry, otherwise: RungEntry) -> RungEntry:
        """The rung of the ladder that a comparison's ``compare_with`` names, or ``otherwise``."""
        named = next(rung.get("compare_with") for rung in self.recipe["rungs"]
                     if rung["name"] == baseline.name)
        return next((rung for rung in self.climbed if rung.name == named), otherwise)

    def of_kind(self, *kinds: str) -> list[RungEntry]:
        """Rungs that logged steps of these kinds, comparisons included."""
        logged = {record["rung"] for record in self.records if record["kind"] in kinds}
        return [rung for rung in self.rungs if rung.name in logged]

    def series(self, rung: str, metric: str, evaluation: bool = False) -> Series:
        """A metric of a rung's training steps, or of the evaluations between them."""
        points = [(record["step"], record["metrics"][metric]) for record in self.records
                  if record["rung"] == rung and (record["kind"] == "eval") == evaluation
                  and metric in record["metrics"]]
        return Series([step for step, _ in points], [float(value) for _, value in points])

    def metric_names(self, rung: str, evaluation: bool = False) -> list[str]:
        """Names of all metrics a rung logged, in order of first appearance."""
        return list(dict.fromkeys(
            name for record in self.records
            if record["rung"] == rung and (record["kind"] == "eval") == evaluation
            for name in record["metrics"]))

    @cached_property
    def evaluations(self) -> Mapping[tuple[str, str, float], list[Row]]:
        """(rung, split, temperature) -> trace rows of the evaluation at the rung's end."""
        found: dict[tuple[str, str, float], list[Row]] = {}
        for path in sorted(self.run.traces.glob("*.parquet")):
            if "-step" in path.stem:
                continue
            for row in read_trace(path):
                key = (row["rung"], row["split"], float(row["temperature"]))
                found.setdefault(key, []).append(row)
        return found

    def training_files(self, rung: str) -> list[Path]:
        """The trace files of a rung's training, in order (see MAX_TRAINING_FILES)."""
        paths = sorted(self.run.traces.glob(f"{rung}-train-step*.parquet"))
        last, wanted = len(paths) - 1, MAX_TRAINING_FILES
        if len(paths) <= wanted:
            return paths
        return [paths[round(i * last / (wanted - 1))] for i in range(wanted)]


def load_run(path: Path) -> RunData:
    """Read a run directory.

    Raises:
        CheckpointError: it is no run directory, or a file in it cannot be read.
        ConfigError: ``recipe.yaml`` or ``summary.json`` is not what it should be.
    """
    run = RunDir(path)
    manifest, recipe = run.manifest(), read_yaml(run.recipe)
    finished = run.summary.exists()
    comparisons: Sequence[Difference] = ()
    if finished:
        summary = read_summary(run.summary)
        done = {rung.name: rung for rung in [*summary.rungs, *summary.baselines]}
        peak, total = summary.peak_rss_bytes, summary.total_seconds
        comparisons = summary.comparisons
    else:
        done = dict(_done_rungs(run, manifest))
        trained = trained_verifiers(manifest)
        peak, total = None, sum([*(one.seconds for one in trained),
                            *(rung.seconds for rung in done.values())])
    rungs = [RungEntry(rung["name"], rung["type"], rung.get("baseline", False),
                       rung.get("disclosure", ""), done.get(rung["name"]))
             for rung in recipe["rungs"]]
    return RunData(run, recipe, manifest, rungs, read_records(run.metrics), peak, total, finished,
                   comparisons)


def _done_rungs(run: RunDir, manifest: Mapping[str, Any]) -> Iterator[tuple[str, RungSummary]]:
    for name, state in manifest["rungs"].items():
        if state.get("status") == "done":
            path = run.evaluation(name)
            yield name, RungSummary(
                name=name, seconds=state["seconds"], steps=state["steps"],
                tokens_trained=state.get("tokens_trained", 0),
                tokens_sampled=state.get("tokens_sampled", 0), start=state.get("start", ""),
                **gate_states(state),
                eval=read_figures(path) if path.exists() else {})


def read_records(path: Path) -> list[Row]:
    """The lines of ``metrics.jsonl``; none if the file is missing. Half a line at the end, which a
    killed process leaves, is no record.

    Raises:
        CheckpointError: a line is not JSON; the message names it.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    records = []
    for number, line in enumerate(text[:text.rfind("\n") + 1].splitlines(), 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise CheckpointError(f"{path}, line {number}: not JSON ({error})") from None
    return records


def read_trace(path: Path) -> list[Row]:
    """The rows of one trace file; JSON columns are read.

    Raises:
        CheckpointError: the file is no trace.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
        for row in rows:
            for column in ("reference", "meta", "verdicts", "parts"):
                row[column] = json.loads(row[column])
            for column in ("media", "turns"):  # runs of old have no such columns
                row[column] = json.loads(row.get(column) or "[]")
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: no trace file ({error}); remove it to go on") from error
    return list(rows)


def evaluation_items(
    run_dir: Path, rung: str, split: str = "test", temperature: float = 0.0,
) -> list[EvalItem]:
    """The answers of one evaluation, for :func:`safeladder.eval.statistics.paired_difference` over
    several runs.

    Raises:
        CheckpointError: the run has no such evaluation, or its file cannot be read.
    """
    path = RunDir(run_dir).traces / TraceKey(rung, -1, split, temperature).filename
    return [item_of_row(row) for row in read_trace(path)]


def deliberation_answers(
    run_dir: Path, rung: str, split: str = "test", temperature: float = 0.0,
) -> list[Answer]:
    """The answers of one evaluation with their confidences, for
    :func:`safeladder.eval.deliberation.false_certain_baseline_matched` over rungs and runs.

    Raises:
        CheckpointError: the run has no such evaluation, or its file cannot be read.
    """
    path = RunDir(run_dir).traces / TraceKey(rung, -1, split, temperature).filename
    found = []
    for row in read_trace(path):
        blank = blank_answer(row["prompt_id"], row["meta"])
        judged = [] if str(row["status"]).startswith("error") else [
            verdict["parts"] for verdict in row["verdicts"].values()
            if verdict["score"] is not None and not verdict.get("monitor")]
        found.append(with_parts(blank, judged))
    return found


def item_of_row(row: Row) -> EvalItem:
    """The item of a trace row; :func:`safeladder.eval.items.item_of` for what is on disk."""
    failed = str(row["status"]).startswith("error")
    judgement = judge(Opinion(verdict["verdict_class"], verdict["score"] is not None,
                              frozenset(verdict.get("parts", ())))
                      for verdict in row["verdicts"].values()
                      if not failed and not verdict.get("monitor"))
    return EvalItem(
        prompt_id=row["prompt_id"], cluster=cluster_of(row["prompt_id"], row["meta"]),
        correct=judgement.correct, format=judgement.format,
        tokens=None if failed else int(row["num_tokens"]),
        response="" if failed else row["response"], people=row["meta"].get("people"),
        source=row["source"], verdict_class=judgement.verdict_class,
        truncated=None if failed else float(str(row["status"]).startswith("truncated")),
        reference=row.get("reference"), meta=row["meta"])
