"""Measure a verifier against labels: ``safeladder verifier eval MODEL DATA``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from safeladder.data.responses import LabelledResponse, read_responses
from safeladder.errors import DataError
from safeladder.eval.classification import Classification, Judged, classify
from safeladder.eval.statistics import Estimate, estimate
from safeladder.files import write_text
from safeladder.ladder.verifier_spec import OpenedVerifier, open_verifier
from safeladder.ladder.verify_file import judge_rows
from safeladder.types import Verdict
from safeladder.verifiers.labels import canonical
from safeladder.verifiers.registry import close_verifiers
from safeladder.verifiers.report import NOT_APPLICABLE

SHOWN_ERRORS = 60
"""Wrong verdicts kept in the JSON and shown on the page, the surest first."""
TEXT_SHOWN = 1500
"""Characters kept of a text that is shown."""


@dataclass(frozen=True)
class Mistake:
    """A verdict that differs from the label."""

    id: str
    source: str
    prompt: str
    response: str
    label: str
    given: str
    confidence: float | None
    reason: str


@dataclass(frozen=True)
class SourceFigures:
    """How far a verifier agrees with the labels of one data source."""

    source: str
    rows: int
    accuracy: Estimate
    """Over the judged rows; ``unjudged`` counts the others."""


@dataclass(frozen=True)
class VerifierEvaluation:
    """Everything the JSON file holds."""

    verifier: str
    spec: dict[str, Any]
    data: str
    data_sha256: str
    classes: tuple[str, ...]
    rows: int
    judged: int
    abstained: int
    abstentions: dict[str, int]
    """Reason -> rows."""
    strict_accuracy: Estimate
    """Accuracy if every abstention counted as wrong: the other end of what abstaining hides."""
    figures: Classification | None
    """Over the judged rows; None if nothing was judged."""
    label_counts: dict[str, int]
    sources: list[SourceFigures]
    mistakes: list[Mistake]
    mistakes_in_all: int
    seconds: float


def evaluate_verifier(
    model: str, data: Path, rename: Mapping[str, str] | None = None, seed: int = 0,
) -> VerifierEvaluation:
    """Judge every row of ``data`` and compare with its label.

    ``rename`` maps labels before they are compared (``{"partial refusal": "refusal"}``). Intervals
    are taken over the rows' groups.

    Raises:
        DataError: a row without a label, or a label that is none of the verifier's classes.
        ConfigError, CheckpointError, MissingExtra: the verifier cannot be built.
    """
    rows = read_responses(data)
    bare = sum(row.label is None for row in rows)
    if bare:
        raise DataError(f"{data}: {bare} of {len(rows)} rows have no label to compare with")
    opened = open_verifier(model)
    started = time.perf_counter()
    try:
        classes = opened.classes
        verdicts, _ = judge_rows(rows, {opened.name: opened.verifier})
    finally:
        close_verifiers({opened.name: opened.verifier})
    seconds = time.perf_counter() - started
    found = [verdict[opened.name] for verdict in verdicts]
    labels = [(rename or {}).get(row.label or "", row.label or "") for row in rows]
    classes = classes or _classes_seen(labels, found)
    return _evaluation(opened, data, _Rows(rows, [_label(label, classes, data) for label in labels],
                                           found, classes), seconds, seed)


class Agreement(NamedTuple):
    """How far a verifier agrees with labels."""

    figures: Classification | None
    """Over the judged rows; None if nothing was judged."""
    abstained: int


def agreement(
    opened: OpenedVerifier, rows: Sequence[LabelledResponse], seed: int = 0,
    time_limit: float = 24 * 3600.0,
) -> Agreement:
    """The figures of a verifier that says its classes, on rows that have labels of these.

    Raises:
        DataError: a label is none of the classes.
    """
    classes = opened.classes or ()
    verdicts, _ = judge_rows(rows, {opened.name: opened.verifier}, time_limit)
    judged = _Rows(rows, [canonical(row.label or "", classes) for row in rows],
                   [verdict[opened.name] for verdict in verdicts], classes)
    given = [judged.given(i) for i in range(len(rows))]
    return Agreement(_figures(judged, given, [row.group for row in rows], seed),
                     given.count(None))


@dataclass(frozen=True)
class _Rows:
    rows: Sequence[LabelledResponse]
    labels: Sequence[str]
    verdicts: Sequence[Verdict]
    classes: tuple[str, ...]

    def given(self, place: int) -> str | None:
        """The class of a verdict as one of the classes; None for an abstention."""
        verdict = self.verdicts[place]
        if verdict.score is None:
            return None
        if verdict.verdict_class is None:
            raise DataError(f"verifier {verdict.verifier!r} gives scores without classes; only "
                            "classes can be compared with labels")
        return canonical(verdict.verdict_class, self.classes)


def _label(label: str, classes: Sequence[str], data: Path) -> str:
    try:
        return canonical(label, classes)
    except DataError as error:
        raise DataError(f"{data}: {error}; --map '{label}=CLASS' renames it") from None


def _classes_seen(labels: Sequence[str], verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    given = [v.verdict_class for v in verdicts if v.score is not None and v.verdict_class]
    return tuple(sorted({*labels, *given}))


def _evaluation(
    opened: OpenedVerifier, data: Path, rows: _Rows, seconds: float, seed: int,
) -> VerifierEvaluation:
    given = [rows.given(i) for i in range(len(rows.rows))]
    hits = [None if g is None else float(g == label)
            for g, label in zip(given, rows.labels, strict=True)]
    clusters = [row.group for row in rows.rows]
    reasons = Counter(_reason(v) for v in rows.verdicts if v.score is None)
    mistakes = [i for i, hit in enumerate(hits) if hit == 0.0]
    mistakes.sort(key=lambda i: (-(_confidence(rows.verdicts[i]) or 0.0), rows.rows[i].prompt.id))
    return VerifierEvaluation(
        verifier=opened.name, spec=dict(opened.spec), data=str(data),
        data_sha256=hashlib.sha256(data.read_bytes()).hexdigest(), classes=rows.classes,
        rows=len(hits), judged=len(hits) - sum(reasons.values()), abstained=sum(reasons.values()),
        abstentions=dict(reasons.most_common()),
        strict_accuracy=estimate([hit or 0.0 for hit in hits], clusters, seed),
        figures=_figures(rows, given, clusters, seed),
        label_counts={name: rows.labels.count(name) for name in rows.classes},
        sources=_by_source(rows, hits, seed),
        mistakes=[_mistake(rows, i, given[i] or "") for i in mistakes[:SHOWN_ERRORS]],
        mistakes_in_all=len(mistakes), seconds=seconds)


def _reason(verdict: Verdict) -> str:
    if verdict.verdict_class == NOT_APPLICABLE:
        return f"not applicable: {verdict.error}"
    return verdict.error or "no reason given"


def _confidence(verdict: Verdict) -> float | None:
    return max(verdict.probabilities.values()) if verdict.probabilities else None


def _figures(
    rows: _Rows, given: Sequence[str | None], clusters: Sequence[str], seed: int,
) -> Classification | None:
    kept = [i for i, name in enumerate(given) if name is not None]
    if not kept:
        return None
    index = {name: k for k, name in enumerate(rows.classes)}
    tables = [rows.verdicts[i].probabilities for i in kept]
    probabilities = None
    if all(table and set(table) == set(rows.classes) for table in tables):
        probabilities = np.array([[(table or {})[name] for name in rows.classes]
                                  for table in tables])
    return classify(Judged(
        rows.classes, np.array([index[rows.labels[i]] for i in kept]),
        np.array([index[given[i] or ""] for i in kept]), tuple(clusters[i] for i in kept),
        probabilities), seed)


def _by_source(rows: _Rows, hits: Sequence[float | None], seed: int) -> list[SourceFigures]:
    places: dict[str, list[int]] = {}
    for i, row in enumerate(rows.rows):
        places.setdefault(row.prompt.source or "unnamed", []).append(i)
    return [SourceFigures(name, len(chosen), estimate(
        [hits[i] for i in chosen], [rows.rows[i].group for i in chosen], seed))
        for name, chosen in sorted(places.items())]


def _mistake(rows: _Rows, place: int, given: str) -> Mistake:
    row, verdict = rows.rows[place], rows.verdicts[place]
    user = "\n".join(m.text for m in row.prompt.messages if m.role == "user")
    return Mistake(row.prompt.id, row.prompt.source, user[:TEXT_SHOWN],
                   row.response[:TEXT_SHOWN], rows.labels[place], given,
                   _confidence(verdict), verdict.reason)


def write_evaluation(evaluation: VerifierEvaluation, page: Path) -> Path:
    """Write ``page`` (HTML) and the same as JSON beside it; return the JSON's path.

    Raises:
        StorageError: something cannot be written.
    """
    from safeladder.ladder.verifier_page import render_page

    target = page.with_suffix(".json")
    write_text(target, json.dumps(dataclasses.asdict(evaluation), indent=1, allow_nan=False,
                                  ensure_ascii=False, default=str))
    write_text(page, render_page(evaluation))
    return target
