"""Intervals hold what they promise: by simulation, by hand and against scipy."""

import numpy as np
import pytest
from scipy import stats

from mucode_jax.rollouts import intervals


def paired_outcomes(random, seeds, problems, seed_effect):
    """float [seeds, problems]: differences of two methods' binary outcomes, 0.02 on the mean.

    Half of the problems are always solved or never; on the others both methods succeed with a
    probability of the problem's own, and the first gains by the problem, by the seed and by both.
    `seed_effect` is the standard deviation of the gain between seeds, of the mean over problems.
    """
    undecided = np.arange(problems) < problems // 2
    ease = np.where(undecided, random.uniform(0.25, 0.75, problems), random.random(problems) < 0.7)
    by_problem = random.uniform(-0.05, 0.05, problems)
    by_seed = 2 * seed_effect * np.clip(random.standard_normal((seeds, 1)), -3, 3)
    by_both = random.uniform(-0.04, 0.04, (seeds, problems))
    gain = undecided * (0.04 + by_problem + by_seed + by_both)
    first, second = (random.random((seeds, problems)) < ease + g for g in (gain, 0))
    return first.astype(float) - second


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("seed_effect", [0.0, 0.01, 0.02])
def test_an_interval_of_95_percent_holds_the_true_difference_in_93_to_97_of_100(seeds, seed_effect):
    random = np.random.default_rng([seeds, round(100 * seed_effect)])
    estimates = [
        intervals.crossed(paired_outcomes(random, seeds, 400, seed_effect)) for _ in range(2500)
    ]
    ends = np.array([estimate.interval() for estimate in estimates])
    assert 0.93 <= np.mean((ends[:, 0] <= 0.02) & (ends[:, 1] >= 0.02)) <= 0.97
    # And a difference of 0.02 is found to be none of 0.02 in 3 to 7 of 100.
    shifted = [intervals.Estimate(e.mean - 0.02, e.error, e.freedom).p for e in estimates]
    assert 0.03 <= np.mean(np.array(shifted) < 0.05) <= 0.07
    true_variance = np.var([estimate.mean for estimate in estimates])
    assert np.mean([e.error**2 for e in estimates]) == pytest.approx(true_variance, rel=0.1)


def test_the_crossed_error_is_of_the_tables_mean_squares():
    # Mean squares 8/3 of seeds, 14/3 of problems, 2/3 of cells.
    estimate = intervals.crossed(np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 4.0]]))
    assert estimate.mean == pytest.approx(10 / 6)
    assert estimate.error**2 == pytest.approx((8 / 3 + 14 / 3 - 2 / 3) / 6)
    assert estimate.freedom == pytest.approx(400 / 164)


def test_with_one_seed_it_is_the_paired_t_test():
    random = np.random.default_rng(1)
    a, b = random.random((2, 200)) < 0.5
    expected = stats.ttest_rel(a.astype(float), b)
    for paired in (a.astype(float) - b, (a.astype(float) - b)[None]):
        estimate = intervals.crossed(paired)
        assert estimate.p == pytest.approx(expected.pvalue)
        low, high = expected.confidence_interval()
        assert estimate.interval() == pytest.approx([low, high])


def test_seeds_far_apart_widen_the_interval_that_equal_problems_would_give():
    random = np.random.default_rng(5)
    steady = (random.random((5, 200)) < 0.2).astype(float)
    low, high = intervals.crossed(steady).interval()
    assert high - low < 0.12
    uneven = intervals.crossed(steady + np.array([0.4, -0.4, 0.4, -0.4, 0.0])[:, None])
    assert uneven.mean == pytest.approx(steady.mean())
    low, high = uneven.interval()
    assert low < 0 < high and uneven.p > 0.05 and uneven.freedom == pytest.approx(4, abs=0.5)


def test_equal_methods_differ_by_nothing_and_one_problem_tells_nothing():
    same = intervals.crossed(np.zeros((3, 20)))
    assert (same.mean, same.interval(), same.p) == (0.0, [0.0, 0.0], 1.0)
    single = intervals.crossed(np.ones(1))
    assert (single.mean, single.interval(), single.p) == (1.0, [-1.0, 1.0], 1.0)
    with pytest.raises(ValueError, match="same problems"):
        intervals.crossed(np.zeros((2, 0)))


def test_the_wilson_interval_is_scipys():
    for hits, n in ((0, 7), (3, 10), (82, 164), (164, 164)):
        expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert intervals.wilson(hits / n, n) == pytest.approx([expected.low, expected.high])


def test_half_the_humaneval_problems_have_an_interval_of_seven_points_and_a_half():
    low, high = intervals.wilson(0.5, 164)
    assert (high - low) / 2 == pytest.approx(0.0756, abs=1e-4)


def test_a_share_of_single_outcomes_has_wilsons_interval_and_stays_within_0_and_1():
    outcomes = np.arange(400) < 300
    shown = intervals.crossed(outcomes).share_interval(400)
    assert shown == pytest.approx(intervals.wilson(0.75, 400), abs=3e-4)
    for all_alike in (np.ones((5, 40)), np.zeros((5, 40))):
        low, high = intervals.crossed(all_alike).share_interval(40)
        assert (low, high) == pytest.approx((0.907, 1) if all_alike.any() else (0, 0.093), abs=1e-3)


def test_values_of_one_problem_count_together():
    single = intervals.clustered([0.0, 1.0, 1.0, 0.5], list("abcd"))
    expected = stats.ttest_1samp([0.0, 1.0, 1.0, 0.5], 0.0)
    assert (single.mean, single.p) == (0.625, pytest.approx(expected.pvalue))
    # Twice the same values tell no more than once.
    twice = intervals.clustered([0.0, 1.0, 1.0, 0.5] * 2, list("abcdabcd"))
    assert (twice.mean, twice.error) == (0.625, pytest.approx(single.error))
    assert intervals.clustered([0.3, 0.5], ["a", "a"]).error == np.inf


def test_holms_correction_multiplies_the_smallest_by_all_and_the_next_by_one_less():
    assert intervals.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert intervals.holm([0.6, 0.9]) == [1.0, 1.0]
    assert intervals.holm([]) == []
