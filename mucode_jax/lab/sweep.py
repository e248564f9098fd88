"""Several runs from one command: every cell of settings with every seed, then their evidence.

`config.cells` holds (name, settings) pairs, `config.seeds` the seeds. Each run has a work directory
of its own, DIR/CELL/seed_S (DIR/seed_S where there is only one cell), and takes over every stage
that an earlier one has made of the same settings and inputs: cells share what they have in common.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import pathlib
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from mucode_jax import report
from mucode_jax.checks import faults, settings
from mucode_jax.report import findings
from mucode_jax.report.evidence import evidence
from mucode_jax.runtime import bucket
from mucode_jax.runtime.files import write_atomically
from mucode_jax.runtime.progress import Progress
from mucode_jax.runtime.workdir import Workdir

Json = Any


def is_sweep(config: ConfigDict) -> bool:
    return bool(config.get("seeds") or config.get("cells"))


def expand(config: ConfigDict) -> list[tuple[str, ConfigDict]]:
    """(cell, config) of every run, the seeds of a cell one after the other.

    Raises ValueError where a cell is no (name, settings) pair, has another's name, or has an
    unknown or impossible setting.
    """
    for name in ("seeds", "cells"):
        settings.check(name, config.get(name), settings.ITERATE[name])
    runs: dict[tuple[str, int], ConfigDict] = {}
    for cell, changes in config.cells or (("", {}),):
        for seed in config.seeds or (config.seed,):
            if (cell, seed) in runs:
                raise ValueError(f"config.cells and config.seeds name {cell or seed} twice")
            run = copy.deepcopy(config)
            run.seed, run.seeds, run.cells = seed, (), ()
            with _of_cell(cell):
                with run.ignore_type():
                    _update(run, changes)
                settings.validate(run)
            runs[cell, seed] = run
    return [(cell, run) for (cell, _), run in runs.items()]


def _of_cell(cell: str) -> contextlib.AbstractContextManager[None]:
    """Bad input within the block is said to be of that cell; "" is no cell's name."""
    return faults.of_section(f"cells: {cell}") if cell else contextlib.nullcontext()


def _update(config: ConfigDict, changes: dict[str, Json], prefix: str = "") -> None:
    for name, value in changes.items():
        if name not in config:
            raise ValueError(f"there is no setting {prefix}{name}")
        if isinstance(config[name], ConfigDict) and config[name] and isinstance(value, dict):
            _update(config[name], value, f"{prefix}{name}.")
        else:
            config[name] = value


def run(
    config: ConfigDict,
    where: str | pathlib.Path,
    progress: Progress,
    look_ahead: Callable[[ConfigDict], None],
    experiment: Callable[[ConfigDict, Workdir, Progress], dict[str, Json]],
    *,
    verify: bool = False,
) -> str:
    """Makes every run that is not finished yet; returns the findings for the terminal.

    Args:
      config: with `cells` or `seeds`.
      where: a work directory; gets the runs, evidence.json and report.html.
      look_ahead: raises ValueError for a config that cannot be run; called for every cell before
        any is made (seeds change nothing that it looks at).
      experiment: one run: config, work directory -> what its results.json holds.
      verify: of the runs' work directories (`Workdir`).
    """
    runs = expand(config)
    for cell, run_config in dict(reversed(runs)).items():
        with _of_cell(cell):
            look_ahead(run_config)
    directories: dict[str, list[pathlib.Path]] = {}  # of each cell's runs
    for number, (cell, run_config) in enumerate(runs, 1):
        place = "/".join(filter(None, (str(where), cell, f"seed_{run_config.seed}")))
        progress.say(f"run {number} of {len(runs)}: {cell or 'seed'} {run_config.seed}")
        made = list(itertools.chain(*directories.values()))
        with contextlib.closing(Workdir(place, progress.say, made, verify)) as workdir:
            report.write(workdir.path, experiment(run_config, workdir, progress))
        directories.setdefault(cell, []).append(workdir.path)
    comparison = evidence(directories) | {"config": config.to_dict()}
    directory = bucket.local(where)
    write_atomically(directory / "evidence.json", json.dumps(comparison, indent=1) + "\n")
    write_atomically(directory / "report.html", findings.page(comparison))
    return findings.table(comparison)
