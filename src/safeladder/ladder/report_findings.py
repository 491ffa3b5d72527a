"""What a report says in words and tables: comparisons, the plateau check, behaviours, gaps."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from safeladder.eval.items import EvalItem
from safeladder.eval.metrics import accuracy_name, rules_for, shown_behaviours, suffix
from safeladder.eval.statistics import PairedDifference, paired_difference
from safeladder.ladder.report_data import (
    Row,
    RunData,
    RungEntry,
    Series,
    item_of_row,
    read_trace,
)
from safeladder.ladder.summary import Figure
from safeladder.verifiers.behaviours import Rules

NUMBER_WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}


def people_of(name: str) -> int | None:
    """``kk2_accuracy`` -> 2; None for other figures."""
    match = re.fullmatch(r"kk(\d+)_accuracy", name)
    return int(match[1]) if match else None


def accuracy_label(name: str) -> str:
    """``kk2_accuracy`` -> ``two-person puzzles``, ``aime_2024_accuracy`` -> ``aime 2024``."""
    people = people_of(name)
    if people is not None:
        return f"{NUMBER_WORDS.get(people, str(people))}-person puzzles"
    return name.removesuffix("_accuracy").replace("_", " ")


@dataclass(frozen=True)
class Comparison:
    """One accuracy of two rungs over the same prompts."""

    name: str
    """Of the figure, without suffix."""
    split: str
    temperature: float
    before: RungEntry
    after: RungEntry
    before_figure: Figure
    after_figure: Figure
    difference: PairedDifference


def compare(data: RunData, before: RungEntry, after: RungEntry) -> list[Comparison]:
    """Every accuracy both rungs have, paired prompt by prompt from their traces."""
    found = []
    for (rung, split, temperature), rows in sorted(
            data.evaluations.items(), key=lambda entry: (entry[0][1] != "test", entry[0])):
        others = data.evaluations.get((before.name, split, temperature))
        if rung != after.name or others is None:
            continue
        ours, theirs = by_accuracy(rows), by_accuracy(others)
        for name in ours:
            full = name + suffix(split, temperature)
            if name in theirs and full in after.figures and full in before.figures:
                found.append(Comparison(
                    name, split, temperature, before, after, before.figures[full],
                    after.figures[full], paired_difference([ours[name]], [theirs[name]])))
    return found


def by_accuracy(rows: Iterable[Row]) -> dict[str, list[EvalItem]]:
    """Items under the name of the accuracy they count in."""
    return {name: [item_of_row(row) for row in mine] for name, mine in _by_kind(rows).items()}


class Plateau(NamedTuple):
    """How much a loss still fell over the last quarter of its points."""

    improvement: float
    """(start - end) / start of a least-squares line through the last quarter."""
    constant_rate: bool | None
    """Whether the learning rate stood still over that quarter; None if it was not logged."""
    points: int
    held_out: bool
    """Whether it is the validation loss."""

    @property
    def reached(self) -> bool:
        """Less than 2% at a constant learning rate."""
        return self.improvement < 0.02 and self.constant_rate is True


def plateau(training: Series, validation: Series, learning_rate: Series) -> Plateau | None:
    """Check the last quarter of a loss curve; None with fewer than 8 points.

    The validation loss is taken where it has enough points: the training loss of single steps
    varies with the rows they happen to hold, by far more than 2%. A line is fitted because points
    are noisy: it uses every one of the quarter.
    """
    held_out = len(validation.values) >= 8
    loss = validation if held_out else training
    count = len(loss.values) // 4
    if count < 2:
        return None
    values = loss.values[-count:]
    mean_x, mean_y = (count - 1) / 2, math.fsum(values) / count
    slope = (math.fsum((i - mean_x) * (v - mean_y) for i, v in enumerate(values))
             / math.fsum((i - mean_x) ** 2 for i in range(count)))
    start, end = mean_y - slope * mean_x, mean_y + slope * mean_x
    rates = learning_rate.values[-(len(learning_rate.values) // 4):]
    constant = max(rates) - min(rates) <= 1e-9 * max(rates) if rates else None
    return Plateau((start - end) / start, constant, count, held_out)


class Side(NamedTuple):
    """One side of a gap. None where nothing was judged."""

    accuracy: float | None
    reward: float | None
    n: int
    """Answers whose accuracy was judged."""


class Gap(NamedTuple):
    """Training against held-out prompts at the temperature of the rollouts."""

    label: str
    temperature: float
    train: Side
    held_out: Side

    @property
    def points(self) -> float | None:
        """Accuracy on training prompts minus held-out, in percentage points."""
        if self.train.accuracy is None or self.held_out.accuracy is None:
            return None
        return 100 * (self.train.accuracy - self.held_out.accuracy)

    @property
    def reward(self) -> float | None:
        """Mean reward on training prompts minus held-out."""
        if self.train.reward is None or self.held_out.reward is None:
            return None
        return self.train.reward - self.held_out.reward


def gaps(data: RunData, rung: RungEntry) -> list[Gap]:
    """Accuracy and reward on the training prompts over the last tenth of the steps that left
    traces, beside the test split taken at the same temperature.
    """
    files = data.training_files(rung.name)
    rows = [row for path in files[-max(len(files) // 10, 1):] for row in read_trace(path)]
    temperature = float(rows[0]["temperature"]) if rows else 0.0
    held_out = _by_kind(data.evaluations.get((rung.name, "test", temperature), ()))
    return [Gap(accuracy_label(name), temperature, _side(mine), _side(held_out[name]))
            for name, mine in _by_kind(rows).items() if name in held_out]


def _by_kind(rows: Iterable[Row]) -> dict[str, list[Row]]:
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(accuracy_name(item_of_row(row)), []).append(row)
    return dict(sorted(kinds.items()))


def _side(rows: Iterable[Row]) -> Side:
    rows = list(rows)
    judged = [value for row in rows if (value := item_of_row(row).correct) is not None]
    rewards = [row["reward_total"] for row in rows if row["reward_total"] is not None]
    return Side(_mean(judged), _mean(rewards), len(judged))


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def training_behaviours(data: RunData, rung: str) -> dict[str, Series]:
    """Share of a step's responses that show each behaviour, by step."""
    found: dict[str, Series] = {}
    for path in data.training_files(rung):
        counts: dict[str, list[bool]] = {}
        step = 0
        for row in read_trace(path):
            step = int(row["step"])
            if not str(row["status"]).startswith("error"):
                for name, shown in shown_behaviours(row["source"], row["response"]).items():
                    counts.setdefault(name, []).append(shown)
        for name, column in counts.items():
            series = found.setdefault(name, Series([], []))
            series.steps.append(step)
            series.values.append(sum(column) / len(column))
    return found


