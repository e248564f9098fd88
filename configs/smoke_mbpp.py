"""Every path of a real run, on real MBPP problems, with a small random Llama: accuracy is zero.

    python -m mucode_jax.main --config configs/smoke_mbpp.py:DATA --workdir runs/smoke_mbpp

DATA is a folder with mbpp.jsonl and llama3/ (tokenizer.model, special_tokens.json and the chat
template). Takes a few minutes on two cores. A random generator solves nothing, so each problem's
reference solution is put among its rollouts (`rollout.add_correct`): without a correct completion
there is nothing to train on.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(data: str = "") -> ConfigDict:
    """The settings; `data` is the folder."""
    if not data:
        raise ValueError("name the folder of the data: --config configs/smoke_mbpp.py:DATA")
    c = base.get_config()
    c.generator.path = f"random:{data}/llama3"
    c.generator.shape.update(
        vocab_size=128_256,
        d_model=32,
        n_layers=2,
        n_heads=2,
        n_kv_heads=1,
        head_dim=16,
        d_ff=96,
        tied=True,
        max_positions=8192,
    )
    for section, split in ((c.train, "train"), (c.evaluation, "test")):
        section.benchmark = "mbpp"
        section.data = f"{data}/mbpp.jsonl"
        section.split = split
        section.size = 8
    c.iterations = 1
    c.rollout.n = 2
    c.rollout.add_correct = True
    c.rollout.max_new_tokens = 32
    c.rollout.max_feedback_tokens = 96
    c.rollout.context = 768
    c.rollout.slots = 16
    c.expert.max_unsuccessful = 1
    c.verifier_training.batch = 8
    c.verifier_training.epochs = 1
    c.sft.batch = 8
    c.sft.epochs = 1
    c.search.n = 2
    c.search.searches = 1
    return c
