"""Read configuration files and overrides, and turn validation errors into one clear line.

This module reads, no more: what the keys mean is said by the pydantic models that own them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from safeladder.errors import ConfigError


class StrictModel(BaseModel):
    """Base of all configuration models: frozen, unknown keys refused, defaults validated."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


Model = TypeVar("Model", bound=BaseModel)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises:
        ConfigError: the file is missing, is not YAML (with line and column) or is no mapping.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise ConfigError(f"{path}{where}: {problem}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping at the top, found {type(data).__name__}")
    return data


def apply_overrides(
    data: dict[str, Any], overrides: Sequence[str] | Mapping[str, Any],
) -> dict[str, Any]:
    """Apply ``a.b=value`` overrides (values are YAML; list items by number or by their ``name``),
    or a mapping of ``a.b`` to values, to a deep copy.

    Raises:
        ConfigError: an override has no ``=``, or its path leads through something that is no
            mapping or list, or to a list item that does not exist.
    """
    result: dict[str, Any] = _fresh(data)
    if isinstance(overrides, Mapping):
        for path, value in overrides.items():
            _assign(result, path.split("."), _fresh(value), path)
        return result
    for override in overrides:
        path, separator, text = override.partition("=")
        if not separator or not path:
            raise ConfigError(f"override {override!r}: expected a.b=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"override {override!r}: the value is not valid YAML") from None
        _assign(result, path.split("."), value, override)
    return result


def _fresh(value: Any) -> Any:
    """A copy that shares nothing: two keys with one YAML anchor are two values from here on."""
    if isinstance(value, dict):
        return {key: _fresh(item) for key, item in value.items()}
    return [_fresh(item) for item in value] if isinstance(value, list) else value


def _assign(data: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    node: Any = data
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(node, list):
            node, key_or_index = node, _list_index(node, key, override)
        elif isinstance(node, dict):
            key_or_index = key  # type: ignore[assignment]
        else:
            where = ".".join(keys[:depth])
            raise ConfigError(f"override {override!r}: {where} is a value, it has no {key!r}")
        if last:
            node[key_or_index] = value
        elif isinstance(node, dict):
            node = node.setdefault(key, {})
        else:
            node = node[key_or_index]


def _list_index(items: list[Any], key: str, override: str) -> int:
    """A number, or the ``name`` of the item (``rungs.logic_rl.steps=10``)."""
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if key in names:
        return names.index(key)
    if key.isdigit() and int(key) < len(items):
        return int(key)
    known = [name for name in names if name] or [f"0..{len(items) - 1}"]
    raise ConfigError(f"override {override!r}: no item {key!r}{near_miss(key, known)}")


def validate(model: type[Model], data: Any, where: str) -> Model:
    """Build ``model`` from ``data``; every problem on a line of its own, the nearest key named.

    Raises:
        ConfigError: as said; the message starts with ``where``.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(model, problem) for problem in error.errors(include_url=False)]
        raise ConfigError("\n".join(f"{where}: {line}" for line in lines)) from None


def _explain(model: type[BaseModel], problem: Any) -> str:
    loc = [str(part) for part in problem["loc"]]
    path = ".".join(loc) or "(top)"
    if problem["type"] == "extra_forbidden":
        known = sorted(_field_names(model))
        siblings = sorted(_siblings(model, problem["loc"]) or known)
        return f"unknown key {path!r}{near_miss(loc[-1], siblings)}"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"{path}: {message}{shown}"


def _siblings(model: type[BaseModel], loc: Sequence[Any]) -> set[str]:
    """Keys allowed where the unknown key ``loc[-1]`` was found."""
    current = [model]
    for part in loc[:-1]:
        following: list[type[BaseModel]] = []
        for candidate in current:
            if part in candidate.model_fields:
                following += list(_models_in(candidate.model_fields[part].annotation))
            elif _has_tag(candidate, part):
                following.append(candidate)
        # A list index or a union tag stays on the same models.
        current = following or current
    return {name for candidate in current for name in candidate.model_fields}


def _has_tag(model: type[BaseModel], tag: Any) -> bool:
    field = model.model_fields.get("type")
    return field is not None and tag in get_args(field.annotation)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _field_names(model: type[BaseModel], seen: set[type] | None = None) -> set[str]:
    seen = seen or set()
    if model in seen:
        return set()
    seen.add(model)
    names = set(model.model_fields)
    for field in model.model_fields.values():
        for inner in _models_in(field.annotation):
            names |= _field_names(inner, seen)
    return names


def near_miss(word: str, known: Sequence[str]) -> str:
    """What to append to "unknown name": the nearest known one, or else all of them."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f" (did you mean {near[0]!r}?)"
    return f" (known: {', '.join(known)})"
