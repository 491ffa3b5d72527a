"""Figures of classifiers: by hand, and against scikit-learn."""

import numpy as np
import pytest

from safeladder.eval.classification import (
    Judged,
    auroc,
    classify,
    confusion,
    expected_calibration_error,
    f1_scores,
)

CLASSES = ("a", "b", "c")


def judged(labels, given, probabilities=None, clusters=None, classes=CLASSES):
    return Judged(classes, np.array(labels), np.array(given),
                  tuple(clusters or map(str, range(len(labels)))),
                  None if probabilities is None else np.array(probabilities))


def test_confusion_accuracy_and_f1_by_hand():
    # labels a a a b b c, given a a b b c c
    figures = classify(judged([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2]))
    assert figures.confusion == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert figures.accuracy.value == pytest.approx(4 / 6)
    # a: 2*2/(3+2); b: 2*1/(2+2); c: 2*1/(1+2)
    assert [figures.f1[k].value for k in CLASSES] == pytest.approx([0.8, 0.5, 2 / 3])
    assert figures.macro_f1.value == pytest.approx((0.8 + 0.5 + 2 / 3) / 3)
    assert figures.auroc.value is None and figures.ece.value is None


def test_a_class_without_rows_has_no_f1_and_is_left_out_of_the_mean():
    figures = classify(judged([0, 0, 1], [0, 2, 1]))
    assert figures.f1["c"].value is None
    # a: 2/(2+1), b: 2/(1+1)
    assert figures.macro_f1.value == pytest.approx((2 / 3 + 1) / 2)


def test_a_class_that_is_never_given_has_f1_zero():
    assert f1_scores(confusion(np.array([0, 1]), np.array([0, 0]), 2))[1] == 0.0


def test_auroc_counts_pairs_and_halves_ties():
    # positives .9 .5, negatives .5 .1: pairs 1, 1, 1/2, 1
    scores, positive = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    assert auroc(scores, positive) == pytest.approx(3.5 / 4)
    assert auroc(scores, np.array([True] * 4)) is None


def test_ece_by_hand():
    # two bins: (0, .5] holds .5 (wrong), (.5, 1] holds .7 (right), .9 (wrong)
    confidence, correct = np.array([0.5, 0.7, 0.9]), np.array([0.0, 1.0, 0.0])
    # (1/3)|0 - .5| + (2/3)|.5 - .8|
    assert expected_calibration_error(confidence, correct, 2) == pytest.approx(0.5 / 3 + 0.6 / 3)


def test_brier_and_reliability_by_hand():
    figures = classify(judged([0, 1], [0, 0], [[0.8, 0.2], [0.6, 0.4]], classes=("a", "b")),
                       bins=2)
    # (.2^2 + .2^2 + .6^2 + .6^2) / 2
    assert figures.brier.value == pytest.approx(0.4)
    (only,) = figures.reliability
    assert (only.low, only.high, only.n) == (0.5, 1.0, 2)
    assert only.confidence == pytest.approx(0.7)
    assert only.accuracy.value == 0.5


def test_figures_agree_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 300)
    p = rng.dirichlet([1, 1, 1], 300).round(2) + 1e-3 * np.eye(3)[labels]
    p /= p.sum(axis=1, keepdims=True)
    figures = classify(judged(labels, p.argmax(axis=1), p), draws=20)
    given = p.argmax(axis=1)
    assert figures.accuracy.value == pytest.approx(metrics.accuracy_score(labels, given))
    assert figures.macro_f1.value == pytest.approx(metrics.f1_score(labels, given, average="macro"))
    assert figures.auroc.value == pytest.approx(
        metrics.roc_auc_score(labels, p, multi_class="ovr", average="macro"))
    assert figures.confusion == metrics.confusion_matrix(labels, given).tolist()


def test_intervals_widen_when_rows_share_clusters():
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(20) < 0.7, 10)
    labels = np.tile([0, 1], 100)
    given = np.where(right, labels, 1 - labels)
    apart = classify(judged(labels, given, classes=("a", "b")), draws=500)
    shared = classify(judged(labels, given, classes=("a", "b"),
                             clusters=[str(i // 10) for i in range(200)]), draws=500)
    width = [f.macro_f1.ci95[1] - f.macro_f1.ci95[0] for f in (apart, shared)]
    assert width[1] > 2 * width[0]
    assert shared.macro_f1.clusters == 20


def test_equal_inputs_give_equal_bits():
    rows = judged([0, 1, 1, 0], [0, 1, 0, 0], classes=("a", "b"))
    assert classify(rows, seed=5) == classify(rows, seed=5)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="no judged rows"):
        judged([], [])
    with pytest.raises(ValueError, match="shape"):
        judged([0], [0], [[0.5, 0.5]])
