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


def test_pass_at_k_is_one_minus_the_chance_to_draw_only_wrong_ones():
    for n, c, k in ((5, 2, 3), (15, 4, 5), (10, 0, 3), (10, 8, 5), (6, 6, 1)):
        expected = 1 - math.comb(n - c, k) / math.comb(n, k)
        assert evaluate.pass_at_k(n, c, k) == pytest.approx(expected)
    with pytest.raises(ValueError, match="correct"):
        evaluate.pass_at_k(5, 6, 1)


def test_the_oracle_bounds_the_public_tests_choice_of_the_same_search_at_every_turn():
    random = np.random.default_rng(0)
    zero = np.zeros(1, np.int32)

    def turn(passed):
        grades = (Grade("pass") if p else Grade("fail", "", "") for p in passed)
        candidates = tuple(Turn(zero, zero, zero, False, "", grade) for grade in grades)
        return SearchTurn(candidates, None, int(np.argmax(passed)))

    strictly = 0
    for _ in range(200):
        passed = random.random((3, 4)) < 0.3
        correct = (passed & (random.random((3, 4)) < 0.6)).tolist()
        stop = next((t for t in range(3) if passed[t].any()), 2) + 1
        search = Search("a", 0, "pt", tuple(map(turn, passed[:stop])))
        pt, oracle = (
            evaluate.search_outcome(search, correct[:stop], c, 3) for c in ("pt", "oracle")
        )
        assert all(bound >= solved for bound, solved in zip(oracle, pt, strict=True))
        strictly += oracle != pt
    assert strictly


def test_the_verifier_is_measured_turn_by_turn_and_pass_at_k_on_first_turns():
    grade = Grade("fail", "", "")

    def turn(scores, codes="xyz"):
        empty = np.zeros(1, np.int32)
        candidates = tuple(Turn(empty, empty, empty, False, code, grade) for code in codes)
        return SearchTurn(candidates, np.array(scores, np.float32), int(np.argmax(scores)))

    searches = [
        Search("a", 0, "lv", (turn([2.0, 1.0, -1.0]), turn([0.0, 3.0, 1.0], "uxv"))),
        Search("b", 0, "lv", (turn([0.5, -2.0, -3.0]),)),
    ]
    labels = [
        [[True, False, False], [True, False, False]],
        [[False, True, False]],
    ]

    def by_turn(**how):
        e = evaluate.search_evaluation(
            searches, labels, choice="lv", turns=3, protocol="deployable", **how
        )
        assert e["pass_at_k"] == pytest.approx([1 / 3, 2 / 3, 1.0], abs=1e-6)
        return e["verifier"]

    first, second, third = by_turn(calibrated=True)
    # correct scores 2, -2 against wrong 1, -1, 0.5, -3: 4 + 1 of 8 pairs in order
    assert first["auc"] == pytest.approx(5 / 8) and first["candidates"] == 6
    assert first["auc_within"] == pytest.approx((1 + 1 / 2) / 2)
    assert first["top1"] == first["best_right"] == pytest.approx(1 / 2)
    assert first["best_right_chance"] == pytest.approx(1 / 3, abs=1e-6)
    assert first["mixed"] == 2 and 0 < first["brier"] < 1
    assert second["top1"] == 0.0 and second["auc"] == 0.0
    assert (third["turn"], third["candidates"], third["mixed"], third["auc"]) == (3, 0, 0, None)
    # "x" was chosen at turn 1 and failed: where that is skipped, it is not a candidate of turn 2.
    _, second, _ = by_turn(skip_failed=True)
    assert second["candidates"] == 2 and second["auc_within"] == 0.0
    assert second["brier"] is None and second["best_right_chance"] == 0.5


def test_a_search_in_which_all_have_failed_may_choose_any():
    zero, grade = np.zeros(1, np.int32), Grade("fail", "", "")
    candidates = tuple(Turn(zero, zero, zero, False, "same", grade) for _ in range(2))
    turn = SearchTurn(candidates, np.zeros(2, np.float32), 0)
    e = evaluate.search_evaluation(
        [Search("a", 0, "lv", (turn, turn))],
        [[[False, False]] * 2],
        choice="lv",
        turns=2,
        protocol="deployable",
        skip_failed=True,
    )
    assert [of_turn["candidates"] for of_turn in e["verifier"]] == [2, 2]
