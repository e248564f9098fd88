"""The programs that run on the device: prefill, copy and decode, and `prepare` before them.

Each is a pure function of fixed shapes, whose cache is donated and handed back. What the host knows
of a slot travels with every call, so that the device holds no state but the cache. Every row is
computed from the pages of its own text alone.

Axes: B slots, R rows of a prefill, T query length, M pages of a row, K decode steps.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mucode_jax.models import llama
from mucode_jax.sampling import sampler


class Texts(NamedTuple):
    """What one prefill reads, part by part. A part without tokens changes nothing."""

    table: Array  # int32 [R, M], the pages of the text that a part belongs to
    start: Array  # int32 [R], the position of its first token
    count: Array  # int32 [R], how many tokens it has
    tokens: Array  # int32 [R, T], filled up with anything


class Slots(NamedTuple):
    """What decode is told of the slots. The fields of one that is not live mean nothing."""

    live: Array  # bool [B], whether anything is to be drawn
    token: Array  # int32 [B], the token to read next
    position: Array  # int32 [B], its place in the text
    left: Array  # int32 [B], how many tokens may still be drawn
    key: Array  # uint32 [B, 2], threefry key data
    table: Array  # int32 [B, M], the pages of its text
    forced: (
        Array  # int32 [K, B], what to take in place of the token drawn at each step; -1: nothing
    )


class Block(NamedTuple):
    """What one call of decode drew."""

    tokens: Array  # int32 [K, B]; steps not run and what follows a slot's last token mean nothing
    logprobs: Array  # float32 [K, B], likewise
    steps: Array  # int32 [], how many steps were run


class _Loop(NamedTuple):
    """The state of decode's loop: that of `Slots` and `Block`, and how many slots have finished."""

    step: Array
    finished: Array
    live_B: Array
    token_B: Array
    position_B: Array
    left_B: Array
    cache: llama.Cache
    tokens_KxB: Array
    logprobs_KxB: Array


@functools.partial(jax.jit, static_argnames="config", donate_argnames="cache")
def prefill(
    config: llama.LlamaConfig, params: llama.Params, cache: llama.Cache, texts: Texts
) -> llama.Cache:
    """Reads up to R parts of texts into their pages."""
    offsets_T = jnp.arange(texts.tokens.shape[1], dtype=jnp.int32)
    last_Rx1 = texts.count[:, None] - 1  # behind it, its position is repeated
    positions_RxT = jnp.where(
        last_Rx1 < 0, -1, texts.start[:, None] + jnp.minimum(offsets_T, last_Rx1)
    )
    live_RxT = offsets_T <= last_Rx1
    _, cache = llama.extend(
        *(config, params, texts.tokens, positions_RxT, cache, texts.table), live=live_RxT
    )
    return cache


@functools.partial(jax.jit, donate_argnames="cache")
def copy(cache: llama.Cache, source: Array, target: Array, count: Array) -> llama.Cache:
    """Copies the first `count` (int32 []) of pages `source` to pages `target`, one by one.

    Both are int32 [COPIES]; no page is both.
    """

    def one(i: Array, cache: llama.Cache) -> llama.Cache:
        def copied(x_PxCxKH: Array) -> Array:
            page = jax.lax.dynamic_index_in_dim(x_PxCxKH, source[i])
            return jax.lax.dynamic_update_slice_in_dim(x_PxCxKH, page, target[i], axis=0)

        return jax.tree.map(copied, cache)

    return jax.lax.fori_loop(0, count, one, cache)


@functools.partial(
    jax.jit,
    static_argnames=("config", "refill", "eot_ids", "top_p", "top_k"),
    donate_argnames="cache",
)
def decode(
    config: llama.LlamaConfig,
    params: llama.Params,
    cache: llama.Cache,
    slots: Slots,
    temperature: Array,
    *,
    refill: int,
    eot_ids: tuple[int, ...],
    top_p: float,
    top_k: int,
) -> tuple[llama.Cache, Block]:
    """Draws up to K tokens for every live slot; ends early once `refill` slots have finished.

    `temperature` (float32 []), `top_p` and `top_k` are those of `sampler.draw`.
    """
    ends = jnp.asarray(eot_ids, jnp.int32)
    temperature_B = jnp.full(slots.live.shape, temperature)

    def go_on(s: _Loop) -> Array:
        return (s.step < len(slots.forced)) & (s.finished < refill) & s.live_B.any()

    def one_step(s: _Loop) -> _Loop:
        # At position -1 a finished slot sees nothing, which on a CPU costs nothing.
        at_B = jnp.where(s.live_B, s.position_B, -1)
        hidden_Bx1xD, cache = llama.extend(
            *(config, params, s.token_B[:, None], at_B[:, None], s.cache, slots.table),
            live=s.live_B[:, None],
        )
        logits_BxV = llama.logits(config, params, hidden_Bx1xD[:, 0])
        drawn_B, logprob_B = sampler.draw(
            *(logits_BxV, slots.key, s.position_B + 1, temperature_B),
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
