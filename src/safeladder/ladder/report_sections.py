"""Which charts a report shows of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from safeladder.eval.metrics import RATES, suffix
from safeladder.ladder.report_charts import (
    AFTER,
    BEFORE,
    Axes,
    Chart,
    Line,
    interval_chart,
    line_chart,
    rung_colours,
    stacked_share_chart,
)
from safeladder.ladder.report_data import RunData, RungEntry, Series
from safeladder.ladder.report_findings import accuracy_label, people_of, training_behaviours


class RLChart(NamedTuple):
    """A metric of RL rungs that gets a chart of its own."""

    metric: str
    title: str
    note: str
    axes: Axes


RL_CHARTS: tuple[RLChart, ...] = (
    RLChart("reward/mean", "Reward", "Mean total of the verifiers over a step's rollout.",
            Axes(y="reward")),
    RLChart("response/mean_tokens", "Length of answers", "Mean number of sampled tokens.",
            Axes(y="tokens")),
    RLChart("response/truncated", "Truncated answers", "Share cut by the token limit.",
            Axes(percent=True, from_zero=True)),
    RLChart("groups/zero_std", "Groups without a signal",
            "Share of prompts whose answers all got the same reward: they train nothing.",
            Axes(percent=True, from_zero=True)),
    RLChart("entropy", "Entropy", "Mean entropy of the policy over sampled tokens, in nats.",
            Axes(y="nats", from_zero=True)),
    RLChart("kl_old", "KL to the policy that sampled",
            "Mean over trained tokens, within a step's updates.", Axes(y="nats", from_zero=True)),
    RLChart("kl_ref", "KL to the reference", "Mean over trained tokens.",
            Axes(y="nats", from_zero=True)),
    RLChart("clip_fraction", "Clipped tokens", "Share of trained tokens whose ratio was clipped.",
            Axes(percent=True, from_zero=True)),
    RLChart("grad_norm", "Gradient norm", "Global L2 norm before clipping.",
            Axes(y="norm", from_zero=True)),
    RLChart("mismatch_kl", "Sampler and trainer",
            "KL between the log-probabilities of the engine that sampled and those of the trainer "
            "at the same weights. It should stay near zero.", Axes(y="nats", from_zero=True)),
    RLChart("learning_rate", "Learning rate", "As scheduled.", Axes(from_zero=True)),
)


def accuracy_charts(data: RunData) -> list[Chart]:
    """Accuracy with intervals, one chart per split and temperature."""
    rungs, colours = [*data.climbed, *data.baselines], rung_colours(data)
    charts = []
    taken = {(split, heat) for _, split, heat in data.evaluations}
    for split, temperature in sorted(taken, key=lambda kind: split_order(*kind)):
        end = suffix(split, temperature)
        names = sorted({name.removesuffix(end) for rung in rungs for name in rung.figures
                        if name.endswith(f"_accuracy{end}")})
        rows = [(rung.name, colours[rung.name],
                 {_short(name): rung.figures[name + end] for name in names
                  if name + end in rung.figures}) for rung in rungs]
        charts.append(interval_chart(
            f"accuracy{end}", f"{split_label(split)}, {heat_label(temperature)}",
            "Share of right answers; bars are 95% intervals.", [_short(n) for n in names], rows))
    return [chart for chart in charts if chart]


def _short(name: str) -> str:
    people = people_of(name)
    return f"{people} people" if people is not None else accuracy_label(name)


def split_label(split: str) -> str:
    """``unseen_forms`` -> what it is."""
    return {"test": "Test split", "unseen_forms": "Statement forms never seen"}.get(
        split, f"Split {split}")


def split_order(split: str, temperature: float) -> tuple[bool, str, float]:
    """Sorting key: the test split first, greedy first."""
    return split != "test", split, temperature


def heat_label(temperature: float) -> str:
    """``greedy`` or ``temperature 1``."""
    return f"temperature {temperature:g}" if temperature else "greedy"


def supervised_charts(data: RunData) -> list[Chart]:
    """The loss of every supervised rung, on its own scale."""
    colours = rung_colours(data)
    charts = []
    for rung in data.of_kind("sft", "pretrain"):
        colour = colours[rung.name]
        lines = [Line("training", data.series(rung.name, "loss"), colour),
                 Line("validation", data.series(rung.name, "validation/loss", evaluation=True),
                      AFTER if colour != AFTER else BEFORE, smooth=False, markers=True)]
        charts.append(line_chart(f"loss-{rung.name}", f"Loss of {rung.name}",
                                 "Mean over trained tokens, in nats.", lines,
                                 Axes(y="nats", log=True)))
    return [chart for chart in charts if chart]


def learning_charts(data: RunData) -> Iterator[Chart]:
    """Accuracy by step on training and on held-out prompts, one chart per RL rung."""
    for rung in data.of_kind("rl"):
        lines = [Line("training prompts", data.series(rung.name, "accuracy"), AFTER)]
        names = [name for name in data.metric_names(rung.name, evaluation=True)
                 if name == "accuracy" or name.endswith("_accuracy")]
        lines += [Line(f"held out: {_short(name)}", data.series(rung.name, name, evaluation=True),
                       (1, 3, 4, 5, 0, 6)[i % 6], smooth=False, markers=True)
                  for i, name in enumerate(names)]
        chart = line_chart(
            f"learning-{rung.name}", f"Accuracy while {rung.name} trains",
            "Training prompts at the temperature of the rollouts; held-out (validation) prompts "
            "greedy.", lines, Axes(percent=True, from_zero=True))
        if chart:
            yield chart


def rl_charts(data: RunData) -> list[Chart]:
    """Rewards, parts and health of the RL rungs; a line per rung."""
    rungs, colours = data.of_kind("rl"), rung_colours(data)
    charts = [
        line_chart(chart.metric.replace("/", "-"), chart.title, chart.note,
                   [Line(rung.name, data.series(rung.name, chart.metric), colours[rung.name])
                    for rung in rungs], chart.axes)
        for chart in RL_CHARTS]
    parts = [_parts_chart(data, rung) for rung in rungs]
    return [chart for chart in (charts[0], *parts, *charts[1:]) if chart]


def _parts_chart(data: RunData, rung: RungEntry) -> Chart | None:
    names = [name for name in data.metric_names(rung.name) if name.startswith("reward/part/")]
    lines = [Line(name.removeprefix("reward/part/"), data.series(rung.name, name), 1 + i)
             for i, name in enumerate(names)]
    return line_chart(f"parts-{rung.name}", f"Parts of the reward of {rung.name}",
                      "Mean of each part over a step's rollout.", lines, Axes(y="reward"))


def behaviour_charts(data: RunData) -> Iterator[Chart]:
    """How often answers show each behaviour: by rung, and by step of training."""
    rungs, colours = [*data.climbed, *data.baselines], rung_colours(data)
    names = [name for name in RATES.values() if any(name in rung.figures for rung in rungs)]
    columns = {name: name.removesuffix("_rate") for name in names}
    chart = interval_chart(
        "behaviours", "Behaviours by rung", "Share of greedy answers on the test split.",
        list(columns.values()),
        [(rung.name, colours[rung.name],
          {short: rung.figures[name] for name, short in columns.items() if name in rung.figures})
         for rung in rungs])
    if chart:
        yield chart
    for rung in data.of_kind("rl"):
        lines = [Line(RATES[name].removesuffix("_rate"), series, 1 + i)
                 for i, (name, series) in enumerate(training_behaviours(data, rung.name).items())]
        chart = line_chart(f"behaviours-{rung.name}", f"Behaviours while {rung.name} trains",
                           "Share of a step's sampled answers.", lines,
                           Axes(percent=True, from_zero=True))
        if chart:
            yield chart


def speed_charts(data: RunData) -> list[Chart]:
    """Where the time went."""
    seconds = {rung.name: phase_seconds(data, rung.name) for rung in data.rungs}
    logged = [name for name, phases in seconds.items() if phases]
    charts = [stacked_share_chart("phases", "Time by phase", "Share of the logged seconds.",
                                  logged, seconds)]
    for rung in data.of_kind("rl"):
        phases = _speeds(data, rung.name)
        lines = [Line(phase, series, 1 + i) for i, (phase, series) in enumerate(phases.items())]
        charts.append(line_chart(f"speed-{rung.name}", f"Speed of {rung.name}",
                                 "Tokens per second by phase.", lines,
                                 Axes(y="tokens/s", from_zero=True)))
    return [chart for chart in charts if chart]


def phase_seconds(data: RunData, rung: str) -> Mapping[str, float]:
    """Seconds of each phase over a rung, evaluations between steps included."""
    columns: dict[str, list[float]] = {}
    for record in data.records:
        if record["rung"] == rung:
            for phase, seconds in record.get("time", {}).get("seconds", {}).items():
                columns.setdefault(phase, []).append(float(seconds))
    return {phase: math.fsum(column) for phase, column in columns.items()}


def mean_speeds(data: RunData, rung: str) -> Mapping[str, float]:
    """Tokens per second of each phase over a whole rung: all tokens over all seconds."""
    tokens: dict[str, list[float]] = {}
    spent: dict[str, list[float]] = {}
    for record in data.records:
        if record["rung"] == rung:
            time = record.get("time", {})
            for phase, speed in time.get("tokens_per_second", {}).items():
                tokens.setdefault(phase, []).append(speed * time["seconds"][phase])
                spent.setdefault(phase, []).append(time["seconds"][phase])
    return {phase: math.fsum(tokens[phase]) / math.fsum(spent[phase]) for phase in tokens}


def _speeds(data: RunData, rung: str) -> dict[str, Series]:
    found: dict[str, Series] = {}
    for record in data.records:
        if record["rung"] == rung and record["kind"] != "eval":
            for phase, speed in record.get("time", {}).get("tokens_per_second", {}).items():
                series = found.setdefault(phase, Series([], []))
                series.steps.append(record["step"])
                series.values.append(float(speed))
    return found
