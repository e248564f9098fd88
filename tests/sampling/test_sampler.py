"""Drawing tokens: the distribution, its cuts, its keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from mucode_jax.sampling import sampler

draw = jax.jit(sampler.draw, static_argnames=("top_p", "top_k"))
LOGITS = np.log(np.array([0.28, 0.22, 0.15, 0.12, 0.1, 0.06, 0.04, 0.02, 0.01], np.float32))


def keys(rows, seed=0):
    return np.random.default_rng(seed).integers(0, 2**32, (rows, 2), dtype=np.uint32)


def distribution(logits, temperature, top_p, top_k):
    """What should be drawn from, by sorting, in float64."""
    weights = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    order = np.argsort(-weights, kind="stable")
    if top_k:
        weights[order[top_k:]] = 0
    weights /= weights.sum()
    before = np.cumsum(weights[order]) - weights[order]
    weights[order[before >= top_p]] = 0
    return weights / weights.sum()


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"),
    [(1.0, 1.0, 0), (0.7, 1.0, 0), (1.5, 0.8, 0), (0.7, 0.6, 0), (1.0, 1.0, 4), (1.2, 0.9, 5)],
)
def test_what_is_drawn_has_the_stated_distribution(temperature, top_p, top_k):
    rows = 20_000
    tokens, logprobs = draw(
        jnp.tile(LOGITS, (rows, 1)),
        keys(rows),
        jnp.arange(rows, dtype=jnp.int32) % 50,
        jnp.full((rows,), temperature),
        top_p=top_p,
        top_k=top_k,
    )
    wanted = distribution(LOGITS, temperature, top_p, top_k)
    counts = np.bincount(tokens, minlength=len(wanted))
    assert counts[wanted == 0].sum() == 0
    some = wanted > 0
    assert scipy.stats.chisquare(counts[some], wanted[some] * rows).pvalue > 1e-3
    np.testing.assert_allclose(logprobs, np.log(wanted[np.asarray(tokens)]), atol=2e-5)


def test_successive_positions_of_one_key_are_independent_draws():
    rows = 20_000
    tokens, _ = draw(
        jnp.tile(LOGITS, (rows, 1)),
        jnp.tile(keys(1), (rows, 1)),
        jnp.arange(rows, dtype=jnp.int32),
        jnp.ones(rows),
    )
    counts = np.bincount(tokens, minlength=len(LOGITS))
    wanted = distribution(LOGITS, 1.0, 1.0, 0) * rows
    assert scipy.stats.chisquare(counts, wanted).pvalue > 1e-3
    pairs = np.histogram2d(tokens[:-1], tokens[1:], bins=[[0, 1, 2, 9]] * 2)[0]
    assert scipy.stats.chi2_contingency(pairs).pvalue > 1e-3


def test_temperature_zero_takes_the_most_probable_and_among_equals_the_lowest_id():
    logits = jnp.asarray([[0.0, 3.0, 3.0, 1.0], [5.0, 3.0, 3.0, 1.0]])
    tokens, logprobs = draw(logits, keys(2), jnp.arange(2), jnp.zeros(2))
    assert tokens.tolist() == [1, 0]
    np.testing.assert_allclose(logprobs, jax.nn.log_softmax(logits)[[0, 1], [1, 0]], rtol=1e-6)


def test_greedy_and_warm_rows_share_one_program():
    logits = jnp.tile(LOGITS, (64, 1))
    heat = jnp.where(jnp.arange(64) % 2 == 0, 0.0, 1.0)
    tokens, _ = draw(logits, keys(64), jnp.arange(64), heat)
    alone, _ = draw(logits, keys(64), jnp.arange(64), jnp.ones(64))
    assert (tokens[::2] == 0).all()
    assert (tokens[1::2] == alone[1::2]).all()


def test_a_draw_depends_on_its_own_row_alone():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (64, 200)).astype(np.float32)
    order = rng.permutation(64)
    heat = jnp.full((64,), 0.8)
    positions = np.arange(64, dtype=np.int32)
    tokens, logprobs = draw(logits, keys(64), positions, heat, top_p=0.9)
    moved = draw(logits[order], keys(64)[order], positions[order], heat, top_p=0.9)
    assert (moved[0] == tokens[order]).all()
    assert (moved[1] == logprobs[order]).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1 - 2**-23, width=32))
def test_a_token_of_weight_zero_is_never_drawn(seed, u):
    rng = np.random.default_rng(seed)
    weights = np.exp(rng.normal(0, 8, (8, 130))).astype(np.float32)
    weights[rng.random(weights.shape) < 0.9] = 0
    weights[np.arange(8), rng.integers(0, 130, 8)] = 1.0
    tokens, total = jax.jit(sampler._invert)(weights, jnp.full((8,), u, jnp.float32))
    assert (weights[np.arange(8), tokens] > 0).all()
    np.testing.assert_allclose(total, weights.sum(-1), rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.5, 0.9, 0.99]), st.integers(0, 40))
def test_cuts_keep_what_sorting_keeps(seed, top_p, top_k):
    logits = np.random.default_rng(seed).normal(0, 2, (1, 40)).astype(np.float32)
    weights = np.exp(logits - logits.max())
    # Not jitted: top_k is static, and each value would be another program.
    kept = np.asarray(sampler._restrict(jnp.asarray(weights), top_p, top_k))[0] > 0
    wanted = distribution(logits[0], 1.0, top_p, top_k) > 0
    assert (kept == wanted).all()
