"""Several runs side by side: the settings in which they differ, and their accuracies."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from mucode_jax.report import text, words

Json = Any
# What names an evaluation among those of a run.
KEY = ("benchmark", "split", "protocol", "method", "iteration", "search", "n")


def key(e: Json) -> tuple:
    return tuple(e[name] for name in KEY)


def names(directories: Sequence[pathlib.Path]) -> list[str]:
    """What runs are called: their folders' names, or whole paths where two have the same."""
    short = [directory.resolve().name for directory in directories]
    return short if len(set(short)) == len(short) else list(map(str, directories))


def differing(results: Sequence[Json]) -> dict[str, list[str]]:
    """The settings in which runs differ, the seed aside: name -> value in each run."""
    configs = [traverse_util.flatten_dict(of_run["config"], sep=".") for of_run in results]
    values = {
        name: [json.dumps(config[name]) if name in config else "–" for config in configs]
        for name in dict.fromkeys(name for config in configs for name in config)
        if name != "seed"
    }
    return {name: shown for name, shown in values.items() if len(set(shown)) > 1}


def repeats(results: Sequence[Json]) -> bool:
    """Whether the runs are one experiment with different seeds."""
    seeds = {of_run["seed"] for of_run in results}
    return 1 < len(seeds) == len(results) and not differing(results)


def side_by_side(runs: Mapping[str, Json]) -> str:
    """The settings and accuracies of runs, for the terminal: name -> results.json."""
    results = list(runs.values())
    rows = [["", "seed", "backend", "isolation", "time in stages"]]
    for name, of_run in runs.items():
        time, level = words.duration(of_run["wall_seconds"]), of_run["isolation"]["level"]
        rows.append([name, str(of_run["seed"]), of_run["backend"], level, time])
    parts = [text.grid(rows)]
    if settings := differing(results):
        rows = [["setting", *runs], *([name, *values] for name, values in settings.items())]
        parts.append(f"Settings that differ\n\n{text.grid(rows)}")
    for group in text.groups(
        list({key(e): e for of_run in results for e in of_run["evaluations"]}.values())
    ):
        first = group[0]
        rows = [["", *runs, "mean ± sd" if repeats(results) else "mean"]]
        rows += [[words.evaluation(e), *_accuracies(results, key(e))] for e in group]
        parts.append(
            f"Solved, % of {first['problems']} problems ({first['benchmark']}, {first['split']}, "
            f"protocol {first['protocol']})\n\n{text.grid(rows)}"
        )
    return "\n\n".join(parts)


def _accuracies(results: Sequence[Json], wanted: tuple) -> list[str]:
    """An evaluation's accuracy in every run, and their mean where every run has it."""
    runs = [{key(e): e["accuracy"] for e in of_run["evaluations"]} for of_run in results]
    values = [run[wanted] for run in runs if wanted in run]
    mean = f"{100 * np.mean(values):.1f}" if len(values) == len(runs) else "–"
    if repeats(results) and mean != "–":
        mean += f" ± {100 * np.std(values, ddof=1):.1f}"
    return [*(f"{100 * run[wanted]:.1f}" if wanted in run else "–" for run in runs), mean]
