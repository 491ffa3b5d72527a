"""Recipes of ``safeladder verifier train``: one union, told apart by ``type``.

A recipe is a YAML file, or the name of one that ships with the package under
``recipes/verifiers``; paths in it are relative to the working directory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from pydantic import Field, model_validator

from safeladder.config import StrictModel, apply_overrides, near_miss, validate
from safeladder.errors import ConfigError
from safeladder.ladder.recipe_files import find_recipe, read_recipe
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

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in order."""
        return (LABEL_SETS[self.labels].classes if isinstance(self.labels, str)
                else tuple(self.labels))


VerifierRecipe: TypeAlias = (
    LightVerifierRecipe | GenerativeVerifierRecipe | ClassifierVerifierRecipe)
"""Every kind of verifier recipe."""

RECIPE_TYPES: dict[str, type[VerifierRecipe]] = {
    "light": LightVerifierRecipe, "generative": GenerativeVerifierRecipe,
    "classifier": ClassifierVerifierRecipe}
"""``type`` of a recipe -> its model. A new kind is one more member here and in the union."""


FOLDER = "verifiers"
"""Where the ones that ship lie."""


def load_verifier_recipe(
    name: str, overrides: Sequence[str] | Mapping[str, Any] = (),
) -> VerifierRecipe:
    """Read, override (:func:`safeladder.config.apply_overrides`) and check a recipe.

    Raises:
        ConfigError: one line per problem: file, key, what is wrong, the nearest known key.
    """
    path = find_recipe(name, FOLDER)
    data = apply_overrides(read_recipe(path, FOLDER), overrides)
    kind = data.get("type")
    if kind not in RECIPE_TYPES:
        raise ConfigError(f"{path}: no verifier recipe of type {kind!r}"
                          f"{near_miss(str(kind), list(RECIPE_TYPES))}")
    return validate(RECIPE_TYPES[kind], data, str(path))
