"""The step: AdamW against torch, every mesh against one device, accumulation, adapters."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from mucode_jax.models import llama, sharding, verifier
from mucode_jax.training import batches, lora, losses, step
from mucode_jax.training.step import OptimizerConfig

from . import toys

# One layer, not scanned: nothing hides in a loop whose flops are counted once.
# Plain attention everywhere: the flops of a loop, as a CPU alone has, are counted once.
FLAT = dataclasses.replace(toys.CONFIG, n_layers=1, scan=False, attention="xla")
OPTIMIZER = OptimizerConfig(1e-2, weight_decay=0.1)


def _published_adamw(start, o):
    """AdamW after Loshchilov & Hutter (2019), algorithm 2, in float64; clipping as torch has it."""
    params = {name: p.astype(np.float64) for name, p in start.items()}
    mu, nu = ({name: np.zeros_like(p) for name, p in params.items()} for _ in range(2))
    count = itertools.count(1)

    def take(gradients, rate):
        t = next(count)
        norm = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in gradients.values()))
        for name, p in params.items():
            g = gradients[name] * min(1.0, o.clip_norm / (norm + 1e-6))
            mu[name] = o.b1 * mu[name] + (1 - o.b1) * g
            nu[name] = o.b2 * nu[name] + (1 - o.b2) * g**2
            change = mu[name] / (1 - o.b1**t) / (np.sqrt(nu[name] / (1 - o.b2**t)) + o.eps)
            decay = 0.0 if name == "scale" else o.weight_decay
            params[name] = p - rate * (change + decay * p)
        return norm, params

    return take


def _torch_adamw(start, o):
    torch = pytest.importorskip("torch", reason="parity with torch needs the extra `parity`")
    params = {name: torch.nn.Parameter(torch.tensor(p)) for name, p in start.items()}
    groups = [
        {"params": [params["w"]], "weight_decay": o.weight_decay},
        {"params": [params["scale"]], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=1.0, betas=(o.b1, o.b2), eps=o.eps)

    def take(gradients, rate):
        for name, parameter in params.items():
            parameter.grad = torch.tensor(gradients[name])
        norm = torch.nn.utils.clip_grad_norm_(params.values(), o.clip_norm)
        for group in reference.param_groups:
            group["lr"] = float(rate)
        reference.step()
        return norm.item(), {name: p.detach().numpy() for name, p in params.items()}

    return take


@pytest.mark.parametrize("adamw", [_published_adamw, _torch_adamw])
def test_five_steps_equal_the_published_algorithm_and_torch_to_1e_6(adamw):
    """With clipping that bites in some of them, decay, and a rate that changes."""
    rng = np.random.default_rng(0)
    start = {"w": rng.normal(size=(4, 3)), "scale": rng.normal(size=3)}
    start = {k: v.astype(np.float32) for k, v in start.items()}
    optimizer = OptimizerConfig(
        1e-2, warmup_steps=2, weight_decay=0.1, eps=1e-5, clip_norm=1.0, b2=0.95
    )
    reference = adamw(start, optimizer)
    update = jax.jit(functools.partial(step.update, optimizer=optimizer))
    ours = step.init_state(start, optimizer)
    norms = []
    for rate, size in zip(optimizer.rates(5), (1.0, 0.1, 2.0, 0.2, 1.0), strict=True):
        gradients = {
            k: (size * rng.normal(size=v.shape)).astype(np.float32) for k, v in start.items()
        }
        norm, expected = reference(gradients, rate)
        ours, found = update(ours, gradients, rate)
        np.testing.assert_allclose(found, norm, rtol=1e-6)
        for name, value in expected.items():
            np.testing.assert_allclose(ours.params[name], value, rtol=1e-6, atol=1e-6)
        norms.append(norm)
    assert min(norms) < 1 < max(norms)


def test_without_clip_norm_gradients_stay_as_they_are():
    """Adam's first moment after one step is (1 - b1) of the gradient."""
    gradient = {"w": jnp.full(4, 1e6)}
    for clip_norm, left in ((None, 1e5), (1.0, 0.05)):
        optimizer = OptimizerConfig(1e-2, clip_norm=clip_norm)
        state = step.init_state({"w": jnp.zeros(4)}, optimizer)
        state, _ = step.update(state, gradient, 0.0, optimizer)
        np.testing.assert_allclose(optax.tree.get(state, "mu")["w"], left, rtol=1e-6)


