"""μCode on 1,000 CodeContests problems with Llama-3.1-8B-Instruct.

    python -m mucode_jax.main --config configs/llama31_8b_code_contests.py --workdir runs/contests

Programs that read standard input, in the words of that benchmark's own prompt; each problem keeps
its own time limit, and longer statements get a longer context. `:star`, `:multi_star`, `:bce`,
`:lora`, `:compat` change it, also together: `:star,lora` (`base.variants`). Published (N = 5,
pt+lv): μCode with Best-of-N 16.3.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """The settings; `arg` names variants."""
    c = base.llama("meta-llama/Llama-3.1-8B-Instruct", base.LLAMA_31_8B)
    c.train.benchmark = c.evaluation.benchmark = "code_contests"
    c.train.split, c.evaluation.split = "train", "test"
    c.train.size = 1000
    c.rollout.context = c.sft.length = 8192
    c.verifier_training.length = 4096  # a statement and a completion
    c.mesh.sampling_tensor = -1
    return base.variants(c, arg)
