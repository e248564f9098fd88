"""The lab: an experiment's stages, each made once and resumed where it stopped.

An algorithm says *what* is made of what; the lab makes it: rollouts with their labels, a verifier,
scores, a fine-tuned generator, searches. Every result is a stage of the work directory
(`runtime.workdir`), in a folder named after the generator it belongs to, so that methods share what
is the same: all of them begin with the base's rollouts.
"""

from mucode_jax.lab.artifacts import LabelledRollouts, Model, Scores, Searches, verifier_input
from mucode_jax.lab.lab import Lab, Sampling, digest

__all__ = [
    "Lab",
    "LabelledRollouts",
    "Model",
    "Sampling",
    "Scores",
    "Searches",
    "digest",
    "verifier_input",
]
