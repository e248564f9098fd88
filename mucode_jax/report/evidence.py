"""evidence.json: what several runs show together, with intervals over problems and seeds.

    {"cells": [{"cell", "benchmark", "split", "protocol", "method", "iteration", "search", "n",
                "turns", "accuracy", "ci95", "seeds", "problems"}],
     "differences": [{"kind", "cell", "benchmark", "split", "protocol", "a", "b", "search", "n",
                      "turns", "difference", "ci95", "p"}],
     "made": [{"backend", "isolation", "versions"}]}

A cell of a sweep is one set of settings, run with every seed. Differences are a - b on the same
problems and seeds, by `kind`: "methods", their last generators ("mucode", "star"); "iterations" of
one method ("mucode_2", "mucode_1"); "ways" of choosing for one generator ("mucode: pt+lv",
"mucode: pt"; `search` is the first); "cells" ("bce/mucode_2", "bt/mucode_2"; `cell` is ""). "made"
is how the runs were: one entry where all agree.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mucode_jax import report
from mucode_jax.report import compare, words
from mucode_jax.rollouts import evaluate

Json = Any
# Ways of choosing that are held against each other.
WAYS = (
    ("pt", "random"),
    ("lv", "random"),
    ("pt+lv", "pt"),
    ("pt+lv", "lv"),
    ("pt+vote", "pt"),
    ("pt+lv+vote", "pt+lv"),
    ("pt+lv+vote", "pt+vote"),
    ("oracle", "pt+lv"),
)


@dataclasses.dataclass(frozen=True)
class Measured:
    """One evaluation over all seeds.

    Attributes:
      about: cell, benchmark, split, protocol, method, iteration, search, n.
      outcomes: float64 [seeds, problems, turns]; the share of conversations that solved it.
      problems: their task_ids, in that order.
    """

    about: Mapping[str, Json]
    outcomes: np.ndarray
    problems: tuple[str, ...]

    def where(self, *names: str) -> tuple[Json, ...]:
        return tuple(self.about[name] for name in names)


def evidence(cells: Mapping[str, Sequence[pathlib.Path]]) -> Json:
    """What evidence.json holds.

    Args:
      cells: name -> the work directories of its finished runs, one a seed.

    Raises:
      ValueError: a run lacks its results or stages, or the seeds of a cell were evaluated on
        different problems.
    """
    results = {d: report.read(d) for directories in cells.values() for d in directories}
    found = [m for cell, runs in cells.items() for m in _measured(cell, runs, results)]
    made: list[Json] = []
    for of in results.values():
        about = {name: of[name] for name in ("backend", "isolation", "versions")}
        made += [about] if about not in made else []
    pairs = {"methods": _methods, "iterations": _iterations, "ways": _ways, "cells": _cells}
    return {
        "cells": [line for m in found for line in _accuracies(m)],
        "differences": [
            {"kind": kind, **line}
            for kind, of in pairs.items()
            for pair in of(found)
            for line in _differences(*pair)
        ],
        "made": made,
    }


def _measured(
    cell: str, directories: Sequence[pathlib.Path], results: Mapping[pathlib.Path, Json]
) -> Iterator[Measured]:
    runs = compare.runs(directories, [results[directory] for directory in directories])
    for e in runs[0].results["evaluations"]:
        outcomes = [run.outcomes.get(compare.key(e)) for run in runs]
        for run, outcome in zip(runs, outcomes, strict=True):
            if outcome is None or outcome.keys() != outcomes[0].keys():
                raise ValueError(
                    f"{run.name} lacks the stages of {words.generator(e)}, {e['search']}, or was "
                    "evaluated on other problems than the other seeds"
                )
        problems = tuple(sorted(outcomes[0]))
        names = ("benchmark", "split", "protocol", "method", "iteration", "search", "n")
        yield Measured(
            {"cell": cell, **{name: e[name] for name in names}},
            np.array([[outcome[task] for task in problems] for outcome in outcomes]),
            problems,
        )


def _accuracies(m: Measured) -> Iterator[Json]:
    seeds, problems, turns = m.outcomes.shape
    for t in range(turns):
        accuracy, interval, _ = evaluate.paired_difference(m.outcomes[:, :, t], 0.0)
        yield {
            **m.about,
            "turns": t + 1,
            "accuracy": round(accuracy, 6),
            "ci95": [round(bound, 6) for bound in interval],
            "seeds": seeds,
            "problems": problems,
        }


Pair = tuple[Measured, Measured, str, str]  # a, b and what they are called


def _last(found: Sequence[Measured]) -> list[Measured]:
    """Of the base and of each method's last generator."""
    last: dict[tuple, int] = {}
    for m in found:
        method = m.where("cell", "method")
        last[method] = max(last.get(method, 0), m.about["iteration"])
    return [m for m in found if m.about["iteration"] == last[m.where("cell", "method")]]


def _grouped(found: Sequence[Measured], *names: str) -> list[list[Measured]]:
    """Those that agree in everything but `names`, in the order found."""
    groups: dict[tuple, list[Measured]] = {}
    for m in found:
        key = tuple(value for name, value in m.about.items() if name not in names)
        groups.setdefault((*key, m.problems), []).append(m)
    return list(groups.values())


def _methods(found: Sequence[Measured]) -> Iterator[Pair]:
    for group in _grouped(_last(found), "method", "iteration"):
        for b, a in itertools.combinations(group, 2):
            yield a, b, a.about["method"], b.about["method"]


def _iterations(found: Sequence[Measured]) -> Iterator[Pair]:
    for group in _grouped(found, "iteration"):
        for b, a in itertools.pairwise(sorted(group, key=lambda m: m.about["iteration"])):
            yield a, b, words.folder(a.about), words.folder(b.about)


def _ways(found: Sequence[Measured]) -> Iterator[Pair]:
    for group in _grouped(_last(found), "search"):
        of = {m.about["search"]: m for m in group}
        for a, b in WAYS:
            if a in of and b in of:
                method = of[a].about["method"]
                yield of[a], of[b], f"{method}: {a}", f"{method}: {b}"


def _cells(found: Sequence[Measured]) -> Iterator[Pair]:
    """Every other cell against the first that has the same evaluation."""
    for first, *others in _grouped(found, "cell"):
        for m in others:
            if len(m.outcomes) == len(first.outcomes):
                a, b = (f"{x.about['cell']}/{words.folder(x.about)}" for x in (m, first))
                yield m, first, a, b


def _differences(a: Measured, b: Measured, name_a: str, name_b: str) -> Iterator[Json]:
    same = a.about["cell"] == b.about["cell"]
    for t in range(min(a.outcomes.shape[2], b.outcomes.shape[2])):
        of_a, of_b = a.outcomes[:, :, t], b.outcomes[:, :, t]
        mean, interval, p = evaluate.paired_difference(of_a, of_b)
        yield {
            **{name: a.about[name] for name in ("benchmark", "split", "protocol", "search", "n")},
            "cell": a.about["cell"] if same else "",
            "a": name_a,
            "b": name_b,
            "turns": t + 1,
            "difference": round(mean, 6),
            "ci95": [round(bound, 6) for bound in interval],
            "p": round(p, 6),
        }
