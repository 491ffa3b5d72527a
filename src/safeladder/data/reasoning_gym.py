"""Any generator of reasoning-gym as a source of prompts.

``Prompt.meta["reasoning_gym"]`` holds what a verifier needs to score an answer with the generator's
own scorer: ``dataset``, ``config`` (the settings given, size and seed included), ``index`` and
``entry`` (its JSON form). Some scorers compare tuples, which JSON turns into lists; building the
entry again from dataset, config and index is exact for all of them.
"""

from __future__ import annotations

import difflib
import json
from typing import Any

from safeladder.data.rows import jsonable
from safeladder.errors import ConfigError, import_extra
from safeladder.types import Message, Prompt


def reasoning_gym_prompts(
    name: str, size: int, seed: int = 0, config: dict[str, Any] | None = None
) -> list[Prompt]:
    """The first ``size`` entries of a reasoning-gym generator.

    ``reference`` is the generator's answer; some generators have none (None) and score by rules.

    Raises:
        ConfigError: an unknown generator or a setting it refuses.
        MissingExtra: reasoning-gym is not installed.
    """
    settings = {**(config or {}), "size": size, "seed": seed}
    try:
        json.dumps(settings)
    except TypeError as error:
        raise ConfigError(f"reasoning_gym {name}: settings must be JSON values: {error}") from None
    entries = _dataset(name, settings)
    return [_prompt(name, settings, index, entries[index]) for index in range(size)]


def _dataset(name: str, settings: dict[str, Any]) -> Any:
    reasoning_gym = import_extra("reasoning_gym", "data", "a reasoning_gym source")
    known = import_extra("reasoning_gym.factory", "data", "a reasoning_gym source").DATASETS

    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"reasoning_gym has no generator {name!r}{hint}")
    if name == "composite":
        raise ConfigError("reasoning_gym composite: list the generators as sources of their own, "
                          "with weights")
    try:
        return reasoning_gym.create_dataset(name, **settings)
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"reasoning_gym {name}: {error}") from None


def _prompt(name: str, settings: dict[str, Any], index: int, entry: dict[str, Any]) -> Prompt:
    where = f"reasoning_gym {name}, entry {index}"
    return Prompt(
        id=f"reasoning_gym/{name}:{settings['seed']}:{index}",
        messages=(Message("user", entry["question"]),),
        reference=jsonable(entry["answer"], where, "answer"),
        source=f"reasoning_gym/{name}",
        task="reasoning_gym",
        meta={"reasoning_gym": {
            "dataset": name, "config": settings, "index": index,
            "entry": jsonable(entry, where, "entry"),
        }},
    )
