"""Plain XLA, on every device. Axes: see the package."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Long rows are worked through in blocks of this many queries, and of rows longer than STORED no
# scores are kept, so that [T, S] never lies whole in memory (the kernels do that themselves).
QUERY_BLOCK = 512
STORED = 1024
MASKED = -0.7 * float(np.finfo(np.float32).max)


def causal(
    q_BxTxNxH: Array, k_BxTxKxH: Array, v_BxTxKxH: Array, segments_BxT: Array | None
) -> Array:
    """Whole rows, in blocks of queries, each over the columns up to its own end: [B, T, N, H]."""
    length = q_BxTxNxH.shape[1]
    size = QUERY_BLOCK if length > STORED else min(QUERY_BLOCK, 128)
    limits_1xT = jnp.arange(length, dtype=jnp.int32)[None]
    # Short rows keep their scores for the backward pass, long ones compute them again.
    attend = jax.checkpoint(grouped) if length > STORED else grouped

    def block(start: int) -> Array:
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


def paged(
    q_BxTxNxH: Array,
    k_PxCxKH: Array,
    v_PxCxKH: Array,
    tables_BxM: Array,
    limits_BxT: Array,
    *,
    parts: int,
    pages: int,
) -> Array:
    """New queries over the pages of their rows, `pages` of each row at a time: [B, T, N, H].

    The softmax is carried from pages to pages (Milakov & Gimelshein 2018). The loop ends with the
    row that has most; what lies behind a row's own end is multiplied by zero, and its sums by one,
    so that no bit of a row depends on how far the loop runs.

    Grouping by key/value head costs a copy of what is read into another layout. Where there are
    `parts` fewer than key/value heads, the heads of a part are multiplied with all its features,
    each query being zero outside its own head: more arithmetic, but the pages are read as they lie.
    """
    batch, length, heads, width = q_BxTxNxH.shape
    columns, features = k_PxCxKH.shape[1:]
    groups = features // width // parts  # key/value heads of a part
    wide = features // parts
    same_GxG = jnp.eye(groups, dtype=q_BxTxNxH.dtype)
    q = q_BxTxNxH.reshape(batch, length, parts, groups, heads // (parts * groups), 1, width)
    q = (q * same_GxG[:, None, :, None]).reshape(batch, length, parts, heads // parts, wide)
    tables_BxM = jnp.pad(tables_BxM, ((0, 0), (0, -tables_BxM.shape[1] % pages)))

    def read(pool_PxCxKH: Array, first: Array) -> Array:
        here = jax.lax.dynamic_slice_in_dim(tables_BxM, first, pages, axis=1)
        x = jnp.take(pool_PxCxKH, here, axis=0, mode="clip")
        return x.reshape(batch, pages * columns, parts, wide).astype(q.dtype)

    def block(i: Array, carried: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        top, total, out = carried
        k, v = read(k_PxCxKH, i * pages), read(v_PxCxKH, i * pages)
        scores = jnp.einsum("btanf,bsaf->bants", q, k, preferred_element_type=jnp.float32)
        seen_BxTxS = visible(pages * columns, limits_BxT - i * pages * columns)
        scores = jnp.where(seen_BxTxS[:, None, None], scores * (1 / math.sqrt(width)), MASKED)
        new_top = jnp.maximum(top, scores.max(-1))
        weights = jnp.exp(scores - new_top[..., None])
        fade = jnp.exp(top - new_top)
        mixed = jnp.einsum(
            "bants,bsaf->bantf", weights.astype(v.dtype), v, preferred_element_type=jnp.float32
        )
        return new_top, total * fade + weights.sum(-1), out * fade[..., None] + mixed

    shape = (batch, parts, heads // parts, length)
    start = jnp.full(shape, MASKED), jnp.zeros(shape), jnp.zeros((*shape, wide))
    blocks = limits_BxT.max() // (pages * columns) + 1
    _, total, out = jax.lax.fori_loop(0, blocks, block, start)
    out = (out / jnp.maximum(total, 1e-30)[..., None]).astype(q.dtype)
    out = out.reshape(batch, parts, groups, heads // (parts * groups), length, groups, width)
    return jnp.einsum("bakgtjh,kj->btakgh", out, same_GxG).reshape(q_BxTxNxH.shape)


def visible(
    columns: int,
    limits_BxT: Array,
    query_segments_BxT: Array | None = None,
    key_segments_BxS: Array | None = None,
) -> Array:
    """bool [B, T, S], which key columns each query sees: those up to its limit, of its segment."""
    seen_BxTxS = jnp.arange(columns, dtype=jnp.int32) <= limits_BxT[:, :, None]
    if query_segments_BxT is not None and key_segments_BxS is not None:
        seen_BxTxS &= query_segments_BxT[:, :, None] == key_segments_BxS[:, None, :]
    return seen_BxTxS


def grouped(
    q_BxTxNxH: Array,
    k_BxSxKxH: Array,
    v_BxSxKxH: Array,
    limits_BxT: Array,
    query_segments_BxT: Array | None = None,
    key_segments_BxS: Array | None = None,
) -> Array:
    """Attention in one piece, the query heads of a key/value head together: [B, T, N, H]."""
    batch, length, heads, width = q_BxTxNxH.shape
    columns, groups = k_BxSxKxH.shape[1:3]
    q_BxTxKxGxH = q_BxTxNxH.reshape(batch, length, groups, heads // groups, width)
    scores_BxKxGxTxS = jnp.einsum(
        "btkgh,bskh->bkgts", q_BxTxKxGxH, k_BxSxKxH, preferred_element_type=jnp.float32
    )
    seen_BxTxS = visible(columns, limits_BxT, query_segments_BxT, key_segments_BxS)
    scores_BxKxGxTxS = jnp.where(
        seen_BxTxS[:, None, None], scores_BxKxGxTxS * (1 / math.sqrt(width)), MASKED
    )
    weights_BxKxGxTxS = jax.nn.softmax(scores_BxKxGxTxS, axis=-1).astype(v_BxSxKxH.dtype)
    out_BxTxKxGxH = jnp.einsum("bkgts,bskh->btkgh", weights_BxKxGxTxS, v_BxSxKxH)
    return out_BxTxKxGxH.reshape(batch, length, heads, width)
