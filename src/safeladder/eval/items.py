"""One evaluated answer, reduced to what figures and intervals are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from safeladder.types import Trajectory

RIGHT = "correct"
NOT_RIGHT = frozenset({"wrong", "unparsable", "partial"})
ILL_FORMED, WELL_FORMED = "bad_format", "well_formed"
ANSWER_PARTS = frozenset({"answer", "accuracy"})
"""A verdict with such a part speaks of the answer, whatever its class."""


@dataclass(frozen=True)
class EvalItem:
    """One answer to one prompt. ``None`` = could not be judged; it enters no mean.

    ``cluster`` names what makes two items depend on each other: the structure of a puzzle (two
    puzzles with the same statements up to names and order are one structure), or else the group
    that its splits hold out together, otherwise the prompt. Intervals are taken over clusters.
    """

    prompt_id: str
    cluster: str
    correct: float | None
    """1 right, 0 not (ill-formed and unreadable answers are not right)."""
    format: float | None
    """1 well formed, 0 not; None also where no verifier looks at the form."""
    tokens: int | None
    """Sampled tokens of the answer; None when no answer came (a failed rollout)."""
    response: str = ""
    people: int | None = None
    """Number of people of a Knights and Knaves puzzle; None for other prompts."""
    source: str = ""
    verdict_class: str | None = None
    truncated: float | None = None
    """1 cut by the token limit, 0 not; None when no answer came."""
    reference: Any = field(default=None, repr=False)
    """The prompt's, and its ``meta``: what figures of a source of its own are made of."""
    meta: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def answered(self) -> bool:
        """Whether an answer came at all."""
        return self.tokens is not None


class Opinion(NamedTuple):
    """What an item needs to know of one verdict."""

    verdict_class: str | None
    judged: bool
    parts: frozenset[str]
    """Names of the parts of its score."""


class Judgement(NamedTuple):
    """What all verdicts on one answer say together."""

    correct: float | None
    format: float | None
    verdict_class: str | None


def judge(opinions: Iterable[Opinion]) -> Judgement:
    """Read right or wrong, and well or ill formed, from the classes of the verdicts.

    Of the answer speak the classes ``correct``, ``wrong``, ``unparsable`` and ``partial``, and
    ``bad_format`` when the score has a part ``answer`` or ``accuracy``; right is what every such
    verdict calls ``correct``. Of the form speak ``bad_format``, ``well_formed``, and every verdict
    with a part ``format``. Abstentions say nothing.
    """
    answers: list[str] = []
    forms: list[bool] = []
    for verdict_class, judged, parts in opinions:
        if not judged or verdict_class is None:
            continue
        if verdict_class == RIGHT or verdict_class in NOT_RIGHT or parts & ANSWER_PARTS:
            answers.append(verdict_class)
        if verdict_class in (ILL_FORMED, WELL_FORMED) or "format" in parts:
            forms.append(verdict_class != ILL_FORMED)
    return Judgement(
        correct=float(all(name == RIGHT for name in answers)) if answers else None,
        format=float(all(forms)) if forms else None,
        verdict_class=next((name for name in answers if name != RIGHT), RIGHT) if answers else None)


def item_of(trajectory: Trajectory) -> EvalItem:
    """The item of a verified trajectory. One that ended in an error is unanswered, not wrong."""
    prompt, failed = trajectory.prompt, trajectory.status.is_error
    judgement = judge(Opinion(verdict.verdict_class, verdict.score is not None,
                              frozenset(verdict.parts))
                      for verdict in trajectory.deciding_verdicts.values() if not failed)
    return EvalItem(
        prompt_id=prompt.id, cluster=cluster_of(prompt.id, prompt.meta),
        correct=judgement.correct, format=judgement.format,
        tokens=None if failed else trajectory.num_tokens,
        response="" if failed else trajectory.response, people=prompt.meta.get("people"),
        source=prompt.source, verdict_class=judgement.verdict_class,
        truncated=None if failed else float(trajectory.status.is_truncated),
        reference=prompt.reference, meta=prompt.meta)


def cluster_of(prompt_id: str, meta: Mapping[str, Any]) -> str:
    """The puzzle's structure or the group if the prompt has one, else the prompt itself."""
    for name in ("structure", "group"):
        if meta.get(name) is not None:
            return f"{name} {meta[name]}"
    return prompt_id
