"""The published code's choices against ours, one difference at a time and all together.

python -m mucode_jax.main --config configs/ablation_compat.py --workdir runs/ablation_compat
"""

from ml_collections import ConfigDict

from configs import ablation, base


def get_config() -> ConfigDict:
    """The settings of every cell. `all` keeps our protocol, so that it can be compared."""
    c = ablation.of(
        ("ours", {}),
        ("final completions only", {"expert": {"scope": "final"}}),
        ("unsolved trained on", {"expert": {"drop_unsolved": False}}),
        ("failed code again", {"search": {"skip_failed": False}}),
        ("bare traceback", {"sandbox": {"feedback": "traceback"}}),
        ("identical examples apart", {"sft": {"merge": False}}),
        ("verifier on all problems", {"verifier_training": {"held_out": 0.0}}),
        ("verifier decay", {"verifier_training": {"weight_decay": 0.01, "horizon": 2.0}}),
    )
    published = base.compat(c.copy_and_resolve_references())
    sections = ("expert", "search", "sandbox", "verifier_training", "sft")
    everything = {
        name: {k: v for k, v in published[name].items() if v != c[name][k]} for name in sections
    }
    c.cells = (*c.cells, ("all", everything))
    return c
