"""Decoding on a CPU: each row on its own, over as many columns as it has. Axes: see the package.

A batched product over the whole cache makes XLA's CPU backend copy and regroup all of it at every
step, however little of it is in use. Here a loop goes over the rows, and each takes the branch
compiled for the smallest width that holds it. What a row gets depends on that row alone.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from mucode_jax.models.attention import xla


def _widths(columns: int) -> tuple[int, ...]:
    """The column counts that are compiled: 0, 32, 64, 96, 128, 192, 256, 384 … and all of them.

    Each is the same for every cache that is longer, so that a row's arithmetic does not depend on
    how long the cache is.
    """
    sizes = {size for power in range(5, 31) for size in (2**power, 3 * 2**power)} - {48}
    return (0, *sorted(size for size in sizes if size < columns), columns)


def decode(
    q_Bx1xNxH: jax.Array, k_BxSxKH: jax.Array, v_BxSxKH: jax.Array, limits_Bx1: jax.Array
) -> jax.Array:
    """One query per row over the cache, [B, 1, N, H].

    A row whose limit is -1 sees nothing, costs nothing and gets zeros.
    """
    batch, _, heads, width = q_Bx1xNxH.shape
    features = k_BxSxKH.shape[2]
    kv_heads, dtype = features // width, q_Bx1xNxH.dtype
    # Every head is multiplied with all features, being zero outside its own key/value head: more
    # arithmetic, but the cache is read as it lies.
    own_NxK = jnp.repeat(jnp.eye(kv_heads, dtype=dtype), heads // kv_heads, axis=0)
    q_BxNxKxH = q_Bx1xNxH[:, 0, :, None] * own_NxK[:, :, None] * (1 / math.sqrt(width))
    q_BxNxKH = q_BxNxKxH.reshape(batch, heads, features)

    def over(size: int):
        """Attention of one row over its first `size` columns, [N, K*H]."""

        def attend(row: jax.Array) -> jax.Array:
            if size == 0:
                return jnp.zeros((heads, features), dtype)
            k_SxKH, v_SxKH = (
                jax.lax.dynamic_slice(x, (row, 0, 0), (1, size, features))[0]
                for x in (k_BxSxKH, v_BxSxKH)
            )
            scores_NxS = jnp.dot(q_BxNxKH[row], k_SxKH.T, preferred_element_type=jnp.float32)
            seen_S = jnp.arange(size, dtype=jnp.int32) <= limits_Bx1[row]
            weights_NxS = jax.nn.softmax(jnp.where(seen_S, scores_NxS, xla.MASKED), axis=-1)
            return weights_NxS.astype(dtype) @ v_SxKH

        return attend

    widths = _widths(k_BxSxKH.shape[1])
    branches = [over(size) for size in widths]
    choice_B = jnp.searchsorted(jnp.asarray(widths), limits_Bx1[:, 0] + 1)

    def one_row(row: jax.Array, out_BxNxKH: jax.Array) -> jax.Array:
        out_NxKH = jax.lax.switch(choice_B[row], branches, row)
        return jax.lax.dynamic_update_slice(out_BxNxKH, out_NxKH[None], (row, 0, 0))

    empty_BxNxKH = jnp.zeros((batch, heads, features), dtype)
    out_BxNxKH = jax.lax.fori_loop(0, batch, one_row, empty_BxNxKH)
    out_BxNxKxH = out_BxNxKH.reshape(batch, heads, kv_heads, width)
    return jnp.einsum("bnkh,nk->bnh", out_BxNxKxH, own_NxK)[:, None]
