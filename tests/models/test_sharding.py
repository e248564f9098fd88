"""The rules table, and that every split of eight devices computes what one device does."""

import dataclasses
import functools
import itertools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mucode_jax.models import llama, sharding, verifier
from tests.models import tiny

# Sizes that every split divides, and a batch of eight rows.
CONFIG = dataclasses.replace(tiny.CONFIGS["llama31"], n_heads=8, n_kv_heads=4, d_ff=64, n_layers=2)
SPLITS = [s for s in itertools.product((1, 2, 4, 8), repeat=3) if np.prod(s) == 8]


def test_every_parameter_has_axes_that_the_table_knows():
    for module in (llama, verifier):
        abstract, axes = module.abstract_params(CONFIG), module.logical_axes(CONFIG)
        assert jax.tree.structure(abstract) == jax.tree.structure(axes)
        for names in jax.tree.leaves(axes):
            assert set(names) <= set(sharding.RULES)


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match="w: unknown logical axis 'embd'; known are layers, vocab"):
        sharding.spec(("embd",), (8,), {"fsdp": 2}, "w")


def test_two_names_on_the_same_mesh_axis_are_an_error():
    with pytest.raises(ValueError, match="axes 'heads' and 'ff' are both split over 'tensor'"):
        sharding.spec(("heads", "ff"), (8, 8), {"tensor": 2}, "w")


def test_a_parameter_without_axes_is_an_error():
    mesh = sharding.make_mesh(2, 2, 2)
    extra = {"adapter": jax.ShapeDtypeStruct((4, 4), jnp.float32)}
    with pytest.raises(ValueError, match="adapter: no parameter of this name has logical axes"):
        sharding.shardings(extra, llama.logical_axes(CONFIG), mesh)


def test_a_size_that_does_not_divide_lies_whole_and_is_logged(caplog):
    with caplog.at_level(logging.WARNING):
        spec = sharding.spec(("vocab", "embed"), (97, 32), {"tensor": 4, "fsdp": 2}, "embed")
    assert spec == PartitionSpec(None, "fsdp")
    assert "embed: vocab of 97 is not a multiple of the mesh's tensor=4" in caplog.text


@dataclasses.dataclass(frozen=True)
class Accelerator:
    id: int
    process_index: int
    slice_index: int
    platform: str = "gpu"
    device_kind: str = "one"


