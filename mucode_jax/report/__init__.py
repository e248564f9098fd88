"""The results of a run, for people: results.json, report.html, a table for the terminal.

`results.json` is the contract; everything shown is read from it and, for curves and conversations,
from the stages that the run left in its work directory.

    python -m mucode_jax.report DIR [DIR …]
"""

from __future__ import annotations

import json
import logging
import math
import pathlib
import sys
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


def _is(kind: type) -> Callable[[Json], bool]:
    return lambda value: type(value) is kind


def _within(low: float, high: float, *kinds: type) -> Callable[[Json], bool]:
    return lambda value: type(value) in kinds and low <= value <= high


def _are_shares(value: Json) -> bool:
    return type(value) is list and all(map(_SHARE, value))


_TEXT, _TABLE, _LIST, _WHOLE = map(_is, (str, dict, list, int))
_AMOUNT = _within(0, sys.float_info.max, int, float)
_SHARE = _within(0, 1, int, float)
_COUNT, _POSITIVE = (_within(least, math.inf, int) for least in (0, 1))
# What the file holds, and what each item of its lists.
_RULES: dict[str, dict[str, Callable[[Json], bool]]] = {
    "": {
        **dict.fromkeys(("config", "versions"), _TABLE),
        "seed": _WHOLE,
        "isolation": lambda value: _TABLE(value) and _TEXT(value.get("level")),
        "backend": _TEXT,
        "wall_seconds": _AMOUNT,
        **dict.fromkeys(("stages", "verifiers", "evaluations"), _LIST),
    },
    "stages": {"name": _TEXT, "seconds": _AMOUNT, "tokens": _COUNT, "executions": _COUNT},
    "verifiers": {"method": _TEXT, "iteration": _COUNT, "loss": _TEXT, "pairs": _COUNT},
    "evaluations": {
        **dict.fromkeys(("method", "benchmark", "split", "search"), _TEXT),
        "protocol": lambda value: _TEXT(value) and value in words.PROTOCOLS,
        **dict.fromkeys(("n", "turns", "searches", "problems"), _POSITIVE),
        **dict.fromkeys(("iteration", "tokens", "executions"), _COUNT),
        "accuracy": _SHARE,
        "ci95": lambda value: _are_shares(value) and len(value) == 2,
        "per_turn": _are_shares,
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
    for part, rules in _RULES.items():
        for i, item in enumerate(results[part] if part else [results]):
            for name, holds in rules.items():
                if not holds(item.get(name) if type(item) is dict else None):
                    place = f"{part}[{i}].{name}" if part else name
                    raise ValueError(f"{path}: {place} is missing, of a wrong type or out of range")
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
