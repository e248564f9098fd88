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
from mucode_jax.training.losses import Loss, Params, mapped


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

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step `step` (0, 1, …) of `steps`."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1.0, self.horizon * steps - self.warmup_steps)
        factor = {
            "constant": 1.0,
            "linear": 1 - done,
            "cosine": 0.5 * (1 + math.cos(math.pi * done)),
        }[self.schedule]
        return self.learning_rate * max(0.0, factor)


class State(NamedTuple):
    """What a step takes and gives back (donated).

    Attributes:
      params: what is trained: the model's parameters, or its adapters.
      mu, nu: Adam's moments, like params.
      step: int32 scalar, steps taken.
    """

    params: Params
    mu: Params
    nu: Params
    step: jax.Array


def init_state(params: Params, optimizer: OptimizerConfig) -> State:
    """A fresh state, copied and so donatable; jit it with `out_shardings` to make it in place."""
    zeros = functools.partial(jnp.zeros_like, dtype=optimizer.moment_dtype)
    return State(
        params=jax.tree.map(lambda p: jnp.array(p, optimizer.param_dtype, copy=True), params),
        mu=jax.tree.map(zeros, params),
        nu=jax.tree.map(zeros, params),
        step=jnp.zeros((), jnp.int32),
    )


def _round(x: jax.Array, dtype: Any, key: jax.Array, salt: int) -> jax.Array:
    """float32 to `dtype`; to bfloat16 up or down at random, so that the mean is kept."""
    if dtype == x.dtype:
        return x
    noise = jax.random.bits(jax.random.fold_in(key, salt), x.shape, jnp.uint16)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + noise.astype(jnp.uint32)
    return jax.lax.bitcast_convert_type((bits >> 16).astype(jnp.uint16), jnp.bfloat16)


def adamw(
    state: State, gradients: Params, rate: jax.Array, optimizer: OptimizerConfig
) -> tuple[State, jax.Array]:
    """One step of clipped AdamW; also gives the gradients' global norm before clipping."""
    gradients = jax.tree.map(lambda g: g.astype(jnp.float32), gradients)
    norm = optax.tree.norm(gradients)
    if optimizer.clip_norm is not None:
        scale = jnp.minimum(1.0, optimizer.clip_norm / (norm + 1e-6))
        gradients = jax.tree.map(lambda g: g * scale, gradients)
    was, step = state[:3], state.step + 1
    params, mu, nu = jax.tree.map(lambda x: x.astype(jnp.float32), was)
    adam = optax.scale_by_adam(optimizer.b1, optimizer.b2, optimizer.eps)
    change, moments = adam.update(gradients, optax.ScaleByAdamState(state.step, mu, nu))

    def moved(path: Any, p: jax.Array, change: jax.Array) -> jax.Array:
        decay = 0.0 if path[-1].key == "scale" else optimizer.weight_decay
        return p - rate * (change + decay * p)

    params = jax.tree_util.tree_map_with_path(moved, params, change)
    new, tree = jax.tree.flatten((params, moments.mu, moments.nu))
    key = jax.random.fold_in(jax.random.key(0), step)
    rounded = [
        _round(x, before.dtype, key, i)
        for i, (x, before) in enumerate(zip(new, jax.tree.leaves(was), strict=True))
    ]
    return State(*tree.unflatten(rounded), step), norm


Metrics = dict[str, jax.Array]
Step = Callable[..., tuple[State, Metrics]]


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Of the arrays of a step's batch [microbatches, rows, …]."""
    return NamedSharding(mesh, PartitionSpec(None, ("data", "fsdp")))


def wish_sharding(mesh: Mesh) -> NamedSharding:
    """Of a step's `wishes` [devices, 2]."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def placed(abstract: Any, layout: Any) -> Any:
    """Shapes with shardings: what a program is lowered for, and a checkpoint restored to."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, layout
    )


def state_layout(params: Any, mesh: Mesh) -> State:
    """The layout of a state, from that of its parameters: the moments lie where they do."""
    return State(params, params, params, NamedSharding(mesh, PartitionSpec()))


