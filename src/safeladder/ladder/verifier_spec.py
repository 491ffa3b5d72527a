"""From what a user types to a verifier: a folder, a YAML file, or a bare type name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeladder.config import near_miss, read_yaml
from safeladder.errors import CheckpointError, ConfigError
from safeladder.verifiers.base import Verifier
from safeladder.verifiers.registry import VERIFIERS, Maker, build_verifier


@dataclass(frozen=True)
class OpenedVerifier:
    """A verifier, and what it was built from."""

    verifier: Verifier
    spec: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What its verdicts call it."""
        return self.verifier.name

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The classes of its verdicts, where it says so."""
        for holder in (self.verifier, getattr(self.verifier, "rubric", None)):
            classes = getattr(holder, "classes", None)
            if classes:
                return tuple(classes)
        return None


def open_verifier(text: str, name: str | None = None) -> OpenedVerifier:
    """Build the verifier that ``text`` names.

    - a folder that ``safeladder verifier train`` left;
    - a YAML file with one verifier as a recipe has it (``type: ...``);
    - the type of a verifier that needs no settings (``prefix_refusal``).

    Raises:
        ConfigError: it is none of these, or its settings are wrong.
        CheckpointError: the folder holds no verifier, or a damaged one.
        MissingExtra: a package is not installed.
    """
    spec = verifier_spec(text)
    spec.setdefault("name", name or _default_name(text, spec))
    return OpenedVerifier(build_verifier(spec, text, makers(str(spec.get("type")))), spec)


def verifier_spec(text: str) -> dict[str, Any]:
    """The mapping that :func:`open_verifier` builds from."""
    path = Path(text)
    if path.is_dir():
        return _folder_spec(path)
    if path.suffix in (".yaml", ".yml"):
        return read_yaml(path)
    if text in VERIFIERS:
        return {"type": text}
    if path.exists() or path.name != text:
        raise ConfigError(f"{text}: expected a verifier's folder, a YAML file with 'type: ...', or "
                          f"a verifier type; {'this is another file' if path.exists() else ''}"
                          f"{'' if path.exists() else 'there is no such folder'}")
    raise ConfigError(f"no verifier {text!r}{near_miss(text, list(VERIFIERS))}; or give a "
                      "verifier's folder or a YAML file with 'type: ...'")


def makers(kind: str) -> Mapping[str, Maker] | None:
    """What builds the types that ask a model; imported only when such a type is asked for."""
    if kind == "judge":
        from safeladder.ladder.judges import judge_makers

        return judge_makers()
    if kind in ("generative", "classifier"):
        from safeladder.ladder.verifier_model import model_makers

        return model_makers()
    return None


def _folder_spec(folder: Path) -> dict[str, Any]:
    head, card = folder / "verifier.json", folder / "verifier.yaml"
    if head.exists():
        try:
            kind = json.loads(head.read_text(encoding="utf-8"))["type"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{head}: cannot be read ({type(error).__name__}); train the "
                                  "verifier again") from None
        return {"type": kind, "path": str(folder)}
    if card.exists():
        found = read_yaml(card)
        return {key: value for key, value in found.items() if key in ("type", "name")} | {
            "path": str(folder)}
    raise CheckpointError(f"{folder}: holds no verifier (no verifier.json, no verifier.yaml); "
                          "expected a folder written by `safeladder verifier train`")


def _default_name(text: str, spec: Mapping[str, Any]) -> str:
    path = Path(text)
    return path.resolve().name if path.is_dir() else str(spec.get("type"))
