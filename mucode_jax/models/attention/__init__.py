"""Attention: a file for each backend, and the table of which one runs where.

    | device        | training, scoring   | prefill   | decode                           |
    | ------------- | ------------------- | --------- | -------------------------------- |
    | CPU           | cpu.causal          | xla.paged | cpu.decode                       |
    | CPUs, a mesh  | xla.causal          | xla.paged | xla.paged                        |
    | GPU, 16 bits  | cudnn.causal        | xla.paged | xla.paged                        |
    | GPU, float32  | xla.causal          | xla.paged | xla.paged                        |
    | TPU           | tpu.causal (splash) | xla.paged | xla.paged                        |

The implementation "auto" takes a device's line; the other names are of one to be used wherever the
program is compiled. Scores and softmax are float32 everywhere.

Axes, in all files of this folder: B batch, T query length, S key length, P pages of the cache,
C columns of a page, M pages of a row, N query heads, K key/value heads, G = N / K, H head width.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from mucode_jax.models import sharding
from mucode_jax.models.attention import cpu, cudnn, tpu, xla

IMPLEMENTATIONS = ("auto", "splash", "cudnn", "cpu", "xla")
PAGES_READ = 8  # of each row at a time, on an accelerator


def choose(implementation: str, dtype: jnp.dtype) -> str:
    """What "auto" stands for on the default backend.

    cuDNN has no float32, and a loop over rows and heads cannot be split over a mesh.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"attention {implementation!r} is none of {', '.join(IMPLEMENTATIONS)}")
    if implementation != "auto":
        return implementation
    backend = jax.default_backend()
    if backend == "tpu":
        return "splash"
    if backend == "gpu" and dtype in (jnp.bfloat16, jnp.float16):
        return "cudnn"
    alone = math.prod(sharding.automatic_axes().values()) == 1
    return "cpu" if backend == "cpu" and alone else "xla"


def attend(
    q: Array, k: Array, v: Array, segment_ids: Array | None = None, *, implementation: str = "auto"
) -> Array:
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
    backends = {
        "splash": tpu.causal,
        "cudnn": cudnn.causal,
        "cpu": cpu.causal,
        "xla": xla.causal,
    }
    return backends[choose(implementation, q.dtype)](q, k, v, segment_ids)


def attend_cached(
    q: Array, k: Array, v: Array, tables: Array, limits: Array, *, implementation: str = "auto"
) -> Array:
    """Attention of new tokens over a cache that already holds them: prefill, or decode if T = 1.

    Args:
      q: [B, T, N, H].
      k, v: the cache's pages [P, C, K*H].
      tables: int32 [B, M], the pages of each row in order.
      limits: int32 [B, T], the last position that each query sees (its own); -1: none.
      implementation: one of IMPLEMENTATIONS.

    Returns:
      [B, T, N, H], in q's dtype.
    """
    which = choose(implementation, q.dtype)
    on_cpu = which == "cpu" or (which == "xla" and jax.default_backend() == "cpu")
    kv_heads = k.shape[2] // q.shape[3]
    if q.shape[1] > 1:
        parts = kv_heads
    elif which == "cpu":
        return cpu.decode(q, k, v, tables, limits)
    else:  # each of the tensor axis' devices takes its own heads at once
        tensor = sharding.automatic_axes().get("tensor", 1)
        parts = tensor if kv_heads % tensor == 0 else 1
    pages = 1 if on_cpu else PAGES_READ
    return xla.paged(q, k, v, tables, limits, parts=parts, pages=pages)
