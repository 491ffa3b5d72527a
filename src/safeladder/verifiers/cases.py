"""Gold cases: what a verifier must say of responses whose worth is known.

Every verifier ships ``cases``; :func:`check` runs them through ``verify_all``, the way training
would. A user's own verifier is tested the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from safeladder.types import Group, Message, Prompt, Trajectory

if TYPE_CHECKING:
    from safeladder.verifiers.base import Verifier

HOSTILE_TEXTS: tuple[str, ...] = (
    "",
    " \n\t\r\x0b\x0c",
    "\x00" * 50,
    "\ud800\udfff lone surrogates",
    "\u202eevorp\u202c \u200b\u200d\ufeff bidi and invisible",
    "<think>" * 3000,
    "<think><answer>" * 2000 + "</answer></think>" * 2000,
    "</answer></think><answer><think>",
    "<answer>" * 5000 + "a",
    "{" * 20000 + "}" * 19999,
    "\\boxed{" * 5000,
    "(" * 20000,
    "1" * 100_000,
    "1," * 50_000,
    "-" * 100_000,
    " " * 1_000_000,
    "a" * 1_000_000,
    "\u0130\u0131\u017f\u212a\u00df" * 2000,
)
"""Texts that have broken parsers: none may raise, hang or score."""


@dataclass(frozen=True)
class Case:
    """One response and what must be said of it.

    ``good`` and ``bad``: the score is exactly ``score``. ``hostile``: judged without raising,
    and no better than ``score``.
    """

    kind: Literal["good", "bad", "hostile"]
    response: str
    score: float
    reference: Any = None
    verdict_class: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    user: str = "?"
    """What was asked, for verifiers that read it."""


def trajectory_of(
    response: str, reference: Any = None, meta: Mapping[str, Any] | None = None,
    user: str = "?", **prompt_fields: Any,
) -> Trajectory:
    """A completed single-turn trajectory with this response (no tokens)."""
    prompt = Prompt(id=prompt_fields.pop("id", "case"), messages=(Message("user", user),),
                    reference=reference, meta=meta or {}, **prompt_fields)
    return Trajectory.finished(prompt, response)


def check(verifier: Verifier, cases: Sequence[Case] | None = None) -> list[str]:
    """Run gold cases (default: the verifier's own); return one line per failure.

    Raises:
        ValueError: there are no cases, or none that is good and none that is bad.
    """
    from safeladder.verifiers.base import VerifyPolicy, verify_all
    from safeladder.verifiers.objective import build_objective

    cases = tuple(getattr(verifier, "cases", ())) if cases is None else tuple(cases)
    if not {"good", "bad"} <= {case.kind for case in cases}:
        raise ValueError(f"{verifier.name}: needs at least one good and one bad case")
    rows = [trajectory_of(case.response, case.reference, case.meta, case.user) for case in cases]
    objective = build_objective({"tasks": {"*": {"parts": {verifier.name: 1.0}}}})
    policy = VerifyPolicy(max_abstentions=1.0)
    groups = [Group(row.prompt, [row]) for row in rows]
    asyncio.run(verify_all(groups, {verifier.name: verifier}, objective, policy))
    failures = [_failure(case, row, verifier.name) for case, row in zip(cases, rows, strict=True)]
    return [failure for failure in failures if failure]


def _failure(case: Case, row: Trajectory, name: str) -> str:
    verdict = row.verdicts[name]
    shown = repr(case.response if len(case.response) < 80 else case.response[:77] + "...")
    where = f"{name}, {case.kind} case {shown}"
    if verdict.score is None:
        return f"{where}: abstained ({verdict.error})"
    if case.kind == "hostile":
        return f"{where}: score {verdict.score}" if verdict.score > case.score else ""
    if verdict.score != case.score:
        return f"{where}: score {verdict.score}, expected {case.score} ({verdict.reason})"
    if case.verdict_class is not None and verdict.verdict_class != case.verdict_class:
        return f"{where}: class {verdict.verdict_class}, expected {case.verdict_class}"
    return ""
