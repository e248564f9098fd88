"""Plain XLA, on every device. Axes: see the package."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

# Long rows are worked through in blocks of this many queries, and of rows longer than STORED no
# scores are kept, so that [T, S] never lies whole in memory (the kernels do that themselves).
QUERY_BLOCK = 512
STORED = 1024
MASKED = -0.7 * float(np.finfo(np.float32).max)


def by_head(x_BxSxKH: jax.Array, width: int) -> jax.Array:
    """The cache's [B, S, K*H] as [B, S, K, H]."""
    return x_BxSxKH.reshape(*x_BxSxKH.shape[:2], -1, width)


def causal(
    q_BxTxNxH: jax.Array,
    k_BxTxKxH: jax.Array,
    v_BxTxKxH: jax.Array,
    segments_BxT: jax.Array | None,
) -> jax.Array:
    """Whole rows, in blocks of queries, each over the columns up to its own end: [B, T, N, H]."""
    length = q_BxTxNxH.shape[1]
    size = QUERY_BLOCK if length > STORED else min(QUERY_BLOCK, 128)
    limits_1xT = jnp.arange(length, dtype=jnp.int32)[None]
    # Short rows keep their scores for the backward pass, long ones compute them again.
    attend = jax.checkpoint(grouped) if length > STORED else grouped

    def block(start: int) -> jax.Array:
        queries, keys = slice(start, min(start + size, length)), slice(min(start + size, length))
        segments = (None, None)
        if segments_BxT is not None:
            segments = segments_BxT[:, queries], segments_BxT[:, keys]
        return attend(
            q_BxTxNxH[:, queries],
            *(k_BxTxKxH[:, keys], v_BxTxKxH[:, keys]),
            limits_1xT[:, queries],
            *segments,
        )

    return jnp.concatenate([block(start) for start in range(0, length, size)], axis=1)


def cached(
    q_BxTxNxH: jax.Array, k_BxSxKxH: jax.Array, v_BxSxKxH: jax.Array, limits_BxT: jax.Array
) -> jax.Array:
    """New queries over a cache, block by block, each over all columns: [B, T, N, H]."""
    batch, length = limits_BxT.shape
    if length <= QUERY_BLOCK:
        return grouped(q_BxTxNxH, k_BxSxKxH, v_BxSxKxH, limits_BxT)
    blocked = length - length % QUERY_BLOCK

    def split(x: jax.Array) -> jax.Array:
        blocks = x[:, :blocked].reshape(batch, -1, QUERY_BLOCK, *x.shape[2:])
        return jnp.moveaxis(blocks, 1, 0)

    out = jax.lax.map(
        lambda block: grouped(block[0], k_BxSxKxH, v_BxSxKxH, block[1]),
        (split(q_BxTxNxH), split(limits_BxT)),
    )
    out = jnp.moveaxis(out, 0, 1).reshape(batch, blocked, *q_BxTxNxH.shape[2:])
    if blocked == length:
        return out
    rest = grouped(q_BxTxNxH[:, blocked:], k_BxSxKxH, v_BxSxKxH, limits_BxT[:, blocked:])
    return jnp.concatenate([out, rest], axis=1)


def visible(
    columns: int,
    limits_BxT: jax.Array,
    query_segments_BxT: jax.Array | None = None,
    key_segments_BxS: jax.Array | None = None,
) -> jax.Array:
    """bool [B, T, S], which key columns each query sees: those up to its limit, of its segment."""
    seen_BxTxS = jnp.arange(columns, dtype=jnp.int32) <= limits_BxT[:, :, None]
    if query_segments_BxT is not None and key_segments_BxS is not None:
        seen_BxTxS &= query_segments_BxT[:, :, None] == key_segments_BxS[:, None, :]
    return seen_BxTxS


def grouped(
    q_BxTxNxH: jax.Array,
    k_BxSxKxH: jax.Array,
    v_BxSxKxH: jax.Array,
    limits_BxT: jax.Array,
    query_segments_BxT: jax.Array | None = None,
    key_segments_BxS: jax.Array | None = None,
) -> jax.Array:
    """Attention in one piece, the query heads of a key/value head together: [B, T, N, H]."""
    batch, length, heads, width = q_BxTxNxH.shape
    columns, groups = k_BxSxKxH.shape[1:3]
    q_BxTxKxGxH = q_BxTxNxH.reshape(batch, length, groups, heads // groups, width)
    scores_BxKxGxTxS = jnp.einsum(
        "btkgh,bskh->bkgts", q_BxTxKxGxH, k_BxSxKxH, preferred_element_type=jnp.float32
    )
    seen_BxTxS = visible(columns, limits_BxT, query_segments_BxT, key_segments_BxS)
    scores_BxKxGxTxS *= 1 / math.sqrt(width)
    scores_BxKxGxTxS = jnp.where(seen_BxTxS[:, None, None], scores_BxKxGxTxS, MASKED)
    weights_BxKxGxTxS = jax.nn.softmax(scores_BxKxGxTxS, axis=-1).astype(v_BxSxKxH.dtype)
    out_BxTxKxGxH = jnp.einsum("bkgts,bskh->btkgh", weights_BxKxGxTxS, v_BxSxKxH)
    return out_BxTxKxGxH.reshape(batch, length, heads, width)
