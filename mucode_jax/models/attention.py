"""Attention on every device: splash on TPU, cuDNN's flash on GPU, plain XLA elsewhere.

Axes: B batch, T query length, S key length, N query heads, K key/value heads, G = N / K, H head
width. Query t of row b sees key column s where s ≤ limits[b, t] and, if segments are given, where
both belong to the same segment. Scores and softmax are float32.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from mucode_jax.models import rows, sharding

IMPLEMENTATIONS = ("auto", "splash", "cudnn", "xla")

# Plain XLA works through long rows in blocks of this many queries, and keeps no scores of rows
# longer than _STORED, so that [T, S] never lies whole in memory (the kernels do that themselves).
_QUERY_BLOCK = 512
_STORED = 1024
_MASKED = -0.7 * float(np.finfo(np.float32).max)


def choose(implementation: str, dtype: jnp.dtype) -> str:
    """What "auto" stands for on the default backend: cuDNN has no float32."""
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"attention {implementation!r} is none of {', '.join(IMPLEMENTATIONS)}")
    if implementation != "auto":
        return implementation
    backend = jax.default_backend()
    if backend == "tpu":
        return "splash"
    return "cudnn" if backend == "gpu" and dtype in (jnp.bfloat16, jnp.float16) else "xla"


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array | None = None,
    *,
    implementation: str = "auto",
) -> jax.Array:
    """Causal self-attention over (packed) rows.

    Args:
      q: [B, T, N, H].
      k, v: [B, T, K, H].
      segment_ids: int32 [B, T], or None where each row is one segment. Tokens attend within their
        own segment only; padding is a segment of its own (0 by custom).
      implementation: one of IMPLEMENTATIONS.

    Returns:
      [B, T, N, H], in q's dtype.
    """
    which = choose(implementation, q.dtype)
    if which == "splash":
        return _splash(q, k, v, segment_ids)
    if which == "cudnn":
        same = None
        if segment_ids is not None:
            same = (segment_ids[:, :, None] == segment_ids[:, None, :])[:, None]
        return jax.nn.dot_product_attention(
            q, k, v, mask=same, is_causal=True, implementation="cudnn"
        )
    return _causal(q, k, v, segment_ids)


def attend_cached(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    limits: jax.Array,
    *,
    implementation: str = "auto",
) -> jax.Array:
    """Attention of new tokens over a cache that already holds them.

    Args:
      q: [B, T, N, H].
      k, v: the cache [B, S, K*H].
      limits: int32 [B, T], the last column that each query sees (its own position).
      implementation: one of IMPLEMENTATIONS; "splash" stands for what suits a TPU.

    Returns:
      [B, T, N, H], in q's dtype.
    """
    batch, length, heads, width = q.shape
    columns, groups = k.shape[1], k.shape[2] // width
    k, v = k.astype(q.dtype), v.astype(q.dtype)
    which = choose(implementation, q.dtype)
    alone = math.prod(sharding.automatic_axes().values()) == 1
    if length == 1 and which == "xla" and alone and jax.default_backend() == "cpu":
        return rows.attend_rows(q, k, v, limits)
    if length == 1 and which == "splash":
        # Each device's heads at once: see _decode.
        tensor = sharding.automatic_axes().get("tensor", 1)
        return _decode(q, k, v, limits, parts=tensor if groups % tensor == 0 else 1)
    k, v = (x.reshape(batch, columns, groups, width) for x in (k, v))
    if length == 1 and which == "cudnn":
        return jax.nn.dot_product_attention(
            q, k, v, key_value_seq_lengths=limits[:, 0] + 1, implementation="cudnn"
        )
    return _cached(q, k, v, limits)


def _decode(
    q: jax.Array, k: jax.Array, v: jax.Array, limits: jax.Array, *, parts: int
) -> jax.Array:
    """One query a row over a cache that is read as it lies, [B, S, K*H].

    Grouping by key/value head makes the compiler copy the cache into another layout at every step.
    Instead the heads of a part are multiplied with all its columns at once, each query being zero
    outside its own head: more arithmetic than is needed, but decoding waits for memory.
    """
    batch, _, heads, width = q.shape
    columns, features = k.shape[1:]
    groups = features // width // parts  # key/value heads of a part
    own = jnp.eye(groups, dtype=q.dtype)
    q = q.reshape(batch, parts, groups, heads // (parts * groups), 1, width)
    q = (q * own[:, None, :, None]).reshape(batch, parts, heads // parts, groups * width)
    k, v = (x.reshape(batch, columns, parts, groups * width) for x in (k, v))
    scores = jnp.einsum("bpnc,bspc->bpns", q, k, preferred_element_type=jnp.float32)
    seen = _visible(columns, limits)
    scores = jnp.where(seen[:, None], scores * (1 / math.sqrt(width)), _MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    out = jnp.einsum("bpns,bspc->bpnc", weights, v)
    out = out.reshape(batch, parts, groups, heads // (parts * groups), groups, width)
    return jnp.einsum("bpkgjh,kj->bpkgh", out, own).reshape(batch, 1, heads, width)


def _cached(q: jax.Array, k: jax.Array, v: jax.Array, limits: jax.Array) -> jax.Array:
    """Long queries over a cache [B, S, K, H] block by block; every block sees all columns."""
    length = q.shape[1]
    blocked = length - length % _QUERY_BLOCK
    if length <= _QUERY_BLOCK:
        return _xla(q, k, v, limits)

    def split(x: jax.Array) -> jax.Array:
        shape = (x.shape[0], blocked // _QUERY_BLOCK, _QUERY_BLOCK, *x.shape[2:])
        return jnp.moveaxis(x[:, :blocked].reshape(shape), 1, 0)

    out = jax.lax.map(lambda block: _xla(block[0], k, v, block[1]), (split(q), split(limits)))
    out = jnp.moveaxis(out, 0, 1).reshape(q.shape[0], blocked, *q.shape[2:])
    if blocked == length:
        return out
    rest = _xla(q[:, blocked:], k, v, limits[:, blocked:])
    return jnp.concatenate([out, rest], axis=1)


def _causal(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
    """Blocks of queries, each over the columns up to its own end: the rest is never computed."""
    length = q.shape[1]
    size = _QUERY_BLOCK if length > _STORED else min(_QUERY_BLOCK, 128)
    limits = jnp.arange(length, dtype=jnp.int32)[None]

    def one(start: int) -> jax.Array:
        end = min(start + size, length)
        block, seen = slice(start, end), slice(0, end)
        segments = (None, None)
        if segment_ids is not None:
            segments = segment_ids[:, block], segment_ids[:, seen]
        parts = q[:, block], k[:, seen], v[:, seen], limits[:, block], *segments
        # Short rows keep their scores for the backward pass, long ones compute them again.
        return (jax.checkpoint(_xla) if length > _STORED else _xla)(*parts)

    return jnp.concatenate([one(start) for start in range(0, length, size)], axis=1)


def _visible(
    columns: int,
    limits: jax.Array,
    query_segments: jax.Array | None = None,
    key_segments: jax.Array | None = None,
) -> jax.Array:
    """bool [B, T, S]: which key columns each query sees."""
    seen = jnp.arange(columns, dtype=jnp.int32) <= limits[:, :, None]
    if query_segments is not None and key_segments is not None:
        seen &= query_segments[:, :, None] == key_segments[:, None, :]
    return seen


def _xla(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    limits: jax.Array,
    query_segments: jax.Array | None = None,
    key_segments: jax.Array | None = None,
) -> jax.Array:
    batch, length, heads, width = q.shape
    columns, groups = k.shape[1], k.shape[2]
    q = q.reshape(batch, length, groups, heads // groups, width)
    scores = jnp.einsum("btkgh,bskh->bkgts", q, k, preferred_element_type=jnp.float32)
    seen = _visible(columns, limits, query_segments, key_segments)
    scores = jnp.where(seen[:, None, None], scores * (1 / math.sqrt(width)), _MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bkgts,bskh->btkgh", weights, v).reshape(batch, length, heads, width)


def _splash(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array | None,
    *,
    interpret: bool = False,
) -> jax.Array:
    """The TPU kernel, on each device's own rows and heads (it cannot be split by the compiler)."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    batch, length, heads, width = q.shape
    # The kernel's blocks are multiples of 128 columns; the rows are filled up with a segment that
    # no token belongs to.
    fill = -length % 128
    if segment_ids is None:
        segment_ids = jnp.zeros((batch, length), jnp.int32)
    if fill:
        q, k, v = (jnp.pad(x, ((0, 0), (0, fill), (0, 0), (0, 0))) for x in (q, k, v))
        segment_ids = jnp.pad(segment_ids, ((0, 0), (0, fill)), constant_values=-1)

    axes = sharding.automatic_axes()
    tensor = axes.get("tensor", 1)
    if tensor > 1 and heads % tensor == 0 and k.shape[2] % tensor:
        # More devices than key/value heads: each device gets a copy of the ones it needs.
        k, v = (jnp.repeat(x, heads // x.shape[2], axis=2) for x in (k, v))

    def local(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
        heads, length = q.shape[2], q.shape[1]
        block = next(size for size in (512, 384, 256, 128) if length % size == 0)
        kernel = splash.make_splash_mha(
            mask=splash.MultiHeadMask([splash.CausalMask((length, length))] * heads),
            block_sizes=splash.BlockSizes(
                **dict.fromkeys(
                    ("block_q", "block_kv", "block_kv_compute", "block_q_dkv", "block_kv_dkv"),
                    block,
                ),
                **dict.fromkeys(("block_kv_dkv_compute", "block_q_dq", "block_kv_dq"), block),
            ),
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
        of_q = sharding.spec(("batch", "length", "heads", None), q.shape, axes)
        of_k = sharding.spec(("batch", "length", "kv_heads", None), k.shape, axes)
        of_ids = sharding.spec(("batch", "length"), segment_ids.shape, axes)
        local = jax.shard_map(
            local,
            in_specs=(of_q, of_k, of_k, of_ids),
            out_specs=of_q,
            axis_names=set(axes),
            check_vma=False,
        )
    return local(q, k, v, segment_ids)[:, :length]
