"""Engines on several devices: alike, each by itself."""

import jax
import numpy as np
import pytest

from mucode_jax import aot
from mucode_jax.models import llama, sharding
from mucode_jax.sampling import engine, memory, programs, replicas
from mucode_jax.sampling.engine import Engine, Request
from tests.sampling.test_engine import CONFIG, EOT, PARAMS, drain, ids, keys

SETTINGS = {"context": 96, "temperature": 0.8, "steps": 4, "eot_ids": EOT}


def on(mesh):
    """The parameters laid out on a mesh."""
    params = programs.prepare(CONFIG, PARAMS)
    axes = llama.logical_axes(CONFIG, stacked=False)
    return jax.device_put(params, sharding.shardings(params, axes, mesh))


def test_replicas_give_what_one_of_them_gives():
    two = sharding.host_mesh(2, jax.devices()[:4])
    spread = replicas.Replicas(CONFIG, on(two), slots=6, mesh=two, **SETTINGS)
    one = sharding.host_mesh(2, jax.devices()[4:6])
    alone = Engine(CONFIG, on(one), slots=3, mesh=one, **SETTINGS)
    for e in (spread, alone):
        for i in range(5):
            e.submit(Request(i, ids(i, 3 + 9 * i), keys(i, 3), 12))
    expected, out = drain(alone), drain(spread)
    assert out.keys() == expected.keys()
    for handle, done in expected.items():
        assert done.ids.tolist() == out[handle].ids.tolist()
        assert done.logprobs.tobytes() == out[handle].logprobs.tobytes()
    used = [e.counters.decoded for e in spread._engines]
    assert min(used) > 0
    assert spread.counters.decoded == sum(used)
    with pytest.raises(ValueError, match="pending or kept"):
        spread.submit(Request(3, ids(0, 3), keys(0, 1), 2))
    for e in (spread, alone):  # every second one goes on where it was
        for i in range(0, 5, 2):
            text = np.concatenate([ids(i, 3 + 9 * i), expected[i, 1].ids, ids(9, 7)])
            e.submit(Request(("next", i), text, keys(i, 2), 12, parent=(i, 1), keep=False))
        for handle in expected:
            e.release(handle)
    expected, out = drain(alone), drain(spread)
    assert {h: d.ids.tolist() for h, d in out.items()} == {
        h: d.ids.tolist() for h, d in expected.items()
    }
    with pytest.raises(ValueError, match="not kept"):
        spread.release((0, 0))


@pytest.mark.parametrize("tensor", [1, 2])
def test_nothing_passes_between_replicas(tensor):
    """The text of each program names the devices that exchange something."""
    mesh = sharding.host_mesh(tensor)
    (first, *others) = replicas.meshes(mesh)
    assert len(others) == 8 // tensor - 1
    assert first.shape == {"data": 1, "fsdp": 1, "tensor": tensor}
    params = jax.eval_shape(lambda: programs.prepare(CONFIG, PARAMS))
    axes = llama.logical_axes(CONFIG, stacked=False)

    def placed(shapes, places):
        return jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places
        )

    params = placed(params, sharding.shardings(params, axes, first))
    cache = jax.eval_shape(lambda: llama.init_cache(CONFIG, 8))
    place = jax.sharding.NamedSharding(first, memory.cache_spec(CONFIG, first))
    cache = placed(cache, jax.tree.map(lambda _: place, cache))
    rows, length = engine.PREFILL_ROWS, engine.PREFILL_LENGTH
    texts = programs.Texts(
        np.zeros((rows, 2), np.int32),
        *(np.zeros(rows, np.int32) for _ in range(2)),
        np.zeros((rows, length), np.int32),
    )
    slots = programs.Slots(
        np.zeros(4, bool),
        *(np.zeros(4, np.int32) for _ in range(3)),
        np.zeros((4, 2), np.uint32),
        np.zeros((4, 2), np.int32),
        np.zeros((4, 4), np.int32),
    )
    pages = np.zeros(engine.COPIES, np.int32)
    settings = {"refill": 1, "eot_ids": EOT, "top_p": 1.0, "top_k": 0}
    with jax.set_mesh(first):
        lowered = {
            "prefill": programs.prefill.lower(CONFIG, params, cache, texts),
            "copy": programs.copy.lower(cache, pages, pages, np.int32(1)),
            "decode": programs.decode.lower(
                *(CONFIG, params, cache, slots, np.float32(1)), **settings
            ),
        }
    for name, program in lowered.items():
        compiled = program.compile()
        exchanged = aot.collectives(compiled.as_text())
        # Between the devices of a replica only: tensor of them take part in the program at all.
        assert bool(exchanged) == (tensor > 1 and name != "copy"), (name, exchanged)
        inputs = jax.tree.leaves(compiled.input_shardings)
        assert {len(x.device_set) for x in inputs} == {tensor}, name


def test_tokens_do_not_depend_on_how_many_devices_share_the_heads():
    found = []
    for tensor in (1, 2):
        mesh = sharding.host_mesh(tensor, jax.devices()[:tensor])
        e = Engine(CONFIG, on(mesh), slots=3, mesh=mesh, **SETTINGS)
        e.submit(Request("a", ids(1, 20), keys(1, 3), 12, keep=False))
        found.append({handle: done.ids.tolist() for handle, done in drain(e).items()})
    assert found[0] == found[1]
