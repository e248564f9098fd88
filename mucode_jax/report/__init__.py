"""What a run found, for people: results.json, report.html, a table for the terminal.

`results.json` is the contract (DESIGN: contracts); everything shown is read from it and, for curves
and conversations, from the stages that the run left in its work directory.

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

__all__ = ["line", "table", "write"]


def write(directory: pathlib.Path, results: dict[str, Json]) -> None:
    """Writes results.json and report.html into `directory`, each as a whole or not at all."""
    directory = pathlib.Path(directory)
    write_atomically(directory / "results.json", json.dumps(results, indent=1) + "\n")
    write_atomically(directory / "report.html", render(directory, results))
