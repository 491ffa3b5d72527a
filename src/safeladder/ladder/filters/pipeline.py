"""Rows through the steps: who was kept, who was dropped by which step and why, who stays open.

A row that a step cannot judge goes no further: it is neither good nor bad, and is written to a
file of its own. So rows in = kept + dropped + unjudged, at every step and in all.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from safeladder.config import StrictModel, validate
from safeladder.data.responses import LabelledResponse, json_line, read_responses, response_cells
from safeladder.errors import CheckpointError, DataError, StorageError
from safeladder.files import atomic_file, write_text
from safeladder.ladder.filters.steps import Context, Decision, FilterStep
from safeladder.ladder.recipe_files import find_recipe, read_recipe
from safeladder.verifiers.base import Verifier, VerifyPolicy

REASONS = 12
"""Reasons that a report tells apart; the rest is counted together."""
SHOWN = 6
"""Examples a step keeps of what it dropped, and of what it could not judge."""
TEXT_SHOWN = 1200
"""Characters kept of a text that is shown."""
FOLDER = "filters"
"""Where the recipes that ship lie."""
DEFAULT_RECIPE = "cot"


@dataclass(frozen=True)
class Example:
    """A row that did not pass."""

    id: str
    prompt: str
    response: str
    why: str
    detail: str


@dataclass(frozen=True)
class StepReport:
    """What one step did."""

    name: str
    spec: dict[str, Any]
    rows: int
    kept: int
    dropped: int
    unjudged: int
    not_applicable: int
    """Among the kept: the step had nothing to say of them."""
    reasons: dict[str, int]
    """Why rows were dropped -> rows."""
    unjudged_reasons: dict[str, int]
    examples: list[Example]
    """At most one of a reason before the second of any."""
    unjudged_examples: list[Example]
    figures: dict[str, Any]


@dataclass(frozen=True)
class FilterReport:
    """Everything the JSON file holds."""

    data: str
    rows: int
    kept: int
    dropped: int
    unjudged: int
    steps: list[StepReport]


@dataclass
class Filtered:
    """The rows, parted."""

    report: FilterReport
    kept: list[LabelledResponse]
    dropped: list[tuple[LabelledResponse, str, Decision]] = field(default_factory=list)
    """Row, step, decision."""
    unjudged: list[tuple[LabelledResponse, str, Decision]] = field(default_factory=list)


class FilterRecipe(StrictModel):
    """A file of steps."""

    description: str = ""
    steps: list[FilterStep] = Field(min_length=1)


def load_steps(name: str | None) -> list[FilterStep]:
    """The steps of a YAML file, or of a recipe that ships (default: ``cot``).

    Raises:
        ConfigError: one line per problem.
    """
    path = find_recipe(name or DEFAULT_RECIPE, FOLDER)
    return list(validate(FilterRecipe, read_recipe(path, FOLDER), str(path)).steps)


async def filter_rows(
    rows: Sequence[LabelledResponse], steps: Sequence[FilterStep], data: str,
    opened: Mapping[str, Verifier] | None = None, policy: VerifyPolicy | None = None,
    judges: Path | None = None,
) -> Filtered:
    """Let every step sort what the steps before it kept.

    Args:
        rows: what to filter.
        steps: in order.
        data: what the report calls the rows.
        opened: verifiers that steps may name; any other is opened here, and closed.
        policy: how long a verdict may take, and how many may fail before it stops; default: all.
        judges: folder that keeps the replies of judges opened here.

    Raises:
        ConfigError: a verifier cannot be built; TooManyAbstentions: as the policy says.
    """
    from safeladder.ladder.filters.verifiers import opener

    policy = policy or VerifyPolicy(max_abstentions=1.0)
    result = Filtered(FilterReport(data, len(rows), 0, 0, 0, []), list(rows))
    reports = []
    with opener(opened or {}, judges) as open_one:
        for step in steps:
            context = Context(open_one, policy)
            decisions = await step.sort(result.kept, context) if result.kept else []
            reports.append(_report(step, result.kept, decisions, context.figures))
            sorted_ = list(zip(result.kept, decisions, strict=True))
            result.kept = [row for row, decision in sorted_ if decision.keep]
            result.dropped += [(r, step.title, d) for r, d in sorted_ if d.keep is False]
            result.unjudged += [(r, step.title, d) for r, d in sorted_ if d.keep is None]
    result.report = FilterReport(data, len(rows), len(result.kept), len(result.dropped),
                                 len(result.unjudged), reports)
    return result


def _report(
    step: FilterStep, rows: Sequence[LabelledResponse], decisions: Sequence[Decision],
    figures: dict[str, Any],
) -> StepReport:
    dropped = [(row, d) for row, d in zip(rows, decisions, strict=True) if d.keep is False]
    open_ = [(row, d) for row, d in zip(rows, decisions, strict=True) if d.keep is None]
    return StepReport(
        step.title, step.model_dump(mode="json", exclude_defaults=True), len(rows),
        len(rows) - len(dropped) - len(open_), len(dropped), len(open_),
        sum(d.keep is True and d.why == "not applicable" for d in decisions),
        _counted(dropped), _counted(open_), _examples(dropped), _examples(open_), figures)


def _counted(sorted_: Sequence[tuple[LabelledResponse, Decision]]) -> dict[str, int]:
    counts = Counter(decision.why for _, decision in sorted_).most_common()
    rest = sum(count for _, count in counts[REASONS:])
    return dict(counts[:REASONS]) | ({f"{len(counts) - REASONS} other reasons": rest} if rest
                                     else {})


def _examples(sorted_: Sequence[tuple[LabelledResponse, Decision]]) -> list[Example]:
    """Of every reason one, then a second of every reason, and so on, up to :data:`SHOWN`."""
    times: Counter[str] = Counter()
    ranked = []
    for i, (_, decision) in enumerate(sorted_):
        ranked.append((times[decision.why], i))
        times[decision.why] += 1
    chosen = [sorted_[i] for _, i in sorted(ranked)[:SHOWN]]
    return [Example(row.prompt.id, _shown("\n".join(m.text for m in row.prompt.messages)),
                    _shown(row.response), decision.why, _shown(decision.detail))
            for row, decision in chosen]


def _shown(text: str) -> str:
    """Its beginning, as a page can hold it: what is not valid Unicode becomes a question mark."""
    return text[:TEXT_SHOWN].encode(errors="replace").decode()


def write_report(report: FilterReport, target: Path) -> Path:
    """Write the report as JSON, and as a page beside it; return the page's path.

    Raises:
        StorageError: something cannot be written.
    """
    from safeladder.ladder.filters.page import render_page

    write_text(target, json.dumps(asdict(report), indent=1, ensure_ascii=False, allow_nan=False))
    page = target.with_suffix(".html")
    write_text(page, render_page(report))
    return page


def read_report(path: Path) -> FilterReport:
    """What :func:`write_report` wrote.

    Raises:
        CheckpointError: it is not that.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        steps = [StepReport(**{**step, "examples": [Example(**e) for e in step["examples"]],
                               "unjudged_examples": [Example(**e)
                                                     for e in step["unjudged_examples"]]})
                 for step in data.pop("steps")]
        return FilterReport(**data, steps=steps)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: no report of filters ({error})") from None


