"""Decoding on a CPU: each row on its own, page by page. Axes: see the package.

A batched product over the pages makes XLA's CPU backend copy and regroup all of them at every step.
Here a loop goes over the rows, and for each row another one over as many pages as it has. What a
row gets depends on that row alone.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from mucode_jax.models.attention import xla


def decode(
    q_Bx1xNxH: Array, k_PxCxKH: Array, v_PxCxKH: Array, tables_BxM: Array, limits_Bx1: Array
) -> Array:
    """One query per row over the pages of the row, [B, 1, N, H].

    A row whose limit is -1 sees nothing, costs nothing and gets zeros.
    """
    batch, _, heads, width = q_Bx1xNxH.shape
    columns, features = k_PxCxKH.shape[1:]
    kv_heads, dtype = features // width, q_Bx1xNxH.dtype
    # Every head is multiplied with all features, being zero outside its own key/value head: more
    # arithmetic, but a page is read as it lies.
    belongs_NxK = jnp.repeat(jnp.eye(kv_heads, dtype=dtype), heads // kv_heads, axis=0)
    q_BxNxKxH = q_Bx1xNxH[:, 0, :, None] * belongs_NxK[:, :, None] * (1 / math.sqrt(width))
    q_BxNxKH = q_BxNxKxH.reshape(batch, heads, features)

    def one_row(row: Array, out_BxNxKH: Array) -> Array:
        q_NxKH, pages_M, limit = q_BxNxKH[row], tables_BxM[row], limits_Bx1[row, 0]

        def page(i: Array, carried: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            top_N, total_N, out_NxKH = carried  # the softmax so far: see `xla.paged`
            k_CxKH, v_CxKH = (
                jax.lax.dynamic_index_in_dim(x, pages_M[i], keepdims=False)
                for x in (k_PxCxKH, v_PxCxKH)
            )
            scores_NxC = jnp.dot(q_NxKH, k_CxKH.T, preferred_element_type=jnp.float32)
            seen_C = jnp.arange(columns, dtype=jnp.int32) + i * columns <= limit
            scores_NxC = jnp.where(seen_C, scores_NxC, xla.MASKED)
            new_top_N = jnp.maximum(top_N, scores_NxC.max(-1))
            weights_NxC = jnp.exp(scores_NxC - new_top_N[:, None])
            fade_N = jnp.exp(top_N - new_top_N)
            mixed_NxKH = jnp.dot(
                weights_NxC.astype(dtype), v_CxKH, preferred_element_type=jnp.float32
            )
            return (
                new_top_N,
                total_N * fade_N + weights_NxC.sum(-1),
                out_NxKH * fade_N[:, None] + mixed_NxKH,
            )

        start = jnp.full(heads, xla.MASKED), jnp.zeros(heads), jnp.zeros((heads, features))
        _, total_N, out_NxKH = jax.lax.fori_loop(0, limit // columns + 1, page, start)
        out_NxKH = (out_NxKH / jnp.maximum(total_N, 1e-30)[:, None]).astype(dtype)
        return jax.lax.dynamic_update_slice(out_BxNxKH, out_NxKH[None], (row, 0, 0))

    empty_BxNxKH = jnp.zeros((batch, heads, features), dtype)
    out_BxNxKH = jax.lax.fori_loop(0, batch, one_row, empty_BxNxKH)
    out_BxNxKxH = out_BxNxKH.reshape(batch, heads, kv_heads, width)
    return jnp.einsum("bnkh,nk->bnh", out_BxNxKxH, belongs_NxK)[:, None]
