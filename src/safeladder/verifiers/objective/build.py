"""The objectives a recipe may name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import Discriminator, Tag

from safeladder.config import near_miss, validate
from safeladder.errors import ConfigError
from safeladder.verifiers.objective.constrained import Constrained
from safeladder.verifiers.objective.deliberative import DeliberativeReward
from safeladder.verifiers.objective.floor import SafetyFloor
from safeladder.verifiers.objective.gdpo import GDPO
from safeladder.verifiers.objective.weighted import Weighted

OBJECTIVES: dict[str, type[Weighted] | type[GDPO] | type[SafetyFloor] | type[Constrained]
                 | type[DeliberativeReward]] = {
    "weighted": Weighted, "gdpo": GDPO, "floor": SafetyFloor, "constrained": Constrained,
    "deliberative": DeliberativeReward}
"""``type`` in a recipe -> the class, which is also its configuration; left out: weighted."""


def _kind(value: Any) -> Any:
    if isinstance(value, Mapping):
        return value.get("type", "weighted")
    return getattr(value, "type", None)


AnyObjective: TypeAlias = Annotated[
    Annotated[Weighted, Tag("weighted")] | Annotated[GDPO, Tag("gdpo")]
    | Annotated[SafetyFloor, Tag("floor")] | Annotated[Constrained, Tag("constrained")]
    | Annotated[DeliberativeReward, Tag("deliberative")],
    Discriminator(_kind, custom_error_type="objective_type", custom_error_message=(
        f"no such type of objective (known: {', '.join(OBJECTIVES)})"))]

for _wrapper in (SafetyFloor, Constrained, DeliberativeReward):
    _wrapper.model_rebuild(_types_namespace={"AnyObjective": AnyObjective})


def build_objective(spec: Mapping[str, Any], where: str = "objective") -> AnyObjective:
    """Build an objective from a recipe's mapping.

    Raises:
        ConfigError: unknown type or key, or wrong value; the message starts with ``where``.
    """
    kind = str(_kind(spec))
    if kind not in OBJECTIVES:
        raise ConfigError(f"{where}: no objective type {kind!r}{near_miss(kind, list(OBJECTIVES))}")
    return validate(OBJECTIVES[kind], dict(spec), where)


def parts_of(objective: AnyObjective) -> Iterator[AnyObjective]:
    """The objective, and those inside of it."""
    yield objective
    inner = objective.otherwise if isinstance(objective, DeliberativeReward) else getattr(
        objective, "base", None)
    if inner is not None:
        yield from parts_of(inner)


def normalises(objective: AnyObjective) -> bool:
    """Whether totals are relative to their batch, so that a fixed reward would have no scale."""
    match objective:
        case SafetyFloor(base=base) | Constrained(base=base):
            return normalises(base)
        case DeliberativeReward(otherwise=otherwise):
            return otherwise is not None and normalises(otherwise)
    return isinstance(objective, GDPO)