def test_nodes_of_gpus_need_not_divide_data_but_slices_of_tpus_do():
    gpus = [Accelerator(i, i // 4, i // 4) for i in range(8)]
    mesh = sharding.make_mesh(1, -1, 1, devices=gpus[::-1])
    assert [device.id for device in mesh.devices.flat] == list(range(8))
    mesh = sharding.make_mesh(2, -1, 1, devices=gpus)
    assert all(len({d.slice_index for d in row.flat}) == 1 for row in mesh.devices)
    tpus = [dataclasses.replace(gpu, platform="tpu") for gpu in gpus]
    with pytest.raises(ValueError, match="data=1 is not a multiple of the 2 slices"):
        sharding.make_mesh(1, -1, 1, devices=tpus)


@pytest.mark.parametrize("sizes", [(3, 1, 1), (-1, -1, 1), (-1, 3, 1), (0, 8, 1)])
def test_a_mesh_that_does_not_use_all_devices_is_refused(sizes):
    with pytest.raises(ValueError, match="does not make up 8 devices"):
        sharding.make_mesh(*sizes)


def test_one_size_of_a_mesh_may_be_left_open():
    assert dict(sharding.make_mesh(-1, 2, 2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}


def test_optimizer_state_lies_as_the_parameters_do():
    mesh = sharding.make_mesh(1, 4, 2)
    abstract, axes = llama.abstract_params(CONFIG), llama.logical_axes(CONFIG)
    state = jax.eval_shape(optax.adamw(1e-3).init, abstract)
    layout = sharding.shardings(state, axes, mesh)
    expected = sharding.shardings(abstract, axes, mesh)
    assert layout[0].mu == expected and layout[0].nu == expected
    assert layout[0].count.spec == PartitionSpec()


def test_parameters_made_sharded_equal_those_made_on_one_device():
    mesh = sharding.make_mesh(2, 2, 2)
    layout = sharding.shardings(llama.abstract_params(CONFIG), llama.logical_axes(CONFIG), mesh)
    make = functools.partial(llama.init, CONFIG)
    split = jax.jit(make, out_shardings=layout)(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, split, jax.jit(make)(jax.random.key(0)))


def loss(params, tokens, segments):
    out = llama.hidden(
        CONFIG, params, tokens, positions=tiny.positions(*tokens.shape), segment_ids=segments
    )
    return jnp.sum(jnp.sin(llama.logits(CONFIG, params, out)) * (segments > 0)[..., None])


@pytest.fixture(scope="module")
def one_device():
    params = tiny.params(CONFIG)
    tokens = tiny.tokens(CONFIG, 8, 12)
    segments = (np.arange(12) < np.arange(5, 13)[:, None]).astype(np.int32)
    return params, tokens, segments, jax.jit(jax.value_and_grad(loss))(params, tokens, segments)


# Written out by hand: what the table must come to for every parameter.
EXPECTED = {
    "embed/embedding": ("tensor", "fsdp"),
    "head/kernel": ("fsdp", "tensor"),
    "norm/scale": (None,),
    "layers/attention_norm/scale": (None, None),
    "layers/mlp_norm/scale": (None, None),
    "layers/attention/query/kernel": (None, "fsdp", "tensor"),
    "layers/attention/key/kernel": (None, "fsdp", "tensor"),
    "layers/attention/value/kernel": (None, "fsdp", "tensor"),
    "layers/attention/output/kernel": (None, "tensor", "fsdp"),
    "layers/mlp/gate/kernel": (None, "fsdp", "tensor"),
    "layers/mlp/up/kernel": (None, "fsdp", "tensor"),
    "layers/mlp/down/kernel": (None, "tensor", "fsdp"),
}


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_every_split_gives_the_answer_of_one_device(split, one_device):
    params, tokens, segments, (expected, gradients) = one_device
    mesh = sharding.make_mesh(*split)
    layout = sharding.shardings(params, llama.logical_axes(CONFIG), mesh)
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    with jax.set_mesh(mesh):
        program = jax.jit(
            jax.value_and_grad(loss),
            in_shardings=(layout, rows, rows),
            out_shardings=(NamedSharding(mesh, PartitionSpec()), layout),
        )
        compiled = program.lower(params, tokens, segments).compile()
        placed = jax.device_put((params, tokens, segments), (layout, rows, rows))
        value, split_gradients = compiled(*placed)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-4),
        split_gradients,
        gradients,
    )
    size = dict(mesh.shape)
    for tree in (compiled.input_shardings[0][0], compiled.output_shardings[1]):
        named = {
            "/".join(str(key.key) for key in keys): place
            for keys, place in jax.tree_util.tree_leaves_with_path(tree)
        }
        assert set(named) == set(EXPECTED)
        for name, place in named.items():
            whole = functools.reduce(lambda t, k: t[k], name.split("/"), params).shape
            shard = tuple(
                n if axis is None else n // size[axis]
                for n, axis in zip(whole, EXPECTED[name], strict=True)
            )
            assert place.shard_shape(whole) == shard, name


@pytest.mark.parametrize("split", [(2, 1, 4), (1, 1, 8), (4, 2, 1)], ids=str)
def test_cached_decoding_on_a_mesh_gives_the_answer_of_one_device(split):
    # Four key/value heads: the last split has more devices than heads.
    params = llama.unstack(tiny.params(CONFIG))
    tokens = tiny.tokens(CONFIG, 8, 6)
    mesh = sharding.make_mesh(*split)
    layout = sharding.shardings(params, llama.logical_axes(CONFIG, stacked=False), mesh)
    cache = llama.init_cache(CONFIG, 8)
    place = NamedSharding(
        mesh, sharding.spec(llama.CACHE_AXES, cache[0]["k"].shape, dict(mesh.shape))
    )
    tables = np.arange(8, dtype=np.int32)[::-1, None]
    extend = jax.jit(functools.partial(llama.extend, CONFIG), donate_argnums=3)

    def run(params, cache):
        out, cache = extend(params, tokens[:, :5], tiny.positions(8, 5), cache, tables)
        last = np.full((8, 1), 5, np.int32)
        return np.asarray(extend(params, tokens[:, 5:], last, cache, tables)[0])

    expected = run(params, cache)
    with jax.set_mesh(mesh):
        split_cache = jax.device_put(llama.init_cache(CONFIG, 8), place)
        ours = run(jax.device_put(params, layout), split_cache)
    np.testing.assert_allclose(ours, expected, atol=2e-5)
