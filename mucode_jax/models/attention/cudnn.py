"""cuDNN's flash attention, on GPUs in 16 bits. Axes: see the package."""

from __future__ import annotations

import jax

from mucode_jax.models.attention import xla


def causal(
    q_BxTxNxH: jax.Array,
    k_BxTxKxH: jax.Array,
    v_BxTxKxH: jax.Array,
    segments_BxT: jax.Array | None,
) -> jax.Array:
    """Whole rows, [B, T, N, H]."""
    same_Bx1xTxT = None
    if segments_BxT is not None:
        same_Bx1xTxT = (segments_BxT[:, :, None] == segments_BxT[:, None, :])[:, None]
    return jax.nn.dot_product_attention(
        *(q_BxTxNxH, k_BxTxKxH, v_BxTxKxH),
        mask=same_Bx1xTxT,
        is_causal=True,
        implementation="cudnn",
    )


def decode(
    q_Bx1xNxH: jax.Array, k_BxSxKH: jax.Array, v_BxSxKH: jax.Array, limits_Bx1: jax.Array
) -> jax.Array:
    """One query per row over the cache, [B, 1, N, H]."""
    k_BxSxKxH, v_BxSxKxH = (xla.by_head(x, q_Bx1xNxH.shape[-1]) for x in (k_BxSxKH, v_BxSxKH))
    return jax.nn.dot_product_attention(
        *(q_Bx1xNxH, k_BxSxKxH, v_BxSxKxH),
        key_value_seq_lengths=limits_Bx1[:, 0] + 1,
        implementation="cudnn",
    )
