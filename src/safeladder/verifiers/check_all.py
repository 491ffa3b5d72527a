"""Gold cases of every registered verifier: what ``safeladder verifier check`` runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from safeladder.config import StrictModel, near_miss
from safeladder.errors import ConfigError, MissingExtra, SafeLadderError
from safeladder.verifiers.cases import Case, check
from safeladder.verifiers.registry import VERIFIERS, build_verifier, close_verifiers


@dataclass(frozen=True)
class CheckResult:
    """What the gold cases of one verifier type came to."""

    type: str
    cases: Counter[str] = field(default_factory=Counter)
    """Kind (good, bad, hostile) -> number of cases."""
    seconds: float = 0.0
    """Wall clock, the start of worker processes included."""
    failures: tuple[str, ...] = ()
    skipped: str = ""
    """Why nothing was run; empty when the cases were."""
    note: str = ""
    """What else there is to say of a result that passed."""

    @property
    def passed(self) -> bool:
        """All cases were run and came out as they must."""
        return not self.failures and not self.skipped


def required_settings(kind: str) -> tuple[str, ...]:
    """The settings without which ``{"type": kind}`` cannot be built: it comes from its user."""
    fields = VERIFIERS[kind].model_fields.items()
    return tuple(name for name, one in fields if one.is_required())


def shipped_types() -> tuple[str, ...]:
    """The registered types that are complete as they are; each must ship gold cases."""
    return tuple(kind for kind in VERIFIERS if not required_settings(kind))


def check_registered(names: Sequence[str] = ()) -> Iterator[CheckResult]:
    """Run the gold cases of the named types, of all types without names, one after the other.

    A type with ``isolate`` runs in its worker processes, as in training. A type that needs
    settings of the user, or a package that is not installed, is skipped and says so.

    Raises:
        ConfigError: a name is no registered type; nothing was run.
    """
    for name in names:
        if name not in VERIFIERS:
            raise ConfigError(f"no verifier type {name!r}{near_miss(name, list(VERIFIERS))}")
    return map(_check_one, names or VERIFIERS)


def _check_one(kind: str) -> CheckResult:
    missing = required_settings(kind)
    if missing:
        return CheckResult(kind, skipped=f"needs settings of yours: {', '.join(missing)}")
    cases = _cases_of(VERIFIERS[kind])
    counts: Counter[str] = Counter(case.kind for case in cases)
    started = time.perf_counter()
    try:
        failures = _failures(kind, cases)
    except MissingExtra as error:
        return CheckResult(kind, counts, skipped=str(error))
    except SafeLadderError as error:
        failures = [f"{kind}: {error}"]
    return CheckResult(kind, counts, time.perf_counter() - started, tuple(failures))


def _failures(kind: str, cases: Sequence[Case]) -> list[str]:
    lacking = [one for one in ("good", "bad", "hostile") if one not in {c.kind for c in cases}]
    if lacking:
        return [f"{kind}: ships no {' and no '.join(lacking)} case"]
    verifier = build_verifier({"type": kind})
    try:
        return check(verifier, cases)
    finally:
        close_verifiers({kind: verifier})


def _cases_of(model: type[StrictModel]) -> tuple[Case, ...]:
    return tuple(getattr(model, "cases", ()))
