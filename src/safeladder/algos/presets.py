"""The vetted setting of each paper by name, and how a recipe changes one.

A recipe names a preset and overrides fields of its parts::

    algorithm:
      preset: grpo
      loss: {eps_high: 0.28}
      advantage: {type: rloo}      # another estimator, with its defaults
      kl: null                     # no reference
      entropy: {coef: 0.001}
      normalization: token_mean

``docs/PAPERS.md`` has the papers, the settings that reproduce them and the departures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from safeladder.algos.base import (
    AdvantageEstimator,
    Algorithm,
    PenalizedLoss,
    PolicyLoss,
    RewardShaping,
)
from safeladder.algos.canon import CANON_EFF, CanonEffAdvantage
from safeladder.algos.cispo import CISPO, CISPOLoss
from safeladder.algos.controls import ShuffledRewards
from safeladder.algos.cpgd import CPGD_CLIP_FILTER, CPGD_STD, CPGDAdvantage, CPGDLoss
from safeladder.algos.dapo import DAPO, SoftOverlong
from safeladder.algos.dr_grpo import DR_GRPO, DrGRPOAdvantage
from safeladder.algos.efficient_reasoning import EfficientReasoningAdvantage
from safeladder.algos.entropy import EntropyBonus
from safeladder.algos.grpo import GRPO, GRPOAdvantage
from safeladder.algos.gspo import GSPO, GSPOLoss
from safeladder.algos.kl import KLPenalty
from safeladder.algos.length_penalty import LengthPenalty
from safeladder.algos.ppo_clip import ClippedSurrogate
from safeladder.algos.reinforce_pp import (
    REINFORCE_PP,
    REINFORCE_PP_BASELINE,
    ReinforcePPAdvantage,
    ReinforcePPBaselineAdvantage,
)
from safeladder.algos.rloo import RLOO, RLOOAdvantage, RLOOLoss
from safeladder.config import near_miss
from safeladder.errors import ConfigError

PRESETS: dict[str, Algorithm] = {
    "cpgd": CPGD_STD,
    "cpgd_std": CPGD_STD,
    "cpgd_clip_filter": CPGD_CLIP_FILTER,
    "grpo": GRPO,
    "dr_grpo": DR_GRPO,
    "dapo": DAPO,
    "rloo": RLOO,
    "reinforce_pp": REINFORCE_PP,
    "reinforce_pp_baseline": REINFORCE_PP_BASELINE,
    "gspo": GSPO,
    "cispo": CISPO,
    "canon_eff": CANON_EFF,
}

ADVANTAGES: dict[str, type[AdvantageEstimator]] = {
    "cpgd": CPGDAdvantage,
    "grpo": GRPOAdvantage,
    "dr_grpo": DrGRPOAdvantage,
    "rloo": RLOOAdvantage,
    "reinforce_pp": ReinforcePPAdvantage,
    "reinforce_pp_baseline": ReinforcePPBaselineAdvantage,
    "canon_eff": CanonEffAdvantage,
    "efficient_reasoning": EfficientReasoningAdvantage,
    "shuffled": ShuffledRewards,
}

LOSSES: dict[str, type[PolicyLoss]] = {
    "cpgd": CPGDLoss,
    "ppo_clip": ClippedSurrogate,
    "rloo": RLOOLoss,
    "gspo": GSPOLoss,
    "cispo": CISPOLoss,
}

SHAPINGS: dict[str, type[RewardShaping]] = {
    "soft_overlong": SoftOverlong,
    "length_penalty": LengthPenalty,
}

Part = TypeVar("Part")


def build_algorithm(spec: Mapping[str, object] | str) -> Algorithm:
    """Build the algorithm a recipe asks for: a preset's name, or a mapping as shown above.

    Keys: ``preset`` (required); ``loss`` and ``advantage``, mappings of fields, with ``type`` to
    choose another one; ``kl`` and ``entropy``, the penalties in the loss, a mapping or null;
    ``overlong``, the term that length adds to the reward, a mapping (``type``: soft_overlong if not
    given) or null; ``normalization``, ``dynamic_sampling``, ``mask_truncated``.

    Raises:
        ConfigError: a name or field is unknown (the nearest one is named), a value is wrong, or two
            parts do not go together.
    """
    given: dict[str, object] = {"preset": spec} if isinstance(spec, str) else dict(spec)
    _refuse_unknown(given, _KEYS, "algorithm")
    if "preset" not in given:
        raise ConfigError(f"algorithm: preset is missing (known: {', '.join(PRESETS)})")
    base = _choose(PRESETS, given["preset"], "algorithm.preset")
    plain = {key: _validated(Algorithm, key, given[key], "algorithm")
             for key in ("normalization", "dynamic_sampling", "mask_truncated") if key in given}
    overlong = base.overlong
    if "overlong" in given:
        overlong = None if given["overlong"] is None else _build_part(
            base.overlong or SoftOverlong(), SHAPINGS, given, "overlong")
    advantage = _build_part(base.advantage, ADVANTAGES, given, "advantage")
    if overlong is not None and isinstance(advantage, EfficientReasoningAdvantage):
        raise ConfigError("algorithm: overlong takes right answers below the minimum of "
                          "efficient_reasoning, which would call them wrong; set overlong: null")
    return replace(base, loss=_build_loss(base.loss, given), overlong=overlong,
                   advantage=advantage, **plain)


_KEYS = ("preset", "loss", "advantage", "kl", "entropy", "overlong", "normalization",
         "dynamic_sampling", "mask_truncated")
_PENALTIES: dict[str, type[PolicyLoss]] = {"kl": KLPenalty, "entropy": EntropyBonus}


def _build_loss(loss: PolicyLoss, given: Mapping[str, object]) -> PolicyLoss:
    """The policy loss with its overrides, and the penalties with theirs around it."""
    penalties: tuple[PolicyLoss, ...] = ()
    if isinstance(loss, PenalizedLoss):
        penalties = loss.penalties
        loss = loss.policy
    policy = _build_part(loss, LOSSES, given, "loss")
    kept: list[PolicyLoss] = []
    for key, kind in _PENALTIES.items():
        current = next((penalty for penalty in penalties if isinstance(penalty, kind)), None)
        if key in given:
            current = _optional(kind, current, given[key], f"algorithm.{key}")
        if current is not None:
            kept.append(current)
    return PenalizedLoss(policy, tuple(kept)) if kept else policy


def _build_part(
    current: Part, known: Mapping[str, type[Part]], given: Mapping[str, object], key: str,
) -> Part:
    """``current`` with the overrides of ``given[key]``, or the ``type`` it names with them."""
    overrides = dict(_mapping(given.get(key, {}), f"algorithm.{key}"))
    if "type" in overrides:
        chosen = _choose(known, overrides.pop("type"), f"algorithm.{key}.type")
        if type(current) is not chosen:
            current = chosen()
    return _override(current, overrides, f"algorithm.{key}")


def _optional(
    kind: type[Part], current: object, overrides: object, where: str,
) -> Part | None:
    """None for null; else ``current`` (or the defaults of ``kind``) with the overrides."""
    if overrides is None:
        return None
    start = current if isinstance(current, kind) else kind()
    return _override(start, _mapping(overrides, where), where)


def _override(value: Part, overrides: Mapping[str, object], where: str) -> Part:
    """A copy of a frozen dataclass with some fields replaced; nested dataclasses recurse."""
    assert is_dataclass(value) and not isinstance(value, type)
    _refuse_unknown(overrides, [field.name for field in fields(value)], where)
    changes: dict[str, Any] = {}
    for name, given in overrides.items():
        nested = _dataclass_in(get_type_hints(type(value))[name])
        if nested is not None:
            changes[name] = _optional(nested, getattr(value, name), given, f"{where}.{name}")
        else:
            changes[name] = _validated(type(value), name, given, where)
    try:
        return replace(value, **changes)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _validated(owner: type, name: str, value: object, where: str) -> Any:
    """``value`` as the type of the owner's field: a recipe's ``1e-6`` is text to YAML."""
    try:
        return TypeAdapter(get_type_hints(owner)[name]).validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["msg"]
        raise ConfigError(f"{where}.{name}: {problem} (given: {value!r})") from None


def _dataclass_in(hint: Any) -> type | None:
    """The dataclass of ``X`` or ``X | None``, if there is one."""
    return next((t for t in (hint, *get_args(hint)) if isinstance(t, type) and is_dataclass(t)),
                None)


def _mapping(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a mapping of fields, found {value!r}")
    return value


def _choose(known: Mapping[str, Part], name: object, where: str) -> Part:
    if not isinstance(name, str) or name not in known:
        raise ConfigError(f"{where}: unknown name {name!r}{near_miss(str(name), list(known))}")
    return known[name]


def _refuse_unknown(given: Mapping[str, object], known: Iterable[str], where: str) -> None:
    names = list(known)
    for key in given:
        if key not in names:
            hint = near_miss(str(key), names) if names else " (it has no fields)"
            raise ConfigError(f"unknown key '{where}.{key}'{hint}")

