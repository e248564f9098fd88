"""What a token may see: causality, cache positions, segments; each test can fail."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mucode_jax.models import attention, llama, sharding
from mucode_jax.models.attention import tpu, xla
from tests.models import tiny

CONFIG = tiny.CONFIGS["llama31"]


@pytest.fixture(scope="module")
def params():
    return tiny.params(CONFIG)


def influence(params):
    """float [T, T]: how much the output at column t depends on the token at column s (a gradient).

    The tokens of the row differ from each other, so that each has its own row of the embedding.
    """
    tokens = np.arange(3, 15, dtype=np.int32)[None]

    def total(embedding, column):
        changed = {**params, "embed": {"embedding": embedding}}
        out = llama.hidden(CONFIG, changed, tokens, positions=tiny.positions(1, 12))
        return jnp.sum(out[0, column] * jnp.arange(CONFIG.d_model))

    gradients = jax.jit(jax.vmap(jax.grad(total), in_axes=(None, 0)))(
        params["embed"]["embedding"], jnp.arange(12)
    )
    return np.abs(gradients[:, tokens[0]]).sum(axis=-1)


def test_no_gradient_flows_from_a_token_to_later_ones(params):
    measured = influence(params)
    assert np.all(np.triu(measured, 1) == 0)
    assert np.all(measured[np.tril_indices(12)] > 0)


def test_the_causality_test_sees_a_mask_that_is_off_by_one(params, monkeypatch):
    right = xla.visible
    monkeypatch.setattr(
        xla, "visible", lambda columns, limits, *rest: right(columns, limits + 1, *rest)
    )
    assert np.any(np.triu(influence(params), 1) > 0)


# Rows of a pack: three texts, then padding. And the same texts in another order.
LENGTHS = (5, 8, 3)


def packed(order, texts):
    tokens, positions, segments, where = [], [], [], {}
    for segment, text in enumerate(order, 1):
        where[text] = slice(len(tokens), len(tokens) + LENGTHS[text])
        tokens += list(texts[text])
        positions += range(LENGTHS[text])
        segments += [segment] * LENGTHS[text]
    fill = 20 - len(tokens)
    out = (tokens + [0] * fill, positions + [0] * fill, segments + [0] * fill)
    return [np.array([row], np.int32) for row in out], where


def packing_error(params):
    """The largest difference between texts read alone and packed, over two orders."""
    texts = [tiny.tokens(CONFIG, 1, length, seed=i)[0] for i, length in enumerate(LENGTHS)]
    run = jax.jit(lambda t, p, s: llama.hidden(CONFIG, params, t, positions=p, segment_ids=s))
    worst = 0.0
    alone = []
    for text in texts:
        (tokens, positions, segments), where = packed([0], [text])
        alone.append(
            llama.hidden(
                CONFIG, params, text[None], positions=tiny.positions(1, len(text)), segment_ids=None
            )[0]
        )
    for order in ((0, 1, 2), (2, 0, 1)):
        (tokens, positions, segments), where = packed(order, texts)
        out = run(tokens, positions, segments)[0]
        for text in order:
            worst = max(worst, float(np.abs(out[where[text]] - alone[text]).max()))
    return worst


def test_a_text_packed_with_others_is_read_as_if_alone(params):
    assert packing_error(params) < 1e-5


def test_the_packing_test_sees_a_mask_without_segments(params, monkeypatch):
    right = xla.visible
    monkeypatch.setattr(xla, "visible", lambda columns, limits, *segments: right(columns, limits))
    assert packing_error(params) > 1e-2


def cache_error(params):
    """The largest difference between cached and uncached reading of rows of unequal length.

    Into a pool full of an earlier occupant's noise two rows get prompts of 4 and 100 tokens in one
    padded prefill; then three rows step, the second one not live, one token at a time, each at its
    own position; then both read three more tokens at once.
    """
    tokens = tiny.tokens(CONFIG, 2, 130)
    whole = llama.hidden(CONFIG, params, tokens, positions=tiny.positions(2, 130))
    layers = llama.unstack(params)
    noise = np.random.default_rng(0)
    cache = jax.tree.map(
        lambda x: jnp.asarray(noise.normal(0, 3, x.shape), x.dtype), llama.init_cache(CONFIG, 7)
    )
    tables = np.array([[4, 1, 6], [2, 3, 2], [5, 0, 6]], np.int32)
    untouched = jax.tree.map(lambda x: np.array(x[2:4]), cache)
    extend = jax.jit(functools.partial(llama.extend, CONFIG), donate_argnums=3)
    rows = np.array([0, 2])
    at = np.array([4, 100])

    worst = 0.0

    def compare(out, row, start, stop):
        nonlocal worst
        worst = max(worst, float(np.abs(out - whole[row, start:stop]).max()))

    live = np.arange(100) < at[:, None]
    out, cache = extend(
        *(layers, tokens[:, :100], tiny.positions(2, 100), cache, tables[rows]), live=live
    )
    for row in range(2):
        compare(out[row, : at[row]], row, 0, at[row])
    for _ in range(27):  # past the ends of pages
        step, positions = np.zeros((3, 1), np.int32), np.full((3, 1), -1, np.int32)
        step[rows, 0], positions[rows, 0] = tokens[[0, 1], at], at
        out, cache = extend(
            *(layers, step, positions, cache, tables), live=np.array([[True], [False], [True]])
        )
        for row in range(2):
            compare(out[rows[row]], row, at[row], at[row] + 1)
        at += 1
    span = at[:, None] + np.arange(3)
    out, cache = extend(
        layers, np.take_along_axis(tokens, span, 1), span.astype(np.int32), cache, tables[rows]
    )
    for row in range(2):
        compare(out[row], row, at[row], at[row] + 3)
    jax.tree.map(lambda x, old: np.testing.assert_array_equal(x[2:4], old), cache, untouched)
    return worst


def test_cached_rows_of_unequal_length_are_read_as_without_a_cache(params):
    assert cache_error(params) < 2e-5


@pytest.mark.parametrize("pages", [1, 2, 8])
def test_an_accelerators_way_over_the_cache_gives_the_same(params, monkeypatch, pages):
    right = attention.attend_cached
    monkeypatch.setattr(attention, "PAGES_READ", pages)
    monkeypatch.setattr(
        attention, "attend_cached", lambda *args, **_: right(*args, implementation="cudnn")
    )
    assert cache_error(params) < 2e-5


@pytest.mark.parametrize("shift", [-1, 1])
def test_the_cache_test_sees_a_position_that_is_off_by_one(params, monkeypatch, shift):
    right = attention.attend_cached
    monkeypatch.setattr(
        attention,
        "attend_cached",
        lambda q, k, v, tables, limits, **rest: right(q, k, v, tables, limits + shift, **rest),
    )
    assert cache_error(params) > 1e-2


def test_a_donated_cache_is_updated_where_it_lies(params):
    cache = llama.init_cache(CONFIG, 512)
    step = jax.jit(functools.partial(llama.extend, CONFIG), donate_argnums=3)
    one, tables = np.zeros((64, 1), np.int32), np.zeros((64, 8), np.int32)
    lowered = step.lower(llama.unstack(params), one, one, cache, tables)
    memory = lowered.compile().memory_analysis()
    size = sum(x.nbytes for x in jax.tree.leaves(cache))
    assert memory.alias_size_in_bytes >= size
    assert memory.temp_size_in_bytes < 0.10 * size


def qkv(heads, groups, width, batch=2, length=256, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    shapes = ((heads, width), (groups, width), (groups, width))
    return [jnp.asarray(rng.normal(size=(batch, length, *s)), dtype) for s in shapes]


SEGMENTS = np.repeat([[1, 2, 3, 0], [1, 1, 2, 2]], 64, axis=1).astype(np.int32)


@pytest.mark.parametrize("length", [256, 200])
def test_the_tpu_kernel_gives_the_answer_and_gradient_of_plain_xla(length):
    q, k, v = (x[:, :length] for x in qkv(4, 2, 64))
    segments = SEGMENTS[:, :length]
    # What padding (segment 0) gives means nothing.
    weight = np.random.default_rng(1).normal(size=q.shape) * (segments != 0)[..., None, None]

    def run(attend):
        return jax.jit(
            jax.value_and_grad(lambda q, k, v: jnp.sum(attend(q, k, v) * weight), (0, 1, 2))
        )(q, k, v)

    splash = run(lambda q, k, v: tpu.causal(q, k, v, segments, interpret=True))
    plain = run(lambda q, k, v: attention.attend(q, k, v, segments, implementation="xla"))
    np.testing.assert_allclose(splash[0], plain[0], rtol=1e-4)
    for ours, theirs in zip(splash[1], plain[1], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 1e-5), (jnp.bfloat16, 0.1)])
def test_head_by_head_on_a_cpu_output_and_gradients_are_those_of_plain_xla(dtype, tolerance):
    q, k, v = qkv(4, 2, 16, length=200, dtype=dtype)
    weight = jnp.asarray(np.random.default_rng(1).normal(size=q.shape), dtype)

    def run(implementation, segments):
        attend = functools.partial(attention.attend, implementation=implementation)
        out, gradients = jax.jit(lambda *x: jax.vjp(lambda *x: attend(*x, segments), *x))(q, k, v)
        return out, *gradients(weight)

    for segments in (SEGMENTS[:, :200], None):
        for ours, plain in zip(run("cpu", segments), run("xla", segments), strict=True):
            assert ours.dtype == dtype
            ours, plain = np.asarray(ours, np.float32), np.asarray(plain, np.float32)
            np.testing.assert_allclose(ours, plain, atol=tolerance)


@pytest.mark.parametrize("shape", [(2, 2, 2), (1, 1, 8)])
def test_the_tpu_kernel_on_a_mesh_gives_the_answer_of_one_device(shape):
    q, k, v = qkv(8, 2, 64, batch=4, length=128)  # 8 devices for 2 key/value heads
    mesh = sharding.make_mesh(*shape)
    segments = np.repeat(SEGMENTS[:, :128], 2, axis=0)
    plain = attention.attend(q, k, v, segments, implementation="xla")
    with jax.set_mesh(mesh):
        split = jax.jit(lambda *x: tpu.causal(*x, interpret=True))(q, k, v, segments)
    np.testing.assert_allclose(split, plain, atol=1e-4)


def test_long_queries_in_blocks_give_the_same_answer(monkeypatch):
    q, k, v = qkv(4, 2, 8)
    whole = attention.attend(q, k, v, SEGMENTS, implementation="xla")
    monkeypatch.setattr(xla, "QUERY_BLOCK", 64)
    monkeypatch.setattr(xla, "STORED", 128)  # scores are computed again, not kept
    blocks = attention.attend(q, k, v, SEGMENTS, implementation="xla")
    np.testing.assert_allclose(blocks, whole, atol=1e-5)


def in_pages(x):
    """[B, S, K, H] as pages of 64 columns in another order, and each row's table."""
    batch, length = x.shape[:2]
    count = batch * length // 64
    order = np.random.default_rng(3).permutation(count)
    pages = np.zeros((count, 64, x.shape[2] * x.shape[3]), x.dtype)
    pages[order] = np.asarray(x).reshape(count, 64, -1)
    return pages, order.reshape(batch, -1).astype(np.int32)


