"""What a run found, for people: results.json, report.html, a table for the terminal.

`results.json` is the contract; everything shown is read from it and, for curves and conversations,
from the stages that the run left in its work directory.

    python -m mucode_jax.report DIR [DIR …]
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

from mucode_jax.report.page import render
from mucode_jax.report.text import line, table
from mucode_jax.workdir import write_atomically

Json = Any

__all__ = ["line", "read", "render", "table", "write"]

SCHEMA = 1
_NUMBER = (int, float)
_RESULTS: dict[str, Json] = {
    "config": dict,
    "versions": dict,
    "seed": int,
    "isolation": dict,
    "backend": str,
    "wall_seconds": _NUMBER,
    "stages": list,
    "verifiers": list,
    "evaluations": list,
}
_ITEMS: dict[str, dict[str, Json]] = {
    "stages": {"name": str, "seconds": _NUMBER, "tokens": int, "executions": int},
    "verifiers": {"method": str, "iteration": int, "loss": str, "pairs": int},
    "evaluations": {
        "method": str,
        "iteration": int,
        "benchmark": str,
        "split": str,
        "protocol": str,
        "search": str,
        "n": int,
        "turns": int,
        "searches": int,
        "accuracy": _NUMBER,
        "ci95": list,
        "per_turn": list,
        "problems": int,
        "tokens": int,
        "executions": int,
    },
}


def write(directory: pathlib.Path, results: dict[str, Json]) -> None:
    """Writes results.json and report.html into `directory`, each as a whole or not at all."""
    directory = pathlib.Path(directory)
    write_atomically(directory / "results.json", json.dumps(results, indent=1) + "\n")
    write_atomically(directory / "report.html", render(directory, results))


def read(directory: pathlib.Path) -> dict[str, Json]:
    """The results.json of a finished run.

    Raises:
      ValueError: there is none, it is not JSON, of another schema, or lacks something; or the
        directory is a sweep's.
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
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    schema = results.get("schema") if isinstance(results, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"{path} has schema {schema!r}; this version reads schema {SCHEMA}")
    _check(path, "", results, _RESULTS)
    for name, kinds in _ITEMS.items():
        for i, item in enumerate(results[name]):
            _check(path, f"{name}[{i}]", item, kinds)
    if "level" not in results["isolation"]:
        raise ValueError(f"{path}: isolation lacks 'level'")
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


def _check(path: pathlib.Path, where: str, found: Json, kinds: dict[str, Json]) -> None:
    for name, kind in kinds.items():
        value = found.get(name) if isinstance(found, dict) else None
        if not isinstance(value, kind):
            place = f"{where}.{name}" if where else name
            raise ValueError(f"{path}: {place} is missing or not of its kind")
