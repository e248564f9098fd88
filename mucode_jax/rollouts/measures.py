"""How well a verifier chooses within problems, and what turns come to.

A verifier chooses among candidates of one problem, so it is measured within problems: pooled over
problems, a Bradley-Terry verifier's scores have no common level, and say little.
"""

from __future__ import annotations

import builtins
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from mucode_jax.core.records import Grade, Turn
from mucode_jax.rollouts import intervals
from mucode_jax.training import metrics

Json = Any


def quality(
    scores: np.ndarray,
    labels: np.ndarray,
    problems: Sequence[str],
    choices: Sequence[Hashable] | None = None,
) -> dict[str, Json]:
    """How well scores tell correct candidates from incorrect ones; None: undefined.

    Args:
      scores: float [n], of candidates that may be chosen.
      labels: bool [n], True = correct.
      problems: [n], whose candidate each is.
      choices: [n], which choice it takes part in (one turn of one search); None: all candidates of
        a problem make one choice.

    Returns:
      `auc`, `top1` and `brier` (`metrics.quality`), and of mixed choices, which have correct and
      incorrect candidates: `auc_within`, the mean of their AUCs; `best_right`, how often the
      best-scored candidate is correct; `best_right_chance`, how often a random one is; `mixed`, the
      number of their problems. `auc_within_ci95` and `best_right_ci95` are over those problems.
    """
    choices = problems if choices is None else choices
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels, bool)
    members: dict[Hashable, list[int]] = {}
    for i, choice in enumerate(choices):
        members.setdefault(choice, []).append(i)
    mixed = [m for m in members.values() if labels[m].any() and not labels[m].all()]
    of_problem = [problems[m[0]] for m in mixed]
    best = [labels[m][scores[m] == scores[m].max()].mean() for m in mixed]
    chance = round(float(np.mean([labels[m].mean() for m in mixed])), 6) if mixed else None
    return {
        **metrics.quality(scores, labels, [str(choice) for choice in choices]),
        **_mean("auc_within", [metrics.auc(scores[m], labels[m]) for m in mixed], of_problem),
        **_mean("best_right", best, of_problem),
        "best_right_chance": chance,
        "mixed": len(set(of_problem)),
    }


def _mean(name: str, values: Sequence[float], problems: Sequence[str]) -> dict[str, Json]:
    if not values:
        return {name: None, f"{name}_ci95": None}
    estimate = intervals.clustered(values, problems)
    ends = estimate.share_interval(len(set(problems)))
    return {name: round(estimate.mean, 6), f"{name}_ci95": [round(end, 6) for end in ends]}


def turns(conversations: Sequence[Sequence[tuple[Turn, bool]]]) -> dict[str, Json]:
    """What the turns of conversations come to.

    Args:
      conversations: per conversation its turns, each with its label.

    Returns:
      `by_turn`: per turn how many `conversations` reached it, how many codes of it `passed_public`
      tests, and how many of these are wrong all the same (`passed_public_wrong`).
      `repairs`: per kind of error that a turn's feedback told (`kind_of_error`), how many such
      `turns` were followed by another, and after how many of them that one was correct
      (`repaired`); the most frequent first.
    """
    by_turn = []
    for t in range(max(map(len, conversations), default=0)):
        reached = [turns[t] for turns in conversations if t < len(turns)]
        passed = [correct for turn, correct in reached if turn.grade.passed]
        by_turn.append(
            {
                "turn": t + 1,
                "conversations": len(reached),
                "passed_public": len(passed),
                "passed_public_wrong": passed.count(False),
            }
        )
    followed: Counter[str] = Counter()
    repaired: Counter[str] = Counter()
    for conversation in conversations:
        for (turn, _), (_, correct) in zip(conversation, conversation[1:], strict=False):
            if not turn.grade.passed:
                kind = kind_of_error(turn.grade)
                followed[kind] += 1
                repaired[kind] += correct
    return {
        "by_turn": by_turn,
        "repairs": [
            {"error": kind, "turns": count, "repaired": repaired[kind]}
            for kind, count in sorted(followed.items(), key=lambda item: (-item[1], item[0]))
        ],
    }


def kind_of_error(grade: Grade) -> str:
    """What the feedback of a failed turn tells: "wrong value", "timeout", "NameError" …

    An exception that is none of Python's own, and an error without one, is "other error".
    """
    kinds = {"fail": "wrong value", "oom": "out of memory"}
    if grade.status != "error":
        return kinds.get(grade.status, grade.status)
    known = getattr(builtins, grade.summary.partition(":")[0], None)
    if isinstance(known, type) and issubclass(known, BaseException):
        return known.__name__
    return "other error"
