"""Decode attention on a CPU: each row on its own, over as many columns as it has.

A batched product over the whole cache makes XLA's CPU backend copy and regroup all of it at every
step, however little of it is in use. Here a loop goes over the rows, and each takes the branch
compiled for the smallest width that holds it. What a row gets depends on that row alone.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

_MASKED = -0.7 * float(np.finfo(np.float32).max)


def widths(columns: int) -> tuple[int, ...]:
    """The column counts that are compiled: 32, 64, 96, 128, 192, 256, 384 … and all of them.

    Each is the same for every cache that is longer, so that a row's arithmetic does not depend on
    how long the cache is.
    """
    sizes = {size for power in range(5, 31) for size in (2**power, 3 * 2**power)}
    return (*sorted(size for size in sizes if size < columns and size != 48), columns)


def attend_rows(q: jax.Array, k: jax.Array, v: jax.Array, limits: jax.Array) -> jax.Array:
    """One query a row.

    Args:
      q: [B, 1, N, H].
      k, v: the cache [B, S, K*H].
      limits: int32 [B, 1], the last column that each row sees; a row with -1 sees none, costs
        nothing and gets zeros.

    Returns:
      [B, 1, N, H].
    """
    batch, _, heads, width = q.shape
    features = k.shape[2]
    groups = features // width
    sizes = (0, *widths(k.shape[1]))
    # Every head is multiplied with all features, being zero outside its own key/value head: more
    # arithmetic, but the cache is read as it lies.
    own = jnp.repeat(jnp.eye(groups, dtype=q.dtype), heads // groups, axis=0)  # [N, K]
    spread = q[:, 0, :, None] * own[:, :, None] * (1 / math.sqrt(width))
    spread = spread.reshape(batch, heads, features)
    choice = jnp.searchsorted(jnp.asarray(sizes), limits[:, 0] + 1)

    def over(size: int):
        def branch(row: jax.Array) -> jax.Array:
            if size == 0:
                return jnp.zeros((heads, features), q.dtype)
            keys, values = (
                jax.lax.dynamic_slice(x, (row, 0, 0), (1, size, features))[0] for x in (k, v)
            )
            scores = jnp.dot(spread[row], keys.T, preferred_element_type=jnp.float32)
            seen = jnp.arange(size, dtype=jnp.int32) <= limits[row]
            weights = jax.nn.softmax(jnp.where(seen, scores, _MASKED), axis=-1)
            return weights.astype(v.dtype) @ values

        return branch

    def one(row: jax.Array, out: jax.Array) -> jax.Array:
        result = jax.lax.switch(choice[row], [over(size) for size in sizes], row)
        return jax.lax.dynamic_update_slice(out, result[None], (row, 0, 0))

    out = jax.lax.fori_loop(0, batch, one, jnp.zeros((batch, heads, features), q.dtype))
    out = out.reshape(batch, heads, groups, width)
    return jnp.einsum("bnkh,nk->bnh", out, own)[:, None]
