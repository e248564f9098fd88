"""evidence.json: what several runs show together, with intervals over problems and seeds.

    {"cells": [{"cell", "benchmark", "split", "protocol", "method", "iteration", "search", "n",
                "turns", "accuracy", "ci95", "seeds", "problems"}],
     "differences": [{"kind", "cell", "benchmark", "split", "protocol", "a", "b", "search", "n",
                      "turns", "difference", "ci95", "p", "p_holm", "ci95_family"}],
     "made": [{"backend", "isolation", "versions"}]}

A cell of a sweep is one set of settings, run with every seed. Differences are a - b on the same
problems and seeds, by `kind`: "methods", their last generators ("mucode", "star"); "iterations" of
one method ("mucode_2", "mucode_1"); "ways" of choosing for one generator ("mucode: pt+lv",
"mucode: pt"; `search` is the first); "cells" ("bce/mucode_2", "bt/mucode_2"; `cell` is ""). "made"
is how the runs were: one entry where all agree. "p_holm" and "ci95_family" are of the family of
comparisons that conclusions are drawn from alone (`in_family`): the p-value corrected by Holm's
method, and an interval that holds together with all others of the family (Bonferroni).
"""

from __future__ import annotations

import dataclasses
import itertools
import operator
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mucode_jax import report
from mucode_jax.report import compare, stages, text, words
from mucode_jax.rollouts import intervals

Json = Any
Outcome = Mapping[str, np.ndarray]  # task_id -> float64 [turns], see `stages.solved`
_PLACE = ("benchmark", "split", "protocol")
# Ways of choosing that are compared with each other.
WAYS = (
    ("pt", "random"),
    ("lv", "random"),
    ("pt+lv", "pt"),
    ("pt+lv", "lv"),
    ("pt+vote", "pt"),
    ("pt+lv", "pt+vote"),
    ("pt+lv+vote", "pt+lv"),
    ("pt+lv+vote", "pt+vote"),
    ("agree", "pt+vote"),
    ("oracle", "pt"),
)
# Those that README and BENCHMARKS draw conclusions from.
CONCLUDED_WAYS = (
    ("lv", "random"),
    ("pt+lv", "pt"),
    ("pt+vote", "pt"),
    ("pt+lv", "pt+vote"),
    ("pt+lv+vote", "pt+vote"),
)


class MissingStages(ValueError):
    """A run lacks the stages of an evaluation, or another seed has it on other problems."""


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


def evidence(cells: Mapping[str, Sequence[pathlib.Path]]) -> Json:
    """What evidence.json holds.

    Args:
      cells: name -> the work directories of its finished runs, one a seed.

    Raises:
      MissingStages: a run lacks stages, or the seeds of a cell were evaluated on other problems.
      ValueError: a run lacks its results, or they cannot be read.
    """
    return compared(
        cells, {d: report.read(d) for directories in cells.values() for d in directories}
    )


def compared(
    cells: Mapping[str, Sequence[pathlib.Path]], results: Mapping[pathlib.Path, Json]
) -> Json:
    """The same, of results that are at hand already."""
    measured = [m for cell, runs in cells.items() for m in _measured(cell, runs, results)]
    made = [
        {k: of_run[k] for k in ("backend", "isolation", "versions")} for of_run in results.values()
    ]
    pairs = {"methods": _methods, "iterations": _iterations, "ways": _ways, "cells": _cells}
    return {
        "cells": [line for m in measured for line in _accuracies(m)],
        "differences": _corrected(
            [
                ({"kind": kind, **line}, estimate)
                for kind, pairs_of in pairs.items()
                for pair in pairs_of(measured)
                for line, estimate in _differences(*pair)
            ]
        ),
        "made": [how for i, how in enumerate(made) if how not in made[:i]],
    }


def outcomes(directory: pathlib.Path, evaluations: Sequence[Json]) -> dict[tuple, Outcome]:
    """The outcomes of each evaluation, by `compare.key`, whose stages a work directory has."""
    found: dict[tuple, Outcome] = {}
    # One stage serves several ways of choosing.
    by_stage = text.grouped(evaluations, lambda e: (words.folder(e), e["benchmark"], e["split"]))
    for of_stage in by_stage.values():
        solved = stages.solved(directory, of_stage)
        found |= {compare.key(e): solved[e["search"]] for e in of_stage if e["search"] in solved}
    return found


def _measured(
    cell: str, directories: Sequence[pathlib.Path], results: Mapping[pathlib.Path, Json]
) -> Iterator[Measured]:
    names = compare.names(directories)
    runs = [outcomes(directory, results[directory]["evaluations"]) for directory in directories]
    for e in results[directories[0]]["evaluations"]:
        of_runs = [run.get(compare.key(e), {}) for run in runs]
        problems = tuple(sorted(of_runs[0]))
        for name, outcome in zip(names, of_runs, strict=True):
            if not outcome or tuple(sorted(outcome)) != problems:
                raise MissingStages(
                    f"{name} lacks the stages of {words.generator(e)}, {e['search']}, or was "
                    "evaluated on other problems than the other seeds"
                )
        yield Measured(
            {"cell": cell, **{name: e[name] for name in compare.KEY}},
            np.array([[outcome[task] for task in problems] for outcome in of_runs]),
            problems,
        )


