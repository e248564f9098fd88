"""Several runs from one command: every cell of settings with every seed, then their evidence.

`config.cells` holds (name, settings) pairs, `config.seeds` the seeds. Each run has a work directory
of its own, DIR/CELL/seed_S (DIR/seed_S where there is one cell only), and takes over every stage
that an earlier one has made of the same settings and inputs: cells share what they have in common.
"""

from __future__ import annotations

import contextlib
import copy
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

    Raises ValueError where a cell is no (name, settings) pair, names a setting that is not there,
    or that cannot be right, or has another's name.
    """
    for name in ("seeds", "cells"):
        settings.check(name, config.get(name), settings.ITERATE[name])
    runs: dict[tuple[str, int], ConfigDict] = {}
    for name, changed in config.cells or (("", {}),):
        for seed in config.seeds or (config.seed,):
            one = copy.deepcopy(config)
            one.seeds, one.cells = (), ()
            one.seed = seed
            try:
                with one.ignore_type():
                    _update(one, changed)
            except KeyError as error:
                raise ValueError(f"config.cells: {name}: {error.args[0]}") from error
            if (name, seed) in runs:
                raise ValueError(f"config.cells and config.seeds name {name or seed} twice")
            with faults.of_section(f"cells: {name}") if name else contextlib.nullcontext():
                settings.validate(one)
            runs[name, seed] = one
    return [(name, one) for (name, _), one in runs.items()]


def _update(config: ConfigDict, settings: dict[str, Json], prefix: str = "") -> None:
    for name, value in settings.items():
        if name not in config:
            raise KeyError(f"there is no setting {prefix}{name}")
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
) -> str:
    """Makes every run that is not there yet; returns the findings for the terminal.

    Args:
      config: with `cells` or `seeds`.
      where: a work directory; gets the runs, evidence.json and report.html.
      look_ahead: raises ValueError for a config that cannot be run; asked of every cell before any
        is made (seeds change nothing that it looks at).
      experiment: one run: config, work directory -> what its results.json holds.
    """
    runs = expand(config)
    for cell, one in dict(reversed(runs)).items():
        with faults.of_section(f"cells: {cell}") if cell else contextlib.nullcontext():
            look_ahead(one)
    homes: dict[str, list[pathlib.Path]] = {}
    for number, (cell, one) in enumerate(runs, 1):
        own = "/".join(filter(None, (str(where), cell, f"seed_{one.seed}")))
        progress.say(f"run {number} of {len(runs)}: {cell or 'seed'} {one.seed}".rstrip())
        made = [other for of_cell in homes.values() for other in of_cell]
        with contextlib.closing(Workdir(own, progress.say, lenders=made)) as workdir:
            report.write(workdir.path, experiment(one, workdir, progress))
        homes.setdefault(cell, []).append(workdir.path)
    found = evidence(homes) | {"config": config.to_dict()}
    directory = bucket.local(where)
    write_atomically(directory / "evidence.json", json.dumps(found, indent=1) + "\n")
    write_atomically(directory / "report.html", findings.page(found))
    return findings.table(found)