def test_schedules_are_the_hand_computed_values():
    def rates(steps, **settings):
        optimizer = OptimizerConfig(1.0, **settings)
        return [round(float(rate), 6) for rate in optimizer.rates(steps)]

    assert rates(4) == [1.0, 0.75, 0.5, 0.25]
    assert rates(4, schedule="constant") == [1.0] * 4
    assert rates(4, schedule="cosine") == [1.0, 0.853553, 0.5, 0.146447]
    # Two steps of warm-up in the whole run, then the rest towards 0.
    assert rates(6, warmup_steps=2) == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    # The published verifier schedule: stretched to twice the run, it ends at half the peak.
    assert rates(4, horizon=2.0) == [1.0, 0.875, 0.75, 0.625]
    # A run shorter than its warm-up only rises.
    assert rates(2, warmup_steps=4) == [0.25, 0.5]


def test_rounding_to_bfloat16_keeps_the_mean_and_what_fits():
    x = jnp.full((20000,), 1 + 1 / 512, jnp.float32)  # a quarter of the way from 1 to 1 + 1/128
    rounded = step._rounded(x, jnp.bfloat16(0), jax.random.key(1))
    values, counts = np.unique(np.asarray(rounded, np.float32), return_counts=True)
    np.testing.assert_array_equal(values, [1, 1 + 1 / 128])
    assert abs(counts[1] / 20000 - 0.25) < 0.015  # five standard errors
    exact = jnp.array([1.5, -2.0, 0.0, 3e38, jnp.inf], jnp.bfloat16)
    found = step._rounded(exact.astype(jnp.float32), exact, jax.random.key(2))
    np.testing.assert_array_equal(np.asarray(found, np.float32), np.asarray(exact, np.float32))


def test_a_second_moment_in_bfloat16_forgets_as_it_should():
    """After a burst, 2,000 steps without gradient: 0.999^2000 = 0.135 of it is left."""
    optimizer = OptimizerConfig(1e-3, moment_dtype="bfloat16")
    state = step.init_state({"w": jnp.zeros(4000)}, optimizer)
    state = optax.tree.set(state, nu={"w": jnp.ones(4000, jnp.bfloat16)})

    def one(state, _):
        return step.update(state, {"w": jnp.zeros(4000)}, 0.0, optimizer)

    state, _ = jax.jit(lambda s: jax.lax.scan(one, s, None, length=2000))(state)
    left = np.asarray(optax.tree.get(state, "nu")["w"], np.float32).mean()
    assert abs(left - 0.999**2000) < 0.01


def _batch(rows=16):
    packing = batches.Packing(batch=22, length=24, rows=rows)
    ((batch,),) = batches.pack_sft(toys.sft_examples(22), packing, (0,)).epochs
    batch["weights"][1::3] *= 5  # uneven on purpose
    return batch


def _compiled(mesh_shape, *, microbatches=1, optimizer=OPTIMIZER):
    """(program, arguments) of one SFT step of the flat toy."""
    count = int(np.prod(mesh_shape))
    mesh = sharding.make_mesh(*mesh_shape, devices=jax.devices()[:count])
    axes, batch = llama.logical_axes(FLAT), _batch()
    program = step.lower(
        losses.sft(FLAT),
        llama.abstract_params(FLAT),
        axes,
        batch,
        optimizer,
        mesh,
        microbatches=microbatches,
    ).compile()
    state = step.init_state(toys.generator(FLAT), optimizer)
    abstract, _ = step.abstract_state(llama.abstract_params(FLAT), axes, optimizer, mesh)
    state = jax.device_put(state, jax.tree.map(lambda x: x.sharding, abstract))
    parts = {
        k: jax.device_put(x.reshape(microbatches, -1, *x.shape[1:]), step.batch_sharding(mesh))
        for k, x in batch.items()
    }
    requests = jax.device_put(np.zeros((mesh.size, 2), np.int32), step.request_sharding(mesh))
    return program, (state, None, parts, np.float32(0.01), requests)


