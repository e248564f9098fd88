"""Several runs side by side: means over seeds, and differences paired over problems."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mucode_jax import evaluate
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


def _label(e: Json) -> str:
    way = "greedy" if e["search"] == "greedy" else f"best of {e['n']} by {e['search']}"
    return f"{words.generator(e)}, {way}"


def _mean_outcome(compared: Sequence[Run], e: Json) -> Outcome | None:
    """Means over runs; None where a run's stages are missing or are of other problems."""
    outcomes = [run.outcomes.get(key(e)) for run in compared]
    if any(o is None or o.keys() != outcomes[0].keys() for o in outcomes):
        return None
    return {task: np.mean([o[task] for o in outcomes], axis=0) for task in outcomes[0]}


def paired(a: Outcome | None, b: Outcome | None) -> str | None:
    """ "+9.5 (+4.1 to +15.0)": a - b in points with its 95 % interval; None: not comparable."""
    if not a or not b or a.keys() != b.keys():
        return None
    of_a, of_b = (np.array([o[task][-1] for task in sorted(a)]) for o in (a, b))
    mean, (low, high), _ = evaluate.paired_difference(of_a, of_b)
    return f"{words.signed(mean)} ({words.signed(low)} to {words.signed(high)})"


# Configs -----------------------------------------------------------------------------------------


def _flat(config: Json, prefix: str = "") -> dict[str, Json]:
    if not isinstance(config, dict) or not config:
        return {prefix: config}
    return {
        name: value
        for key, part in config.items()
        for name, value in _flat(part, f"{prefix}.{key}" if prefix else key).items()
    }


def differing(compared: Sequence[Run]) -> dict[str, list[str]]:
    """The settings in which the runs differ, the seed aside: name -> value in each run."""
    configs = [_flat(run.results["config"]) for run in compared]
    names = dict.fromkeys(name for config in configs for name in config if name != "seed")
    shown = {
        name: [json.dumps(config[name]) if name in config else "–" for config in configs]
        for name in names
    }
    return {name: values for name, values in shown.items() if len(set(values)) > 1}


def _repeats(compared: Sequence[Run]) -> bool:
    """Whether the runs are one experiment with different seeds."""
    seeds = {run.results["seed"] for run in compared}
    return 1 < len(seeds) == len(compared) and not differing(compared)


# What is shown -----------------------------------------------------------------------------------


def side_by_side(compared: Sequence[Run]) -> str:
    """The comparison for the terminal."""
    head = ["", "seed", "backend", "isolation", "time"]
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
    repeats = _repeats(compared)
    for group in _groups(compared):
        parts.append(_accuracies(compared, group, repeats))
        parts.append(_repeated(compared, group) if repeats else _against_first(compared, group))
    return "\n\n".join(part for part in parts if part)


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
        rows.append([_label(e), *cells, mean])
    return f"Solved, {_where(group)}\n\n{text.grid(rows)}"


def _mean(values: Sequence[float], deviation: bool) -> str:
    mean = f"{100 * np.mean(values):.1f}"
    return f"{mean} ± {100 * np.std(values, ddof=1):.1f}" if deviation else mean


def _pairs(group: Sequence[Json]) -> list[tuple[Json, Json]]:
    """Each method's last generator with the base, evaluated in the same way."""
    last = {e["method"]: e["iteration"] for e in sorted(group, key=lambda e: e["iteration"])}
    base = {(e["search"], e["n"]): e for e in group if e["method"] == "base"}
    return [
        (e, base[e["search"], e["n"]])
        for e in group
        if e["method"] != "base"
        and e["iteration"] == last[e["method"]]
        and (e["search"], e["n"]) in base
    ]


def _repeated(compared: Sequence[Run], group: Sequence[Json]) -> str:
    """Every method against the base, over all seeds."""
    rows = [["", "difference (95 % interval)"]]
    for e, base in _pairs(group):
        said = paired(_mean_outcome(compared, e), _mean_outcome(compared, base))
        rows.append([f"{_label(e)} − base", said or "–"])
    if len(rows) == 1:
        return ""
    title = "Differences to the base in points, paired over problems, means over runs"
    return f"{title}{_missing(rows)}\n\n{text.grid(rows)}"


def _against_first(compared: Sequence[Run], group: Sequence[Json]) -> str:
    """Every other run against the first."""
    first, *others = compared
    rows = [["", *(f"{run.name} − {first.name}" for run in others)]]
    for e in group:
        differences = [
            paired(run.outcomes.get(key(e)), first.outcomes.get(key(e))) for run in others
        ]
        rows.append([_label(e), *(d or "–" for d in differences)])
    title = "Differences in points (95 % interval), paired over problems"
    return f"{title}{_missing(rows)}\n\n{text.grid(rows)}"


def _missing(rows: Sequence[Sequence[str]]) -> str:
    if not any("–" in row[1:] for row in rows[1:]):
        return ""
    return "\n(–: a run lacks it, or its stages, or had other problems)"
