"""Every way of choosing, with N = 1 … 11 candidates a turn.

python -m mucode_jax.main --config configs/ablation_search.py --workdir runs/ablation_search
"""

from ml_collections import ConfigDict

from configs import ablation


def get_config() -> ConfigDict:
    """The settings of every cell."""
    return ablation.of(
        *((f"N={n}", {"search": {"n": n}}) for n in range(1, 12)),
        choices=("random", "pt", "lv", "pt+lv", "pt+vote", "pt+lv+vote", "oracle"),
    )
