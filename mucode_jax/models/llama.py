"""Llama 2, 3, 3.1 and 3.2 in Flax Linen, used as pure functions.

The modules below are stateless descriptions; parameters are a plain nested dict that goes in, the
key/value cache a value that goes in and comes out. In training the layers' parameters are stacked
(leading axis L) and scanned; for sampling `unstack` gives one dict a layer, because a cache that is
scanned over is copied at every step.

    {"embed": {"embedding": [V, D]},
     "layers": {"attention_norm": {"scale": [L, D]},
                "attention": {"query": {"kernel": [L, D, N*H]}, "key": {"kernel": [L, D, K*H]},
                              "value": {"kernel": [L, D, K*H]}, "output": {"kernel": [L, N*H, D]}},
                "mlp_norm": {"scale": [L, D]},
                "mlp": {"gate": {"kernel": [L, D, F]}, "up": {"kernel": [L, D, F]},
                        "down": {"kernel": [L, F, D]}}},
     "norm": {"scale": [D]},
     "head": {"kernel": [D, V]}}            # absent where the embedding is tied

Axes: B batch, T query length, P pages of the cache, C columns of a page, M pages of a row, D model
width, N query heads, K key/value heads, H head width, F feed-forward width, V vocabulary, L layers.

Sources: Touvron et al. 2023 (Llama 2), Grattafiori et al. 2024 (Llama 3); RoPE after Su et al. 2021
in the half-split form of the Hugging Face checkpoints.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from mucode_jax.models import attention
from mucode_jax.models.sharding import constrain

Params = dict[str, Any]
Cache = tuple[dict[str, jax.Array], ...]

_INIT_STD = 0.02
PAGE = 64  # columns of a page of the cache


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's stretching of RoPE to longer contexts (rope type "llama3")."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """The shape of a model and how it is computed."""

    vocab_size: int  # V
    d_model: int  # D
    n_layers: int  # L
    n_heads: int  # N
    n_kv_heads: int  # K
    head_dim: int  # H
    d_ff: int  # F
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    rms_eps: float = 1e-5
    tied: bool = False  # the head is the embedding
    max_positions: int = 4096  # the longest context that the model was made for
    dtype: str = "float32"  # of computation, or "bfloat16"; norms, softmax, logits: always float32
    param_dtype: str = "float32"  # of parameters at initialisation
    remat: bool = False  # compute layers again in the backward pass, instead of keeping activations
    scan: bool = True  # scan over stacked layers (quick to compile) instead of unrolling them
    attention: str = "auto"  # one of `attention.IMPLEMENTATIONS`

    def __post_init__(self) -> None:
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"{self.n_heads} heads are no multiple of {self.n_kv_heads} kv heads")
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd; rotary embedding needs pairs")
        for name in ("dtype", "param_dtype"):
            if getattr(self, name) not in ("float32", "bfloat16"):
                raise ValueError(f"{name} {getattr(self, name)!r} is not float32 or bfloat16")


# Given q [B,T,N,H], k and v [B,T,K*H]: the attention's output [B,T,N,H] and whatever was stored.
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]
Rope = tuple[jax.Array, jax.Array]


class RMSNorm(nn.Module):
    config: LlamaConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        ones = nn.with_logical_partitioning(nn.initializers.ones_init(), ("norm",))
        scale = self.param("scale", ones, (x.shape[-1],), jnp.dtype(c.param_dtype))
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + c.rms_eps)
        return (x * scale).astype(c.dtype)


def flatten(x_BxTxD: jax.Array) -> jax.Array:
    """[B * T, D]: the form in which states are multiplied with a matrix.

    With two leading axes XLA's CPU backend (jaxlib 0.10.2) copies one factor of the matrix's
    gradient element by element before it multiplies: a backward pass takes twice as long.
    """
    return x_BxTxD.reshape(-1, x_BxTxD.shape[-1])


def _dense(config: LlamaConfig, features: int, name: str, axes: tuple[str, str]) -> nn.Dense:
    init = nn.with_logical_partitioning(nn.initializers.normal(_INIT_STD), axes)
    return nn.Dense(
        features,
        use_bias=False,
        dtype=jnp.dtype(config.dtype),
        param_dtype=jnp.dtype(config.param_dtype),
        kernel_init=init,
        name=name,
    )


class Attention(nn.Module):
    config: LlamaConfig

    @nn.compact
    def __call__(self, x: jax.Array, rope: Rope, attend: Attend) -> tuple[jax.Array, Any]:
        c = self.config
        batch, length, _ = x.shape
        x = flatten(x)
        q = _dense(c, c.n_heads * c.head_dim, "query", ("embed", "heads"))(x)
        k = _dense(c, c.n_kv_heads * c.head_dim, "key", ("embed", "kv_heads"))(x)
        v = _dense(c, c.n_kv_heads * c.head_dim, "value", ("embed", "kv_heads"))(x)
        q = _rotate(q.reshape(batch, length, c.n_heads, c.head_dim), rope)
        k = _rotate(k.reshape(batch, length, c.n_kv_heads, c.head_dim), rope)
        v = v.reshape(batch, length, -1)
        out, kept = attend(q, k.reshape(v.shape), v)
        out = out.reshape(batch * length, c.n_heads * c.head_dim)
        out = _dense(c, c.d_model, "output", ("heads", "embed"))(out)
        return out.reshape(batch, length, -1), kept


@jax.custom_vjp
def _swiglu(gate: jax.Array, up: jax.Array) -> jax.Array:
    """silu(gate) · up. For the gradient both are kept and nothing else."""
    return nn.silu(gate) * up


def _swiglu_backward(kept: tuple[jax.Array, jax.Array], d_out: jax.Array):
    gate, up = kept
    sigmoid = nn.sigmoid(gate)
    silu = gate * sigmoid
    return d_out * up * (sigmoid + silu * (1 - sigmoid)), d_out * silu


_swiglu.defvjp(lambda gate, up: (_swiglu(gate, up), (gate, up)), _swiglu_backward)


class MLP(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    config: LlamaConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, shape = self.config, x.shape
        x = flatten(x)
        gate = _dense(c, c.d_ff, "gate", ("embed", "ff"))(x)
        up = _dense(c, c.d_ff, "up", ("embed", "ff"))(x)
        return _dense(c, c.d_model, "down", ("ff", "embed"))(_swiglu(gate, up)).reshape(shape)


class Block(nn.Module):
    config: LlamaConfig

    @nn.compact
    def __call__(self, x: jax.Array, rope: Rope, attend: Attend) -> tuple[jax.Array, Any]:
        c = self.config
        x = constrain(x, "batch", "length", "width")
        out, kept = Attention(c, name="attention")(
            RMSNorm(c, name="attention_norm")(x), rope, attend
        )
        x = x + out
        x = x + MLP(c, name="mlp")(RMSNorm(c, name="mlp_norm")(x))
        return x, kept


class Ends(nn.Module):
    """What is not a layer: embedding, final norm, head. Called only to make its parameters."""

    config: LlamaConfig

    @nn.compact
    def __call__(self) -> None:
        c = self.config
        nn.Embed(
            c.vocab_size,
            c.d_model,
            param_dtype=jnp.dtype(c.param_dtype),
            embedding_init=nn.with_logical_partitioning(
                nn.initializers.normal(_INIT_STD), ("vocab", "embed")
            ),
            name="embed",
        )(jnp.zeros((1,), jnp.int32))
        x = RMSNorm(c, name="norm")(jnp.zeros((1, c.d_model)))
        if not c.tied:
            _dense(c, c.vocab_size, "head", ("embed", "vocab"))(x)


def _boxed_block(config: LlamaConfig, key: jax.Array) -> Params:
    """A layer's parameters with their logical axes in Linen's boxes."""
    x = jnp.zeros((1, 1, config.d_model))
    half = jnp.zeros((1, 1, 1, config.head_dim // 2))
    return Block(config).init(key, x, (half, half), lambda q, k, v: (q, None))["params"]


def init(config: LlamaConfig, key: jax.Array) -> Params:
    """Random parameters: normal, std 0.02; norms 1. Jitted with `out_shardings`, made in place."""
    ends, layers = jax.random.split(key)
    params = nn.meta.unbox(Ends(config).init(ends)["params"])
    params["layers"] = jax.vmap(lambda key: nn.meta.unbox(_boxed_block(config, key)))(
        jax.random.split(layers, config.n_layers)
    )
    return params


def abstract_params(config: LlamaConfig) -> Params:
    """The tree of `jax.ShapeDtypeStruct`s that `init` would return."""
    return jax.tree.map(lambda x: x, _init_shapes(config))  # a tree of the caller's own


@functools.cache  # tracing takes some 50 ms, and every model that is loaded needs this
def _init_shapes(config: LlamaConfig) -> Params:
    return jax.eval_shape(functools.partial(init, config), jax.random.key(0))


def logical_axes(config: LlamaConfig, *, stacked: bool = True) -> Params:
    """The logical axis names of every parameter, a PartitionSpec each (see `sharding.RULES`).

    The tree is that of `init`, or, not `stacked`, that of `unstack`.
    """
    layer, ends = _axes(config)
    if stacked:
        layers = jax.tree.map(lambda spec: PartitionSpec("layers", *spec), layer)
    else:
        layers = (layer,) * config.n_layers
    return {**ends, "layers": layers}


@functools.cache  # as `_init_shapes`
def _axes(config: LlamaConfig) -> tuple[Params, Params]:
    """Of a layer, and of what is not in layers."""

    def names(boxed: Callable[[jax.Array], Params]) -> Params:
        return nn.get_partition_spec(jax.eval_shape(boxed, jax.random.key(0)))

    layer = names(functools.partial(_boxed_block, config))
    return layer, names(lambda key: Ends(config).init(key)["params"])


def unstack(params: Params) -> Params:
    """The same parameters with "layers" a tuple of one dict a layer: the form that decodes fast.

    Works on arrays and, within `jax.eval_shape`, on their shapes.
    """
    stacked = params["layers"]
    if isinstance(stacked, tuple):
        return params
    leaves, tree = jax.tree.flatten(stacked)
    # The gradient of a split is one concatenation; that of slices is as many padded sums.
    split = [[part[0] for part in jax.lax.split(x, [1] * x.shape[0])] for x in leaves]
    layers = tuple(tree.unflatten(layer) for layer in zip(*split, strict=True))
    return {**params, "layers": layers}


def _frequencies(config: LlamaConfig) -> np.ndarray:
    """float32 [H/2]: radians per position of each pair of a head's dimensions."""
    pairs = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    frequencies = (1.0 / np.float32(config.rope_theta) ** pairs).astype(np.float32)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    # Long wavelengths are stretched by `factor`, short ones kept, those between blended.
    turns = scaling.original_max_positions * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    blended = kept * frequencies + (1 - kept) * frequencies / scaling.factor
    return blended.astype(np.float32)