def _run(program, arguments):
    state, metrics = program(*arguments)
    moment = optax.tree.get(state, "mu")
    gradient = jax.tree.map(lambda m: np.asarray(m) / (1 - OPTIMIZER.b1), moment)
    return gradient, float(metrics["loss"]), float(metrics["grad_norm"])


@pytest.fixture(scope="module")
def one_device():
    jax.config.update("jax_disable_most_optimizations", True)
    program, arguments = _compiled((1, 1, 1))
    return _run(program, arguments), program.cost_analysis()["flops"]


def _same(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6), found, expected
    )


SPLITS = [s for s in itertools.product((1, 2, 4, 8), repeat=3) if np.prod(s) == 8]


@pytest.mark.parametrize("split", SPLITS, ids=lambda s: "x".join(map(str, s)))
def test_every_split_of_eight_devices_equals_one_device_and_does_its_share(split, one_device):
    """Loss and gradient are those of one device, at 1 / (data × fsdp) of its flops a device."""
    expected, flops = one_device
    program, arguments = _compiled(split)
    share = program.cost_analysis()["flops"] / flops
    data, fsdp, tensor = split
    given = jax.tree.leaves(arguments[0])
    _same(_run(program, arguments), expected)
    for array, layout in zip(given, jax.tree.leaves(program.output_shardings[0]), strict=True):
        assert layout.is_equivalent_to(array.sharding, array.ndim)
    if tensor == 1:
        assert 1 / (data * fsdp) <= share <= 1.25 / (data * fsdp)
    else:
        assert share <= 1.25 / (data * fsdp)


def test_accumulation_equals_one_large_batch(one_device):
    _same(_run(*_compiled((1, 1, 1), microbatches=4)), one_device[0])


def test_adapters_are_few_start_at_the_base_and_merge_into_what_was_trained():
    config, settings = toys.CONFIG, lora.LoRA(rank=2, alpha=6.0)
    base = toys.verifier_params()
    adapters = lora.init(settings, base, seed=0)
    sizes = {
        "/".join(k.key for k in path): x.shape for path, x in jax.tree.leaves_with_path(adapters)
    }
    layers = [name for name in sizes if "/layers/" in name]
    assert len(layers) == 2 * len(lora.PROJECTIONS) and len(sizes) == len(layers) + 1
    assert sizes["trunk/layers/mlp/down/left"] == (2, 32, 2)
    assert sizes["trunk/layers/mlp/down/right"] == (2, 2, 16)
    assert sizes["head/kernel"] == (16, 1)
    axes = lora.logical_axes(verifier.logical_axes(config))
    assert axes["trunk"]["layers"]["mlp"]["down"]["left"] == PartitionSpec("layers", "ff", None)

    rng = np.random.default_rng(0)
    moved = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), adapters)
    packing = batches.Packing(batch=6, length=48, rows=4)
    ((batch,),) = batches.pack_singles(toys.verifier_examples(6), packing, (0,)).epochs
    inputs = {k: batch[k] for k in ("positions", "segment_ids", "ends")}

    @jax.jit
    def scores(params):
        return verifier.scores(config, params, batch["tokens"], **inputs)

    with lora.applied():
        attached = scores(lora.attach(settings, base, moved))
    np.testing.assert_allclose(attached, scores(lora.merge(settings, base, moved)), atol=1e-5)
    assert np.abs(attached - scores(base)).max() > 1e-2
    merged = lora.merge(settings, base, adapters)  # fresh ones change nothing
    jax.tree.map(np.testing.assert_array_equal, merged, base)


def test_adapters_alone_are_trained():
    mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
    seen = []
    first = toys.EPOCHS[0][0]
    trained = toys.fit(
        mesh,
        epochs=[[first] * 8],
        lora=lora.LoRA(rank=2, alpha=4.0),
        on_step=lambda number, steps, metrics: seen.append(metrics["loss"]),
    )
    base = toys.generator()
    np.testing.assert_array_equal(trained["embed"]["embedding"], base["embed"]["embedding"])
    for name in ("query", "key", "value", "output"):
        before, after = (p["layers"]["attention"][name]["kernel"] for p in (base, trained))
        assert np.abs(np.asarray(after) - before).max() > 1e-4
    assert seen[-1] < seen[0] - 0.1  # the same batch, eight times
