"""μCode on MBPP with Llama-3.2-1B-Instruct and the published hyperparameters.

    python -m mucode_jax.main --config configs/llama32_1b_mbpp.py --workdir runs/llama32_1b_mbpp

`:star`, `:multi_star`, `:bce`, `:lora`, `:compat` change it, also together: `:star,lora`
(`base.variants`). Chips and hours by target: launch/README.md; does it fit: launch/TPU_FIT.md.
Published (N = 5, pt+lv): μCode 37.9 on MBPP and 35.4 on HumanEval, with Best-of-N 51.1 and 41.5.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """The settings; `arg` names variants."""
    c = base.mbpp(base.llama("meta-llama/Llama-3.2-1B-Instruct", base.LLAMA_32_1B))
    return base.variants(c, arg)
