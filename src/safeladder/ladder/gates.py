"""Gates: what a rung's figures must be for the next one to start from its checkpoint.

::

    gates:
      - {figure: safety, minimum: 0.6}
      - {figure: over_refusal, maximum: 0.1}
      - {figure: capability, not_below: previous, margin: interval}
    on_failure: retry                       # or keep_previous (the default), or stop
    retry: {attempts: 2, settings: {optim: {learning_rate: 1.0e-4}}}

A gate is failed when its figure lies beyond the bound, or could not be judged: what nobody knows is
no reason to go on. Where there is nothing to be below (the rungs before have no such figure), the
gate is undecided, and lets the rung pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from pydantic import Field, FiniteFloat, model_validator

from safeladder.config import StrictModel

PREVIOUS = "previous"
OnFailure = Literal["keep_previous", "retry", "stop"]


class Measured(Protocol):
    """A figure: an :class:`~safeladder.eval.statistics.Estimate`, or one read back."""

    @property
    def value(self) -> float | None:
        """None: could not be judged."""
        ...

    @property
    def ci95(self) -> tuple[float, float] | None:
        """Its 95% interval, if it has one."""
        ...


class Gate(StrictModel):
    """A bound on one figure of a rung's evaluation; give exactly one bound."""

    figure: str = Field(description="name in evaluation.json, with its suffix if it has one")
    minimum: FiniteFloat | None = None
    maximum: FiniteFloat | None = None
    not_below: str | None = Field(
        None, description="a rung's name, or previous: the one whose checkpoint this rung starts "
        "from, or else the nearest before that was evaluated")
    margin: Literal["interval"] | FiniteFloat = Field(
        0.0, description="with not_below, how far below it may be: a number, or interval: not "
        "below the lower end of that rung's 95% interval")

    @model_validator(mode="after")
    def _one_bound(self) -> Gate:
        given = [b for b in (self.minimum, self.maximum, self.not_below) if b is not None]
        if len(given) != 1:
            raise ValueError(f"the gate on {self.figure!r} needs one of minimum, maximum and "
                             f"not_below, has {len(given)}")
        if self.margin != 0.0 and self.not_below is None:
            raise ValueError(f"the gate on {self.figure!r}: margin goes with not_below")
        if not isinstance(self.margin, str) and self.margin < 0:
            raise ValueError(f"the gate on {self.figure!r}: margin must not be negative")
        return self


class Retry(StrictModel):
    """A rung that failed a gate is trained again from where it started, with another seed."""

    attempts: int = Field(1, ge=1, description="further attempts at most")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="of the rung, overridden from the second attempt on")


class GateOutcome(StrictModel):
    """What became of one gate."""

    figure: str
    rule: str = Field(description="the bound in words")
    value: float | None = Field(description="None: could not be judged")
    bound: float | None = Field(description="None: there was nothing to compare with")
    passed: bool | None = Field(description="None: undecided, which lets the rung pass")
    reason: str = Field(description="one line")


def judge_gate(
    gate: Gate, figures: Mapping[str, Measured], reference: tuple[str, Measured] | None,
) -> GateOutcome:
    """Hold a gate against a rung's figures; ``reference`` is the rung that ``not_below`` means,
    and its figure.
    """
    value = figures[gate.figure].value if gate.figure in figures else None
    rule, bound = _bound(gate, reference)
    if value is None:
        passed, reason = False, f"{gate.figure} could not be judged ({rule})"
    elif bound is None:
        passed, reason = None, f"{gate.figure} is {value:.3g}; {rule}"
    else:
        passed = value <= bound if gate.maximum is not None else value >= bound
        side = "above" if gate.maximum is not None else "below"
        side = f"not {side}" if passed else side
        reason = f"{gate.figure} is {value:.3g}, {side} {rule}"
    return GateOutcome(figure=gate.figure, rule=rule, value=value, bound=bound, passed=passed,
                       reason=reason)


def _bound(gate: Gate, reference: tuple[str, Measured] | None) -> tuple[str, float | None]:
    """The bound in words and as a number."""
    if gate.minimum is not None:
        return f"the minimum of {gate.minimum:g}", gate.minimum
    if gate.maximum is not None:
        return f"the maximum of {gate.maximum:g}", gate.maximum
    if reference is None or reference[1].value is None:
        return f"no figure of {gate.not_below} to compare with", None
    name, figure = reference
    assert figure.value is not None
    if gate.margin == "interval":
        bound = figure.ci95[0] if figure.ci95 else figure.value
        return (f"{bound:.3g}, the lower end of {name}'s interval" if figure.ci95
                else f"{name}'s {bound:.3g} (which has no interval)"), bound
    bound = figure.value - float(gate.margin)
    less = f" less {gate.margin:g}" if gate.margin else ""
    return f"{bound:.3g}, {name}'s {figure.value:.3g}{less}", bound


def failures(outcomes: Sequence[GateOutcome]) -> list[GateOutcome]:
    """The gates that hold a rung back."""
    return [outcome for outcome in outcomes if outcome.passed is False]
