"""Bradley-Terry against cross-entropy, on the same pairs (paper, table 4).

python -m mucode_jax.main --config configs/ablation_loss.py --workdir runs/ablation_loss
"""

from ml_collections import ConfigDict

from configs import ablation


def get_config() -> ConfigDict:
    """The settings of every cell."""
    return ablation.of(
        ("bt", {}),
        ("bce", {"verifier_training": {"loss": "bce"}}),
        methods=("base", "mucode"),
        choices=("random", "lv", "pt", "pt+lv"),
    )
