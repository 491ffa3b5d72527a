"""From a recipe's mappings to verifiers."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeAlias

from safeladder.config import StrictModel, validate
from safeladder.errors import ConfigError, MissingExtra
from safeladder.verifiers.adapters import TRLReward, VerlScore
from safeladder.verifiers.base import Objective, Verifier
from safeladder.verifiers.choice import Choice
from safeladder.verifiers.classifier import ClassifierSpec
from safeladder.verifiers.code import Code
from safeladder.verifiers.deliberative import Deliberative
from safeladder.verifiers.format import ThinkFormat
from safeladder.verifiers.generative import GenerativeSpec
from safeladder.verifiers.ifeval import IFEval
from safeladder.verifiers.judge import JudgeSpec
from safeladder.verifiers.language import LanguageConsistency
from safeladder.verifiers.length import Length
from safeladder.verifiers.light import LightVerifier
from safeladder.verifiers.logic_rl import LogicRL
from safeladder.verifiers.math import MathAnswer
from safeladder.verifiers.microworld import Microworld
from safeladder.verifiers.numeric import NumericAnswer
from safeladder.verifiers.prefix_refusal import PrefixRefusal
from safeladder.verifiers.reasoning_gym import ReasoningGym
from safeladder.verifiers.repetition import Repetition
from safeladder.verifiers.text_match import TextMatch
from safeladder.verifiers.trained import TrainedSpec
from safeladder.verifiers.visual_focus import VisualFocus
from safeladder.verifiers.workers import Isolated

VERIFIERS: dict[str, type[StrictModel]] = {
    "choice": Choice,
    "classifier": ClassifierSpec,
    "code": Code,
    "deliberative": Deliberative,
    "format": ThinkFormat,
    "generative": GenerativeSpec,
    "ifeval": IFEval,
    "judge": JudgeSpec,
    "language": LanguageConsistency,
    "length": Length,
    "light": LightVerifier,
    "logic_rl": LogicRL,
    "math": MathAnswer,
    "microworld": Microworld,
    "numeric": NumericAnswer,
    "prefix_refusal": PrefixRefusal,
    "reasoning_gym": ReasoningGym,
    "repetition": Repetition,
    "text_match": TextMatch,
    "trained": TrainedSpec,
    "trl": TRLReward,
    "verl": VerlScore,
    "visual_focus": VisualFocus,
}
"""``type`` in a recipe -> the class, which is also its configuration."""

Maker: TypeAlias = Callable[[Any, str], Verifier]
"""From the configuration of a verifier that asks a model, and where it stands, to the verifier."""
MADE_ELSEWHERE = {"judge": "safeladder.ladder.judges.judge_makers",
                  "generative": "safeladder.ladder.verifier_model.model_makers",
                  "classifier": "safeladder.ladder.verifier_model.model_makers"}
"""Types that need a model, which no verifier builds: who makes them."""


def build_verifier(
    spec: Mapping[str, Any], where: str = "verifier", makers: Mapping[str, Maker] | None = None,
) -> Verifier:
    """Build one verifier from ``{"type": ..., ...}``; in workers if its ``isolate`` says so.

    ``makers`` (type -> maker) build the types that ask a model: :data:`MADE_ELSEWHERE`.

    Raises:
        ConfigError: unknown type, unknown key, wrong value, a function's module not found, or a
            type without its maker.
        MissingExtra: its package is not installed.
    """
    kind = spec.get("type")
    verifier: Any = check_spec(spec, where)
    needs = getattr(verifier, "needs", None)
    if needs is not None and importlib.util.find_spec(needs[0]) is None:
        raise MissingExtra(needs[0].replace("_", "-"), needs[1], f"{where}: verifier {kind!r}")
    if isinstance(verifier, TrainedSpec):
        raise ConfigError(f"{where}: a climb trains verifiers of type 'trained', and only those "
                          "under its recipe's key 'verifiers'; elsewhere give the folder that "
                          "'safeladder verifier train' leaves")
    if kind in MADE_ELSEWHERE:
        if kind not in (makers or {}):
            raise ConfigError(f"{where}: verifier type {kind!r} asks a model; give build_verifier "
                              f"the makers of {MADE_ELSEWHERE[kind]}")
        return (makers or {})[kind](verifier, where)
    if isinstance(verifier, TRLReward | VerlScore):
        module = verifier.path.partition(":")[0]
        if not _importable(module):
            raise ConfigError(f"{where}: no module {module!r} on the import path")
    isolation = getattr(verifier, "isolate", None)
    if isolation is not None:
        return Isolated(verifier, isolation)
    if hasattr(verifier, "prepare"):
        verifier.prepare()
    return verifier  # type: ignore[no-any-return]  # one of VERIFIERS, each tested to be a Verifier


def check_spec(spec: Mapping[str, Any], where: str) -> StrictModel:
    """The configuration of one verifier, with nothing of it built.

    Raises:
        ConfigError: unknown type, unknown key or wrong value.
    """
    kind = spec.get("type")
    if kind not in VERIFIERS:
        near = difflib.get_close_matches(str(kind), VERIFIERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(VERIFIERS)}"
        raise ConfigError(f"{where}: no verifier type {kind!r} ({hint})")
    return validate(VERIFIERS[kind], {"name": kind, **spec}, where)


def build_verifiers(
    specs: Mapping[str, Mapping[str, Any]], where: str = "verifiers",
    makers: Mapping[str, Maker] | None = None,
) -> dict[str, Verifier]:
    """Build a recipe's verifiers; the key is the name, unless ``name`` is given.

    Raises:
        ConfigError: as :func:`build_verifier`; MissingExtra: as there.
    """
    return {key: build_verifier({"name": key, **spec}, f"{where}.{key}", makers)
            for key, spec in specs.items()}


def close_verifiers(verifiers: Mapping[str, Verifier]) -> None:
    """End the worker processes and close the files of those that have any."""
    for verifier in verifiers.values():
        close = getattr(verifier, "close", None)
        if close is not None:
            close()


def check_routes(
    tasks: Iterable[str], objective: Objective, verifiers: Collection[str],
) -> None:
    """Before a run: every task has an entry in the objective, every name in it a verifier.

    Raises:
        ConfigError: the first that has none.
    """
    for task in sorted(tasks):
        for name in objective.verifiers(task):
            if name not in verifiers:
                raise ConfigError(f"objective: task {task!r} asks for verifier {name!r} (known: "
                                  f"{', '.join(verifiers) or 'none'})")


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
