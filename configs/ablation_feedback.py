"""What the generator is shown of a failed test: values, the bare traceback, nothing.

python -m mucode_jax.main --config configs/ablation_feedback.py --workdir runs/ablation_feedback
"""

from ml_collections import ConfigDict

from configs import ablation


def get_config() -> ConfigDict:
    """The settings of every cell."""
    return ablation.of(
        *((kind, {"sandbox": {"feedback": kind}}) for kind in ("values", "traceback", "none"))
    )
