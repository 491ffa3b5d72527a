"""A verifier that works without a neural network: named features and one linear layer.

With the features x of a response (:mod:`safeladder.verifiers.light_features`), weights W, bias b,
and the calibration (a, d) that was fitted on rows held out from the weights::

    z = W x + b                     one logit per class
    P(class | response) = softmax(a z + d)
    score = table[argmax P]         parts["expected"] = sum_k P_k table_k

The fitted verifier is a folder of plain data - ``verifier.json``, ``vocabulary.json``,
``weights.safetensors`` - so reading one runs no code; judging needs numpy alone. Training is in
:mod:`safeladder.ladder.verifier_light` and uses scikit-learn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, PrivateAttr

from safeladder.config import StrictModel, validate
from safeladder.errors import CheckpointError, ConfigError
from safeladder.files import atomic_folder
from safeladder.types import Trajectory, Verdict
from safeladder.verifiers.cases import Case
from safeladder.verifiers.light_features import LightFeatures, extract, weighted

FORMAT = 1
"""Version of the folder's layout."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LightModel:
    """A fitted light verifier. V features, K classes."""

    classes: tuple[str, ...]
    scores: Mapping[str, float]
    features: LightFeatures
    vocabulary: tuple[str, ...]
    idf: Floats
    """(V,)"""
    weights: Floats
    """(V, K)"""
    bias: Floats
    """(K,)"""
    scale: float = 1.0
    """a of the calibration."""
    shift: Floats = field(default_factory=lambda: np.zeros(0))
    """(K,) d of the calibration; empty: zeros."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Where it comes from: versions, data, figures. Nothing reads it but people."""

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.vocabulary)}

    @cached_property
    def _idf(self) -> dict[str, float]:
        return dict(zip(self.vocabulary, self.idf.tolist(), strict=True))

    def logits(self, trajectory: Trajectory) -> Floats:
        """(K,) before calibration."""
        values = weighted(extract(trajectory, self.features), self._idf)
        rows = np.fromiter((self._index[name] for name in values), np.int64, len(values))
        x = np.fromiter(values.values(), np.float64, len(values))
        return np.asarray(x @ self.weights[rows] + self.bias)

    def probabilities(self, trajectory: Trajectory) -> Floats:
        """(K,) calibrated; sums to 1."""
        return calibrated(self.logits(trajectory), self.scale, self.shift)

    def contributions(self, trajectory: Trajectory, label: str, top: int = 12) -> list[
            tuple[str, float]]:
        """The features that speak most for or against a class, for a person to read."""
        k = self.classes.index(label)
        centred = self.weights[:, k] - self.weights.mean(axis=1)
        values = weighted(extract(trajectory, self.features), self._idf)
        shares = [(name, value * float(centred[self._index[name]]))
                  for name, value in values.items()]
        return sorted(shares, key=lambda pair: -abs(pair[1]))[:top]


def calibrated(logits: Floats, scale: float, shift: Floats) -> Floats:
    """softmax(scale * logits + shift) over the last axis."""
    z = scale * logits + (shift if shift.size else 0.0)
    z = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(z / z.sum(axis=-1, keepdims=True))


class LightVerifier(StrictModel):
    """Judges with a fitted :class:`LightModel`; the classes are those it was trained on.

    Only the response after the thinking is judged, and the last user message where the model was
    trained with it. An empty answer is judged like any other text.
    """

    type: Literal["light"] = "light"
    name: str = "light"
    path: str = Field(description="folder written by `safeladder verifier train`")
    scores: dict[str, FiniteFloat] | None = Field(
        None, description="class -> score, for all classes; None: the table of the folder")

    cases: ClassVar[tuple[Case, ...]] = ()
    _model: LightModel | None = PrivateAttr(None)

    def prepare(self) -> None:
        """Read the folder.

        Raises:
            CheckpointError: it is missing, incomplete or damaged.
            ConfigError: ``scores`` does not name exactly the classes.
        """
        model = load_light(Path(self.path))
        if self.scores is not None and set(self.scores) != set(model.classes):
            raise ConfigError(f"{self.name}: scores must name exactly the classes "
                              f"{', '.join(model.classes)}; found {', '.join(self.scores)}")
        self._model = model

    @property
    def model(self) -> LightModel:
        """The fitted model, read at its first use."""
        if self._model is None:
            self.prepare()
        assert self._model is not None
        return self._model

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of its verdicts."""
        return self.model.classes

    async def verify_many(self, trajectories: Sequence[Trajectory]) -> list[Verdict]:
        """Judge each; the score is the table's value of the most probable class."""
        return [self.judge(trajectory) for trajectory in trajectories]

    def judge(self, trajectory: Trajectory) -> Verdict:
        """The verdict on one trajectory."""
        model = self.model
        table = self.scores or model.scores
        probabilities = model.probabilities(trajectory)
        best = model.classes[int(probabilities.argmax())]
        named = dict(zip(model.classes, probabilities.tolist(), strict=True))
        expected = sum(p * table[label] for label, p in named.items())
        return Verdict(self.name, table[best], best, named, parts={"expected": expected})


