"""What a run found, for people: results.json, report.html, a table for the terminal.

`results.json` is the contract; everything shown is read from it and, for curves and conversations,
from the stages that the run left in its work directory.

    python -m mucode_jax.report DIR [DIR …]
"""

from __future__ import annotations

import json
import logging
import math
import pathlib
from collections.abc import Callable
from typing import Any

from mucode_jax.report import words
from mucode_jax.report.text import line, table
from mucode_jax.runtime.files import write_atomically
from mucode_jax.runtime.ledger import read_stage

Json = Any

__all__ = ["line", "read", "table", "write"]

SCHEMA = 1
# Where there is no home for its cache it says so each time, in three lines.
logging.getLogger("matplotlib").setLevel(logging.ERROR)


def _kind(*kinds: type) -> Callable[[Json], bool]:
    return lambda value: type(value) in kinds


def _amount(value: Json) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def _count(value: Json) -> bool:
    return type(value) is int and value >= 0


def _positive(value: Json) -> bool:
    return type(value) is int and value > 0


def _share(value: Json) -> bool:
    return _amount(value) and value <= 1


def _shares(value: Json) -> bool:
    return type(value) is list and all(map(_share, value))


_TEXT, _TABLE, _LIST = _kind(str), _kind(dict), _kind(list)
_RESULTS: dict[str, Callable[[Json], bool]] = {
    "config": _TABLE,
    "versions": _TABLE,
    "seed": _kind(int),
    "isolation": lambda value: type(value) is dict and type(value.get("level")) is str,
    "backend": _TEXT,
    "wall_seconds": _amount,
    "stages": _LIST,
    "verifiers": _LIST,
    "evaluations": _LIST,
}
_ITEMS: dict[str, dict[str, Callable[[Json], bool]]] = {
    "stages": {"name": _TEXT, "seconds": _amount, "tokens": _count, "executions": _count},
    "verifiers": {"method": _TEXT, "iteration": _count, "loss": _TEXT, "pairs": _count},
    "evaluations": {
        **dict.fromkeys(("method", "benchmark", "split", "search"), _TEXT),
        "protocol": lambda value: value in words.PROTOCOLS,
        **dict.fromkeys(("n", "turns", "searches", "problems"), _positive),
        **dict.fromkeys(("iteration", "tokens", "executions"), _count),
        "accuracy": _share,
        "ci95": lambda value: _shares(value) and len(value) == 2,
        "per_turn": _shares,
    },
}


def write(directory: pathlib.Path, results: dict[str, Json]) -> None:
    """Writes results.json and report.html into `directory`, each as a whole or not at all."""
    from mucode_jax.report.page import render  # half a second: not for those who only read

    directory = pathlib.Path(directory)
    write_atomically(directory / "results.json", json.dumps(results, indent=1) + "\n")
    write_atomically(directory / "report.html", render(directory, results))


def read(directory: pathlib.Path) -> dict[str, Json]:
    """The results.json of a finished run.

    Raises:
      ValueError: there is none, it is not JSON, of another schema, or lacks something; a stage was
        made again since; or the directory is a sweep's.
    """
    path = pathlib.Path(directory) / "results.json"
    refuse_sweep(path.parent)
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(
            f"{path} is not there; give the --workdir of a run that has finished"
        ) from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    schema = results.get("schema") if isinstance(results, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"{path} has schema {schema!r}; this version reads schema {SCHEMA}")
    _check(path, "", results, _RESULTS)
    for name, kinds in _ITEMS.items():
        for i, item in enumerate(results[name]):
            _check(path, f"{name}[{i}]", item, kinds)
    for i, e in enumerate(results["evaluations"]):
        if len(e["per_turn"]) != e["turns"]:
            raise ValueError(f"{path}: evaluations[{i}].per_turn has not a value for each turn")
    for item in results["stages"]:
        stage = read_stage(path.parent / "stages" / item["name"])
        # Each run of a stage takes its own time, to the millisecond.
        if stage is not None and stage.record.get("seconds") != item["seconds"]:
            raise ValueError(
                f"{path} is of before {item['name']} was made again; run main to its end"
            )
    return results


def refuse_sweep(directory: pathlib.Path) -> None:
    """Raises ValueError that names the runs of a sweep's directory, where one run is wanted."""
    runs = [
        run
        for pattern in ("seed_*", "*/seed_*")
        for run in sorted(directory.glob(pattern))
        if (run / "stages").is_dir()
    ]
    if runs and not (directory / "stages").is_dir():
        some = ", ".join(map(str, runs[:6])) + (", …" if len(runs) > 6 else "")
        raise ValueError(f"{directory} holds several runs; give one of them: {some}")


def _check(
    path: pathlib.Path, where: str, found: Json, rules: dict[str, Callable[[Json], bool]]
) -> None:
    for name, holds in rules.items():
        if not holds(found.get(name) if isinstance(found, dict) else None):
            place = f"{where}.{name}" if where else name
            raise ValueError(f"{path}: {place} is missing, not of its kind or out of range")
