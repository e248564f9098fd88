"""The smallest run that walks every path, in this process and on one device.

    micro.run(directory, "--config.seed=1")

It is also its own config file.
"""

import json
import pathlib
from unittest import mock

from configs import base

FILE = pathlib.Path(__file__)


def get_config():
    """quickstart.py:tiny, smaller still."""
    c = base.get_config()
    c.train.size, c.evaluation.size = 6, 3
    c.iterations = 1
    r = c.rollout
    r.n, r.turns, r.slots = 4, 2, 8
    r.max_new_tokens, r.max_feedback_tokens, r.context = 40, 48, 192
    v, s = c.verifier_training, c.sft
    # As many rows as examples: they hold any.
    v.epochs, v.batch, v.rows, v.length, v.pairs_per_problem = 1, 8, 8, 112, 4
    s.epochs, s.batch, s.rows, s.length = 1, 8, 8, 192
    v.learning_rate, s.learning_rate = 1e-3, 7e-4
    v.held_out = 0.0
    c.search.methods, c.search.searches, c.search.n = ("mucode",), 1, 2
    c.search.choices = ("pt", "lv")
    c.sandbox.workers = 1
    return c


def run(where, *overrides):
    """main's exit status."""
    import jax

    # Not at the top: main imports this file as a config.
    from mucode_jax import main
    from mucode_jax.report import page

    # Compiling is most of what a run of this size costs.
    jax.config.update("jax_disable_most_optimizations", True)
    one = jax.devices()[:1]
    arguments = ["main", "--config", str(FILE), "--workdir", str(where), *overrides]
    with (
        mock.patch.object(jax, "devices", lambda *_: one),
        mock.patch.object(jax, "local_devices", lambda *_: one),
        mock.patch.object(page, "render", lambda *_: ""),  # plots take seconds
    ):
        return main.main(arguments)


def results(directory):
    """results.json without what a clock wrote."""
    found = json.loads((pathlib.Path(directory) / "results.json").read_text())
    del found["wall_seconds"]
    for stage in found["stages"]:
        del stage["seconds"]
        stage.pop("sampling", None)
    return found
