"""What the expert goes by, where it looks, and whether unsolved problems are trained on.

python -m mucode_jax.main --config configs/ablation_expert.py --workdir runs/ablation_expert
"""

from ml_collections import ConfigDict

from configs import ablation


def get_config() -> ConfigDict:
    """The settings of every cell."""
    return ablation.of(
        ("ov+lv", {}),
        ("ov", {"expert": {"kind": "ov"}}),
        ("lv", {"expert": {"kind": "lv"}}),
        ("ov+lv final", {"expert": {"scope": "final"}}),
        ("ov+lv unsolved", {"expert": {"drop_unsolved": False}}),
        ("lv unsolved", {"expert": {"kind": "lv", "drop_unsolved": False}}),
    )
