"""μCode on MBPP with Llama-3.1-8B-Instruct and the published hyperparameters.

    python -m mucode_jax.main --config configs/llama31_8b_mbpp.py --workdir runs/llama31_8b_mbpp

`:star`, `:multi_star`, `:bce`, `:lora`, `:compat` change it, also together: `:star,lora`
(`base.variants`). Chips and hours by target: launch/README.md; does it fit: launch/TPU_FIT.md.
Published (N = 5, pt+lv): μCode with Best-of-N 70.6 on MBPP and 63.8 on HumanEval.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """The settings; `arg` names variants."""
    c = base.mbpp(base.llama("meta-llama/Llama-3.1-8B-Instruct", base.LLAMA_31_8B))
    c.mesh.sampling_tensor = -1
    return base.variants(c, arg)
