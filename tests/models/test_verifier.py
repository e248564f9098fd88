"""A score belongs to a text: neither padding, batch nor neighbours change it."""

import math

import jax
import numpy as np
import pytest

from mucode_jax.models import verifier
from tests.models import tiny

CONFIG = tiny.CONFIGS["llama31"]
TEXT = tiny.tokens(CONFIG, 1, 9)[0]


@pytest.fixture(scope="module")
def score():
    """Scores a row given as (token ids, start of TEXT in it, segment ids, batch of equal rows)."""
    params = verifier.from_generator(CONFIG, tiny.params(CONFIG), jax.random.key(1))
    run = jax.jit(verifier.scores, static_argnums=0)

    def score(before, after, *, padding, batch=1):
        others = np.random.default_rng(0).integers(3, CONFIG.vocab_size, before + after)
        row = np.concatenate([others[:before], TEXT, others[before:]]).astype(np.int32)
        sizes = (before, len(TEXT), after)
        segments = np.repeat([0, 1, 0] if padding else [2, 1, 3], sizes).astype(np.int32)
        positions = np.concatenate([np.arange(n) for n in sizes]).astype(np.int32)
        if padding:
            row = np.where(segments == 1, row, 0)
        rows = [np.tile(x, (batch, 1)) for x in (row, positions, segments)]
        ends = np.full((batch, 2), before + len(TEXT) - 1, np.int32)
        ends[:, 1] = 0
        out = run(CONFIG, params, rows[0], positions=rows[1], segment_ids=rows[2], ends=ends)
        assert out.shape == (batch, 2) and out.dtype == np.float32
        return np.asarray(out)[:, 0]

    return score


@pytest.mark.parametrize("padding", [True, False])
@pytest.mark.parametrize(("before", "after"), [(0, 7), (7, 0), (3, 4)])
def test_padding_and_neighbours_do_not_change_a_score(score, before, after, padding):
    alone = score(0, 0, padding=True)
    assert abs(alone[0]) > 0.01
    np.testing.assert_allclose(score(before, after, padding=padding), alone, atol=1e-5)


def test_the_batch_does_not_change_a_score(score):
    np.testing.assert_allclose(score(2, 5, padding=False, batch=5), score(0, 0, padding=True)[0],
                               atol=1e-5)  # fmt: skip


def test_the_head_starts_with_the_published_deviation():
    config = tiny.LlamaConfig(16, 4096, 1, 32, 8, 128, 32)
    kernel = verifier.init_head(config, jax.random.key(0))["kernel"]
    assert kernel.shape == (4096, 1)
    assert abs(float(kernel.std()) * math.sqrt(4097) - 1) < 0.05


def test_a_verifier_starts_from_the_generators_trunk_without_its_head():
    generator = tiny.params(CONFIG)
    params = verifier.from_generator(CONFIG, generator, jax.random.key(0))
    assert set(params["trunk"]) == set(generator) - {"head"}
    assert params["trunk"]["layers"] is generator["layers"]
