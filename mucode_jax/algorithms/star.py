"""STaR: single-turn samples, fine-tuning on the correct ones (Zelikman et al., 2022).

The same budget of completions as the multi-turn methods: N·T samples a problem.
"""

from __future__ import annotations

from collections.abc import Iterator

from ml_collections import ConfigDict

from mucode_jax.algorithms import common
from mucode_jax.core.records import Benchmark, SFTExample
from mucode_jax.lab import Lab


def iterate(config: ConfigDict, lab: Lab, benchmark: Benchmark) -> Iterator[common.Trained]:
    """Runs STaR; yields the generator of each iteration as it is finished."""
    generator = lab.base
    visited = []
    examples: list[SFTExample] = []
    for i in range(config.iterations):
        samples = common.roll_out(config, lab, benchmark, generator, single_turn=True)
        visited.append(samples)
        examples += common.finals(common.successful(samples))
        generator = common.fine_tune(config, lab, "star", i + 1, examples, visited, {})
        yield common.Trained(generator, visited)
