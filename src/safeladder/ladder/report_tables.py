"""The words and tables of a report, ready to print."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from safeladder.eval.metrics import RATES, suffix
from safeladder.eval.microworld import SHARES
from safeladder.eval.statistics import PairedDifference
from safeladder.ladder.report_charts import figure_text
from safeladder.ladder.report_data import Row, RunData, RungEntry, item_of_row
from safeladder.ladder.report_findings import (
    Comparison,
    Plateau,
    Side,
    accuracy_label,
    compare,
    gaps,
    plateau,
    shown_prompts,
    stated_rules,
    totals,
)
from safeladder.ladder.report_sections import heat_label, mean_speeds, split_label, split_order
from safeladder.ladder.summary import Difference
from safeladder.render.think import split_think
from safeladder.train.progress import duration


def main_comparisons(data: RunData) -> list[Comparison]:
    """The last rung against the one before it."""
    return compare(data, data.climbed[-2], data.climbed[-1]) if len(data.climbed) > 1 else []


def headline(data: RunData, main: Sequence[Comparison]) -> str:
    """The outcome in one sentence, figures with their intervals, disclosures with them."""
    if not data.climbed:
        return "No rung has been evaluated yet."
    last = data.climbed[-1]
    parts = [f"from {_whole(figure_text(c.before_figure))} to "
             f"{_whole(figure_text(c.after_figure))} on {c.after_figure.n} "
             f"{accuracy_label(c.name)} ({_whole(difference_text(c.difference))})"
             for c in main if c.split == "test" and not c.temperature]
    if parts:
        text = f"From {data.climbed[-2].name} to {last.name}, right answers go {_listed(parts)}"
    else:
        parts = [f"{_whole(figure_text(figure))} on {figure.n} {accuracy_label(name)}"
                 for name, figure in last.figures.items() if name.endswith("_accuracy")]
        text = (f"After {last.name}, right answers are {_listed(parts)}" if parts else
                f"After {last.name}, no accuracy was taken")
    return "; ".join([text, *disclosures(data)]) + ". Held-out prompts, greedy, 95% intervals."


def disclosures(data: RunData) -> list[str]:
    """What a reader of the figures must know, once for all rungs that disclose the same."""
    told = dict.fromkeys(rung.disclosure for rung in data.rungs if rung.disclosure)
    return [f"{_listed([rung.name for rung in data.rungs if rung.disclosure == text])}: {text}"
            for text in told]


def _whole(text: str) -> str:
    """The text on one line."""
    return text.replace(" ", "\u00a0")


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def difference_text(difference: PairedDifference | Difference, unit: str = "points") -> str:
    """``+36.3 points [+31.6, +41.0]``; points are percentage points, other units as they are."""
    if difference.value is None:
        return "not judged"
    scale = 100 if unit == "points" else 1
    text = f"{scale * difference.value:+.1f} {unit}"
    if difference.ci95:
        text += f" [{scale * difference.ci95[0]:+.1f}, {scale * difference.ci95[1]:+.1f}]"
    return text


class Tile(NamedTuple):
    """A number to see at first glance."""

    label: str
    value: str
    notes: Sequence[str]


def tiles(data: RunData, main: Sequence[Comparison]) -> list[Tile]:
    """The last rung's accuracies, its format, and the time it all took."""
    found = []
    before = {c.name: f"{c.before.name}: {figure_text(c.before_figure).partition(' ')[0]}"
              for c in main if c.split == "test" and not c.temperature}
    for name, figure in (data.climbed[-1].figures if data.climbed else {}).items():
        if name.endswith("_accuracy") or name == "format":
            label = "well formed" if name == "format" else accuracy_label(name)
            value, _, interval = figure_text(figure).partition(" ")
            notes = [f"95% interval {interval}"] if interval else []
            found.append(Tile(label, value, [*notes, *([before[name]] if name in before else [])]))
    peak = data.peak_rss_bytes
    memory = [] if peak is None else [f"peak memory {peak / 1e9:.2f} GB"]
    return [*found, Tile("all rungs", duration(data.total_seconds), memory)]


