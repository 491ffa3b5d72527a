"""The steps of a filter, as a recipe names them: ``{type: verifier, verifier: {type: format}}``.

A step takes rows and says of each: keep, drop (and why), or could not judge (and why). A new kind
of step is one class with a ``sort`` method, named in :data:`FilterStep`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, field_validator

from safeladder.config import StrictModel, near_miss
from safeladder.data.responses import LabelledResponse
from safeladder.ladder.filters.balance import cap_of
from safeladder.ladder.filters.duplicates import duplicates
from safeladder.ladder.verify_file import AllVerifiers
from safeladder.types import Group, Verdict
from safeladder.verifiers.base import Verifier, VerifyPolicy, verify_all
from safeladder.verifiers.format import think_text
from safeladder.verifiers.patterns import PATTERNS, entropy_bits, profile
from safeladder.verifiers.registry import check_spec
from safeladder.verifiers.report import NOT_APPLICABLE

Row = LabelledResponse


@dataclass(frozen=True)
class Decision:
    """What a step says of one row."""

    keep: bool | None
    """None: it could not judge."""
    why: str = ""
    """The kind of reason, which counts are taken over."""
    detail: str = ""


KEEP = Decision(True)


@dataclass(frozen=True)
class Context:
    """What a step may use."""

    open_verifier: Callable[[str | Mapping[str, Any], str], Verifier]
    """Builds the verifier that a step names, or hands out one that exists."""
    policy: VerifyPolicy
    figures: dict[str, Any] = field(default_factory=dict)
    """Where a step leaves what it measured."""


class _Step(StrictModel):
    name: str | None = Field(None, description="in the report; default: what the step does")

    @property
    def title(self) -> str:
        """What the report calls it."""
        return self.name or str(getattr(self, "type", "step"))

    async def sort(self, rows: Sequence[Row], context: Context) -> list[Decision]:
        """One decision per row, in order."""
        raise NotImplementedError


class VerifierStep(_Step):
    """Keeps what a verifier scores high enough; what it cannot judge is kept apart.

    A verifier with nothing to say of a row (``not_applicable``) lets it pass.
    """

    type: Literal["verifier"]
    verifier: str | dict[str, Any] = Field(
        description="settings of a verifier, the name of one in the recipe, or as `verify --with`")
    min_score: FiniteFloat = Field(1.0, description="the least score that is kept")
    accept: list[str] = Field(
        default_factory=list, description="classes that are kept whatever their score")
    spare: list[str] = Field(
        default_factory=list, description="parts of the verdict that keep a row if they are above "
        "0 (abstained: an honest 'I do not know' is not wrong)")

    @field_validator("verifier")
    @classmethod
    def _buildable(cls, spec: str | dict[str, Any]) -> str | dict[str, Any]:
        """Wrong settings are found when the recipe is read, not when the rung begins."""
        if isinstance(spec, dict):
            check_spec(spec, "verifier")
        return spec

    @property
    def title(self) -> str:
        """The step's name, or its verifier's."""
        given = self.verifier if isinstance(self.verifier, str) else (
            self.verifier.get("name") or self.verifier.get("type"))
        return self.name or str(given)

    async def sort(self, rows: Sequence[Row], context: Context) -> list[Decision]:
        """Ask the verifier about every row."""
        verifier = context.open_verifier(self.verifier, f"filter {self.title}")
        trajectories = [row.trajectory() for row in rows]
        groups = [Group(trajectory.prompt, [trajectory]) for trajectory in trajectories]
        await verify_all(groups, {verifier.name: verifier}, AllVerifiers([verifier.name]),
                         context.policy)
        spent = getattr(verifier, "spent", None)
        if spent:
            context.figures["spent"] = dict(spent)
        verdicts = [trajectory.verdicts[verifier.name] for trajectory in trajectories]
        scores = Counter(f"{v.score:g}" if v.score is not None else "none" for v in verdicts)
        context.figures["scores"] = dict(scores.most_common(8))
        return [self._decide(verdict) for verdict in verdicts]

    def _decide(self, verdict: Verdict) -> Decision:
        if verdict.verdict_class == NOT_APPLICABLE:
            return Decision(True, "not applicable")
        if verdict.score is None:
            return Decision(None, verdict.error or "no reason given")
        spared = any(verdict.parts.get(part, 0.0) > 0 for part in self.spare)
        if verdict.score >= self.min_score or verdict.verdict_class in self.accept or spared:
            return KEEP
        named = verdict.verdict_class or f"score below {self.min_score:g}"
        return Decision(False, named, f"score {verdict.score:g}"
                        + (f": {verdict.reason}" if verdict.reason else ""))


class MetaStep(_Step):
    """Keeps rows by a column of theirs: ``{type: meta, key: finish_reason, accept: [stop]}``."""

    type: Literal["meta"]
    key: str = Field(description="a column that is kept in the row's meta")
    accept: list[str | int | float | bool] = Field(min_length=1)

    @property
    def title(self) -> str:
        """The step's name, or the column's."""
        return self.name or self.key

    async def sort(self, rows: Sequence[Row], context: Context) -> list[Decision]:
        """Look it up; a row without the column cannot be judged."""
        return [self._decide(row.prompt.meta) for row in rows]

    def _decide(self, meta: Mapping[str, Any]) -> Decision:
        if meta.get(self.key) is None:
            return Decision(None, f"the row has no {self.key!r}")
        value = meta[self.key]
        return KEEP if value in self.accept else Decision(False, f"{self.key} is {value!s:.60}")


class DeduplicateStep(_Step):
    """Keeps the first of equal rows; upper and lower case and white space do not tell apart."""

    type: Literal["deduplicate"]
    of: Literal["pair", "response", "prompt"] = Field(
        "pair", description="what must not come twice: prompt (images included) with response, the "
        "response whatever its prompt, or the prompt")
    near: FiniteFloat | None = Field(
        None, gt=0, le=1, description="responses to one prompt whose 5-grams of words overlap at "
        "least so far (Jaccard) count as equal; None: only equal ones do")

    async def sort(self, rows: Sequence[Row], context: Context) -> list[Decision]:
        """Compare."""
        return [KEEP if first is None else Decision(False, kind, f"of row {rows[first].prompt.id}")
                for first, kind in duplicates(rows, self.of, self.near)]


class DiversityStep(_Step):
    """Caps the share of every profile of reasoning patterns, and measures their entropy.

    A profile is the set of patterns a chain shows (:mod:`safeladder.verifiers.patterns`). The cap
    is the largest number k of rows per profile with k <= max_share * (rows kept), or the even
    share where there are too few profiles for that; it is raised as far as ``max_drop`` asks.
    Which rows of a profile stay is drawn by ``seed`` from their ids.
    """

    type: Literal["diversity"]
    patterns: str = Field("english", description=f"rules: {', '.join(PATTERNS)}")
    max_share: FiniteFloat = Field(
        0.5, gt=0, le=1, description="of one profile among the rows kept")
    max_drop: FiniteFloat = Field(
        0.5, ge=0, le=1, description="share of the rows that may go for it; the cap gives way")
    by: Literal["all", "task", "source"] = Field(
        "task", description="balance all rows together, or each task's or source's by themselves")
    seed: int = 0

    @field_validator("patterns")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in PATTERNS:
            raise ValueError(f"no rules {name!r}{near_miss(name, list(PATTERNS))}")
        return name

    async def sort(self, rows: Sequence[Row], context: Context) -> list[Decision]:
        """Count profiles, cap, count again."""
        profiles = [profile(think_text(row.response), PATTERNS[self.patterns]) for row in rows]
        decisions = [KEEP] * len(rows)
        parts: dict[str, list[int]] = {}
        for i, row in enumerate(rows):
            key = {"all": "all", "task": row.prompt.task, "source": row.prompt.source}[self.by]
            parts.setdefault(key, []).append(i)
        caps = {}
        for key, members in parts.items():
            counts = Counter(profiles[i] for i in members)
            caps[key] = cap = cap_of(list(counts.values()), self.max_share, self.max_drop)
            for name in counts:
                own = [i for i in members if profiles[i] == name]
                for i in sorted(own, key=lambda i: self._draw(rows[i]))[cap:]:
                    decisions[i] = Decision(False, f"profile {name}", f"more than {cap} of {key}")
        kept = [profiles[i] for i, decision in enumerate(decisions) if decision.keep]
        context.figures.update(caps=caps, before=_measured(profiles), after=_measured(kept))
        return decisions

    def _draw(self, row: Row) -> bytes:
        text = f"{self.seed}\n{row.prompt.id}\n{row.response}"
        return hashlib.sha256(text.encode(errors="replace")).digest()


def _measured(profiles: Sequence[str]) -> dict[str, Any]:
    counts = Counter(profiles)
    patterns = Counter(name for one in profiles for name in one.split("+"))
    return {"rows": len(profiles), "entropy_bits": entropy_bits(counts.values()),
            "profiles": dict(counts.most_common()), "patterns": dict(patterns.most_common())}


FilterStep = Annotated[
    VerifierStep | MetaStep | DeduplicateStep | DiversityStep, Field(discriminator="type")]
"""Every kind of step."""
