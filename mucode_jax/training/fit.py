"""The training loop: epochs of batches through the step, with checkpoints, resume and a stop."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from mucode_jax.models import sharding
from mucode_jax.runtime import interruption
from mucode_jax.training import lora as adapters
from mucode_jax.training.batches import Batch
from mucode_jax.training.checkpoints import Checkpoints
from mucode_jax.training.lora import LoRA
from mucode_jax.training.losses import Loss, Params
from mucode_jax.training.step import (
    OptimizerConfig,
    State,
    batch_sharding,
    init_state,
    make_step,
    placed,
    state_layout,
    wish_sharding,
)

_log = logging.getLogger(__name__)


class Diverged(RuntimeError):
    """The loss or the gradient's norm is not finite."""


class Interrupted(RuntimeError):
    """The run was asked to stop, and has; the message says where it can go on."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
      epochs: passes over the examples.
      batch: SFT examples, or pairs of the verifier's (twice as many single ones), a step.
      rows, length: of the packed batches; rows 0: what holds `batch` (see `batches.batch_shape`).
      optimizer, microbatches: see `fit`.
      lora: train adapters only, merged in the end.
      seed: of the order, of a verifier's head, split and pairs, and of fresh adapters.
    """

    epochs: int
    batch: int
    rows: int
    length: int
    optimizer: OptimizerConfig
    microbatches: int
    lora: LoRA | None
    seed: int

    def settings(self) -> dict[str, Any]:
        """For a stage."""
        found = dataclasses.asdict(self)
        return found | {"microbatches": self.microbatches if self.microbatches > 1 else None}


