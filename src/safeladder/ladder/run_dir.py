"""The folder of one run: where every file lies, and who may write to it.

::

    recipe.yaml            the resolved recipe
    manifest.json          versions, git revision, recipe hash, state of every rung
    metrics.jsonl          one line per step
    judges/                replies of judges, kept by content
    verifiers/<name>/      verifiers that the climb trained
    traces/*.parquet       every trajectory with verdicts and reward parts
    rungs/<name>/checkpoint    Hugging Face format
    rungs/<name>/evaluation.json
    rungs/<name>/filters.json, .html   what the filters of a supervised rung dropped, and why
    rungs/<name>/filters.rows.json     which rows passed them
    state/<name>/step-*    resumable states of an unfinished rung
    summary.json, report.html
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeladder.errors import CheckpointError, ConfigError
from safeladder.files import storage_error, write_text


@dataclass(frozen=True)
class RunDir:
    """Paths of one run, and its manifest."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        """The figures of the run."""
        return self.path / "summary.json"

    @property
    def traces(self) -> Path:
        """Folder of Parquet files."""
        return self.path / "traces"

    @property
    def judges(self) -> Path:
        """Folder of judges' replies."""
        return self.path / "judges"

    def verifier(self, name: str) -> Path:
        """A verifier that the climb trains, as ``safeladder verifier train`` leaves it."""
        return self.path / "verifiers" / name

    def checkpoint(self, rung: str) -> Path:
        """The checkpoint a rung leaves, in Hugging Face format."""
        return self.path / "rungs" / rung / "checkpoint"

    def evaluation(self, rung: str) -> Path:
        """The figures a rung leaves."""
        return self.path / "rungs" / rung / "evaluation.json"

    def filters(self, rung: str) -> Path:
        """What the filters of a supervised rung dropped; the page lies beside it."""
        return self.path / "rungs" / rung / "filters.json"

    def state(self, rung: str) -> Path:
        """Resumable states of a rung."""
        return self.path / "state" / rung

    def open(self, recipe_text: str, resume: bool, manifest: dict[str, Any]) -> None:
        """Create the folder, or go on with it.

        Raises:
            ConfigError: the folder holds a run and ``resume`` is not set, or another recipe.
            StorageError: the folder cannot be written.
        """
        try:
            self.traces.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(self.path, error) from error
        manifest = {**manifest, "recipe_sha256": hashlib.sha256(recipe_text.encode()).hexdigest()}
        if not self._manifest.exists():
            write_text(self.recipe, recipe_text)
            write_text(self._manifest, json.dumps({**manifest, "rungs": {}}, indent=2))
            return
        if not resume:
            raise ConfigError(f"{self.path} already holds a run: add --resume to go on with it, "
                              "or choose another folder with --out")
        if self.manifest()["recipe_sha256"] != manifest["recipe_sha256"]:
            raise ConfigError(
                f"{self.path} was begun with another recipe (see its recipe.yaml); resume with "
                f"the same settings: safeladder climb {self.recipe} --out {self.path} --resume")

    @property
    def _manifest(self) -> Path:
        return self.path / "manifest.json"

    def manifest(self) -> dict[str, Any]:
        """Read the manifest.

        Raises:
            CheckpointError: it is missing or not JSON.
        """
        try:
            data: dict[str, Any] = json.loads(self._manifest.read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self._manifest}: not a run's manifest ({error})") from error
        return data

    def rung_state(self, rung: str) -> dict[str, Any]:
        """What the manifest says of a rung; empty before it began."""
        state: dict[str, Any] = self.manifest()["rungs"].get(rung, {})
        return state

    def update_rung(self, rung: str, **values: Any) -> None:
        """Merge values into what the manifest says of a rung."""
        manifest = self.manifest()
        manifest["rungs"].setdefault(rung, {}).update(values)
        write_text(self._manifest, json.dumps(manifest, indent=2))

    def update_verifier(self, name: str, values: Mapping[str, Any]) -> None:
        """Say what became of a verifier that the climb trains."""
        manifest = self.manifest()
        manifest.setdefault("verifiers", {})[name] = dict(values)
        write_text(self._manifest, json.dumps(manifest, indent=2))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; the lock ends with the process, however it ends.

        Raises:
            ConfigError: another process holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = open(self.path / ".lock", "w")  # noqa: SIM115
        except OSError as error:
            raise storage_error(self.path, error) from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(f"{self.path}: another process is climbing here") from None
            yield
