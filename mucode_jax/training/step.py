"""One training step: gradients of a mapped loss, clipping, AdamW (optax), on any mesh.

Parameters are kept in `OptimizerConfig.param_dtype` (float32 master weights by default) and
computed with in the model's own dtype. Everything is laid out by the table in `models.sharding`:
parameters, gradients and moments alike.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mucode_jax.models import sharding
from mucode_jax.training import lora as adapters
from mucode_jax.training.lora import LoRA
from mucode_jax.training.losses import Loss, Params, Sums, mapped

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
Step = Callable[..., tuple["State", Metrics]]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019) with decoupled weight decay, and its schedule.

    Attributes:
      learning_rate: the peak.
      schedule: what follows the warm-up: "constant", or "linear" or "cosine" towards 0 at the end.
      warmup_steps: optimizer steps (of the whole run, not of an epoch) of linear rise to the peak.
      horizon: the schedule's length over the run's length; 2 lets a linear schedule end at half its
        peak, as in the published verifier runs.
      weight_decay: times the rate, subtracted from every parameter but the norms' scales.
      b1, b2, eps: of Adam; eps is added after the bias-corrected square root.
      clip_norm: gradients are scaled to at most this global norm; None: not at all.
      moment_dtype: "float32" or "bfloat16" (half the memory, rounded stochastically: rounding to
        nearest would lose every change below 1/256).
      param_dtype: of the trained parameters, likewise.
    """

    learning_rate: float
    schedule: str = "linear"
    warmup_steps: int = 0
    horizon: float = 1.0
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    clip_norm: float | None = 1.0
    moment_dtype: str = "float32"
    param_dtype: str = "float32"

    def rates(self, steps: int) -> np.ndarray:
        """float32 [steps]: the learning rate of each step of a run."""
        peak, warmup = self.learning_rate, self.warmup_steps
        decay = max(1.0, self.horizon * steps - warmup)
        afterwards = {
            "constant": optax.constant_schedule(peak),
            "linear": optax.linear_schedule(peak, 0.0, decay),
            "cosine": optax.cosine_decay_schedule(peak, decay),
        }[self.schedule]
        rise = optax.linear_schedule(0.0, peak, warmup)
        schedule = optax.join_schedules([lambda step: rise(step + 1), afterwards], [warmup])
        return np.asarray(schedule(np.arange(steps)), np.float32)

    def transformation(self) -> optax.GradientTransformation:
        """Clipping, Adam and decay; what it gives is to be multiplied with -rate."""

        def decays(params: Params) -> Any:
            return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != "scale", params)

        return optax.chain(
            optax.clip_by_global_norm(math.inf if self.clip_norm is None else self.clip_norm),
            optax.scale_by_adam(self.b1, self.b2, self.eps),
            optax.add_decayed_weights(self.weight_decay, mask=decays),
        )


class State(NamedTuple):
    """What a step takes and gives back (donated).

    Attributes:
      params: what is trained: the model's parameters, or its adapters.
      moments: `OptimizerConfig.transformation`'s: Adam's moments, like params, and its count of
        steps.
    """

    params: Params
    moments: optax.OptState


def init_state(params: Params, optimizer: OptimizerConfig) -> State:
    """A fresh state, copied and so donatable; jit it with `out_shardings` to make it in place."""
    params = jax.tree.map(lambda p: jnp.array(p, optimizer.param_dtype, copy=True), params)
    moments = optimizer.transformation().init(params)
    return State(params, _floats_as(optimizer.moment_dtype, moments))


def _floats_as(dtype: Any, tree: Any) -> Any:
    """The tree with its floating-point arrays in `dtype`."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def placed(abstract: Any, layout: Any) -> Any:
    """Shapes with shardings: what a program is lowered for, and a checkpoint restored to."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, layout
    )


def abstract_state(
    params: Params, axes: Any, optimizer: OptimizerConfig, mesh: Mesh, lora: LoRA | None = None
) -> tuple[State, Params | None]:
    """The state of a training, and the frozen base of its adapters, as shapes with shardings.

    Args:
      params: the model's parameters, arrays or shapes.
      axes: their logical axes.
      lora: train adapters; without them nothing is frozen.
    """
    frozen = None
    if lora is not None:
        frozen = placed(params, sharding.shardings(params, axes, mesh))
        params = jax.eval_shape(functools.partial(adapters.init, lora, seed=0), params)
        axes = adapters.logical_axes(axes)
    state = jax.eval_shape(functools.partial(init_state, optimizer=optimizer), params)
    layout = sharding.shardings(state.params, axes, mesh)
    moments_layout = optax.tree.map_params(
        optimizer.transformation(),
        lambda _, like_param: like_param,
        state.moments,
        layout,
        transform_non_params=lambda _: NamedSharding(mesh, PartitionSpec()),
    )
    return placed(state, State(layout, moments_layout)), frozen


def update(
    state: State, gradients: Params, rate: jax.Array, optimizer: OptimizerConfig
) -> tuple[State, jax.Array]:
    """One step of clipped AdamW; also gives the global norm of the float32 gradients as given."""
    params, moments = _floats_as(jnp.float32, (state.params, state.moments))
    changes, moments = optimizer.transformation().update(gradients, moments, params)
    params = jax.tree.map(lambda p, change: p - rate * change, params, changes)
    key = jax.random.fold_in(jax.random.key(0), optax.tree.get(moments, "count"))
    keys = optax.tree.split_key_like(key, state)
    return jax.tree.map(_rounded, State(params, moments), state, keys), optax.tree.norm(gradients)


