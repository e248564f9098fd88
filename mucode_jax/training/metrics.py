"""How well a verifier's scores tell correct completions from incorrect ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def quality(
    scores: np.ndarray, labels: np.ndarray, problems: Sequence[str]
) -> dict[str, float | None]:
    """`auc`, `top1` and `brier` as results.json holds them; None: undefined."""
    values = {
        "auc": auc(scores, labels),
        "top1": top1(scores, labels, problems),
        "brier": brier(scores, labels),
    }
    return {name: None if math.isnan(x) else round(x, 6) for name, x in values.items()}


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a correct completion scores above an incorrect one, ties counting half.

    Args:
      scores: float [n].
      labels: bool [n], True = correct.

    Returns:
      the area under the ROC curve (Mann-Whitney U / (correct · incorrect)); nan where one class is
      absent.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels, bool)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return float("nan")
    _, place, ties = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(ties) - (ties - 1) / 2  # from 1; tied scores share their mean rank
    rank_sum = ranks[place][labels].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def brier(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared error of sigmoid(score) against the label (Brier 1950); nan for no example."""
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    if not len(scores):
        return float("nan")
    return float(np.mean((probability(scores) - labels) ** 2))


def probability(scores: np.ndarray) -> np.ndarray:
    """The sigmoid of float scores, in float64."""
    # By tanh it does not overflow.
    return 0.5 * (1 + np.tanh(np.asarray(scores, np.float64) / 2))


def top1(scores: np.ndarray, labels: np.ndarray, problems: Sequence[str]) -> float:
    """How often the best-scored completion of a problem is correct.

    Counts the problems that have completions of both kinds: the others are decided whatever the
    verifier says. Where several share the best score, the fraction of them that is correct counts;
    nan where there is no such problem.
    """
    groups: dict[str, list[int]] = {}
    for i, problem in enumerate(problems):
        groups.setdefault(problem, []).append(i)
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels, bool)
    hits = []
    for members in groups.values():
        correct = labels[members]
        if correct.any() and not correct.all():
            best = scores[members] == scores[members].max()
            hits.append(correct[best].mean())
    return float(np.mean(hits)) if hits else float("nan")