def save_light(model: LightModel, folder: Path) -> None:
    """Write a fitted verifier; the folder appears whole or not at all.

    Raises:
        StorageError: it is there already, or cannot be written.
    """
    with atomic_folder(folder) as partial:
        write_light(model, partial)


def write_light(model: LightModel, folder: Path) -> None:
    """Write the files of a fitted verifier into a folder that is there."""
    from safetensors.numpy import save

    vocabulary = json.dumps(model.vocabulary, ensure_ascii=True).encode()
    weights = save({"idf": model.idf.astype(np.float32), "bias": model.bias.astype(np.float32),
                    "weights": np.ascontiguousarray(model.weights, np.float32)})
    head = {
        "type": "light", "format": FORMAT, "classes": model.classes, "scores": dict(model.scores),
        "features": model.features.model_dump(), "scale": model.scale,
        "shift": model.shift.tolist(),
        "sha256": {"vocabulary.json": _digest(vocabulary), "weights.safetensors": _digest(weights)},
        "facts": dict(model.facts)}
    (folder / "vocabulary.json").write_bytes(vocabulary)
    (folder / "weights.safetensors").write_bytes(weights)
    (folder / "verifier.json").write_text(json.dumps(head, indent=1, ensure_ascii=False))


class _Head(StrictModel):
    """``verifier.json``."""

    type: Literal["light"]
    format: int
    classes: tuple[str, ...] = Field(min_length=2)
    scores: dict[str, FiniteFloat]
    features: LightFeatures
    scale: FiniteFloat = Field(gt=0)
    shift: tuple[FiniteFloat, ...]
    sha256: dict[str, str]
    facts: dict[str, Any]


def load_light(folder: Path) -> LightModel:
    """Read what :func:`save_light` wrote.

    Raises:
        CheckpointError: no such folder, a file is missing or damaged, or it was written by a
            newer version.
    """
    head = _read_head(folder)
    contents = {}
    for name in ("vocabulary.json", "weights.safetensors"):
        contents[name] = _bytes(folder / name)
        if _digest(contents[name]) != head.sha256.get(name):
            raise CheckpointError(f"{folder / name}: damaged (its SHA-256 is not the one in "
                                  "verifier.json); train the verifier again")
    from safetensors.numpy import load

    try:
        vocabulary = tuple(json.loads(contents["vocabulary.json"]))
        arrays = {name: value.astype(np.float64)
                  for name, value in load(contents["weights.safetensors"]).items()}
        model = LightModel(
            head.classes, head.scores, head.features, vocabulary, arrays["idf"],
            arrays["weights"], arrays["bias"], head.scale, np.array(head.shift), head.facts)
    except Exception as error:
        raise CheckpointError(f"{folder}: no light verifier ({type(error).__name__}: {error}); "
                              "train it again") from None
    expected = {"idf": (len(vocabulary),), "weights": (len(vocabulary), len(head.classes)),
                "bias": (len(head.classes),)}
    for name, shape in expected.items():
        if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
            raise CheckpointError(f"{folder}: {name} has shape {arrays[name].shape}, expected "
                                  f"{shape} of finite numbers; train the verifier again")
    return model


def _read_head(folder: Path) -> _Head:
    path = folder / "verifier.json"
    try:
        data = json.loads(_bytes(path))
        written = data.get("format") if isinstance(data, dict) else None
        if isinstance(written, int) and written > FORMAT:
            raise CheckpointError(f"{path}: format {written} is newer than this version reads "
                                  f"({FORMAT}); update safeladder")
        head = validate(_Head, data, str(path))
    except (ValueError, ConfigError) as error:
        line = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: no light verifier ({line}); train it again") from None
    if set(head.scores) != set(head.classes) or (head.shift and
                                                 len(head.shift) != len(head.classes)):
        raise CheckpointError(f"{path}: scores or shift do not fit the classes; train it again")
    return head


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; expected a folder written by "
                              "`safeladder verifier train`") from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