def stated_rules(data: RunData) -> dict[str, Rules]:
    """Source -> the rules its chains of thought are read by, for the sources of this run."""
    sources = {row["source"] for rows in data.evaluations.values() for row in rows}
    return {source: rules_for(source) for source in sorted(sources)}


class Shown(NamedTuple):
    """One prompt and how the rungs answered it."""

    prompt: Row
    answers: Sequence[tuple[RungEntry, Row]]


def shown_prompts(
    data: RunData, rungs: Sequence[RungEntry], count: int, split: str = "test",
    kind: Callable[[EvalItem], str] = accuracy_name,
) -> list[Shown]:
    """The same prompts answered by several rungs, greedy.

    They are chosen by their ids alone, so no answer can influence the choice: ordered by the
    SHA-256 of the id, kinds (numbers of people, or sources) taking turns in the order of their
    names.
    """
    tables = [{row["prompt_id"]: row for row in data.evaluations.get((rung.name, split, 0.0), ())}
              for rung in rungs]
    if not tables:
        return []
    common = [row for key, row in tables[-1].items() if all(key in table for table in tables)]
    kinds: dict[str, list[Row]] = {}
    for row in sorted(common, key=lambda row: _digest(row["prompt_id"])):
        kinds.setdefault(kind(item_of_row(row)), []).append(row)
    queues = [queue for _, queue in sorted(kinds.items())]
    turns = [queue[i] for i in range(max(map(len, queues), default=0))
             for queue in queues if i < len(queue)]
    return [Shown(row, [(rung, table[row["prompt_id"]])
                        for rung, table in zip(rungs, tables, strict=True)])
            for row in turns[:count]]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def totals(data: RunData, prefix: str) -> dict[str, Mapping[str, float]]:
    """Rung -> sums over its training steps of all metrics whose names begin with ``prefix``."""
    sums: dict[str, dict[str, float]] = {}
    for record in data.records:
        for name, value in record["metrics"].items():
            if name.startswith(prefix) and record["kind"] != "eval":
                column = sums.setdefault(record["rung"], {})
                column[name] = column.get(name, 0.0) + value
    return {rung: dict(column) for rung, column in sums.items()}