def _rounded(x: jax.Array, stored: jax.Array, key: jax.Array) -> jax.Array:
    """`x` in the dtype of `stored`; to bfloat16 up or down at random, so that the mean is kept."""
    if x.dtype == stored.dtype:
        return x
    noise = jax.random.bits(key, x.shape, jnp.uint16)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + noise.astype(jnp.uint32)
    return jax.lax.bitcast_convert_type((bits >> 16).astype(jnp.uint16), jnp.bfloat16)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Of the arrays of a step's batch [microbatches, rows, …]."""
    return NamedSharding(mesh, PartitionSpec(None, ("data", "fsdp")))


def request_sharding(mesh: Mesh) -> NamedSharding:
    """Of a step's `requests` [devices, 2]."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def make_step(
    loss: Loss,
    state: State,
    optimizer: OptimizerConfig,
    mesh: Mesh,
    lora: LoRA | None = None,
) -> Step:
    """The compiled step: (state, frozen, batch, rate, requests) -> (state, metrics).

    - state: `State`, donated.
    - frozen: the base model's parameters with LoRA, else None.
    - batch: arrays [A, R, …], A microbatches of R rows, R divisible by data × fsdp. Their sums are
      added up before dividing, so that A microbatches equal one batch of A·R rows.
    - rate: float32 scalar (an argument, so that no schedule compiles anew).
    - requests: int32 [devices, 2], what each host asks of all (see `fit`); their sums return.
    - metrics: float32 scalars loss, grad_norm and the loss's own; int32 [2] requests.

    Steps of equal arguments are shared within the process. Run it under `jax.set_mesh(mesh)`.

    Args:
      state: as shapes with shardings (`abstract_state`).
    """
    leaves, tree = jax.tree.flatten(jax.tree.map(lambda x: x.sharding, state))
    # What the program does not depend on is left out of the key.
    optimizer = dataclasses.replace(
        optimizer, learning_rate=1.0, schedule="constant", warmup_steps=0, horizon=1.0
    )
    return _make_step(loss, tuple(leaves), tree, optimizer, mesh, lora)


@functools.lru_cache(maxsize=16)
def _make_step(
    loss: Loss,
    leaves: tuple[NamedSharding, ...],
    tree: jax.tree_util.PyTreeDef,
    optimizer: OptimizerConfig,
    mesh: Mesh,
    lora: LoRA | None,
) -> Step:
    """See `make_step`; the state's layout comes in pieces because a tree of dicts has no hash."""
    layout: State = tree.unflatten(leaves)
    global_sums = mapped(loss, mesh)

    def numerator(trained: Params, frozen: Params | None, microbatch: Batch):
        """What is differentiated, and all of the loss's sums."""
        params = trained if lora is None else adapters.attach(lora, frozen, trained)
        with adapters.applied():
            sums = global_sums(params, microbatch)
        return sums[0], sums

    def sums_and_gradients(trained, frozen, microbatch) -> tuple[Sums, Params]:
        (_, sums), grads = jax.value_and_grad(numerator, has_aux=True)(trained, frozen, microbatch)
        # Without this they would come back whole on every device.
        grads = jax.lax.with_sharding_constraint(grads, layout.params)
        return sums, jax.tree.map(lambda g: g.astype(jnp.float32), grads)

    def step(state, frozen, batch, rate, requests) -> tuple[State, Metrics]:
        of_microbatch = functools.partial(sums_and_gradients, state.params, frozen)
        (total, weight, extras), grads = _added_up(of_microbatch, batch)
        weight = jnp.maximum(weight, 1e-30)  # a batch without any weight changes nothing
        grads = jax.tree.map(lambda g: g / weight, grads)
        state, norm = update(state, grads, rate, optimizer)
        metrics = {"loss": total / weight, "grad_norm": norm}
        metrics |= {k: total / jnp.maximum(n, 1e-30) for k, (total, n) in extras.items()}
        return state, metrics | {"requests": jnp.sum(requests, axis=0)}

    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(step, donate_argnums=0, out_shardings=(layout, whole))


def _added_up(function: Callable[[Batch], Any], batch: Batch) -> Any:
    """The sum of float32 `function(microbatch)` over the microbatches, one after the other.

    (`optax.MultiSteps` averages microbatches whatever their weights, and keeps the accumulated
    gradients in the state.)
    """
    first = jax.tree.map(lambda x: x[0], batch)
    if jax.tree.leaves(batch)[0].shape[0] == 1:
        return function(first)

    def add(total: Any, microbatch: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(microbatch)), None

    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(function, first))
    return jax.lax.scan(add, zeros, batch)[0]


def lower(
    loss: Loss,
    params: Params,
    axes: Any,
    batch: dict[str, Any],
    optimizer: OptimizerConfig,
    mesh: Mesh,
    *,
    microbatches: int = 1,
    lora: LoRA | None = None,
) -> jax.stages.Lowered:
    """The step's program for shapes alone, on devices that need not be there.

    Args:
      params: the model's parameters as `jax.ShapeDtypeStruct`s.
      axes: their logical axes.
      batch: a batch of numpy arrays or `jax.ShapeDtypeStruct`s [rows, …].
    """
    state, frozen = abstract_state(params, axes, optimizer, mesh, lora)
    rows = {
        k: jax.ShapeDtypeStruct(
            (microbatches, x.shape[0] // microbatches, *x.shape[1:]),
            x.dtype,
            sharding=batch_sharding(mesh),
        )
        for k, x in batch.items()
    }
    rate = jax.ShapeDtypeStruct((), np.float32)
    requests = jax.ShapeDtypeStruct((mesh.size, 2), np.int32, sharding=request_sharding(mesh))
    with jax.set_mesh(mesh):
        return make_step(loss, state, optimizer, mesh, lora).lower(
            state, frozen, rows, rate, requests
        )
