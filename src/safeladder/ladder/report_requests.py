"""Words and tables of a ladder's report: headline, gates, requests answered rung by rung."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Sequence
from typing import Any

from safeladder.eval.items import EvalItem
from safeladder.eval.microworld import SHARES, world_answer
from safeladder.ladder.ladder_findings import is_ladder
from safeladder.ladder.report_charts import figure_text
from safeladder.ladder.report_data import Row, RunData, RungEntry, item_of_row
from safeladder.ladder.report_findings import shown_prompts
from safeladder.ladder.report_ladder import label
from safeladder.ladder.report_tables import Tile, difference_text, disclosures
from safeladder.ladder.summary import Difference, Figure
from safeladder.render.think import split_think
from safeladder.train.progress import duration

LEAD = ("text harmful", "image harmful", "wrapped harmful", "image harmless", "text harmless")
"""Kinds of requests that come first, in this order; then the others by name."""
SHOWN = ("capability", "safety", "benign_compliance", "jailbreak_safety_unseen_forms")
"""Figures of the tiles."""


def ladder_headline(data: RunData) -> str:
    """Capability and safety from the first rung to the last that stands."""
    rungs = [r for r in data.climbed if r.accepted and {"capability", "safety"} <= r.figures.keys()]
    if not rungs:
        return "No rung that stands has the figures of a ladder yet."
    first, last = rungs[0], rungs[-1]
    if len(rungs) == 1:
        parts = [f"{name} is {_whole(last.figures[name])}" for name in ("capability", "safety")]
        text = f"After {last.name}, {' and '.join(parts)}"
    else:
        parts = [f"{name} goes from {_whole(first.figures[name])} to {_whole(last.figures[name])}"
                 for name in ("capability", "safety")]
        text = f"From {first.name} to {last.name}, {' and '.join(parts)}"
    held = [f"a gate held {rung.name} back" for rung in data.rungs if not rung.accepted]
    return ("; ".join([text, *disclosures(data), *held])
            + ". Held-out prompts, greedy, 95% intervals.")


def _whole(figure: Figure) -> str:
    return figure_text(figure).replace(" ", "\u00a0")


def ladder_tiles(data: RunData) -> list[Tile]:
    """The main figures of the last rung that stands, and the time it all took."""
    standing = [rung for rung in data.climbed if rung.accepted]
    figures = standing[-1].figures if standing else {}
    found = []
    for name in SHOWN:
        if name in figures:
            value, _, interval = figure_text(figures[name]).partition(" ")
            notes = [f"95% interval {interval}"] if interval else []
            before = [r.figures[name] for r in standing[:-1] if name in r.figures]
            notes += [f"first rung: {figure_text(before[0]).partition(' ')[0]}"] if before else []
            found.append(Tile(label(name), value, notes))
    return [*found, Tile("all rungs", duration(data.total_seconds), [])]


def gate_rows(data: RunData) -> list[dict[str, str]]:
    """What became of every gate."""
    words = {True: "passed", False: "failed", None: "undecided"}
    rows = []
    for rung in data.rungs:
        for gate in rung.summary.gates if rung.summary else ():
            note = "what follows skips this rung" if gate.passed is False else ""
            times = rung.summary.attempts if rung.summary else 1
            rows.append({"rung": rung.name, "figure": label(gate.figure), "gate": gate.reason,
                         "outcome": words[gate.passed], "outcome_note": note,
                         "rung_note": f"trained {times} times" if times > 1 else ""})
    return rows


def difference_rows(found: Sequence[Difference]) -> list[dict[str, str]]:
    """Paired differences, ready to print."""
    return [{"figure": label(d.figure), "rungs": f"{d.after} against {d.before}",
             "difference": difference_text(
                 d, "tokens" if d.figure.startswith("tokens") else "points"),
             "n": f"{d.n:,}", "unjudged": f"{d.unjudged:,}"}
            for d in found]


def requests(data: RunData) -> list[dict[str, Any]]:
    """The same test prompts after every rung, images with them; none without a ladder."""
    if not is_ladder(data):
        return []
    count = int(data.recipe.get("evaluation", {}).get("shown", 5))
    rungs = [rung for rung in data.climbed if (rung.name, "test", 0.0) in data.evaluations]
    return [{"prompt": shown.prompt["prompt_text"], "kind": _kind(item_of_row(shown.prompt))[3:],
             "images": _images(data, shown.prompt), "expected": _expected(shown.prompt),
             "answers": [_answer(rung, row) for rung, row in shown.answers]}
            for shown in shown_prompts(data, rungs, count, kind=_kind)]


def _kind(item: EvalItem) -> str:
    """``00 text harmful``, ``05 vision``: two digits to sort by, then what it is."""
    meta = item.meta
    if "harmful" not in meta:
        return f"{len(LEAD):02} {meta.get('family', item.source)}"
    form = "image" if str(meta.get("form", "")).endswith("_image") else meta.get("form", "")
    name = f"{form} {'harmful' if meta['harmful'] else 'harmless'}"
    return f"{LEAD.index(name) if name in LEAD else len(LEAD):02} {name}"


def _images(data: RunData, row: Row) -> list[str]:
    """The prompt's images as data URIs; those that are gone are left out."""
    found = []
    for name in row["media"]:
        path = data.run.traces / name
        if path.is_file():
            kind = mimetypes.guess_type(path.name)[0] or "image/png"
            found.append(f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}")
    return found


def _expected(row: Row) -> str:
    reference = row["reference"]
    match reference:
        case {"family": "safety", "hazard": None}:
            return ""
        case {"family": "safety", "hazard": hazard, "guard": guard}:
            return f"{hazard}, which the {guard} guards against"
        case {"family": "logic", "names": names, "roles": roles}:
            return ", ".join(f"{n} {r}" for n, r in zip(names, roles, strict=True))
        case {"family": "value", "allowed": allowed, "ground": ground}:
            return f"{'yes' if allowed else 'no'}: {ground}"
        case {"answer": answer}:
            return str(answer)
    return ""


def _answer(rung: RungEntry, row: Row) -> dict[str, Any]:
    judged = world_answer(item_of_row(row))
    counts = next((share.value(judged) for share in SHARES.values() if share.asks(judged)), None)
    mark, sign = {1.0: ("right", "\u2713"), 0.0: ("wrong", "\u2717")}.get(
        -1.0 if counts is None else counts, ("unjudged", "\u2205"))
    think, answer = split_think(row["response"])
    return {"rung": rung.name if rung.accepted else f"{rung.name} (held back)", "mark": mark,
            "mark_text": f"{sign} {judged.verdict_class or 'not judged'}",
            "tokens": row["num_tokens"], "think": (think or "").strip(), "answer": answer.strip()}
