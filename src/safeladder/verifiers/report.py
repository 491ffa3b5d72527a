"""What verification did: who judged, who abstained and why, by verifier and by data source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from safeladder.errors import TooManyAbstentions
from safeladder.types import Trajectory

NOT_APPLICABLE = "not_applicable"
"""Verdict class of a verifier that has nothing to say of a trajectory: no abstention."""
UNREADABLE = "unreadable_verdict"
"""Verdict class of a judge that replied, but not with a verdict: an abstention, counted apart."""


@dataclass
class Tally:
    """Counts of one verifier, over all trajectories or over those of one data source."""

    judged: int = 0
    abstained: int = 0
    not_applicable: int = 0
    asked: int = 0
    """Verdicts that came from a model's reply (they have an origin)."""
    unreadable: int = 0
    """Of these, replies that held no verdict."""
    errors: Counter[str] = field(default_factory=Counter)
    """Reasons of the abstentions."""

    @property
    def total(self) -> int:
        """Trajectories the verifier was asked about."""
        return self.judged + self.abstained + self.not_applicable


@dataclass
class VerificationReport:
    """Counts of one call of ``verify_all``."""

    trajectories: int = 0
    failed: int = 0
    """Ended in an error status, hence not judged."""
    truncated: int = 0
    unrewarded: int = 0
    """Without a total: failed, excluded, or a required part unjudged."""
    verifiers: dict[str, Tally] = field(default_factory=dict)
    sources: dict[tuple[str, str], Tally] = field(default_factory=dict)
    """(verifier, ``Prompt.source``) -> counts."""
    verifier_seconds: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, verifier: str, rows: Sequence[Trajectory], seconds: float) -> None:
        """Count the verdicts of one verifier."""
        self.verifier_seconds[verifier] = self.verifier_seconds.get(verifier, 0.0) + seconds
        whole = self.verifiers.setdefault(verifier, Tally())
        for row in rows:
            part = self.sources.setdefault((verifier, row.prompt.source), Tally())
            verdict = row.verdicts[verifier]
            for tally in (whole, part):
                tally.asked += bool(verdict.origin)
                tally.unreadable += verdict.verdict_class == UNREADABLE
                if verdict.score is not None:
                    tally.judged += 1
                elif verdict.verdict_class == NOT_APPLICABLE:
                    tally.not_applicable += 1
                else:
                    tally.abstained += 1
                    tally.errors[verdict.error or ""] += 1

    def counts(self) -> dict[str, float]:
        """Plain sums for a metrics log: they may be added up over calls.

        ``abstentions/<verifier>`` is always there, ``abstentions/<verifier>/<source>`` where
        there are any; ``verdicts_read/<verifier>`` and ``unreadable/<verifier>`` are there for
        verifiers that ask a model, their share is the parse-failure rate.
        """
        counts: dict[str, float] = {
            "verify/failed": self.failed, "verify/truncated": self.truncated,
            "verify/unrewarded": self.unrewarded, "verify/seconds": self.seconds}
        for name, tally in self.verifiers.items():
            counts[f"abstentions/{name}"] = tally.abstained
            counts[f"verify/seconds/{name}"] = self.verifier_seconds[name]
            if tally.asked:
                counts[f"verdicts_read/{name}"] = tally.asked - tally.unreadable
                counts[f"unreadable/{name}"] = tally.unreadable
            if tally.not_applicable:
                counts[f"not_applicable/{name}"] = tally.not_applicable
        for (name, source), tally in self.sources.items():
            if tally.abstained:
                counts[f"abstentions/{name}/{source or 'unnamed'}"] = tally.abstained
        return counts

    def check(self, max_share: float, min_count: int) -> None:
        """Stop when a verifier failed too often, on all rows or on one data source.

        Per source as well, because a judge that fails mostly on one kind of prompt selects.

        Raises:
            TooManyAbstentions: at least ``min_count`` and more than ``max_share`` unjudged.
        """
        whole = [(f"verifier {name!r}", tally) for name, tally in self.verifiers.items()]
        parts = [(f"verifier {name!r} on source {source!r}", tally)
                 for (name, source), tally in self.sources.items()]
        for who, tally in whole + parts:
            if tally.abstained < min_count or tally.abstained <= max_share * tally.total:
                continue
            common = "; ".join(f"{error} ({n}x)" for error, n in tally.errors.most_common(3))
            raise TooManyAbstentions(
                f"{who} could not judge {tally.abstained} of {tally.total} trajectories "
                f"(allowed: {max_share:.0%}): {common}. Mend the verifier, raise its time limit "
                "or raise max_abstentions")
