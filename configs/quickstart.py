"""The whole algorithm on two cores: μCode, STaR and Multi-STaR on the embedded suite.

    python -m mucode_jax.main --config configs/quickstart.py --workdir runs/quickstart

At most 6 minutes and 4 GB on two idle cores. The expected results stand in BENCHMARKS.md, "The
quickstart". `:tiny` is the same in about a minute, for tests: too small to learn anything from.
`:compat` makes the published code's choices where ours differ (`base.compat`).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """The settings; `arg` is "", "tiny" or "compat"."""
    if arg not in ("", "tiny", "compat"):
        raise ValueError(f"quickstart has no variant {arg!r}; it has :tiny and :compat")
    tiny = arg == "tiny"
    c = base.get_config()
    c.methods = ("star", "multi_star", "mucode")
    c.train.size = 16 if tiny else 480
    c.evaluation.size = 12 if tiny else 200

    c.rollout.n = 3
    c.rollout.max_new_tokens = 40
    c.rollout.max_feedback_tokens = 48
    c.rollout.context = 288
    c.rollout.slots = 32 if tiny else 128

    v = c.verifier_training
    v.pairs_per_problem = 4
    v.batch = 32
    v.rows = 16  # one shape for all verifiers, so that their step compiles once
    v.length = 128
    v.learning_rate = 1e-3
    v.eps = 1e-8

    s = c.sft
    s.epochs = 2
    s.batch = 24
    s.rows = 16 if tiny else 0  # one shape, where compiling takes longer than padding
    s.length = 288
    s.learning_rate = 5e-4
    s.eps = 1e-8

    c.search.searches = 1
    return base.compat(c) if arg == "compat" else c
