"""The verifiers of filter steps: those of the recipe by name, all others built here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safeladder.ladder.judges import judge_makers
from safeladder.ladder.verifier_spec import makers, open_verifier
from safeladder.verifiers.base import Verifier
from safeladder.verifiers.registry import build_verifier, close_verifiers


@contextmanager
def opener(
    opened: Mapping[str, Verifier], judges: Path | None = None,
) -> Iterator[Callable[[str | Mapping[str, Any], str], Verifier]]:
    """What hands out verifiers; those that it built are closed at the end.

    Judges keep their replies in the folder ``judges`` (None: in memory).
    """
    built: dict[str, Verifier] = {}

    def open_one(spec: str | Mapping[str, Any], where: str) -> Verifier:
        if isinstance(spec, str):
            if spec in opened:
                return opened[spec]
            verifier = open_verifier(spec).verifier
        else:
            kind = str(spec.get("type"))
            made = judge_makers(judges) if kind == "judge" else makers(kind)
            verifier = build_verifier({"name": kind, **spec}, where, made)
        built[f"{len(built)}"] = verifier
        return verifier

    try:
        yield open_one
    finally:
        close_verifiers(built)
