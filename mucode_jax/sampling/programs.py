"""The three programs that run on the device: prefill, copy, decode.

Each is a pure function with fixed shapes, the cache donated and handed back. All that the host
knows of a slot travels with every call as a few integers, so that the device holds no state but the
cache. Every row is computed from its own slot alone.

Axes: B slots, R rows of one prefill, T query length, S cache length, K decode steps.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mucode_jax.models import llama
from mucode_jax.sampling import sampler

# The columns of decode's `slots` argument; the forced tokens of the K steps follow.
TOKEN, LENGTH, LEFT, LIVE, KEY, TEMPERATURE, FORCED = 0, 1, 2, 3, 4, 6, 7


@functools.partial(jax.jit, static_argnames=("config", "read"), donate_argnames="cache")
def prefill(
    config: llama.LlamaConfig,
    params: llama.Params,
    cache: llama.Cache,
    rows: jax.Array,
    *,
    read: int,
) -> llama.Cache:
    """Reads up to R texts into their slots.

    Args:
      rows: int32 [R, 3 + T]; each row is slot, first position, number of tokens, then the tokens.
        Rows with no tokens change nothing.
      read: the columns of the cache that attention reads; every position written lies below it.
    """
    slot, start, count, tokens = rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3:]
    offsets = jnp.arange(tokens.shape[1], dtype=jnp.int32)
    positions = jnp.minimum(start[:, None] + offsets, read - 1)
    live = offsets < count[:, None]
    return llama.extend(config, params, tokens, positions, cache, live=live, rows=slot, read=read)[
        1
    ]


@functools.partial(jax.jit, static_argnames="read", donate_argnames="cache")
def copy(cache: llama.Cache, pairs: jax.Array, *, read: int) -> llama.Cache:
    """Copies the first `read` columns of slot pairs[i, 0] to slot pairs[i, 1] (int32 [C, 2]).

    A destination outside the cache is dropped. All sources are read before any is written.
    """
    source, target = pairs[:, 0], pairs[:, 1]

    def one(x: jax.Array) -> jax.Array:
        taken = jnp.take(x[:, :read], source, axis=0, mode="clip")
        return x.at[target, :read].set(taken, mode="drop")

    return jax.tree.map(one, cache)


@functools.partial(
    jax.jit,
    static_argnames=("config", "eot_ids", "top_p", "top_k", "read"),
    donate_argnames="cache",
)
def decode(
    config: llama.LlamaConfig,
    params: llama.Params,
    cache: llama.Cache,
    slots: jax.Array,
    limits: jax.Array,
    *,
    eot_ids: tuple[int, ...],
    top_p: float,
    top_k: int,
    read: int,
) -> tuple[llama.Cache, jax.Array, jax.Array, jax.Array]:
    """Up to K tokens for every live slot; ends early when enough of them have finished.

    Args:
      slots: int32 [B, 7 + K]: the token to read, its position, how many may still be drawn, whether
        the slot is live, two words of key, the bits of the temperature, and for each of the K steps
        the token to take in place of the drawn one (-1: none).
      limits: int32 [2]: the most steps to run (≤ K), and the number of finished slots at which to
        stop.

    Returns:
      the cache; tokens int32 [K, B] and log-probabilities float32 [K, B], of which the rows of
      steps not run and the entries of finished slots mean nothing; the number of steps run.
    """
    steps = slots.shape[1] - FORCED
    keys = jax.lax.bitcast_convert_type(slots[:, KEY : KEY + 2], jnp.uint32)
    temperature = jax.lax.bitcast_convert_type(slots[:, TEMPERATURE], jnp.float32)
    forced = slots[:, FORCED:].T
    ends = jnp.asarray(eot_ids, jnp.int32)

    def go_on(state: tuple) -> jax.Array:
        step, finished, live = state[0], state[1], state[5]
        return (step < limits[0]) & (finished < limits[1]) & live.any()

    def one_step(state: tuple) -> tuple:
        step, finished, token, position, left, live, cache, tokens, logprobs = state
        # At position -1 a finished slot sees nothing, which on a CPU costs nothing.
        at = jnp.where(live, position, -1)[:, None]
        hidden, cache = llama.extend(
            config, params, token[:, None], at, cache, live=live[:, None], read=read
        )
        logits = llama.logits(config, params, hidden[:, 0])
        new, logprob = sampler.draw(
            logits, keys, position + 1, temperature, top_p=top_p, top_k=top_k
        )
        wanted = jax.lax.dynamic_index_in_dim(forced, step, keepdims=False)
        new = jnp.where(wanted >= 0, wanted, new)
        left = left - live
        over = live & ((left == 0) | (new[:, None] == ends).any(-1))
        return (
            step + 1,
            finished + over.sum(dtype=jnp.int32),
            jnp.where(live, new, token),
            position + live,
            left,
            live & ~over,
            cache,
            jax.lax.dynamic_update_index_in_dim(tokens, new, step, 0),
            jax.lax.dynamic_update_index_in_dim(logprobs, logprob, step, 0),
        )

    state = (
        jnp.int32(0),
        jnp.int32(0),
        slots[:, TOKEN],
        slots[:, LENGTH],
        slots[:, LEFT],
        slots[:, LIVE] > 0,
        cache,
        jnp.zeros((steps, slots.shape[0]), jnp.int32),
        jnp.zeros((steps, slots.shape[0]), jnp.float32),
    )
    state = jax.lax.while_loop(go_on, one_step, state)
    return state[6], state[7], state[8], state[0]


@functools.partial(jax.jit, static_argnames="config")
def prepare(config: llama.LlamaConfig, params: llama.Params) -> llama.Params:
    """Parameters as decoding reads them: a dict a layer, matrices in the dtype of computation."""

    def cast(x: jax.Array) -> jax.Array:
        return x.astype(config.dtype) if x.ndim > 1 else x

    return jax.tree.map(cast, llama.unstack(params))


def bits(temperature: float) -> int:
    """The temperature as the int32 that decode's `slots` hold."""
    return int(np.float32(temperature).view(np.int32))
