"""Recipes of ``safeladder verifier train``: one union, told apart by ``type``.

A recipe is a YAML file, or the name of one that ships with the package under
``recipes/verifiers``; paths in it are relative to the working directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Literal, TypeAlias

import yaml
from pydantic import Field, model_validator

from safeladder.config import StrictModel, apply_overrides, near_miss, read_yaml, validate
from safeladder.errors import ConfigError
from safeladder.ladder.verifier_model_recipe import (
    ClassifierVerifierRecipe,
    GenerativeVerifierRecipe,
    Responses,
)
from safeladder.verifiers.labels import LABEL_SETS
from safeladder.verifiers.light_features import LightFeatures


class LightVerifierRecipe(StrictModel):
    """Words and character n-grams with a logistic regression (``verifiers/light.py``)."""

    type: Literal["light"]
    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    description: str = ""
    seed: int = 0
    train: list[Responses] = Field(min_length=1, description="labelled responses")
    test: list[Responses] = Field(
        default_factory=list, description="measured after training, never trained on")
    labels: str | list[str] = Field(
        description=f"classes, or the name of a label set: {', '.join(LABEL_SETS)}")
    scores: dict[str, float] | None = Field(
        None, description="class -> score; None: the label set's table")
    features: LightFeatures = LightFeatures()
    inverse_penalty: float = Field(
        1.0, gt=0, description="C of scikit-learn's LogisticRegression: larger fits closer")
    balance: bool = Field(True, description="rows weigh so that every class weighs the same")
    folds: int = Field(
        5, ge=2, description="cross-validation over groups, for the calibration")

    @model_validator(mode="after")
    def _known(self) -> LightVerifierRecipe:
        if isinstance(self.labels, str) and self.labels not in LABEL_SETS:
            raise ValueError(f"labels: no label set {self.labels!r}"
                             f"{near_miss(self.labels, list(LABEL_SETS))}")
        if isinstance(self.labels, list) and self.scores is None:
            raise ValueError("scores: classes of your own need a score each")
        return self


VerifierRecipe: TypeAlias = (
    LightVerifierRecipe | GenerativeVerifierRecipe | ClassifierVerifierRecipe)
"""Every kind of verifier recipe."""

RECIPE_TYPES: dict[str, type[VerifierRecipe]] = {
    "light": LightVerifierRecipe, "generative": GenerativeVerifierRecipe,
    "classifier": ClassifierVerifierRecipe}
"""``type`` of a recipe -> its model. A new kind is one more member here and in the union."""


def find_verifier_recipe(name: str) -> Path:
    """A recipe's file: a path, or the name of one that ships with the package.

    Raises:
        ConfigError: there is no such file or name.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    shipped = {Path(entry.name).stem: entry
               for entry in (resources.files("safeladder.recipes") / "verifiers").iterdir()
               if entry.name.endswith(".yaml")}
    if name not in shipped:
        raise ConfigError(f"no verifier recipe {name!r}: give a YAML file or one of "
                          f"{', '.join(sorted(shipped))}")
    return Path(str(shipped[name]))


def load_verifier_recipe(name: str, overrides: Sequence[str] = ()) -> VerifierRecipe:
    """Read, override and check a recipe.

    Raises:
        ConfigError: one line per problem: file, key, what is wrong, the nearest known key.
    """
    path = find_verifier_recipe(name)
    data = apply_overrides(read_yaml(path), overrides)
    kind = data.get("type")
    if kind not in RECIPE_TYPES:
        raise ConfigError(f"{path}: no verifier recipe of type {kind!r}"
                          f"{near_miss(str(kind), list(RECIPE_TYPES))}")
    return validate(RECIPE_TYPES[kind], data, str(path))


def dump_verifier_recipe(recipe: VerifierRecipe) -> str:
    """The resolved recipe as YAML; reading it back gives an equal recipe."""
    text: str = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=100)
    return text
