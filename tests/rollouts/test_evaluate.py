"""Accuracies, protocols, intervals and pass@k, against hand-computed values and other libraries."""

import math

import numpy as np
import pytest

from mucode_jax.core.records import Grade, Turn
from mucode_jax.rollouts import evaluate
from mucode_jax.rollouts.search import Search, SearchTurn


def test_deployable_counts_the_turn_it_stopped_at_and_paper_any_turn():
    labels = [(True,), (False, True), (False, True, False), (False, False, False)]
    read = evaluate.greedy_per_turn
    np.testing.assert_array_equal(read(labels, 3, "deployable"), [0.25, 0.75, 0.5])
    np.testing.assert_array_equal(read(labels, 3, "paper"), [0.25, 0.75, 0.75])


def test_the_wilson_interval_is_scipys():
    stats = pytest.importorskip("scipy.stats", reason="scipy is in the extra 'test'")
    for hits, n in ((0, 7), (3, 10), (82, 164), (164, 164)):
        expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert evaluate.wilson(hits / n, n) == pytest.approx([expected.low, expected.high])


def test_half_the_humaneval_problems_have_an_interval_of_seven_points_and_a_half():
    low, high = evaluate.wilson(0.5, 164)
    assert (high - low) / 2 == pytest.approx(0.0756, abs=1e-4)


def test_pass_at_k_is_one_minus_the_chance_to_draw_only_wrong_ones():
    for n, c, k in ((5, 2, 3), (15, 4, 5), (10, 0, 3), (10, 8, 5), (6, 6, 1)):
        expected = 1 - math.comb(n - c, k) / math.comb(n, k)
        assert evaluate.pass_at_k(n, c, k) == pytest.approx(expected)
    with pytest.raises(ValueError, match="correct"):
        evaluate.pass_at_k(5, 6, 1)


def test_the_paired_interval_covers_zero_for_equal_methods_and_not_for_a_clear_winner():
    generator = np.random.default_rng(0)
    a = generator.random(300) < 0.5
    same = evaluate.paired_difference(a, a)
    assert same == (0.0, [0.0, 0.0], 1.0)
    better = a | (generator.random(300) < 0.3)
    mean, (low, high), p = evaluate.paired_difference(better, a)
    assert 0 < low < mean < high and p < 0.001


def test_the_paired_interval_is_scipys_bootstrap():
    stats = pytest.importorskip("scipy.stats", reason="scipy is in the extra 'test'")
    generator = np.random.default_rng(2)
    a, b = generator.random(200), generator.random(200)
    _, (low, high), _ = evaluate.paired_difference(a, b)
    other = stats.bootstrap(
        (a - b,), np.mean, method="percentile", rng=np.random.default_rng(4)
    ).confidence_interval
    assert (low, high) == pytest.approx((other.low, other.high), abs=3e-3)


def test_with_several_seeds_the_interval_covers_the_differences_between_them_too():
    generator = np.random.default_rng(5)
    b = (generator.random((5, 200)) < 0.5).astype(float)
    steady = b + (generator.random((5, 200)) < 0.2)
    _, (low, high), _ = evaluate.paired_difference(steady, b)
    assert high - low < 0.12
    uneven = b + np.array([0.6, -0.2, 0.6, -0.2, 0.2])[:, None]  # the same mean, seeds far apart
    mean, (low, high), p = evaluate.paired_difference(uneven, b)
    assert mean == pytest.approx(0.2) and low < 0 < high and p > 0.05


def test_the_verifier_is_measured_turn_by_turn_and_pass_at_k_on_first_turns():
    grade = Grade("fail", "", "")

    def turn(scores):
        empty = np.zeros(1, np.int32)
        candidates = tuple(Turn(empty, empty, empty, False, str(i), grade) for i in range(3))
        return SearchTurn(candidates, np.array(scores, np.float32), int(np.argmax(scores)))

    searches = [
        Search("a", 0, "lv", (turn([2.0, 1.0, -1.0]), turn([0.0, 3.0, 1.0]))),
        Search("b", 0, "lv", (turn([0.5, -2.0, -3.0]),)),
    ]
    labels = [
        [[True, False, False], [True, False, False]],
        [[False, True, False]],
    ]
    e = evaluate.search_evaluation(searches, labels, choice="lv", turns=3, protocol="deployable")
    first, second, third = e["verifier"]
    # correct scores 2, -2 against wrong 1, -1, 0.5, -3: 4 + 1 of 8 pairs in order
    assert first["auc"] == pytest.approx(5 / 8) and first["candidates"] == 6
    assert first["top1"] == pytest.approx(1 / 2)
    assert second["top1"] == 0.0 and second["auc"] == 0.0
    assert third == {"turn": 3, "candidates": 0, "auc": None, "top1": None, "brier": None}
    assert e["pass_at_k"] == pytest.approx([1 / 3, 2 / 3, 1.0], abs=1e-6)