def make_step(
    loss: Loss,
    layout: State,
    optimizer: OptimizerConfig,
    mesh: Mesh,
    *,
    lora: LoRA | None = None,
) -> Step:
    """The compiled step: (state, frozen, batch, rate, wishes) -> (state, metrics).

    - state: `State`, donated.
    - frozen: the base model's parameters with LoRA, else None.
    - batch: arrays [A, R, …], A microbatches of R rows, R divisible by data × fsdp. Their sums are
      added up before dividing, so that A microbatches equal one batch of A·R rows.
    - rate: float32 scalar (an argument, so that no schedule compiles anew).
    - wishes: int32 [devices, 2], what each host asks of the others (see `fit`); the sums return.
    - metrics: float32 scalars loss, grad_norm and the loss's own; int32 [2] wishes.

    Steps of equal arguments are shared within the process. Run it under `jax.set_mesh(mesh)`.
    """
    leaves, tree = jax.tree.flatten(layout)
    # What the program does not depend on is left out of the key.
    optimizer = dataclasses.replace(
        optimizer, learning_rate=1.0, schedule="constant", warmup_steps=0, horizon=1.0
    )
    return _make_step(loss, tuple(leaves), tree, optimizer, mesh, lora)


@functools.lru_cache(maxsize=16)
def _make_step(loss, leaves, tree, optimizer, mesh, lora) -> Step:
    layout: State = tree.unflatten(leaves)
    whole = NamedSharding(mesh, PartitionSpec())
    sums = mapped(loss, mesh)

    def objective(trained: Params, frozen: Params | None, microbatch):
        if lora is None:
            numerator, denominator, extras = sums(trained, microbatch)
        else:
            with adapters.applied():
                params = adapters.attach(lora, frozen, trained)
                numerator, denominator, extras = sums(params, microbatch)
        return numerator, (denominator, extras)

    def gradients(trained: Params, frozen: Params | None, microbatch):
        found, grads = jax.value_and_grad(objective, has_aux=True)(trained, frozen, microbatch)
        # Without this they would come back whole on every device.
        return found, jax.lax.with_sharding_constraint(grads, layout.params)

    def step(state: State, frozen, batch, rate, wishes) -> tuple[State, Metrics]:
        count = jax.tree.leaves(batch)[0].shape[0]
        if count == 1:
            one = jax.tree.map(lambda x: x[0], batch)
            found, grads = gradients(state.params, frozen, one)
        else:

            def add(total, microbatch):
                found, grads = gradients(state.params, frozen, microbatch)
                more = (found, jax.tree.map(lambda g: g.astype(jnp.float32), grads))
                return jax.tree.map(jnp.add, total, more), None

            shapes = jax.eval_shape(
                lambda b: gradients(state.params, frozen, jax.tree.map(lambda x: x[0], b)), batch
            )
            zero = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes)
            zero = (zero[0], jax.lax.with_sharding_constraint(zero[1], layout.params))
            (found, grads), _ = jax.lax.scan(add, zero, batch)
        numerator, (denominator, extras) = found
        denominator = jnp.maximum(denominator, 1e-30)  # a batch without any weight changes nothing
        grads = jax.tree.map(lambda g: g.astype(jnp.float32) / denominator, grads)
        state, norm = adamw(state, grads, rate, optimizer)
        metrics = {"loss": numerator / denominator, "grad_norm": norm}
        metrics |= {k: total / jnp.maximum(n, 1e-30) for k, (total, n) in extras.items()}
        return state, metrics | {"wishes": jnp.sum(wishes, axis=0)}

    return jax.jit(step, donate_argnums=0, out_shardings=(layout, whole))


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
    frozen, trained, trained_axes = None, params, axes
    if lora is not None:
        frozen = placed(params, sharding.shardings(params, axes, mesh))
        trained = jax.eval_shape(lambda p: adapters.init(lora, p, seed=0), params)
        trained_axes = adapters.logical_axes(axes)
    state = jax.eval_shape(lambda p: init_state(p, optimizer), trained)
    layout = state_layout(sharding.shardings(trained, trained_axes, mesh), mesh)
    rows = {
        k: jax.ShapeDtypeStruct(
            (microbatches, x.shape[0] // microbatches, *x.shape[1:]),
            x.dtype,
            sharding=batch_sharding(mesh),
        )
        for k, x in batch.items()
    }
    wishes = jax.ShapeDtypeStruct((mesh.size, 2), np.int32, sharding=wish_sharding(mesh))
    step = make_step(loss, layout, optimizer, mesh, lora=lora)
    with jax.set_mesh(mesh):
        rate = jax.ShapeDtypeStruct((), np.float32)
        return step.lower(placed(state, layout), frozen, rows, rate, wishes)
