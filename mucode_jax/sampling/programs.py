"""The programs that run on the device: prefill, copy and decode, and `prepare` before them.

Each is a pure function of fixed shapes, whose cache is donated and handed back. What the host knows
of a slot travels with every call, so that the device holds no state but the cache. Every row is
computed from its own slot alone.

Axes: B slots, R texts of a prefill, C copies, T query length, S cache length, K decode steps.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mucode_jax.models import llama
from mucode_jax.sampling import sampler


class Texts(NamedTuple):
    """What one prefill reads. A text without tokens changes nothing.

    Attributes:
      slot: int32 [R], where each text goes.
      start: int32 [R], the position of its first token.
      count: int32 [R], how many tokens it has.
      tokens: int32 [R, T], filled up with anything.
    """

    slot: jax.Array
    start: jax.Array
    count: jax.Array
    tokens: jax.Array


class Slots(NamedTuple):
    """What decode is told of the slots.

    Attributes:
      live: bool [B]; nothing is drawn for the others, and their other fields mean nothing.
      token: int32 [B], the token to read next.
      position: int32 [B], its place in the text.
      left: int32 [B], how many tokens may still be drawn.
      key: uint32 [B, 2], threefry key data.
      temperature: float32 [B]; 0 is greedy.
      forced: int32 [K, B], the token to take in place of the one drawn at each step; -1: none.
    """

    live: jax.Array
    token: jax.Array
    position: jax.Array
    left: jax.Array
    key: jax.Array
    temperature: jax.Array
    forced: jax.Array


class Block(NamedTuple):
    """What one call of decode drew.

    Attributes:
      tokens: int32 [K, B]; rows of steps not run and entries of finished slots mean nothing.
      logprobs: float32 [K, B], likewise.
      steps: int32 [], how many steps were run.
    """

    tokens: jax.Array
    logprobs: jax.Array
    steps: jax.Array


class _Loop(NamedTuple):
    """The state of decode's loop: that of `Slots` and `Block`, and how many slots have finished."""

    step: jax.Array
    finished: jax.Array
    live_B: jax.Array
    token_B: jax.Array
    position_B: jax.Array
    left_B: jax.Array
    cache: llama.Cache
    tokens_KxB: jax.Array
    logprobs_KxB: jax.Array


@functools.partial(jax.jit, static_argnames=("config", "read"), donate_argnames="cache")
def prefill(
    config: llama.LlamaConfig,
    params: llama.Params,
    cache: llama.Cache,
    texts: Texts,
    *,
    read: int,
) -> llama.Cache:
    """Reads up to R texts into their slots.

    `read` is how many columns of the cache attention reads; every position written lies below it.
    """
    offsets_T = jnp.arange(texts.tokens.shape[1], dtype=jnp.int32)
    positions_RxT = jnp.minimum(texts.start[:, None] + offsets_T, read - 1)
    live_RxT = offsets_T < texts.count[:, None]
    _, cache = llama.extend(
        *(config, params, texts.tokens, positions_RxT, cache),
        live=live_RxT,
        rows=texts.slot,
        read=read,
    )
    return cache


@functools.partial(jax.jit, static_argnames="read", donate_argnames="cache")
def copy(cache: llama.Cache, source: jax.Array, target: jax.Array, *, read: int) -> llama.Cache:
    """Copies the first `read` columns of slots `source` to slots `target` (both int32 [C]).

    A target outside the cache is dropped. All sources are read before any target is written.
    """

    def copied(x_BxSxF: jax.Array) -> jax.Array:
        columns = jnp.take(x_BxSxF[:, :read], source, axis=0, mode="clip")
        return x_BxSxF.at[target, :read].set(columns, mode="drop")

    return jax.tree.map(copied, cache)


@functools.partial(
    jax.jit,
    static_argnames=("config", "refill", "eot_ids", "top_p", "top_k", "read"),
    donate_argnames="cache",
)
def decode(
    config: llama.LlamaConfig,
    params: llama.Params,
    cache: llama.Cache,
    slots: Slots,
    *,
    refill: int,
    eot_ids: tuple[int, ...],
    top_p: float,
    top_k: int,
    read: int,
) -> tuple[llama.Cache, Block]:
    """Draws up to K tokens for every live slot; ends early once `refill` slots have finished."""
    ends = jnp.asarray(eot_ids, jnp.int32)

    def go_on(s: _Loop) -> jax.Array:
        return (s.step < len(slots.forced)) & (s.finished < refill) & s.live_B.any()

    def one_step(s: _Loop) -> _Loop:
        # At position -1 a finished slot sees nothing, which on a CPU costs nothing.
        at_B = jnp.where(s.live_B, s.position_B, -1)
        hidden_Bx1xD, cache = llama.extend(
            *(config, params, s.token_B[:, None], at_B[:, None], s.cache),
            live=s.live_B[:, None],
            read=read,
        )
        logits_BxV = llama.logits(config, params, hidden_Bx1xD[:, 0])
        drawn_B, logprob_B = sampler.draw(
            *(logits_BxV, slots.key, s.position_B + 1, slots.temperature),
            top_p=top_p,
            top_k=top_k,
        )
        forced_B = jax.lax.dynamic_index_in_dim(slots.forced, s.step, keepdims=False)
        new_B = jnp.where(forced_B >= 0, forced_B, drawn_B)
        left_B = s.left_B - s.live_B
        over_B = s.live_B & ((left_B == 0) | (new_B[:, None] == ends).any(-1))
        return _Loop(
            step=s.step + 1,
            finished=s.finished + over_B.sum(dtype=jnp.int32),
            live_B=s.live_B & ~over_B,
            token_B=jnp.where(s.live_B, new_B, s.token_B),
            position_B=s.position_B + s.live_B,
            left_B=left_B,
            cache=cache,
            tokens_KxB=jax.lax.dynamic_update_index_in_dim(s.tokens_KxB, new_B, s.step, 0),
            logprobs_KxB=jax.lax.dynamic_update_index_in_dim(s.logprobs_KxB, logprob_B, s.step, 0),
        )

    start = _Loop(
        *(jnp.int32(0), jnp.int32(0)),
        *(slots.live, slots.token, slots.position, slots.left),
        cache,
        jnp.zeros(slots.forced.shape, jnp.int32),
        jnp.zeros(slots.forced.shape, jnp.float32),
    )
    end = jax.lax.while_loop(go_on, one_step, start)
    return end.cache, Block(end.tokens_KxB, end.logprobs_KxB, end.step)


@functools.partial(jax.jit, static_argnames="config")
def prepare(config: llama.LlamaConfig, params: llama.Params) -> llama.Params:
    """Parameters as decoding reads them: a dict per layer, matrices in the dtype of computation."""
    return jax.tree.map(
        lambda x: x.astype(config.dtype) if x.ndim > 1 else x, llama.unstack(params)
    )