def fit(
    loss: Loss,
    params: Params | Callable[[], Params],
    batches: Callable[[int], Sequence[Batch]],
    *,
    axes: Any,
    epochs: int,
    optimizer: OptimizerConfig,
    mesh: Mesh,
    microbatches: int = 1,
    lora: LoRA | None = None,
    seed: int = 0,
    checkpoints: str | None = None,
    checkpoint_every_s: float = 30.0,
    on_step: Callable[[int, int, dict[str, float]], None] | None = None,
    on_epoch: Callable[[int, Params], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Params:
    """Trains, and returns the final parameters.

    Called again after an interruption with the same arguments, it goes on from the latest
    checkpoint and ends with the same parameters, bit for bit (on the same mesh).

    Args:
      loss: `losses.sft`, `losses.bce` or `losses.bradley_terry` of a model.
      params: where training starts; arrays on the host or on devices. They are copied, not used
        up. Where memory is short, a function that makes them: then nobody holds on to them.
      batches: epoch (0, 1, …) -> its batches, numpy arrays [rows, …] of one shape throughout; rows
        divisible by data × fsdp × microbatches. The same on every host; each host puts only its own
        rows on its devices.
      axes: the parameters' logical axes (`llama.logical_axes`, `verifier.logical_axes`).
      epochs: passes over the data.
      mesh: `models.sharding.make_mesh`.
      microbatches: each batch is worked through in so many parts, to save memory.
      lora: train adapters only; what `on_epoch` and the caller get is the merged model.
      seed: of fresh adapters.
      checkpoints: a directory for the checkpoints of this run alone, or None for none. It may be
        removed when the result is stored.
      checkpoint_every_s: least seconds between checkpoints; see `checkpoints.Pace`.
      on_step: called with (step 1 …, steps, metrics): loss, grad_norm, learning_rate and the loss's
        own; one step late, so that the device never waits.
      on_epoch: called with (epoch, params) after each epoch, before any checkpoint of its end; the
        parameters may not be kept. Epochs that lie before the checkpoint gone on from are not
        repeated.
      stop: asked once a step; when it says True on any host, the run ends with `Interrupted`.

    Returns:
      the parameters, in `optimizer.param_dtype` (with LoRA: in the base's), laid out on `mesh`.

    Raises:
      Diverged: loss or gradient became NaN or infinite; the checkpoints are those of before.
      Interrupted: see `stop`.
      ValueError: no batch, rows that cannot be divided over the mesh, batches of unequal shapes, or
        checkpoints of another run.
    """
    plans = [batches(epoch) for epoch in range(epochs)]
    ends = np.cumsum([len(plan) for plan in plans]).tolist()
    steps = ends[-1] if ends else 0
    if steps == 0:
        raise ValueError(f"nothing to train on: {epochs} epochs with no batch in them")

    start = params() if callable(params) else params
    del params
    start = jax.device_put(start, sharding.shardings(_shapes(start), axes, mesh))
    frozen, trained = None, start
    if lora is not None:
        frozen, axes = start, adapters.logical_axes(axes)
        trained = jax.jit(functools.partial(adapters.init, lora, seed=seed))(frozen)
        merged = jax.jit(functools.partial(adapters.merge, lora))
    begin = functools.partial(init_state, optimizer=optimizer)
    abstract = jax.eval_shape(begin, trained)
    layout = state_layout(sharding.shardings(abstract.params, axes, mesh), mesh)
    take = make_step(loss, layout, optimizer, mesh, lora=lora)
    run = {
        "steps": steps,
        "epochs": ends,
        "shape": [list(x.shape) for x in jax.tree.leaves(plans[0][0])],
        "microbatches": microbatches,
        "optimizer": dataclasses.asdict(optimizer),
        "lora": None if lora is None else dataclasses.asdict(lora),
        "model": _digest(abstract),
    }

    def result(state: State) -> Params:
        return state.params if lora is None else merged(frozen, state.params)

    with contextlib.ExitStack() as stack:
        saved = found = None
        if checkpoints is not None:
            saved = stack.enter_context(Checkpoints(checkpoints, run, every_s=checkpoint_every_s))
            found = saved.restore(placed(abstract, layout))
        if found is None:
            first, state = 0, jax.jit(begin, out_shardings=layout)(trained)
        else:
            first, state = found
            _log.info("going on from step %d of %d of %s", first, steps, checkpoints)
        del start, trained, found

        late = None  # (step, learning rate, metrics on the device) not yet looked at
        for step in range(first, steps):
            epoch = int(np.searchsorted(ends, step, side="right"))
            batch = _put(plans[epoch][step - ends[epoch]], mesh, microbatches)
            rate = optimizer.rate(step, steps)
            wishes = (saved is not None and saved.due(), stop is not None and stop())
            with jax.set_mesh(mesh):
                state, metrics = take(state, frozen, batch, rate, _agree(wishes, mesh))
            save, end = _read(late, steps, saved, on_step)
            late = (step + 1, rate, metrics)
            if save or end or step + 1 == ends[epoch]:
                # A state leaves the loop only after its own step is known to have been finite.
                again = _read(late, steps, saved, on_step)
                save, end, late = save or again[0], end or again[1], None
            if step + 1 == ends[epoch] and on_epoch is not None:
                on_epoch(epoch, result(state))
            if step + 1 < steps and end:
                raise _interrupted(step + 1, steps, state, saved)
            if step + 1 < steps and save:
                saved.save(step + 1, state)
        return result(state)


def _shapes(params: Params) -> Params:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)


def _digest(abstract: State) -> str:
    """Names, shapes and dtypes of the state in a few letters: what a checkpoint must match."""
    named = jax.tree_util.tree_leaves_with_path(abstract)
    text = "\n".join(f"{jax.tree_util.keystr(p)} {x.shape} {x.dtype}" for p, x in named)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _put(batch: Batch, mesh: Mesh, microbatches: int) -> dict[str, jax.Array]:
    """The batch on the devices, [microbatches, rows, …]; a host puts its own rows only."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"] * microbatches
    where = batch_sharding(mesh)

    def one(name: str, x: np.ndarray) -> jax.Array:
        if x.shape[0] % parts:
            raise ValueError(
                f"a batch of {x.shape[0]} rows ({name}) cannot be divided by data × fsdp × "
                f"microbatches = {parts}; choose a multiple"
            )
        x = x.reshape(microbatches, x.shape[0] // microbatches, *x.shape[1:])
        if jax.process_count() == 1:
            return jax.device_put(x, where)
        return jax.make_array_from_callback(x.shape, where, x.__getitem__)

    return {name: one(name, x) for name, x in batch.items()}


@functools.lru_cache(maxsize=16)
def _agree(wishes: tuple[bool, bool], mesh: Mesh) -> jax.Array:
    """This host's wishes (save, stop) on each of its devices; the step adds those of all up.

    So hosts, whose clocks differ and whose signals come at different times, act at the same step,
    without a message of their own.
    """
    rows = np.broadcast_to(np.asarray(wishes, np.int32), (mesh.size, 2))
    return jax.make_array_from_callback(rows.shape, wish_sharding(mesh), rows.__getitem__)


def _read(
    late: tuple[int, float, dict] | None,
    steps: int,
    saved: Checkpoints | None,
    on_step: Callable[[int, int, dict[str, float]], None] | None,
) -> tuple[bool, bool]:
    """Waits for a step's metrics and passes them on; (save, stop), as all hosts see them."""
    if late is None:
        return False, False
    step, rate, metrics = late
    metrics = jax.device_get(metrics)
    save, stop = metrics.pop("wishes").tolist()
    values = {name: float(x) for name, x in metrics.items()} | {"learning_rate": rate}
    if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
        kept = "there is no checkpoint"
        if saved is not None:
            saved.wait()
            if saved.latest is not None:
                kept = f"the last good checkpoint is of step {saved.latest}, in {saved.directory}"
        raise Diverged(
            f"training diverged at step {step} of {steps}: loss {values['loss']}, gradient norm "
            f"{values['grad_norm']}, learning rate {rate:.3g}; {kept}. A lower learning rate, a "
            "warm-up or a lower clip_norm may help"
        )
    if on_step is not None:
        on_step(step, steps, values)
    return bool(save), bool(stop)


def _interrupted(step: int, steps: int, state: State, saved: Checkpoints | None) -> Interrupted:
    """Saves if there is time; the exception that says where the run can go on."""
    if saved is None:
        return Interrupted(f"stopped at step {step} of {steps}, without checkpoints")
    saved.wait()
    quick = saved.pace.seconds is None or saved.pace.seconds <= interruption.GRACE_S
    if jax.process_count() > 1:  # all hosts save, or none does
        quick = bool(multihost_utils.broadcast_one_to_all(np.asarray(quick)))
    if quick:
        saved.save(step, state)
        saved.wait()
    where = f"it goes on from step {saved.latest}" if saved.latest else "it will start again"
    return Interrupted(f"stopped at step {step} of {steps}; run again, {where} ({saved.directory})")
