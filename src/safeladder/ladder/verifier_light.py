"""Training of the light verifier: features, a logistic regression, and its calibration.

Multinomial logistic regression with an L2 penalty (scikit-learn) on the features of
:mod:`safeladder.verifiers.light_features`. The calibration (one scale, one shift per class; "vector
scaling" of Guo et al., arXiv 1706.04599, with a shared scale) is fitted on logits of rows whose
group was held out from the weights, so it sees no row that the weights have seen.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from safeladder.data.responses import LabelledResponse
from safeladder.errors import DataError, MissingExtra
from safeladder.ladder.recipe_files import dump_recipe
from safeladder.ladder.verifier_cases import write_cases
from safeladder.ladder.verifier_recipe import LightVerifierRecipe
from safeladder.verifiers.labels import LABEL_SETS, canonical
from safeladder.verifiers.light import LightModel, calibrated, write_light
from safeladder.verifiers.light_features import Blocks, LightFeatures, extract, weighted

Floats = NDArray[np.float64]


class _Problem(NamedTuple):
    """What the regression is given. N rows."""

    matrix: Any
    """(N, V) scipy CSR."""
    labels: NDArray[np.int64]
    weights: Floats
    folds: NDArray[np.int64]


def train_light(recipe: LightVerifierRecipe, folder: Path) -> LightModel:
    """Fit on the recipe's training rows; write the verifier, its recipe and its gold cases into
    ``folder``, which is there.

    Raises:
        DataError: a row without a label or with an unknown one, or a class without rows.
        MissingExtra: scikit-learn is not installed.
    """
    model = fit_light([row for source in recipe.train for row in source.load()], recipe)
    write_light(model, folder)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    write_cases(folder, [row for source in recipe.test for row in source.load()])
    return model


def fit_light(rows: Sequence[LabelledResponse], recipe: LightVerifierRecipe) -> LightModel:
    """Fit a light verifier on labelled rows.

    Raises:
        DataError, MissingExtra: as :func:`train_light`.
    """
    try:
        import scipy
        import sklearn
    except ImportError:
        raise MissingExtra("scikit-learn", "light", "training a light verifier") from None
    scores = _scores(recipe)
    classes = tuple(scores)
    labels = _labels(rows, classes)
    blocks = [extract(row.trajectory(), recipe.features) for row in rows]
    idf = _vocabulary(blocks, recipe.features)
    problem = _Problem(_matrix(blocks, idf), labels, _row_weights(rows, labels, recipe.balance),
                       _folds(rows, recipe.folds))
    held_out = _held_out_logits(problem, recipe, len(classes))
    scale, shift = _calibrate(held_out, problem)
    weights, bias = _fit(problem.matrix, labels, problem.weights, recipe, len(classes))
    probabilities = calibrated(held_out, scale, shift)
    facts = {
        "recipe": recipe.model_dump(mode="json"), "rows": len(rows),
        "rows_by_class": {name: int((labels == k).sum()) for k, name in enumerate(classes)},
        "groups": len({row.group for row in rows}),
        "cross_validated_accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
        "versions": {"scikit-learn": sklearn.__version__, "scipy": scipy.__version__,
                     "numpy": np.__version__, "safeladder": _own_version()}}
    return LightModel(classes, scores, recipe.features, tuple(idf), np.array(list(idf.values())),
                      weights, bias, scale, shift, facts)


def accuracy_of(model: LightModel, rows: Sequence[LabelledResponse]) -> float:
    """Share of labelled rows that get the class of their label."""
    labels = _labels(rows, model.classes, complete=False)
    given = [int(model.probabilities(row.trajectory()).argmax()) for row in rows]
    return float((np.array(given) == labels).mean())


def _own_version() -> str:
    from safeladder import __version__

    return __version__


def _scores(recipe: LightVerifierRecipe) -> dict[str, float]:
    if isinstance(recipe.labels, str):
        table = dict(LABEL_SETS[recipe.labels].scores)
        return {name: (recipe.scores or table)[name] for name in table}
    assert recipe.scores is not None
    return {name: recipe.scores[name] for name in recipe.labels}


def _labels(
    rows: Sequence[LabelledResponse], classes: Sequence[str], complete: bool = True,
) -> NDArray[np.int64]:
    bare = [row.prompt.id for row in rows if row.label is None]
    if bare:
        raise DataError(f"{len(bare)} of {len(rows)} rows have no label (the first: {bare[0]})")
    labels = np.array([classes.index(canonical(row.label or "", classes)) for row in rows])
    for k, name in enumerate(classes):
        if complete and not (labels == k).any():
            raise DataError(f"no row has the label {name!r}; a class needs rows to be learned")
    return labels


def _vocabulary(blocks: Sequence[Blocks], settings: LightFeatures) -> dict[str, float]:
    """Feature -> idf = 1 + ln((1 + N) / (1 + rows with it)), in alphabetical order.

    The block of shapes has idf 1 throughout: its commonest features are its most telling ones.
    """
    found: Counter[str] = Counter()
    for row in blocks:
        found.update(f"{block}:{key}" for block, counts in row.items() for key in counts)
    kept = [name for name, count in found.most_common(settings.most) if count >= settings.min_rows]
    return {name: 1.0 if name.startswith("s:")
            else 1.0 + math.log((1 + len(blocks)) / (1 + found[name])) for name in sorted(kept)}


def _matrix(blocks: Sequence[Blocks], idf: dict[str, float]) -> Any:
    from scipy.sparse import csr_matrix

    index = {name: i for i, name in enumerate(idf)}
    data: list[float] = []
    columns: list[int] = []
    ends = [0]
    for row in blocks:
        values = weighted(row, idf)
        columns += [index[name] for name in values]
        data += values.values()
        ends.append(len(data))
    return csr_matrix((data, columns, ends), shape=(len(blocks), len(idf)))


def _row_weights(
    rows: Sequence[LabelledResponse], labels: NDArray[np.int64], balance: bool,
) -> Floats:
    """Mean 1. n equal responses of one label weigh sqrt(n) together, not n: models repeat one
    refusal hundreds of times. A column ``weight`` of the data multiplies.
    """
    keys = [(row.response, int(label)) for row, label in zip(rows, labels, strict=True)]
    copies = Counter(keys)
    weights = np.array([float(row.prompt.meta.get("weight", 1.0)) / math.sqrt(copies[key])
                        for row, key in zip(rows, keys, strict=True)])
    if not (np.isfinite(weights) & (weights > 0)).all():
        raise DataError("the column 'weight' must hold positive numbers")
    if balance:
        totals = np.bincount(labels, weights)
        weights = weights / totals[labels]
    return np.asarray(weights * len(weights) / weights.sum())


def _folds(rows: Sequence[LabelledResponse], folds: int) -> NDArray[np.int64]:
    """(N,) by the hash of the group, so that a group is never on both sides."""
    return np.array([int.from_bytes(hashlib.sha256(row.group.encode()).digest()[:8], "big") % folds
                     for row in rows])


def _fit(
    matrix: Any, labels: NDArray[np.int64], weights: Floats, recipe: LightVerifierRecipe,
    num_classes: int,
) -> tuple[Floats, Floats]:
    """(V, K) weights and (K,) bias."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=recipe.inverse_penalty, max_iter=500, tol=1e-4)
    model.fit(matrix, labels, sample_weight=weights)
    coefficients, bias = np.asarray(model.coef_), np.asarray(model.intercept_)
    if num_classes == 2:
        coefficients, bias = np.vstack([-coefficients, coefficients]) / 2, np.array(
            [-bias[0], bias[0]]) / 2
    return np.ascontiguousarray(coefficients.T), bias


