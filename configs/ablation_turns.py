"""T = 1 … 5 turns, in rollouts and in evaluation alike.

python -m mucode_jax.main --config configs/ablation_turns.py --workdir runs/ablation_turns
"""

from ml_collections import ConfigDict

from configs import ablation


def get_config() -> ConfigDict:
    """The settings of every cell; all have room for five turns."""
    c = ablation.of(*((f"T={turns}", {"rollout": {"turns": turns}}) for turns in range(1, 6)))
    c.rollout.context = c.sft.length = 480
    return c
