"""The verifier: the generator's trunk with a scalar head, read at the last token of a text.

{"trunk": llama parameters without "head", "head": {"kernel": [D, 1]}}
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mucode_jax.models import llama
from mucode_jax.models.llama import LlamaConfig, Params


def init_head(config: LlamaConfig, key: jax.Array) -> Params:
    """{"kernel": [D, 1]}: normal with std 1/√(D+1), the initialisation of the published runs."""
    std = 1 / math.sqrt(config.d_model + 1)
    kernel = std * jax.random.normal(key, (config.d_model, 1), jnp.float32)
    return {"kernel": kernel.astype(config.param_dtype)}


def from_generator(config: LlamaConfig, generator: Params, key: jax.Array) -> Params:
    """A verifier with the generator's trunk (shared, not copied) and a fresh head."""
    trunk = {name: part for name, part in generator.items() if name != "head"}
    return {"trunk": trunk, "head": init_head(config, key)}


def abstract_params(config: LlamaConfig) -> Params:
    """The tree of `jax.ShapeDtypeStruct`s of a verifier."""
    key = jax.eval_shape(jax.random.key, 0)
    generator = llama.abstract_params(config)
    return jax.eval_shape(functools.partial(from_generator, config), generator, key)


def logical_axes(config: LlamaConfig) -> Params:
    """The logical axis names of every parameter (see `sharding.RULES`)."""
    trunk: dict[str, Any] = llama.logical_axes(config)
    trunk.pop("head", None)
    return {"trunk": trunk, "head": {"kernel": PartitionSpec("embed", "score")}}


def scores(
    config: LlamaConfig,
    params: Params,
    tokens: jax.Array,
    *,
    positions: jax.Array,
    segment_ids: jax.Array | None,
    ends: jax.Array,
) -> jax.Array:
    """The score of each text of packed rows.

    Args:
      config, params: the verifier.
      tokens, positions, segment_ids: int32 [B, T], see `llama.hidden`.
      ends: int32 [B, E], the column of each text's last token; entries that stand for no text may
        be any column, and their scores mean nothing.

    Returns:
      float32 [B, E].
    """
    states = llama.hidden(
        config, params["trunk"], tokens, positions=positions, segment_ids=segment_ids
    )
    last = jnp.take_along_axis(states, ends[..., None], axis=1, mode="clip")
    kernel = params["head"]["kernel"].astype(jnp.float32)
    return (last.astype(jnp.float32) @ kernel)[..., 0]
