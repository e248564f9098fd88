"""TPUs: the splash kernel for whole rows. Axes: see the package."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from mucode_jax.models import sharding


def causal(
    q_BxTxNxH: Array,
    k_BxTxKxH: Array,
    v_BxTxKxH: Array,
    segments_BxT: Array | None,
    *,
    interpret: bool = False,
) -> Array:
    """The kernel, on each device's own rows and heads (the compiler cannot split it): [B, T, N, H].

    `interpret` runs it without a TPU, for tests.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    q, k, v, segments = q_BxTxNxH, k_BxTxKxH, v_BxTxKxH, segments_BxT
    batch, length, heads, width = q.shape
    # The kernel's blocks are multiples of 128 columns; the rows are filled up with a segment that
    # no token belongs to.
    fill = -length % 128
    if segments is None:
        segments = jnp.zeros((batch, length), jnp.int32)
    if fill:
        q, k, v = (jnp.pad(x, ((0, 0), (0, fill), (0, 0), (0, 0))) for x in (q, k, v))
        segments = jnp.pad(segments, ((0, 0), (0, fill)), constant_values=-1)

    axes = sharding.automatic_axes()
    tensor = axes.get("tensor", 1)
    if tensor > 1 and heads % tensor == 0 and k.shape[2] % tensor:
        # More devices than key/value heads: each device gets a copy of the ones it needs.
        k, v = (jnp.repeat(x, heads // x.shape[2], axis=2) for x in (k, v))

    def local(q: Array, k: Array, v: Array, segments: Array) -> Array:
        length, heads = q.shape[1:3]
        block = next(size for size in (512, 384, 256, 128) if length % size == 0)
        kinds = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
        kernel = splash.make_splash_mha(
            mask=splash.MultiHeadMask([splash.CausalMask((length, length))] * heads),
            block_sizes=splash.BlockSizes(**{f"block_{kind}": block for kind in kinds}),
            head_shards=1,
            q_seq_shards=1,
            interpret=interpret,
        )
        by_head = [jnp.swapaxes(x, 1, 2) for x in (q * (1 / math.sqrt(width)), k, v)]
        out = jax.vmap(lambda q, k, v, ids: kernel(q, k, v, splash.SegmentIds(ids, ids)))(
            *by_head, segments
        )
        return jnp.swapaxes(out, 1, 2).astype(q.dtype)

    if axes:  # of one device each, too: the mesh may have others, mapped already
        q_spec = sharding.spec(("batch", "length", "heads", None), q.shape, axes)
        k_spec = sharding.spec(("batch", "length", "kv_heads", None), k.shape, axes)
        segments_spec = sharding.spec(("batch", "length"), segments.shape, axes)
        local = jax.shard_map(
            local,
            in_specs=(q_spec, k_spec, k_spec, segments_spec),
            out_specs=q_spec,
            axis_names=set(axes),
            check_vma=False,
        )
    return local(q, k, v, segments)[:, :length]
