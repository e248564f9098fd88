"""Accuracy from finished rollouts and searches, with intervals, and pass@k.

Labels are made here after the fact (`grading`), so every protocol is a way of reading the same
records: `deployable` counts the turn at which a conversation stopped by its public tests, `paper`
counts greedy conversations that were right at any turn (the published oracle stopping) and
Best-of-N ones that passed the public tests with a correct choice.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from mucode_jax.core.records import Rollout
from mucode_jax.rollouts.grading import Label
from mucode_jax.rollouts.intervals import wilson
from mucode_jax.rollouts.search import Search
from mucode_jax.training import metrics

Json = Any


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Probability that one of k samples drawn from n, of which `correct` are right, is right.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) of Chen et al., 2021, as a product.
    """
    if not 0 <= correct <= n or not 1 <= k <= n:
        raise ValueError(f"need 0 ≤ correct ≤ n and 1 ≤ k ≤ n, not n={n}, correct={correct}, k={k}")
    return 1.0 - math.prod(1.0 - k / i for i in range(n - correct + 1, n + 1))


def greedy_per_turn(labels: Sequence[Label], turns: int, protocol: str) -> np.ndarray:
    """float64 [turns]: the accuracy had every conversation stopped after that turn.

    `labels` are of one conversation per problem, and `protocol` is `deployable` or `paper`.
    """
    solved = np.zeros((len(labels), turns))
    for row, label in zip(solved, labels, strict=True):
        for t in range(turns):
            row[t] = any(label[: t + 1]) if protocol == "paper" else label[: t + 1][-1]
    return solved.mean(0)


def greedy_evaluation(
    rollouts: Sequence[Rollout], labels: Sequence[Label], turns: int, protocol: str, **about: Json
) -> dict[str, Json]:
    """One entry of `evaluations` in results.json for greedy conversations."""
    taken = [turn for rollout in rollouts for turn in rollout.turns]
    return {
        **about,
        "protocol": protocol,
        "search": "greedy",
        "n": 1,
        "turns": turns,
        "searches": 1,
        **_accuracy(greedy_per_turn(labels, turns, protocol), len(rollouts)),
        "tokens": int(sum(len(turn.completion_ids) for turn in taken)),
        "executions": len(taken),
    }


def search_evaluation(
    searches: Sequence[Search],
    labels: Sequence[Sequence[Sequence[bool]]],
    *,
    choice: str,
    turns: int,
    protocol: str,
    **about: Json,
) -> dict[str, Json]:
    """One entry of `evaluations` in results.json for a way of multi-turn Best-of-N.

    Args:
      searches: of one choice; `oracle` is read off the `pt` searches.
      labels: per search, turn and candidate, correct or not.
      choice: as it is to be reported.
      turns: T.
      protocol: `deployable` or `paper`.
      about: method, iteration, benchmark, split.

    Beside the fields of every evaluation there are `pass_at_k`, of the first turn's candidates, and
    with `lv` how good the verifier is (`verifier_by_turn`).
    """
    problems = len({s.task_id for s in searches})
    taken = [turn for s in searches for turn in s.turns]
    n = len(taken[0].candidates) if taken else 0
    outcomes = [
        search_outcome(s, label, choice, turns) for s, label in zip(searches, labels, strict=True)
    ]
    correct = [sum(label[0]) for label in labels]
    verifier = {"verifier": verifier_by_turn(searches, labels, turns)} if choice == "lv" else {}
    # Only the public tests' ways need every candidate executed.
    executed = 1 if choice in ("random", "lv") else n
    return {
        **about,
        **verifier,
        "pass_at_k": [
            round(float(np.mean([pass_at_k(n, c, k) for c in correct])), 6) for k in range(1, n + 1)
        ],
        "protocol": protocol,
        "search": choice,
        "n": n,
        "turns": turns,
        "searches": len(searches) // max(problems, 1),
        **_accuracy(np.array(outcomes).reshape(-1, turns).mean(0), problems),
        "tokens": int(sum(len(c.completion_ids) for turn in taken for c in turn.candidates)),
        "executions": executed * len(taken),
    }


def verifier_by_turn(
    searches: Sequence[Search], labels: Sequence[Sequence[Sequence[bool]]], turns: int
) -> list[dict[str, Json]]:
    """Per turn how well the verifier tells the candidates of that turn apart; null: undefined.

    `top1` is how often the best-scored of a search's candidates is correct, where both kinds are
    there.
    """
    by_turn = []
    for t in range(turns):
        scores: list[float] = []
        correct: list[bool] = []
        groups: list[str] = []
        for i, (search, label) in enumerate(zip(searches, labels, strict=True)):
            turn_scores = search.turns[t].scores if t < len(search.turns) else None
            if turn_scores is not None:
                scores += turn_scores.tolist()
                correct += label[t]
                groups += [str(i)] * len(label[t])
        quality = metrics.quality(np.array(scores), np.array(correct, bool), groups)
        by_turn.append({"turn": t + 1, "candidates": len(scores), **quality})
    return by_turn


def search_outcome(
    search: Search, label: Sequence[Sequence[bool]], choice: str, turns: int
) -> list[float]:
    """Per turn 1 or 0: solved, had the search stopped after it; see `search_evaluation`.

    Both protocols ask this: what is correct has passed the public tests (`grading.label_codes`).
    `oracle` asks it of any candidate up to there of a `pt` search. It bounds `pt` alone: other ways
    reach other states, with other candidates, and after turn 1 may solve what this one does not.
    """
    if choice == "oracle":
        solved = list(itertools.accumulate(map(any, label), operator.or_))
    else:
        solved = [correct[turn.chosen] for turn, correct in zip(search.turns, label, strict=True)]
    return [float(solved[min(t, len(solved) - 1)]) for t in range(turns)]


def _accuracy(per_turn: np.ndarray, problems: int) -> dict[str, Json]:
    accuracy = float(per_turn[-1])
    return {
        "accuracy": round(accuracy, 6),
        "ci95": [round(bound, 6) for bound in wilson(accuracy, problems)],
        "per_turn": [round(float(a), 6) for a in per_turn],
        "problems": problems,
    }
