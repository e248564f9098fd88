"""Tiny random models for the tests of this room."""

import dataclasses

import jax
import numpy as np

from mucode_jax.models import llama
from mucode_jax.models.llama import LlamaConfig, RopeScaling

SCALING = RopeScaling(8.0, 1.0, 4.0, 16)

# Every option at least once.
CONFIGS = {
    "llama2": LlamaConfig(64, 32, 2, 4, 4, 8, 48, rms_eps=1e-6, max_positions=128),
    "llama3": LlamaConfig(64, 32, 2, 4, 2, 8, 48, rope_theta=5e5, max_positions=128),
    "llama31": LlamaConfig(
        *(64, 32, 3, 4, 2, 8, 48), rope_theta=5e5, rope_scaling=SCALING, max_positions=128
    ),
    "llama32": LlamaConfig(
        *(61, 32, 2, 4, 1, 6, 40),
        rope_theta=5e5,
        rope_scaling=dataclasses.replace(SCALING, factor=32.0),
        tied=True,
        max_positions=128,
    ),
}


def params(config, seed=0):
    """Random parameters of ten times the usual size, so that attention is uneven; norms not 1."""
    rng = np.random.default_rng(seed)

    def draw(x):
        if x.ndim == 1 or (x.shape[-1] == config.d_model and x.ndim == 2 and x.shape[0] < 8):
            return rng.uniform(0.5, 1.5, x.shape).astype(np.float32)
        return rng.normal(0, 0.2, x.shape).astype(np.float32)

    tree = jax.tree.map(draw, llama.abstract_params(config))
    return jax.tree.map(lambda x: jax.numpy.asarray(x, config.param_dtype), tree)


def tokens(config, batch, length, seed=0):
    return np.random.default_rng(seed).integers(3, config.vocab_size, (batch, length), np.int32)


def positions(batch, length):
    return np.broadcast_to(np.arange(length, dtype=np.int32), (batch, length))
