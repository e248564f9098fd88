"""Single-turn samples, fine-tuning on the correct ones or on all of them.

`star`: on the correct ones (STaR, Zelikman et al., 2022). `ssd`: on all of them, correct or not
(simple self-distillation, Zhang et al., 2026), the control that tells what is learned from being
right from what any samples of one's own teach. The same budget of completions as the multi-turn
methods: N·T samples per problem.
"""

from __future__ import annotations

from collections.abc import Iterator

from ml_collections import ConfigDict

from mucode_jax.algorithms import common
from mucode_jax.core.records import Benchmark, SFTExample
from mucode_jax.lab import Lab


def iterate(
    config: ConfigDict, lab: Lab, benchmark: Benchmark, method: str
) -> Iterator[common.Trained]:
    """Runs `star` or `ssd`; yields the generator of each iteration as it is finished."""
    generator = lab.base
    visited = []
    examples: list[SFTExample] = []
    for i in range(config.iterations):
        samples = common.roll_out(config, lab, benchmark, generator, single_turn=True)
        visited.append(samples)
        learned = samples.items if method == "ssd" else common.successful(samples)
        examples += common.finals(learned)
        generator = common.fine_tune(config, lab, method, i + 1, examples, visited, {})
        yield common.Trained(generator, visited)