async def filter_file(path: Path, out: Path, steps: Sequence[FilterStep]) -> FilterReport:
    """Filter a file of responses into a folder, which must not hold another result.

    ``out`` receives ``kept.jsonl`` (a ``responses`` source reads it), ``dropped.jsonl`` and
    ``unjudged.jsonl`` (with ``filter``, ``why``, ``detail``), ``filters.json`` and
    ``filters.html``.

    Raises:
        DataError: the file cannot be read; StorageError: ``out`` holds files of a name of these,
            or cannot be written; ConfigError: a verifier cannot be built.
    """
    for name in ("kept.jsonl", "dropped.jsonl", "unjudged.jsonl", "filters.json"):
        if (out / name).exists():
            raise StorageError(f"{out} holds a {name} already: remove it or choose another folder")
    rows = read_responses(path)
    result = await filter_rows(rows, steps, path.name)
    _write(out / "kept.jsonl", [(row, {}) for row in result.kept])
    for name, parted in (("dropped", result.dropped), ("unjudged", result.unjudged)):
        _write(out / f"{name}.jsonl",
               [(row, {"filter": step, "why": d.why, "detail": d.detail})
                for row, step, d in parted])
    write_report(result.report, out / "filters.json")
    return result.report


def _write(path: Path, rows: Sequence[tuple[LabelledResponse, Mapping[str, Any]]]) -> None:
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        for row, more in rows:
            file.write(json_line({**response_cells(row, path), **more}))


def require_kept(report: FilterReport) -> None:
    """Raise when nothing is left to learn from.

    Raises:
        DataError: names the step that took most.
    """
    if report.kept == 0:
        worst = max(report.steps, key=lambda step: step.dropped + step.unjudged)
        raise DataError(f"{report.data}: no row of {report.rows} passed the filters; the step "
                        f"{worst.name!r} dropped {worst.dropped} and could not judge "
                        f"{worst.unjudged} of {worst.rows}")
