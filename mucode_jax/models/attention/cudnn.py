"""cuDNN's flash attention, on GPUs in 16 bits. Axes: see the package."""

from __future__ import annotations

import jax
from jax import Array


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
