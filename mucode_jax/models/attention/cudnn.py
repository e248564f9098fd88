"""cuDNN's flash attention, on GPUs in 16 bits. Axes: see the package."""

from __future__ import annotations

import jax
from jax import Array

from mucode_jax.models.attention import xla


def causal(
    q_BxTxNxH: Array, k_BxTxKxH: Array, v_BxTxKxH: Array, segments_BxT: Array | None
) -> Array:
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


def decode(q_Bx1xNxH: Array, k_BxSxKH: Array, v_BxSxKH: Array, limits_Bx1: Array) -> Array:
    """One query per row over the cache, [B, 1, N, H]."""
    k_BxSxKxH, v_BxSxKxH = (xla.by_head(x, q_Bx1xNxH.shape[-1]) for x in (k_BxSxKH, v_BxSxKH))
    return jax.nn.dot_product_attention(
        *(q_Bx1xNxH, k_BxSxKxH, v_BxSxKxH),
        key_value_seq_lengths=limits_Bx1[:, 0] + 1,
        implementation="cudnn",
    )
