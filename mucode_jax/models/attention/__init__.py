"""Attention: a file for each backend, and the table of which one runs where.

    | device        | training, scoring   | prefill      | decode                            |
    | ------------- | ------------------- | ------------ | --------------------------------- |
    | CPU           | xla.causal          | xla.cached   | cpu.decode (on a mesh xla.cached) |
    | GPU, 16 bits  | cudnn.causal        | xla.cached   | cudnn.decode                      |
    | GPU, float32  | xla.causal          | xla.cached   | xla.cached                        |
    | TPU           | tpu.causal (splash) | xla.cached   | tpu.decode                        |

The implementation "auto" takes a device's line; "xla", "cudnn" and "splash" name one to be used
wherever the program is compiled. Scores and softmax are float32 everywhere.

Axes, in all files of this folder: B batch, T query length, S key length, N query heads, K key/value
heads, G = N / K, H head width.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from mucode_jax.models import sharding
from mucode_jax.models.attention import cpu, cudnn, tpu, xla

IMPLEMENTATIONS = ("auto", "splash", "cudnn", "xla")


def choose(implementation: str, dtype: jnp.dtype) -> str:
    """What "auto" stands for on the default backend: cuDNN has no float32."""
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"attention {implementation!r} is none of {', '.join(IMPLEMENTATIONS)}")
    if implementation != "auto":
        return implementation
    backend = jax.default_backend()
    if backend == "tpu":
        return "splash"
    return "cudnn" if backend == "gpu" and dtype in (jnp.bfloat16, jnp.float16) else "xla"


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array | None = None,
    *,
    implementation: str = "auto",
) -> jax.Array:
    """Causal self-attention over (packed) rows.

    Args:
      q: [B, T, N, H].
      k, v: [B, T, K, H].
      segment_ids: int32 [B, T], or None where each row is one segment. Tokens attend within their
        own segment only; padding is a segment of its own (0 by custom).
      implementation: one of IMPLEMENTATIONS.

    Returns:
      [B, T, N, H], in q's dtype.
    """
    backends = {"splash": tpu.causal, "cudnn": cudnn.causal, "xla": xla.causal}
    return backends[choose(implementation, q.dtype)](q, k, v, segment_ids)


def attend_cached(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    limits: jax.Array,
    *,
    implementation: str = "auto",
) -> jax.Array:
    """Attention of new tokens over a cache that already holds them: prefill, or decode if T = 1.

    Args:
      q: [B, T, N, H].
      k, v: the cache [B, S, K*H].
      limits: int32 [B, T], the last column that each query sees (its own position).
      implementation: one of IMPLEMENTATIONS.

    Returns:
      [B, T, N, H], in q's dtype.
    """
    k, v = k.astype(q.dtype), v.astype(q.dtype)
    if q.shape[1] == 1:
        which, axes = choose(implementation, q.dtype), sharding.automatic_axes()
        if which == "splash":
            return tpu.decode(q, k, v, limits, tensor=axes.get("tensor", 1))
        if which == "cudnn":
            return cudnn.decode(q, k, v, limits)
        if jax.default_backend() == "cpu" and math.prod(axes.values()) == 1:
            return cpu.decode(q, k, v, limits)
    return xla.cached(q, *(xla.by_head(x, q.shape[-1]) for x in (k, v)), limits)