def comparison_tables(data: RunData, main: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The last rung against the one before it, and against every baseline the rung that it names,
    or else the last.
    """
    pairs = [list(main)]
    if data.climbed:
        pairs += [compare(data, arm, data.against(arm, data.climbed[-1]))
                  for arm in data.baselines]
    return [{"before": pair[0].before.name, "after": pair[0].after.name,
             "rows": [_comparison_row(c) for c in pair]} for pair in pairs if pair]


def _comparison_row(c: Comparison) -> dict[str, str]:
    return {"figure": accuracy_label(c.name),
            "figure_note": f"{c.split.replace('_', ' ')}, {heat_label(c.temperature)}",
            "before": figure_text(c.before_figure), "after": figure_text(c.after_figure),
            "difference": difference_text(c.difference),
            "n": f"{c.difference.n:,}", "n_note": f"{c.difference.clusters:,} structures",
            "unjudged": f"{c.difference.unjudged:,}"}


def plateau_lines(data: RunData) -> list[str]:
    """Whether each supervised rung had levelled off."""
    checks = ((rung.name, plateau(data.series(rung.name, "loss"),
                                  data.series(rung.name, "validation/loss", evaluation=True),
                                  data.series(rung.name, "learning_rate")))
              for rung in data.of_kind("sft", "pretrain"))
    return [_plateau_text(name, check) for name, check in checks if check]


def _plateau_text(name: str, check: Plateau) -> str:
    rate = {True: "at a constant learning rate", False: "while the learning rate changed",
            None: "(its learning rate was not logged)"}[check.constant_rate]
    change = "fell" if check.improvement >= 0 else "rose"
    verdict = "a plateau by the 2% rule" if check.reached else "no plateau by the 2% rule"
    loss = "validation loss" if check.held_out else "training loss"
    return (f"{name}: over its last quarter ({check.points} points) the {loss} {change} by "
            f"{100 * abs(check.improvement):.1f}% {rate}: {verdict}.")


def gap_rows(data: RunData) -> list[dict[str, str]]:
    """Training against held-out prompts at the end of every RL rung."""
    return [{"figure": gap.label, "figure_note": f"{rung.name}, {heat_label(gap.temperature)}",
             **_side_cells("train", gap.train), **_side_cells("held_out", gap.held_out),
             "gap": _signed(gap.points, ".1f", " points"),
             "gap_note": f"reward {_signed(gap.reward, '.3f', '')}"}
            for rung in data.of_kind("rl") for gap in gaps(data, rung)]


def _side_cells(key: str, side: Side) -> dict[str, str]:
    right = "not judged" if side.accuracy is None else f"{100 * side.accuracy:.1f}%"
    return {key: right, f"{key}_note": f"reward {_signed(side.reward, '.3f', '')}, n {side.n:,}"}


def _signed(value: float | None, form: str, unit: str) -> str:
    return "not judged" if value is None else f"{value:+{form}}{unit}"


def rule_lines(data: RunData) -> list[dict[str, Any]]:
    """The rules of the behaviour counts, as text."""
    return [{"source": source, "rules": [
        {"name": RATES[name].removesuffix("_rate"),
         "text": "; or ".join(_rule_text(rule.phrases, rule.then) for rule in group)}
        for name, group in rules.items()]} for source, rules in stated_rules(data).items()]


def _rule_text(phrases: Sequence[str], then: Sequence[str]) -> str:
    text = ", ".join(f'"{phrase}"' for phrase in phrases)
    return text + (", and later " + ", ".join(f'"{p}"' for p in then) if then else "")


MARKS: Mapping[float | None, tuple[str, str]] = {
    1.0: ("right", "\u2713 right"), 0.0: ("wrong", "\u2717 not right"),
    None: ("unjudged", "\u2205 not judged")}


def puzzles(data: RunData) -> list[dict[str, Any]]:
    """The same test prompts, answered before and after."""
    count = int(data.recipe.get("evaluation", {}).get("shown", 5))
    return [{"prompt": shown.prompt["prompt_text"], "expected": _expected(shown.prompt),
             "answers": [_answer(rung, row) for rung, row in shown.answers]}
            for shown in shown_prompts(data, data.climbed[-2:], count)]


def _answer(rung: RungEntry, row: Row) -> dict[str, Any]:
    item = item_of_row(row)
    mark, text = MARKS[item.correct]
    if item.verdict_class not in ("correct", "wrong", None):
        text += f" ({item.verdict_class.replace('_', ' ')})"
    think, answer = split_think(row["response"])
    earlier = [said for turn in row.get("turns", ())[:-1]
               for said in (turn["response"], *turn["environment"])]
    return {"rung": rung.name, "mark": mark, "mark_text": text, "tokens": row["num_tokens"],
            "think": "\n".join([*earlier, think or ""]).strip(), "answer": answer.strip()}


def _expected(row: Row) -> str:
    """The right answer, readable."""
    reference = row["reference"]
    if isinstance(reference, Mapping) and {"names", "roles"} <= reference.keys():
        return ", ".join(f"{name} {role}" for name, role in
                         zip(reference["names"], reference["roles"], strict=True))
    if isinstance(reference, Mapping) and "solution_text_format" in reference:
        return str(reference["solution_text_format"])
    return reference if isinstance(reference, str) else json.dumps(reference)


def figure_tables(data: RunData) -> list[dict[str, Any]]:
    """All figures of all rungs, one table per split and temperature."""
    rungs = [*data.climbed, *data.baselines]
    named = {chosen["name"]: chosen.get("split") for chosen in
             data.recipe.get("evaluation", {}).get("sets", ())}
    kinds = {suffix(end, heat): (end, heat) for _, split, heat in data.evaluations
             for end in (split, named.get(split)) if end is not None}
    names = list(dict.fromkeys(name for rung in rungs for name in rung.figures))
    tables = []
    for end, (split, heat) in sorted(kinds.items(), key=lambda kind: split_order(*kind[1])):
        mine = [name for name in names if _ending(name, kinds) == end]
        tables.append({
            "title": f"{split_label(split)}, {heat_label(heat)}", "ending": end,
            "rungs": [rung.name for rung in rungs],
            "rows": [{"name": name.removesuffix(end),
                      "cells": [_cell(name, rung) for rung in rungs]} for name in mine]})
    return tables


def _ending(name: str, endings: Mapping[str, object]) -> str:
    """The longest of the known suffixes that a figure's name ends in."""
    return max((end for end in endings if name.endswith(end)), key=len, default="")


def _cell(name: str, rung: RungEntry) -> dict[str, str]:
    figure = rung.figures.get(name)
    if figure is None:
        return {"value": "\u2013", "note": ""}
    note = f"n {figure.n:,}" + (f", {figure.unjudged:,} unjudged" if figure.unjudged else "")
    return {"value": figure_text(figure, percent="_per_answer" not in name),
            "note": note}


def cost_rows(data: RunData) -> list[dict[str, str]]:
    """What every rung took, and how fast each of its phases was over the whole rung."""
    return [{"rung": rung.name, "kind": "baseline" if rung.baseline else rung.kind,
             "time": duration(done.seconds), "steps": f"{done.steps:,}",
             "trained": f"{done.tokens_trained:,}", "sampled": f"{done.tokens_sampled:,}",
             "speed": ", ".join(f"{phase} {speed:,.0f}" for phase, speed in
                                mean_speeds(data, rung.name).items()) or "\u2013"}
            for rung in data.rungs if (done := rung.summary)]


def abstention_rows(data: RunData) -> list[dict[str, str]]:
    """Who could not judge how often: in training by verifier, in evaluation by figure."""
    rows = [{"where": f"training of {rung}", "what": name.removeprefix("abstentions/"),
             "count": f"{count:,.0f}"}
            for rung, column in totals(data, "abstentions/").items()
            for name, count in column.items()]
    for rung in [*data.climbed, *data.baselines]:
        rows += [{"where": f"evaluation of {rung.name}", "what": name,
                  "count": f"{figure.unjudged:,}"}
                 for name, figure in rung.figures.items()
                 if figure.unjudged and ("_accuracy" in name or name.startswith((*SHARES,)))]
    return rows