def _accuracies(m: Measured) -> Iterator[Json]:
    seeds, problems, turns = m.outcomes.shape
    for t in range(turns):
        accuracy = intervals.crossed(m.outcomes[:, :, t])
        yield {
            **m.about,
            "turns": t + 1,
            "accuracy": round(accuracy.mean, 6),
            "ci95": _rounded(accuracy.share_interval(problems)),
            "seeds": seeds,
            "problems": problems,
        }


Pair = tuple[Measured, Measured, str, str]  # a, b and what they are called


def _last(measured: Sequence[Measured]) -> list[Measured]:
    """Of the base and of each method's last generator."""
    last: dict[tuple, int] = {}
    for m in measured:
        method = m.about["cell"], m.about["method"]
        last[method] = max(last.get(method, 0), m.about["iteration"])
    return [m for m in measured if m.about["iteration"] == last[m.about["cell"], m.about["method"]]]


def _alike(measured: Sequence[Measured], *but: str) -> list[list[Measured]]:
    """Those that agree in their problems and in everything but some names."""

    def key(m: Measured) -> tuple:
        return *(value for name, value in m.about.items() if name not in but), m.problems

    return list(text.grouped(measured, key).values())


def _methods(measured: Sequence[Measured]) -> Iterator[Pair]:
    for alike in _alike(_last(measured), "method", "iteration"):
        for b, a in itertools.combinations(alike, 2):
            yield a, b, a.about["method"], b.about["method"]


def _iterations(measured: Sequence[Measured]) -> Iterator[Pair]:
    for alike in _alike(measured, "iteration"):
        for b, a in itertools.pairwise(sorted(alike, key=lambda m: m.about["iteration"])):
            yield a, b, words.folder(a.about), words.folder(b.about)


def _ways(measured: Sequence[Measured]) -> Iterator[Pair]:
    for alike in _alike(_last(measured), "search"):
        by_way = {m.about["search"]: m for m in alike}
        for a, b in WAYS:
            if a in by_way and b in by_way:
                method = alike[0].about["method"]
                yield by_way[a], by_way[b], f"{method}: {a}", f"{method}: {b}"


def _cells(measured: Sequence[Measured]) -> Iterator[Pair]:
    """Every other cell against the first that has the same evaluation."""
    for first, *others in _alike(measured, "cell"):
        for m in others:
            if len(m.outcomes) == len(first.outcomes):
                a, b = (f"{x.about['cell']}/{words.folder(x.about)}" for x in (m, first))
                yield m, first, a, b


Line = dict[str, Json]


def _differences(
    a: Measured, b: Measured, name_a: str, name_b: str
) -> Iterator[tuple[Line, intervals.Estimate]]:
    same = a.about["cell"] == b.about["cell"]
    for t in range(min(a.outcomes.shape[2], b.outcomes.shape[2])):
        paired = intervals.crossed(a.outcomes[:, :, t] - b.outcomes[:, :, t])
        line = {
            **{name: a.about[name] for name in (*_PLACE, "search", "n")},
            "cell": a.about["cell"] if same else "",
            "a": name_a,
            "b": name_b,
            "turns": t + 1,
            "difference": round(paired.mean, 6),
            "ci95": _rounded(paired.interval()),
            "p": round(paired.p, 6),
        }
        yield line, paired


def in_family(line: Line) -> bool:
    """Whether README and BENCHMARKS draw a conclusion from a comparison, after its last turn.

    Between cells: μCode's greedy accuracy. Within one: μCode's against every other method's and
    between its iterations, greedy; and `CONCLUDED_WAYS` of choosing, for the base and μCode.
    """
    if line["kind"] == "ways":
        (method, a), (_, b) = (line[side].split(": ") for side in "ab")
        return method in ("base", "mucode") and (a, b) in CONCLUDED_WAYS
    method = words.whose(line["a"].rpartition("/")[2])["method"]
    return line["search"] == "greedy" and method == "mucode"


def _corrected(lines: Sequence[tuple[Line, intervals.Estimate]]) -> list[Line]:
    """The lines, with the corrected values of those that are of the family.

    Several cells are there to be compared with each other: the family is then of these comparisons
    alone. What is the same on both sides, a generator that two cells share, is no comparison.
    """
    between = any(line["kind"] == "cells" for line, _ in lines)
    pair = operator.itemgetter("kind", "cell", "a", "b", "search", "n", *_PLACE)
    last = {pair(line): (line, estimate) for line, estimate in lines}  # turns count upwards
    family = [
        (line, estimate)
        for line, estimate in last.values()
        if (line["kind"] == "cells") == between and in_family(line)
        if estimate.error or estimate.mean
    ]
    for (line, estimate), p in zip(family, intervals.holm([e.p for _, e in family]), strict=True):
        line["p_holm"] = round(p, 6)
        line["ci95_family"] = _rounded(estimate.interval(1 - 0.05 / len(family)))
    return [line for line, _ in lines]


def _rounded(ends: Sequence[float]) -> list[float]:
    return [round(end, 6) for end in ends]
