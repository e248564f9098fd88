"""Losses against hand-computed values, torch, the unpacked form, plain jit and jax.pmap."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mucode_jax.models import sharding
from mucode_jax.training import batches, losses

from . import toys


def test_cross_entropy_is_the_hand_computed_value():
    # States pick logits (0, log 3): probabilities 1/4 and 3/4.
    states = jnp.array([[[1.0], [1.0]]])
    kernel = jnp.array([[0.0], [math.log(3)]])
    found = losses.cross_entropy(states, kernel, jnp.array([[0, 1]]), pieces=1)
    np.testing.assert_allclose(found, [[math.log(4), math.log(4 / 3)]], rtol=1e-6)


@pytest.mark.parametrize("pieces", [1, 4])
def test_cross_entropy_and_its_gradients_equal_torch(pieces):
    torch = pytest.importorskip("torch", reason="parity with torch needs the extra `parity`")
    rng = np.random.default_rng(0)
    states = rng.normal(size=(2, 5, 8)).astype(np.float32)
    kernel = rng.normal(size=(61, 8)).astype(np.float32)  # 61 is no multiple of 4
    targets = rng.integers(0, 61, (2, 5)).astype(np.int32)
    weights = rng.random((2, 5)).astype(np.float32)

    def mean(states, kernel):
        found = losses.cross_entropy(states, kernel, targets, pieces=pieces)
        return jnp.sum(found * weights) / weights.sum()

    value, (by_states, by_kernel) = jax.value_and_grad(mean, (0, 1))(states, kernel)
    s, k = (torch.tensor(x, requires_grad=True) for x in (states, kernel))
    each = torch.nn.functional.cross_entropy(
        (s @ k.T).reshape(-1, 61), torch.tensor(targets).long().reshape(-1), reduction="none"
    )
    expected = (each * torch.tensor(weights).reshape(-1)).sum() / weights.sum()
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(by_states, s.grad, atol=1e-6)
    np.testing.assert_allclose(by_kernel, k.grad, atol=1e-6)


def test_an_untied_head_that_is_the_embedding_has_the_tied_loss_and_gradient():
    untied, params = dataclasses.replace(toys.CONFIG, tied=False), toys.generator()
    apart = params | {"head": {"kernel": params["embed"]["embedding"].T}}
    packing = batches.Packing(batch=4, length=64, rows=2)
    ((batch,),) = batches.pack_sft(toys.sft_examples(4), packing, (0,)).epochs
    value, expected = _mean(losses.sft(toys.CONFIG))(params, batch)
    found, gradient = _mean(losses.sft(untied))(apart, batch)
    np.testing.assert_allclose(found, value, rtol=1e-6)
    gradient["embed"]["embedding"] += gradient.pop("head")["kernel"].T
    _close(gradient, expected, 2e-6)


def test_bce_and_bradley_terry_are_the_hand_computed_values():
    scores = jnp.array([[math.log(3), -math.log(3)]])  # sigmoids 3/4 and 1/4
    ones = jnp.array([[1.0, 1.0]])
    numerator, count, extras = losses.bce_sums(scores, {"labels": ones, "weights": ones}, l2=0.0)
    np.testing.assert_allclose(numerator, math.log(4 / 3) + math.log(4), rtol=1e-6)
    assert count == 2 and extras["accuracy"] == (1, 2)

    # Margin 2·log 3: sigmoid 9/10. L2 adds half of both squares.
    batch = {"weights": jnp.array([[1.0]])}
    numerator, count, extras = losses.bradley_terry_sums(scores, batch, l2=0.1)
    np.testing.assert_allclose(numerator, math.log(10 / 9) + 0.1 * math.log(3) ** 2, rtol=1e-6)
    np.testing.assert_allclose(extras["margin"][0], 2 * math.log(3), rtol=1e-6)
    assert count == 1 and extras["accuracy"] == (1, 1)


def test_bce_and_bradley_terry_and_their_gradients_equal_torch():
    torch = pytest.importorskip("torch", reason="parity with torch needs the extra `parity`")
    rng = np.random.default_rng(1)
    # Large scores too: nothing may overflow.
    scores = (rng.normal(size=(3, 4)) * [1, 10, 100, 1]).astype(np.float32)
    labels = (rng.random((3, 4)) < 0.5).astype(np.float32)
    weights = np.ones((3, 4), np.float32)
    t = torch.tensor(scores, requires_grad=True)
    expected = torch.nn.BCEWithLogitsLoss()(t, torch.tensor(labels)) + 0.01 * (t**2).mean()
    expected.backward()

    def bce(scores):
        batch = {"labels": labels, "weights": weights}
        numerator, count, _ = losses.bce_sums(scores, batch, l2=0.01)
        return numerator / count

    value, gradient = jax.value_and_grad(bce)(scores)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, t.grad, rtol=1e-5, atol=1e-7)

    t = torch.tensor(scores, requires_grad=True)
    chosen, rejected = t[:, 0::2], t[:, 1::2]
    expected = -torch.nn.functional.logsigmoid(chosen - rejected).mean() + 0.01 * (t**2).mean()
    expected.backward()

    def bradley_terry(scores):
        numerator, count, _ = losses.bradley_terry_sums(
            scores, {"weights": weights[:, :2]}, l2=0.01
        )
        return numerator / count

    value, gradient = jax.value_and_grad(bradley_terry)(scores)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, t.grad, rtol=1e-5, atol=1e-7)


def _mean(loss):
    def mean(params, batch):
        numerator, denominator, _ = loss(params, batch)
        return numerator / denominator

    return jax.jit(jax.value_and_grad(mean))


def _close(found, expected, tolerance):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        found,
        expected,
    )


def test_packed_sft_has_the_loss_and_gradient_of_one_example_a_row():
    examples = toys.sft_examples(9)
    packed, alone = (
        batches.pack_sft(examples, batches.Packing(9, length, rows=rows), (0,)).epochs[0]
        for length, rows in ((64, 3), (24, 9))
    )
    assert len(packed) == len(alone) == 1
    params, mean = toys.generator(), _mean(losses.sft(toys.CONFIG))
    _close(mean(params, packed[0]), mean(params, alone[0]), 2e-6)


def test_packed_pairs_have_the_loss_and_gradient_of_one_pair_a_row():
    pairs = batches.make_pairs(toys.verifier_examples(20), pairs_per_problem=2, key=(0,))
    packed, alone = (
        batches.pack_pairs(pairs, batches.Packing(len(pairs), length, rows=rows), (0,)).epochs[0]
        for length, rows in ((64, 3), (24, len(pairs)))
    )
    assert len(packed) == len(alone) == 1
    params, mean = toys.verifier_params(), _mean(losses.bradley_terry(toys.CONFIG, l2=0.01))
    _close(mean(params, packed[0]), mean(params, alone[0]), 2e-6)


def test_mapped_loss_equals_plain_jit_and_pmap_where_masks_are_uneven():
    """One shard has a hundred times the weight of another, and one has none at all."""
    mesh = sharding.make_mesh(4, 2, 1)
    packing = batches.Packing(batch=10, length=32, rows=8)
    ((batch,),) = batches.pack_sft(toys.sft_examples(10), packing, (0,)).epochs
    batch["weights"] *= np.repeat([100.0, 1.0, 0.0, 7.0], 2)[:, None].astype(np.float32)
    params, loss = toys.generator(), losses.sft(toys.CONFIG)
    plain = _mean(loss)(params, batch)

    with jax.set_mesh(mesh):
        _close(_mean(losses.mapped(loss, mesh))(params, batch), plain, 2e-6)

    def local(params, shard):
        # Inside jax.pmap a gradient is the shard's own: sums of both parts come after.
        (numerator, denominator), gradient = jax.value_and_grad(
            lambda p: loss(p, shard)[:2], has_aux=True
        )(params)
        total = functools.partial(jax.lax.psum, axis_name="data")
        numerator, denominator, gradient = total((numerator, denominator, gradient))
        return numerator / denominator, jax.tree.map(lambda g: g / denominator, gradient)

    shards = jax.tree.map(lambda x: x.reshape(4, 2, *x.shape[1:]), batch)
    mapped = jax.pmap(local, axis_name="data", in_axes=(None, 0), devices=jax.devices()[:4])
    _close(jax.tree.map(lambda x: x[0], mapped(params, shards)), plain, 2e-6)


def test_a_vocabulary_in_pieces_saves_memory_in_the_compiled_program(optimized):
    vocab, width, tokens = 128256, 16, 512
    whole = tokens * vocab * 4

    def temporary(pieces):
        def mean(states, kernel, targets):
            return jnp.mean(losses.cross_entropy(states, kernel, targets, pieces=pieces))

        arguments = (
            jax.ShapeDtypeStruct((1, tokens, width), jnp.float32),
            jax.ShapeDtypeStruct((vocab, width), jnp.float32),
            jax.ShapeDtypeStruct((1, tokens), jnp.int32),
        )
        compiled = jax.jit(jax.grad(mean, (0, 1))).lower(*arguments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(1) >= whole
    assert temporary(8) <= 0.45 * whole
