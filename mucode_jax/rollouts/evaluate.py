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
from mucode_jax.rollouts import measures
from mucode_jax.rollouts.agreement import passing
from mucode_jax.rollouts.grading import Label
from mucode_jax.rollouts.intervals import wilson
from mucode_jax.rollouts.search import Search, SearchTurn

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
    """One entry of `evaluations` in results.json for greedy conversations.

    `measures.turns` of them stand beside the fields of every evaluation.
    """
    conversations = [
        list(zip(rollout.turns, label, strict=True))
        for rollout, label in zip(rollouts, labels, strict=True)
    ]
    taken = [turn for rollout in rollouts for turn in rollout.turns]
    return {
        **about,
        "protocol": protocol,
        "search": "greedy",
        "n": 1,
        "turns": turns,
        "searches": 1,
        **_accuracy(greedy_per_turn(labels, turns, protocol), len(rollouts)),
        **measures.turns(conversations),
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
    skip_failed: bool = False,
    calibrated: bool = False,
    **about: Json,
) -> dict[str, Json]:
    """One entry of `evaluations` in results.json for a way of multi-turn Best-of-N.

    Args:
      searches: of one choice; `oracle` is read off the `pt` searches.
      labels: per search, turn and candidate, correct or not.
      choice: as it is to be reported.
      turns: T.
      protocol: `deployable` or `paper`.
      skip_failed: as the searches were made, see `search.best_of_n`.
      calibrated: the scores are log odds of being correct, as cross-entropy trains them.
      about: method, iteration, benchmark, split.

    Beside the fields of every evaluation there are `pass_at_k`, of the first turn's candidates,
    `measures.turns` of the chosen ones (but for `oracle`, which chooses none), with `lv` how good
    the verifier is (`verifier_by_turn`), and with `agree` how far the candidates agreed
    (`agreement`).
    """
    problems = len({s.task_id for s in searches})
    taken = [turn for s in searches for turn in s.turns]
    n = len(taken[0].candidates) if taken else 0
    outcomes = [
        search_outcome(s, label, choice, turns) for s, label in zip(searches, labels, strict=True)
    ]
    correct = [sum(label[0]) for label in labels]
    measured: dict[str, Json] = {}
    if choice == "lv":
        measured["verifier"] = verifier_by_turn(searches, labels, turns, skip_failed, calibrated)
    elif choice == "agree":
        measured["agreement"] = agreement(taken)
    if choice != "oracle":
        measured |= measures.turns(
            [
                [
                    (turn.candidates[turn.chosen], correct[turn.chosen])
                    for turn, correct in zip(s.turns, label, strict=True)
                ]
                for s, label in zip(searches, labels, strict=True)
            ]
        )
    # Only the public tests' ways need every candidate executed.
    executed = 1 if choice in ("random", "lv") else n
    return {
        **about,
        **measured,
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
        "executions": executed * len(taken) + sum(len(turn.compared) for turn in taken),
    }


def agreement(turns: Sequence[SearchTurn]) -> dict[str, Json]:
    """How the choice `agree` came about, over the turns with several programs that passed.

    Returns `turns`, their number; `without_inputs`, those where no further inputs could be made, so
    that all that passed were one group; `groups`, the mean number of groups in the others; null
    where there are none.
    """
    several = [turn for turn in turns if passing(turn.candidates)]
    sizes = [turn.agreeing[turn.agreeing > 0] for turn in several if turn.agreeing is not None]
    return {
        "turns": len(several),
        "without_inputs": len(several) - len(sizes),
        "groups": round(float(np.mean([np.sum(1 / s) for s in sizes])), 4) if sizes else None,
    }


def verifier_by_turn(
    searches: Sequence[Search],
    labels: Sequence[Sequence[Sequence[bool]]],
    turns: int,
    skip_failed: bool,
    calibrated: bool,
) -> list[dict[str, Json]]:
    """Per turn `measures.quality` of the verifier on the candidates that may be chosen there.

    `brier` is None unless `calibrated`: differences of scores alone predict no probability.
    """
    by_turn = []
    for t in range(turns):
        scores: list[float] = []
        correct: list[bool] = []
        problems: list[str] = []
        choices: list[int] = []
        for i, (search, label) in enumerate(zip(searches, labels, strict=True)):
            turn_scores = search.turns[t].scores if t < len(search.turns) else None
            if turn_scores is not None:
                positions = _may_be_chosen(search, t) if skip_failed else range(len(label[t]))
                scores += [float(turn_scores[j]) for j in positions]
                correct += [label[t][j] for j in positions]
                problems += [search.task_id] * len(positions)
                choices += [i] * len(positions)
        quality = measures.quality(np.array(scores), np.array(correct, bool), problems, choices)
        if not calibrated:
            quality["brier"] = None
        by_turn.append({"turn": t + 1, "candidates": len(scores), **quality})
    return by_turn


def _may_be_chosen(search: Search, t: int) -> Sequence[int]:
    """The candidates of a turn whose codes have not failed in this search; all, if all have."""
    failed = {turn.candidates[turn.chosen].code for turn in search.turns[:t]}
    candidates = search.turns[t].candidates
    return [j for j, c in enumerate(candidates) if c.code not in failed] or range(len(candidates))


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
