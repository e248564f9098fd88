"""Attention on a CPU. Axes: see the package; t queries of a block, S keys up to its end.

Whole rows: head by head, in blocks of queries. The backward pass computes the scores again, so that
nothing of size [T, S] is kept.

Decoding: each row on its own, page by page. A batched product over the pages makes XLA copy and
regroup all of them at every step. Here a loop goes over the rows, and for each row another one over
as many pages as it has. What a row gets depends on that row alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from mucode_jax.models.attention import xla


def causal(
    q_BxTxNxH: Array, k_BxTxKxH: Array, v_BxTxKxH: Array, segments_BxT: Array | None
) -> Array:
    """Whole rows, [B, T, N, H]."""
    batch, length, _, width = q_BxTxNxH.shape
    if segments_BxT is None:
        segments_BxT = jnp.zeros((batch, length), jnp.int32)
    q_BxTxKxGxH = q_BxTxNxH.reshape(batch, length, k_BxTxKxH.shape[2], -1, width)
    out_BxKxGxTxH = _causal(
        jnp.transpose(q_BxTxKxGxH, (0, 2, 3, 1, 4)) * (1 / math.sqrt(width)),
        *(jnp.swapaxes(x, 1, 2) for x in (k_BxTxKxH, v_BxTxKxH)),
        segments_BxT,
    )
    return jnp.transpose(out_BxKxGxTxH, (0, 3, 1, 2, 4)).reshape(q_BxTxNxH.shape)


@jax.custom_vjp
def _causal(q_BxKxGxTxH: Array, k_BxKxTxH: Array, v_BxKxTxH: Array, segments_BxT: Array) -> Array:
    """Attention of scaled queries, [B, K, G, T, H]."""
    return _forward(q_BxKxGxTxH, k_BxKxTxH, v_BxKxTxH, segments_BxT)[0]


def _forward(
    q_BxKxGxTxH: Array, k_BxKxTxH: Array, v_BxKxTxH: Array, segments_BxT: Array
) -> tuple[Array, tuple[Array, ...]]:
    """The attention, and what the backward pass needs."""
    arrays = (q_BxKxGxTxH, k_BxKxTxH, v_BxKxTxH)
    out_BxKxGxTxH, normalizers_BxKxGxTx1 = _by_head(_forward_head, segments_BxT, *arrays)
    return out_BxKxGxTxH, (segments_BxT, *arrays, out_BxKxGxTxH, normalizers_BxKxGxTx1)


def _backward(kept: tuple[Array, ...], d_out_BxKxGxTxH: Array) -> tuple[Array, Array, Array, None]:
    return (*_by_head(_backward_head, *kept, d_out_BxKxGxTxH), None)


_causal.defvjp(_forward, _backward)


def _by_head(function: Callable, segments_BxT: Array, *arrays_BxK: Array) -> tuple[Array, ...]:
    """`function` of each key/value head of each row, one after the other: each fits a core's cache.

    Besides the head's arrays it gets a (block, bias) pair for each block of queries. The block is
    their columns; its last is the last key that they see. The bias [t, S] is 0 or masks a key.
    """
    length = segments_BxT.shape[1]
    size = xla.QUERY_BLOCK if length > xla.STORED else 128
    blocks = [slice(start, min(start + size, length)) for start in range(0, length, size)]

    def row(segments_T: Array, arrays_K: tuple[Array, ...]) -> tuple[Array, ...]:
        biases = []
        for block in blocks:
            limits_t = jnp.arange(block.start, block.stop, dtype=jnp.int32)
            segments = segments_T[None, block], segments_T[None, : block.stop]
            (seen_txS,) = xla.visible(block.stop, limits_t[None], *segments)
            biases.append(jnp.where(seen_txS, 0.0, xla.MASKED))
        # Without the barrier every head would work them out anew.
        pairs = list(zip(blocks, jax.lax.optimization_barrier(biases), strict=True))
        return jax.lax.map(lambda head: function(pairs, *head), arrays_K)

    return jax.lax.map(lambda xs: row(*xs), (segments_BxT, arrays_BxK))


def _scores(q_GxtxH: Array, k_SxH: Array, bias_txS: Array) -> Array:
    """float32 [G * t, S]."""
    scores_GtxS = jnp.dot(
        q_GxtxH.reshape(-1, q_GxtxH.shape[-1]), k_SxH.T, preferred_element_type=jnp.float32
    )
    scores_GxtxS = scores_GtxS.reshape(-1, *bias_txS.shape) + bias_txS
    return scores_GxtxS.reshape(scores_GtxS.shape)


def _forward_head(
    pairs: list[tuple[slice, Array]], q_GxTxH: Array, k_TxH: Array, v_TxH: Array
) -> tuple[Array, Array]:
    """The output [G, T, H], and the logsumexp of each query's scores, float32 [G, T, 1]."""
    groups, _, width = q_GxTxH.shape
    outs, normalizers = [], []
    for block, bias_txS in pairs:
        k_SxH, v_SxH = k_TxH[: block.stop], v_TxH[: block.stop]
        scores_GtxS = _scores(q_GxTxH[:, block], k_SxH, bias_txS)
        highest_Gtx1 = jnp.max(scores_GtxS, axis=-1, keepdims=True)
        weights_GtxS = jnp.exp(scores_GtxS - highest_Gtx1)
        total_Gtx1 = jnp.sum(weights_GtxS, axis=-1, keepdims=True)
        out_GtxH = (weights_GtxS.astype(v_SxH.dtype) @ v_SxH / total_Gtx1).astype(v_SxH.dtype)
        outs.append(out_GtxH.reshape(groups, -1, width))
        normalizers.append((highest_Gtx1 + jnp.log(total_Gtx1)).reshape(groups, -1, 1))
    return jnp.concatenate(outs, axis=1), jnp.concatenate(normalizers, axis=1)