def _rope(config: LlamaConfig, positions: jax.Array) -> Rope:
    """Cosine and sine, float32 [B, T, 1, H/2]."""
    angles = positions[..., None, None].astype(jnp.float32) * _frequencies(config)
    return jnp.cos(angles), jnp.sin(angles)


def _rotate(x: jax.Array, rope: Rope) -> jax.Array:
    """Turns pairs (i, i + H/2) of x [B, T, heads, H] by their angles, in float32."""
    cos, sin = rope
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)
    return turned.astype(x.dtype)


def _embed(config: LlamaConfig, params: Params, tokens: jax.Array) -> jax.Array:
    # Every device looks all rows up in its part of the width, then rows are exchanged for width:
    # the table is never gathered (and XLA's partitioner aborts on the split it would choose by
    # itself inside a shard_map over `data`).
    tokens = constrain(tokens, None, None)
    x = jnp.take(params["embed"]["embedding"], tokens, axis=0, mode="clip")
    x = constrain(x, None, None, "embed")
    return constrain(x.astype(config.dtype), "batch", "length", "width")


def _norm(config: LlamaConfig, params: Params, x: jax.Array) -> jax.Array:
    return RMSNorm(config).apply({"params": params["norm"]}, x)


def hidden(
    config: LlamaConfig,
    params: Params,
    tokens: jax.Array,
    *,
    positions: jax.Array,
    segment_ids: jax.Array | None = None,
) -> jax.Array:
    """The normed output of the last layer, for training and scoring: causal, packed rows.

    Args:
      config, params: the model; "layers" stacked or unstacked.
      tokens: int32 [B, T].
      positions: int32 [B, T], each token's place within its own text.
      segment_ids: int32 [B, T], or None where each row is one text. A token sees the earlier
        columns of its own segment only. Padding is a segment of its own (0 by custom), on whichever
        side; what comes out at its columns means nothing.

    Returns:
      [B, T, D] in config.dtype.
    """
    rope = _rope(config, positions)
    heads = (*tokens.shape, config.n_kv_heads, config.head_dim)

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, None]:
        out = attention.attend(
            q, k.reshape(heads), v.reshape(heads), segment_ids, implementation=config.attention
        )
        return out, None

    def layer(x: jax.Array, layer_params: Params) -> tuple[jax.Array, None]:
        return Block(config).apply({"params": layer_params}, x, rope, attend)

    stacked = not isinstance(params["layers"], tuple)
    scan = config.scan and stacked
    if config.remat:
        # Unrolled, the compiler must be kept from merging the two computations; a scan does it.
        layer = jax.checkpoint(layer, prevent_cse=not scan)
    x = _embed(config, params, tokens)
    if scan:
        x, _ = jax.lax.scan(layer, x, params["layers"])
    else:
        for layer_params in (unstack(params) if stacked else params)["layers"]:
            x, _ = layer(x, layer_params)
    return _norm(config, params, x)


