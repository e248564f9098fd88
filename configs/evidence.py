"""The final comparison on the embedded suite: every method, every way of searching, five seeds.

    python -m mucode_jax.main --config configs/evidence.py --workdir runs/evidence

WORKDIR/evidence.json and WORKDIR/report.html hold accuracies and paired differences with intervals
over problems and seeds. About 18 minutes of one core a seed. The hyperparameters are those of
`quickstart.py`, chosen on the validation split and the same for every method; the test problems are
of a seed that nothing else uses.
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    """The settings."""
    c = quickstart.get_config()
    c.seeds = (0, 1, 2, 3, 4)
    c.methods = ("star", "multi_star", "multi_star_balanced", "mucode")
    c.train.size = 600  # more problems teach more than more rollouts of each
    c.verifier_training.pairs_per_problem = 8
    c.evaluation.size = 400
    c.evaluation.seed = 20261124
    c.search.methods = ("base", *c.methods)
    c.search.choices = (*c.search.choices, "pt+vote", "pt+lv+vote")
    return c
