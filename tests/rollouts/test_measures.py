"""Measures of a verifier and of turns, by hand."""

import numpy as np
import pytest

from mucode_jax.core.records import Grade, Turn
from mucode_jax.rollouts import measures


def test_the_best_one_and_the_ranking_are_of_mixed_problems_beside_chance():
    scores = np.array([1.0, 2.0, 9.0, 8.0, 7.0, 0.0, 0.0])
    labels = np.array([0, 1, 0, 1, 0, 1, 1], bool)
    problems = ["a", "a", "b", "b", "b", "c", "c"]
    # a: in order, right; b: the best is wrong, one of two pairs in order; c: nothing to choose.
    quality = measures.quality(scores, labels, problems)
    assert quality["auc_within"] == pytest.approx((1 + 1 / 2) / 2)
    assert quality["best_right"] == quality["top1"] == 0.5
    assert quality["best_right_chance"] == pytest.approx((1 / 2 + 1 / 3) / 2, abs=1e-6)
    assert quality["mixed"] == 2
    for name in ("auc_within", "best_right"):
        low, high = quality[f"{name}_ci95"]
        assert 0 <= low < quality[name] < high <= 1


def test_a_level_that_differs_between_problems_hurts_the_pooled_ranking_alone():
    scores = np.array([1.0, 0.0, 11.0, 10.0, -9.0, -10.0])
    labels = np.array([1, 0, 1, 0, 1, 0], bool)
    quality = measures.quality(scores, labels, ["a", "a", "b", "b", "c", "c"])
    assert quality["auc_within"] == 1.0 and quality["auc"] == pytest.approx(6 / 9, abs=1e-6)


def test_several_searches_of_a_problem_are_choices_of_their_own_but_one_problem():
    scores, labels = np.array([1.0, 0.0, 0.0, 1.0]), np.array([1, 0, 1, 0], bool)
    quality = measures.quality(scores, labels, ["a"] * 4, [0, 0, 1, 1])
    assert (quality["best_right"], quality["auc_within"], quality["mixed"]) == (0.5, 0.5, 1)
    together = measures.quality(scores, labels, ["a"] * 4)
    assert together["auc_within"] == 0.5 and together["best_right_chance"] == 0.5


def test_where_nothing_is_mixed_nothing_is_defined():
    quality = measures.quality(np.zeros(2), np.array([True, False]), ["a", "b"])
    assert quality["mixed"] == 0
    for name in ("auc_within", "best_right"):
        assert quality[name] is quality[f"{name}_ci95"] is None
    assert quality["best_right_chance"] is None


def turn(status, summary=""):
    zero = np.zeros(1, np.int32)
    return Turn(zero, zero, zero, False, "", Grade(status, "", summary))


def test_turns_are_counted_by_what_the_tests_said_and_repairs_by_the_kind_of_error():
    name_error, wrong = turn("error", "NameError: name 'x' is not defined"), turn("fail", "f(1) …")
    conversations = [
        [(name_error, False), (turn("pass"), True)],
        [(name_error, False), (wrong, False), (turn("pass"), False)],
        [(wrong, False), (wrong, False), (turn("timeout"), False)],
        [(turn("pass"), False)],
    ]
    assert measures.turns(conversations) == {
        "by_turn": [
            {"turn": 1, "conversations": 4, "passed_public": 1, "passed_public_wrong": 1},
            {"turn": 2, "conversations": 3, "passed_public": 1, "passed_public_wrong": 0},
            {"turn": 3, "conversations": 2, "passed_public": 1, "passed_public_wrong": 1},
        ],
        "repairs": [
            {"error": "wrong value", "turns": 3, "repaired": 0},
            {"error": "NameError", "turns": 2, "repaired": 1},
        ],
    }


def test_a_turn_that_goes_on_after_a_pass_repairs_nothing():
    assert measures.turns([[(turn("pass"), False), (turn("pass"), True)]])["repairs"] == []


@pytest.mark.parametrize(
    ("status", "summary", "kind"),
    [
        ("fail", "f(1) returned 2, expected 3", "wrong value"),
        ("error", "SyntaxError: invalid syntax", "SyntaxError"),
        ("error", "KeyError", "KeyError"),
        ("error", "Mine: an exception of the program's own", "other error"),
        ("error", "print: is no exception", "other error"),
        ("error", "the program ended itself with exit status 3", "other error"),
        ("error", "", "other error"),
        ("timeout", "timed out after 10 s", "timeout"),
        ("oom", "", "out of memory"),
        ("crash", "", "crash"),
    ],
)
def test_the_kind_of_an_error_is_the_exception_or_what_the_status_means(status, summary, kind):
    assert measures.kind_of_error(Grade(status, "", summary)) == kind
