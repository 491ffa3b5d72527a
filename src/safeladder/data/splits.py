"""Splits without leakage: all rows that share a key land in one part."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from safeladder.errors import ConfigError, DataError
from safeladder.types import Prompt

Key = str | Callable[[Prompt], object]


def key_of(prompt: Prompt, key: Key) -> Any:
    """The value of ``key``: a function of the prompt, or an entry of its meta (``a.b`` nests).

    ``id``, ``source`` and ``task`` mean the prompt's own fields.

    Raises:
        DataError: the prompt has no such entry.
    """
    if callable(key):
        return key(prompt)
    if key in ("id", "source", "task"):
        return getattr(prompt, key)
    value: Any = prompt.meta
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise DataError(f"prompt {prompt.id}: meta has no {key!r} "
                            f"(found: {', '.join(map(str, prompt.meta)) or 'nothing'})")
        value = value[part]
    return value


def part_of(key: object, fractions: Mapping[str, float], salt: str = "") -> str:
    """The part that ``key`` belongs to: a point in 0..1 from its SHA-256, cut by the fractions.

    It depends on nothing else, so adding or removing rows never moves another row.

    Raises:
        ConfigError: the fractions are not positive or do not sum to 1.
    """
    if any(f <= 0 for f in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-9:
        raise ConfigError(f"fractions must be positive and sum to 1, got {dict(fractions)}")
    digest = hashlib.sha256(f"{salt}\x00{key}".encode()).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    edge = 0.0
    for name, fraction in fractions.items():
        edge += fraction
        if point < edge:
            return name
    return name


def split_by_key(
    rows: Sequence[Prompt], key: Key, fractions: Mapping[str, float], salt: str = ""
) -> dict[str, list[Prompt]]:
    """Split rows so that no key is in two parts; rows keep their order.

    Args:
        rows: the prompts to split.
        key: a meta entry such as ``structure`` of puzzles, or a function of the prompt.
        fractions: share of the *keys* per part, in a fixed order.
        salt: another text gives another split.

    Raises:
        ConfigError: the fractions are not positive or do not sum to 1.
        DataError: a row without the key.
    """
    parts: dict[str, list[Prompt]] = {name: [] for name in fractions}
    for row in rows:
        parts[part_of(key_of(row, key), fractions, salt)].append(row)
    return parts