def logits(config: LlamaConfig, params: Params, hidden: jax.Array) -> jax.Array:
    """float32 [..., V]: the scores of the next token, from `hidden` [..., D]."""
    if config.tied:
        kernel, product = params["embed"]["embedding"], "...d,vd->...v"
    else:
        kernel, product = params["head"]["kernel"], "...d,dv->...v"
    kernel = kernel.astype(config.dtype)
    return jnp.einsum(product, hidden, kernel, preferred_element_type=jnp.float32)


def init_cache(config: LlamaConfig, pages: int) -> Cache:
    """An empty cache: per layer {"k", "v"}, each [P, PAGE, K*H] in config.dtype."""
    shape = (pages, PAGE, config.n_kv_heads * config.head_dim)
    dtype = jnp.dtype(config.dtype)
    return tuple(
        {"k": jnp.zeros(shape, dtype), "v": jnp.zeros(shape, dtype)} for _ in range(config.n_layers)
    )


# Logical axes of each of the cache's arrays, for `sharding.spec`.
CACHE_AXES = PartitionSpec("pages", "length", "kv_heads")


def extend(
    config: LlamaConfig,
    params: Params,
    tokens: jax.Array,
    positions: jax.Array,
    cache: Cache,
    tables: jax.Array,
    *,
    live: jax.Array | None = None,
) -> tuple[jax.Array, Cache]:
    """Reads T new tokens per row into the cache: prefill (T > 1) and decode (T = 1).

    A row's text lies in pages: its position p is column p % PAGE of page `tables[row, p // PAGE]`.
    A token's key and value are written there, and the token sees the positions 0 … p of its row.
    What lies behind (an earlier text's columns) does no harm, and pages that a row's table does not
    name never matter. All rows write before any reads, so that rows may hold parts of one text.
    Donate the cache, and it is updated in place.

    Args:
      config, params: the model, "layers" as `unstack` gives them.
      tokens: int32 [R, T].
      positions: int32 [R, T]. A row with a negative one sees nothing there.
      cache: per layer {"k", "v"}: [P, PAGE, K*H].
      tables: int32 [R, M], each row's pages in order; entries behind its end may be any page.
      live: bool [R, T], which tokens are real; the others are written nowhere, and what comes out
        at their places means nothing. None: all are. A real token sees every position up to its
        own, which must therefore have been written, now or before.

    Returns:
      the normed hidden states [R, T, D] in config.dtype, and the cache.
    """
    rope = _rope(config, positions)
    pages_RxT = jnp.take_along_axis(tables, jnp.maximum(positions, 0) // PAGE, axis=1, mode="clip")
    if live is not None:  # a page behind the end is not written: scatter drops it
        pages_RxT = jnp.where(live, pages_RxT, cache[0]["k"].shape[0])

    def write(old_PxCxKH: jax.Array, new_RxTxKH: jax.Array) -> jax.Array:
        new_RxTxKH = new_RxTxKH.astype(old_PxCxKH.dtype)
        return old_PxCxKH.at[pages_RxT, positions % PAGE].set(new_RxTxKH, mode="drop")

    x_RxTxD = _embed(config, params, tokens)
    extended = []
    for layer_params, old in zip(params["layers"], cache, strict=True):

        def attend(
            q: jax.Array, k: jax.Array, v: jax.Array, old: dict[str, jax.Array] = old
        ) -> tuple[jax.Array, dict[str, jax.Array]]:
            new = {"k": write(old["k"], k), "v": write(old["v"], v)}
            out = attention.attend_cached(
                *(q, new["k"], new["v"], tables, positions), implementation=config.attention
            )
            return out, new

        x_RxTxD, new = Block(config).apply({"params": layer_params}, x_RxTxD, rope, attend)
        extended.append(new)
    return _norm(config, params, x_RxTxD), tuple(extended)
