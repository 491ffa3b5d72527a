"""Where recipes lie, how one stands on another, and how a resolved one is written."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from safeladder.config import apply_overrides, read_yaml
from safeladder.errors import ConfigError


def find_recipe(name: str, folder: str = "") -> Path:
    """A recipe's file: a path, or the name of one that ships with the package.

    Args:
        name: as the user gave it.
        folder: the folder of ``safeladder/recipes`` that holds this kind.

    Raises:
        ConfigError: there is no such file or name.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    shipped = {Path(entry.name).stem: entry
               for entry in (resources.files("safeladder.recipes") / folder).iterdir()
               if entry.name.endswith(".yaml")}
    if name not in shipped:
        raise ConfigError(f"no recipe {name!r}: give a YAML file or one of "
                          f"{', '.join(sorted(shipped))}")
    return Path(str(shipped[name]))


def read_recipe(path: Path, folder: str = "", overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A recipe's mapping; ``extends: NAME`` puts it on top of another recipe of its kind, and
    ``like: NAME`` a rung on top of another rung.

    Args:
        path: of the file.
        folder: as :func:`find_recipe` has it.
        overrides: as :func:`safeladder.config.apply_overrides` has them. What they change of a rung
            reaches those that are like it, and what they change of such a rung itself wins.

    Raises:
        ConfigError: a file or rung that is not there, no YAML mapping, or a wrong override.
    """
    return _with_likes(_read(path, folder), path, overrides)


def _read(path: Path, folder: str) -> dict[str, Any]:
    data = read_yaml(path)
    base = data.pop("extends", None)
    return data if base is None else merge(_read(find_recipe(str(base), folder), folder), data)


_OWN = ("name", "like", "gates", "on_failure", "retry", "compare_with", "baseline")
"""Keys that a rung does not take from the one that it is like."""


def _with_likes(
    data: dict[str, Any], path: Path, overrides: Sequence[str],
) -> dict[str, Any]:
    """Every rung with ``like`` as that rung, which stands before it, with what it says itself.

    A rung's overrides are applied in its turn: to all that it has taken over, and before another
    takes it over.
    """
    late = [override for override in overrides if _is_inside_rung(override)]
    data = apply_overrides(data, [one for one in overrides if one not in late])
    rungs = data.get("rungs")
    known: dict[str, dict[str, Any]] = {}
    for number, rung in enumerate(rungs if isinstance(rungs, list) else ()):
        if not isinstance(rung, dict):
            continue
        name = str(rung.get("name"))
        mine = [one for one in late if _keys(one)[1] in (name, str(number))]
        late = [one for one in late if one not in mine]
        data["rungs"][number] = _with_like(rung, known, path)
        data = apply_overrides(data, mine)
        known[name] = data["rungs"][number]
    return apply_overrides(data, late)  # an error where no rung is meant


def _with_like(
    rung: dict[str, Any], known: dict[str, dict[str, Any]], path: Path,
) -> dict[str, Any]:
    if "like" not in rung:
        return rung
    other = known.get(str(rung["like"]))
    if other is None:
        raise ConfigError(f"{path}: rungs.{rung.get('name')}.like: no rung before it is "
                          f"named {rung['like']!r} (there are: {', '.join(known)})")
    return merge({key: value for key, value in other.items() if key not in _OWN},
                 {key: value for key, value in rung.items() if key != "like"})


def _keys(override: str) -> list[str]:
    return override.partition("=")[0].split(".")


def _is_inside_rung(override: str) -> bool:
    """Whether it changes a part of one rung; which other one that is like comes first."""
    keys = _keys(override)
    return keys[0] == "rungs" and len(keys) > 2 and keys[2] != "like"


def dump_recipe(recipe: BaseModel) -> str:
    """The resolved recipe as YAML; reading it back gives an equal recipe."""
    text: str = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=100)
    return text


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Mappings merge key by key, rungs by name (new ones come last); all else is replaced, and so
    is a mapping by one of another ``type`` or ``preset``.
    """
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            other = any(key in value and value[key] != old.get(key) for key in ("type", "preset"))
            merged[key] = value if other else merge(old, value)
        elif key == "rungs" and isinstance(old, list) and isinstance(value, list):
            rungs = {rung.get("name"): rung for rung in old}
            for rung in value:
                known = rungs.get(rung.get("name"))
                rungs[rung.get("name")] = merge(known, rung) if known else rung
            merged[key] = list(rungs.values())
        else:
            merged[key] = value
    return merged
