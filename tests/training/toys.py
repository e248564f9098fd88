"""A model and data small enough to compile and train in a test."""

import jax
import numpy as np

from mucode_jax.core.records import SFTExample, VerifierExample
from mucode_jax.models import llama
from mucode_jax.models.llama import LlamaConfig
from mucode_jax.training import batches, losses
from mucode_jax.training.fit import Recipe
from mucode_jax.training.fit import fit as train
from mucode_jax.training.step import OptimizerConfig

# Odd sizes on purpose: 61 ids cannot be split over devices.
CONFIG = LlamaConfig(
    vocab_size=61,
    d_model=16,
    n_layers=2,
    n_heads=2,
    n_kv_heads=2,
    head_dim=8,
    d_ff=32,
    tied=True,
)


def generator(config=CONFIG, seed=0):
    """Random parameters, drawn by numpy: nothing to compile."""
    rng = np.random.default_rng(seed)

    def draw(x):
        return (rng.normal(size=x.shape) * 0.3).astype(np.float32)

    params = jax.tree.map(draw, llama.abstract_params(config))
    for norm in (params["norm"], params["layers"]["attention_norm"], params["layers"]["mlp_norm"]):
        norm["scale"] = 1 + 0.1 * norm["scale"]
    return params


def verifier_params(config=CONFIG):
    head = np.random.default_rng(9).normal(size=(config.d_model, 1)).astype(np.float32)
    return {"trunk": generator(config), "head": {"kernel": head * 0.3}}


def sft_examples(count, seed=0, longest=24):
    rng = np.random.default_rng(seed)
    examples = []
    for i in range(count):
        n = int(rng.integers(4, longest + 1))
        weights = (np.arange(n) >= rng.integers(1, n)).astype(np.float32)
        ids = rng.integers(1, CONFIG.vocab_size, n).astype(np.int32)
        examples.append(SFTExample(f"p{i % 7}", ids, weights))
    return examples


def verifier_examples(count, seed=0, longest=24, problems=5):
    rng = np.random.default_rng(seed)
    return [
        VerifierExample(
            f"p{i % problems}",
            rng.integers(1, CONFIG.vocab_size, int(rng.integers(4, longest + 1))).astype(np.int32),
            bool(rng.random() < 0.5),
        )
        for i in range(count)
    ]


SFT = sft_examples(40)
# Two epochs of four steps, in four rows.
EPOCHS = batches.pack_sft(SFT, batches.Packing(batch=10, length=40, epochs=2, rows=4), (0,)).epochs
OPTIMIZER = OptimizerConfig(1e-2, schedule="cosine", warmup_steps=2, weight_decay=0.1)


def fit(
    mesh, *, params=generator, epochs=EPOCHS, checkpoints=None, on_step=None, on_epoch=None, **r
):
    """Two epochs of the toy generator on `mesh`; `r` changes the recipe."""
    recipe = Recipe(**{"epochs": 2, "batch": 10, "length": 40, "optimizer": OPTIMIZER, **r})
    return train(
        losses.sft(CONFIG),
        params,
        epochs,
        recipe,
        axes=llama.logical_axes(CONFIG),
        mesh=mesh,
        checkpoints=checkpoints and str(checkpoints),
        on_step=on_step,
        on_epoch=on_epoch,
    )