@pytest.mark.parametrize("pages", [1, 2, 3])
@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 5])
def test_queries_over_pages_get_the_answer_of_attention_in_one_piece(length, parts, pages):
    q, k, v = qkv(8, 4, 16, batch=3)
    q, limits = q[:, :length], np.array([[0], [130], [251]], np.int32) + np.arange(length)
    grouped = xla.grouped(q, k, v, limits)
    (k, tables), (v, _) = in_pages(k), in_pages(v)
    paged = jax.jit(functools.partial(xla.paged, parts=parts, pages=pages))
    np.testing.assert_allclose(paged(q, k, v, tables, limits), grouped, atol=1e-5)


def test_how_far_others_are_read_changes_no_bit_of_a_row():
    q, k, v = qkv(8, 4, 16, batch=3)
    (k, tables), (v, _) = in_pages(k), in_pages(v)
    paged = jax.jit(functools.partial(xla.paged, parts=4, pages=1))
    few, many = (
        np.asarray(paged(q[:, :2], k, v, tables, np.array([[7, 8], [x, x], [9, 10]], np.int32)))
        for x in (3, 255)
    )
    np.testing.assert_array_equal(few[[0, 2]], many[[0, 2]])


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU (cuDNN)")
def test_cudnn_gives_the_answer_of_plain_xla():
    q, k, v = qkv(4, 2, 64, dtype=jnp.bfloat16)
    plain = attention.attend(q, k, v, SEGMENTS, implementation="xla")
    ours = attention.attend(q, k, v, SEGMENTS, implementation="cudnn")
    real = SEGMENTS != 0
    np.testing.assert_allclose(
        np.asarray(ours, np.float32)[real], np.asarray(plain, np.float32)[real], atol=3e-2
    )


def test_an_unknown_implementation_is_refused():
    with pytest.raises(ValueError, match="'flash' is none of auto, splash, cudnn, cpu, xla"):
        attention.attend(*qkv(2, 1, 8), implementation="flash")


@pytest.mark.parametrize(
    "changes", [{"scan": False}, {"remat": True}, {"remat": True, "scan": False}]
)
def test_scan_and_remat_change_neither_output_nor_gradient(params, changes):
    tokens, positions = tiny.tokens(CONFIG, 2, 10), tiny.positions(2, 10)

    def run(config):
        def loss(params):
            return jnp.sum(jnp.sin(llama.hidden(config, params, tokens, positions=positions)))

        return jax.jit(jax.value_and_grad(loss))(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4),
        run(dataclasses.replace(CONFIG, **changes)),
        run(CONFIG),
    )