def _held_out_logits(
    problem: _Problem, recipe: LightVerifierRecipe, num_classes: int,
) -> Floats:
    """(N, K): every row judged by weights that saw no row of its group."""
    logits = np.zeros((len(problem.labels), num_classes))
    for fold in np.unique(problem.folds):
        out = problem.folds == fold
        kept = problem.labels[~out]
        if len(set(kept.tolist())) < num_classes:
            raise DataError("too few groups: without one fold a class has no rows; give more data, "
                            "fewer folds, or groups that hold fewer rows")
        weights, bias = _fit(problem.matrix[~out], kept, problem.weights[~out], recipe, num_classes)
        logits[out] = problem.matrix[out] @ weights + bias
    return logits


def _calibrate(logits: Floats, problem: _Problem) -> tuple[float, Floats]:
    """Scale and shift with the least weighted negative log-likelihood of the held-out logits."""
    from scipy.optimize import minimize

    rows, classes = logits.shape
    chosen = np.arange(rows), problem.labels
    total = problem.weights.sum()

    def loss(parameters: Floats) -> tuple[float, Floats]:
        scale, shift = math.exp(parameters[0]), np.append(parameters[1:], 0.0)
        p = calibrated(logits, scale, shift)
        gap = p.copy()
        gap[chosen] -= 1.0
        gap *= problem.weights[:, None] / total
        value = -(problem.weights * np.log(np.maximum(p[chosen], 1e-12))).sum() / total
        return float(value), np.append((gap * logits).sum() * scale, gap.sum(axis=0)[:-1])

    best = minimize(loss, np.zeros(classes), jac=True, method="L-BFGS-B",
                    bounds=[(-3.0, 3.0)] * classes)
    return math.exp(best.x[0]), np.append(best.x[1:], 0.0)