def _backward_head(
    pairs: list[tuple[slice, Array]],
    q_GxTxH: Array,
    k_TxH: Array,
    v_TxH: Array,
    out_GxTxH: Array,
    normalizers_GxTx1: Array,
    d_out_GxTxH: Array,
) -> tuple[Array, Array, Array]:
    """The gradients of q, k and v (Dao et al. 2022, appendix B.2)."""
    groups, _, width = q_GxTxH.shape
    dtype = q_GxTxH.dtype
    means_GxTx1 = jnp.sum(d_out_GxTxH.astype(jnp.float32) * out_GxTxH, axis=-1, keepdims=True)
    d_queries = []
    d_k_TxH, d_v_TxH = (jnp.zeros(k_TxH.shape, jnp.float32) for _ in range(2))
    for block, bias_txS in pairs:
        k_SxH, v_SxH = k_TxH[: block.stop], v_TxH[: block.stop]
        q_GtxH, d_out_GtxH = (x[:, block].reshape(-1, width) for x in (q_GxTxH, d_out_GxTxH))
        normalizer_Gtx1, mean_Gtx1 = (
            x[:, block].reshape(-1, 1) for x in (normalizers_GxTx1, means_GxTx1)
        )
        weights_GtxS = jnp.exp(_scores(q_GxTxH[:, block], k_SxH, bias_txS) - normalizer_Gtx1)
        d_weights_GtxS = jnp.dot(d_out_GtxH, v_SxH.T, preferred_element_type=jnp.float32)
        d_scores_GtxS = weights_GtxS * (d_weights_GtxS - mean_Gtx1)
        # Without the barrier they are worked out again for each product.
        weights_GtxS, d_scores_GtxS = jax.lax.optimization_barrier(
            (weights_GtxS.astype(dtype), d_scores_GtxS.astype(dtype))
        )
        d_queries.append((d_scores_GtxS @ k_SxH).reshape(groups, -1, width))
        d_k_TxH = d_k_TxH.at[: block.stop].add(d_scores_GtxS.T @ q_GtxH)
        d_v_TxH = d_v_TxH.at[: block.stop].add(weights_GtxS.T @ d_out_GtxH)
    return jnp.concatenate(d_queries, axis=1), d_k_TxH.astype(dtype), d_v_TxH.astype(dtype)


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
