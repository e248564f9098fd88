"""From logits to a drawn token: temperature, top-k, top-p, greedy, each row with its own key.

A token is drawn by inverting the cumulative distribution at one uniform number, which is a
function of the row's key and of the new token's position in its text alone. Nothing else about the
batch, the slot or the time enters.

Axes: B batch, V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Tokens are searched for in two stages, blocks and then tokens of the chosen block, so that no
# running sum over the whole vocabulary is formed.
_BLOCK = 64
_ONE = 0x3F800000  # the bits of float32 1.0, the largest weight there is


def uniforms(keys: jax.Array, positions: jax.Array) -> jax.Array:
    """float32 [B] in [0, 1): one number per (key, position).

    Args:
      keys: uint32 [B, 2], threefry key data.
      positions: int32 [B], the new token's index in its text (its first token is 0).
    """

    def uniform(key: jax.Array, position: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(key, impl="threefry2x32")
        return jax.random.uniform(jax.random.fold_in(key, position))

    return jax.vmap(uniform)(keys, positions)


def _largest(enough: jax.Array, rows: int) -> jax.Array:
    """int32 [B]: the largest t in [0, bits of 1.0] for which `enough(t)` holds.

    Where it holds for t it must hold for all below, and it must hold for 0.
    Non-negative floats order as their bits do, so that thirty halvings find a threshold exactly,
    without sorting the vocabulary.
    """

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low + 1) // 2
        good = enough(middle)
        return jnp.where(good, middle, low), jnp.where(good, high, middle - 1)

    start = jnp.zeros((rows,), jnp.int32), jnp.full((rows,), _ONE, jnp.int32)
    return jax.lax.fori_loop(0, 30, halve, start)[0]


def _restrict(weights: jax.Array, top_p: float, top_k: int) -> jax.Array:
    """Sets weights [B, V] (the largest is 1) outside the top k and the top-p nucleus to zero."""
    rows, vocabulary = weights.shape
    if 0 < top_k < vocabulary:
        bits = jax.lax.bitcast_convert_type(weights, jnp.int32)
        cut = _largest(lambda t: (bits >= t[:, None]).sum(-1) >= top_k, rows)
        weights = jnp.where(bits >= cut[:, None], weights, 0.0)
    if top_p < 1.0:
        bits = jax.lax.bitcast_convert_type(weights, jnp.int32)
        wanted = top_p * weights.sum(-1)
        cut = _largest(
            lambda t: jnp.where(bits >= t[:, None], weights, 0.0).sum(-1) >= wanted, rows
        )
        weights = jnp.where(bits >= cut[:, None], weights, 0.0)
    return weights


def _first(true_Bxn: jax.Array, otherwise_Bxn: jax.Array) -> jax.Array:
    """int32 [B]: the first True of each row; where there is none, `otherwise`'s last."""
    last_B = true_Bxn.shape[-1] - 1 - jnp.argmax(otherwise_Bxn[:, ::-1], axis=-1)
    return jnp.where(true_Bxn.any(-1), jnp.argmax(true_Bxn, axis=-1), last_B).astype(jnp.int32)


def _invert(weights_BxV: jax.Array, u_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draws from weights at u: int32 [B], and float32 [B], the sum of the weights.

    A token of weight zero is never drawn, whatever rounding does to the running sums.
    """
    rows, vocabulary = weights_BxV.shape
    padded = jnp.pad(weights_BxV, ((0, 0), (0, -vocabulary % _BLOCK)))
    blocks = padded.reshape(rows, -1, _BLOCK)
    mass = blocks.sum(-1)
    running = jnp.cumsum(mass, axis=-1)
    total_B = running[:, -1]
    target_B = u_B * total_B
    block_B = _first((running > target_B[:, None]) & (mass > 0), mass > 0)

    def at_block(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, block_B[:, None], axis=1)[:, 0]

    inside = jnp.take_along_axis(blocks, block_B[:, None, None], axis=1)[:, 0]
    rest_B = target_B - (at_block(running) - at_block(mass))
    place_B = _first((jnp.cumsum(inside, axis=-1) > rest_B[:, None]) & (inside > 0), inside > 0)
    return block_B * _BLOCK + place_B, total_B


def draw(
    logits: jax.Array,
    keys: jax.Array,
    positions: jax.Array,
    temperature: jax.Array,
    *,
    top_p: float = 1.0,
    top_k: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """Draws one token per row from softmax(logits / temperature), cut to top-k, then to top-p.

    The nucleus is the smallest set of most probable tokens whose probability is at least top_p
    (Holtzman et al. 2020); tokens that tie with its last one belong to it.

    Args:
      logits: float32 [B, V].
      keys: uint32 [B, 2]; positions: int32 [B]: see `uniforms`.
      temperature: float32 [B]; 0 takes the most probable token, the lowest id among equals.
      top_p: in (0, 1], 1 = off; static.
      top_k: 0 = off; static.

    Returns:
      tokens int32 [B] and float32 [B], the natural logarithm of each token's probability in the
      distribution that it was drawn from; at temperature 0 in softmax(logits).
    """
    greedy_B = temperature == 0
    heat_B = jnp.where(greedy_B, 1.0, temperature)
    scaled_BxV = (logits - logits.max(-1, keepdims=True)) / heat_B[:, None]
    weights_BxV = jnp.exp(scaled_BxV)
    whole_B = weights_BxV.sum(-1)
    drawn_B, total_B = _invert(_restrict(weights_BxV, top_p, top_k), uniforms(keys, positions))
    tokens_B = jnp.where(greedy_B, jnp.argmax(logits, axis=-1), drawn_B).astype(jnp.int32)
    chosen_B = jnp.take_along_axis(scaled_BxV, tokens_B[:, None], axis=1)[:, 0]
    return tokens_B, chosen_B - jnp.log(jnp.where(greedy_B, whole_B, total_B))
