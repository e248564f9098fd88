"""What results.json holds of an experiment whose stages are finished."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mucode_jax import __version__
from mucode_jax.report import SCHEMA
from mucode_jax.report.words import whose
from mucode_jax.runtime import hosts
from mucode_jax.runtime.ledger import Stage
from mucode_jax.sampling.engine import Counters

Json = Any


def results(
    config: Mapping[str, Json],
    isolation: Mapping[str, Json],
    stages: Sequence[Stage],
    evaluations: Sequence[Json],
    budgets: Sequence[Json],
) -> dict[str, Json]:
    """The whole of it.

    Args:
      config: every setting.
      isolation: what the sandbox reached (`Pool.isolation`).
      stages: all of the run's, in the order in which they were made.
      evaluations: see `rollouts.evaluate`.
      budgets: of every generator, see `algorithms.common.budget`.
    """
    return {
        "schema": SCHEMA,
        "config": config,
        "versions": _versions(),
        "seed": config["seed"],
        "isolation": isolation,
        "backend": hosts.backend(),
        "wall_seconds": round(sum(stage.record["seconds"] for stage in stages), 1),
        "stages": [_stage(stage) for stage in stages],
        "verifiers": [
            {**whose(stage.name), **stage.record["counts"]}
            for stage in stages
            if re.search(r"/verifier(_singles)?$", stage.name)
        ],
        "evaluations": evaluations,
        "budgets": budgets,
    }


def _versions() -> dict[str, str]:
    packages = ("jax", "jaxlib", "flax", "transformers", "numpy")
    return {
        "mucode_jax": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def _stage(stage: Stage) -> dict[str, Json]:
    return {
        "name": stage.name,
        "iteration": whose(stage.name)["iteration"],
        "seconds": stage.record["seconds"],
        **{"tokens": 0, "executions": 0, **stage.record["counts"]},
        **_sampling(stage.record.get("metered")),
    }


def _sampling(metered: Json) -> dict[str, Json]:
    """What the sampler did in a stage, from the sums of `sampling.engine.Counters`."""
    if not metered:
        return {}
    counters = Counters(**metered)
    return {
        "sampling": {
            "prefilled": counters.prefilled,
            "decoded": counters.decoded,
            "wasted": counters.wasted,
            "occupancy": round(counters.occupancy, 4),
            "seconds": round(counters.seconds, 3),
            "idle_seconds": round(counters.idle_seconds, 3),
            "tokens_per_second": round(counters.decoded / max(counters.seconds, 1e-9), 1),
        }
    }
