"""Several runs side by side: what they share, their accuracies, outcomes problem by problem."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from mucode_jax.report import stages, text, words

Json = Any
Outcome = Mapping[str, np.ndarray]  # task_id -> float64 [turns], see `stages.solved`


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
      name: what it is called here.
      results: its results.json.
      outcomes: problem by problem, for each evaluation (by `_key`) whose stages are there.
    """

    name: str
    results: Json
    outcomes: Mapping[tuple, Outcome]


def runs(directories: Sequence[pathlib.Path], results: Sequence[Json]) -> list[Run]:
    """Each run under its folder's name, or its whole path where two have the same."""
    names = [directory.resolve().name for directory in directories]
    if len(set(names)) < len(names):
        names = [str(directory) for directory in directories]
    outcomes = [
        _outcomes(directory, of["evaluations"])
        for directory, of in zip(directories, results, strict=True)
    ]
    return list(map(Run, names, results, outcomes))


def _outcomes(directory: pathlib.Path, evaluations: Sequence[Json]) -> dict[tuple, Outcome]:
    found: dict[tuple, Outcome] = {}
    of_generator: dict[tuple, list[Json]] = {}  # one stage serves several ways of choosing
    for e in evaluations:
        of_generator.setdefault((words.folder(e), e["benchmark"], e["split"]), []).append(e)
    for own in of_generator.values():
        solved = stages.solved(directory, own)
        found |= {key(e): solved[e["search"]] for e in own if e["search"] in solved}
    return found


# Evaluations -------------------------------------------------------------------------------------


def key(e: Json) -> tuple:
    names = ("benchmark", "split", "protocol", "method", "iteration", "search", "n")
    return tuple(e[name] for name in names)


def _find(run: Run, e: Json) -> Json | None:
    """The run's evaluation of the same kind."""
    return next((own for own in run.results["evaluations"] if key(own) == key(e)), None)


def _groups(compared: Sequence[Run]) -> list[list[Json]]:
    """One evaluation of every kind that any run has, those of one table together."""
    every = (e for run in compared for e in run.results["evaluations"])
    return text.groups(list({key(e): e for e in every}.values()))


# Configs -----------------------------------------------------------------------------------------


def differing(compared: Sequence[Run]) -> dict[str, list[str]]:
    """The settings in which the runs differ, the seed aside: name -> value in each run."""
    configs = [traverse_util.flatten_dict(run.results["config"], sep=".") for run in compared]
    names = dict.fromkeys(name for config in configs for name in config if name != "seed")
    shown = {
        name: [json.dumps(config[name]) if name in config else "–" for config in configs]
        for name in names
    }
    return {name: values for name, values in shown.items() if len(set(values)) > 1}


def repeats(compared: Sequence[Run]) -> bool:
    """Whether the runs are one experiment with different seeds."""
    seeds = {run.results["seed"] for run in compared}
    return 1 < len(seeds) == len(compared) and not differing(compared)


# What is shown -----------------------------------------------------------------------------------


def side_by_side(compared: Sequence[Run]) -> str:
    """The runs' settings and accuracies for the terminal."""
    head = ["", "seed", "backend", "isolation", "time in stages"]
    about = [
        [
            run.name,
            str(run.results["seed"]),
            run.results["backend"],
            run.results["isolation"]["level"],
            words.duration(run.results["wall_seconds"]),
        ]
        for run in compared
    ]
    parts = [text.grid([head, *about])]
    settings = differing(compared)
    if settings:
        rows = [["setting", *(run.name for run in compared)]]
        rows += [[name, *values] for name, values in settings.items()]
        parts.append("Settings that differ\n\n" + text.grid(rows))
    seeds = repeats(compared)
    for group in _groups(compared):
        parts.append(_accuracies(compared, group, seeds))
    return "\n\n".join(parts)


def _where(group: Sequence[Json]) -> str:
    first = group[0]
    return (
        f"% of {first['problems']} problems ({first['benchmark']}, {first['split']}, protocol "
        f"{first['protocol']})"
    )


def _accuracies(compared: Sequence[Run], group: Sequence[Json], repeats: bool) -> str:
    spread = "mean ± sd" if repeats else "mean"
    rows = [["", *(run.name for run in compared), spread]]
    for e in group:
        found = [_find(run, e) for run in compared]
        values = [own["accuracy"] for own in found if own is not None]
        mean = _mean(values, repeats) if len(values) == len(compared) else "–"
        cells = ["–" if own is None else f"{100 * own['accuracy']:.1f}" for own in found]
        rows.append([words.evaluation(e), *cells, mean])
    return f"Solved, {_where(group)}\n\n{text.grid(rows)}"


def _mean(values: Sequence[float], deviation: bool) -> str:
    mean = f"{100 * np.mean(values):.1f}"
    return f"{mean} ± {100 * np.std(values, ddof=1):.1f}" if deviation else mean
