"""Verifier quality: by hand and against scikit-learn."""

import math

import numpy as np
import pytest

from mucode_jax.training import metrics


def test_auc_counts_ordered_pairs_and_ties_as_half():
    # Pairs (correct, incorrect): 3>1, 3>2, 2>1 in order, 2=2 tied: 3.5 of 4.
    assert metrics.auc(np.array([3.0, 2.0, 1.0, 2.0]), np.array([1, 1, 0, 0], bool)) == 3.5 / 4
    assert math.isnan(metrics.auc(np.array([1.0, 2.0]), np.array([True, True])))


def test_auc_and_brier_equal_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, labels = np.round(rng.normal(size=200), 1), rng.random(200) < 0.3
    assert metrics.auc(scores, labels) == pytest.approx(sklearn.roc_auc_score(labels, scores))
    probabilities = 1 / (1 + np.exp(-scores))
    expected = sklearn.brier_score_loss(labels, probabilities)
    assert metrics.brier(scores, labels) == pytest.approx(expected)


def test_brier_of_extreme_scores_is_finite():
    assert metrics.brier(np.array([1e4, -1e4]), np.array([1, 1])) == 0.5


def test_top1_counts_problems_where_there_is_a_choice():
    scores = np.array([1.0, 2.0, 5.0, 4.0, 7.0, 7.0, 9.0])
    labels = np.array([0, 1, 0, 1, 1, 0, 1], bool)
    problems = ["a", "a", "b", "b", "c", "c", "d"]
    # a: right; b: wrong; c: tied, half; d: nothing to choose.
    assert metrics.top1(scores, labels, problems) == 0.5
    assert math.isnan(metrics.top1(scores[:0], labels[:0], []))
