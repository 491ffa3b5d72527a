"""Gold cases of a verifier of one's own: a trained one's held-out rows, or what a type ships.

A rule is right about every case or it is broken. A trained verifier is wrong now and then, so its
cases are drawn from rows that it never saw, by their labels alone and not by how it fared, and it
passes when it is right about enough of them and no hostile text makes it fail.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safeladder.data.responses import LabelledResponse, read_responses, write_responses
from safeladder.ladder.verifier_spec import OpenedVerifier, open_verifier
from safeladder.ladder.verify_file import judge_rows
from safeladder.types import Verdict
from safeladder.verifiers.cases import HOSTILE_TEXTS, check
from safeladder.verifiers.check_all import CheckResult
from safeladder.verifiers.labels import canonical
from safeladder.verifiers.registry import close_verifiers

CASES = "cases.jsonl"
PER_CLASS = 8
"""Cases of each class that a trained verifier's folder keeps."""
REFUSED = ("DataError", "ModelError")
"""How a verifier says that a text is none that it can read (too long, not valid Unicode)."""
ENOUGH = 0.7
"""Share of its cases that a trained verifier must be right about."""


def write_cases(folder: Path, held_out: Sequence[LabelledResponse]) -> None:
    """Keep the first ``PER_CLASS`` rows of each class as the folder's gold cases."""
    taken: Counter[str] = Counter()
    kept = []
    for row in held_out:
        label = str(row.label)
        if taken[label] < PER_CLASS:
            taken[label] += 1
            kept.append(row)
    if kept:
        write_responses(folder / CASES, kept)


def check_own(text: str) -> CheckResult:
    """Run the gold cases of what ``text`` names (:func:`open_verifier`).

    Raises:
        ConfigError, CheckpointError, MissingExtra: it cannot be built.
    """
    opened = open_verifier(text)
    started = time.perf_counter()
    try:
        result = _check(opened, Path(text))
    finally:
        close_verifiers({opened.name: opened.verifier})
    return replace(result, seconds=time.perf_counter() - started)


def _check(opened: OpenedVerifier, path: Path) -> CheckResult:
    if (path / CASES).is_file():
        return _check_trained(opened, path)
    cases = tuple(getattr(opened.verifier, "cases", ()))
    if not cases:
        return CheckResult(opened.name, skipped=f"no gold cases: {path} has no {CASES}, and its "
                           "prompt, table or type ships none")
    return CheckResult(opened.name, Counter(case.kind for case in cases),
                       failures=tuple(check(opened.verifier, cases)))


def _check_trained(opened: OpenedVerifier, path: Path) -> CheckResult:
    rows = read_responses(path / CASES)
    hostile = [replace(rows[0], response=text, label=None) for text in HOSTILE_TEXTS]
    verdicts, _ = judge_rows([*rows, *hostile], {opened.name: opened.verifier})
    found = [verdict[opened.name] for verdict in verdicts]
    wrong = [failure for row, verdict in zip(rows, found, strict=False)
             if (failure := _wrong(row, verdict, opened))]
    failures = [f"{opened.name}, hostile case {text[:40]!r}: {verdict.error}"
                for text, verdict in zip(HOSTILE_TEXTS, found[len(rows):], strict=True)
                if verdict.score is None and not str(verdict.error).startswith(REFUSED)]
    right = len(rows) - len(wrong)
    if right < ENOUGH * len(rows):
        failures = [f"{opened.name}: right about {right} of {len(rows)} held-out rows, fewer than "
                    f"{ENOUGH:.0%}", *wrong, *failures]
    table = _table(opened)
    kinds = Counter("good" if table[_canonical(str(row.label), opened)] >= 0.5 else "bad"
                    for row in rows)
    kinds["hostile"] = len(hostile)
    return CheckResult(opened.name, kinds, failures=tuple(failures),
                       note=f"right about {right} of {len(rows)} held-out rows")


def _wrong(row: LabelledResponse, verdict: Verdict, opened: OpenedVerifier) -> str:
    said = verdict.verdict_class if verdict.score is not None else f"abstained ({verdict.error})"
    if verdict.score is not None and _canonical(str(said), opened) == _canonical(
            str(row.label), opened):
        return ""
    return f"{opened.name}, {row.prompt.id}: {said}, labelled {row.label}: {row.response[:80]!r}"


def _canonical(label: str, opened: OpenedVerifier) -> str:
    return label if opened.classes is None else canonical(label, opened.classes)


def _table(opened: OpenedVerifier) -> Mapping[str, float]:
    """Class -> what it is worth."""
    verifier: Any = opened.verifier
    holder = verifier.rubric if hasattr(verifier, "rubric") else verifier.model
    scores: Mapping[str, float] = holder.scores
    return scores
