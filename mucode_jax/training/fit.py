"""The training loop: epochs of batches through the step, with checkpoints, resume and a stop."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import functools
import itertools
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
from mucode_jax.training.batches import Batch, Packing
from mucode_jax.training.checkpoints import Checkpoints
from mucode_jax.training.lora import LoRA
from mucode_jax.training.losses import Loss, Params
from mucode_jax.training.step import (
    OptimizerConfig,
    State,
    abstract_state,
    batch_sharding,
    init_state,
    make_step,
    request_sharding,
)

_log = logging.getLogger(__name__)

OnStep = Callable[[int, int, dict[str, float]], None]


class Diverged(RuntimeError):
    """The loss or the gradient's norm is not finite."""


class Interrupted(RuntimeError):
    """The run was asked to stop, and has; the message says where it resumes."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
      epochs: passes over the examples.
      batch: SFT examples, or pairs of the verifier's (twice as many single ones), per step.
      length: of an example, or of each member of a pair, in tokens, at most.
      optimizer: AdamW and its schedule.
      rows: per batch, see `batches.Packing`.
      microbatches: each batch is worked through in so many parts, to save memory.
      lora: train adapters only, merged in the end.
      seed: of the order, of a verifier's head, split and pairs, and of fresh adapters.
    """

    epochs: int
    batch: int
    length: int
    optimizer: OptimizerConfig
    rows: int = 0
    microbatches: int = 1
    lora: LoRA | None = None
    seed: int = 0

    def settings(self) -> dict[str, Any]:
        """For a stage."""
        parts = self.microbatches if self.microbatches > 1 else None
        return dataclasses.asdict(self) | {"microbatches": parts}

    def packing(self, section: str, mesh: Mesh, *, singles: bool = False) -> Packing:
        """How its examples, or single ones instead of pairs, are made into batches.

        Args:
          section: of the config.
        """
        batch = 2 * self.batch if singles else self.batch
        parts = mesh.shape["data"] * mesh.shape["fsdp"] * self.microbatches
        return Packing(batch, self.length, self.epochs, self.rows, parts, section)


def fit(
    loss: Loss,
    params: Callable[[], Params],
    epochs: Sequence[Sequence[Batch]],
    recipe: Recipe,
    *,
    axes: Any,
    mesh: Mesh,
    checkpoints: str | None = None,
    on_step: OnStep | None = None,
    on_epoch: Callable[[int, Params], None] | None = None,
) -> Params:
    """Trains, and returns the final parameters.

    Called again after an interruption with the same arguments, it resumes from the latest
    checkpoint and ends with the same parameters, bit for bit on the same mesh; on another mesh it
    resumes as well, and sums differ by their order.

    Args:
      loss: `losses.sft`, `losses.bce` or `losses.bradley_terry` of a model.
      params: makes the parameters that training starts from, on the host or on devices. Where it
        alone holds them, their memory is free once they are copied.
      epochs: the batches of each epoch, numpy arrays [rows, …] of one shape throughout; rows
        divisible by data × fsdp × microbatches. The same on every host; each host puts only its own
        rows on its devices.
      recipe: its optimizer, microbatches, adapters and seed.
      axes: the parameters' logical axes (`llama.logical_axes`, `verifier.logical_axes`).
      mesh: `models.sharding.make_mesh`.
      checkpoints: a directory for the checkpoints of this run alone, or None for none; those of
        another recipe are passed over. It may be removed when the result is stored.
      on_step: called with (step 1 …, steps, metrics): loss, grad_norm, learning_rate and the loss's
        own; one step late, so that the device never waits.
      on_epoch: called with (epoch, params) after each epoch, before any checkpoint of its end; the
        parameters may not be kept. Epochs before the checkpoint that it resumes from are not
        repeated.

    Returns:
      the parameters, in `optimizer.param_dtype` (with LoRA: in the base's), laid out on `mesh`.

    Raises:
      Diverged: loss or gradient became NaN or infinite; the checkpoints are those of before.
      Interrupted: any host's process was asked to stop (`runtime.interruption`).
      ValueError: no batch, or rows that cannot be divided over the mesh.
    """
    ends = list(itertools.accumulate(map(len, epochs)))
    steps = ends[-1] if ends else 0
    if steps == 0:
        raise ValueError(f"nothing to train on: {len(epochs)} epochs with no batch in them")

    optimizer, lora = recipe.optimizer, recipe.lora
    start = params()
    start = jax.device_put(start, sharding.shardings(start, axes, mesh))
    abstract, _ = abstract_state(start, axes, optimizer, mesh, lora)
    frozen = None if lora is None else start
    merge = jax.jit(functools.partial(adapters.merge, lora))
    take_step = make_step(loss, abstract, optimizer, mesh, lora)
    run = {"steps": ends} | dataclasses.asdict(recipe)
    for name in ("rows", "microbatches"):  # how a step is worked through, not what it learns
        del run[name]

    def result(state: State) -> Params:
        return state.params if lora is None else merge(frozen, state.params)

    with contextlib.ExitStack() as stack:
        saved = restored = None
        if checkpoints is not None:
            saved = stack.enter_context(Checkpoints(checkpoints, run))
            restored = saved.restore(abstract)
        if restored is None:
            first, state = 0, _fresh_state(start, recipe, abstract)
        else:
            first, state = restored
            _log.info("resuming from step %d of %d of %s", first, steps, checkpoints)
        del start, restored

        rates = optimizer.rates(steps)
        report = functools.partial(_report, steps=steps, saved=saved, on_step=on_step)
        unread = None  # (step, learning rate, metrics on the device)
        for step in range(first, steps):
            epoch = bisect.bisect_right(ends, step)
            batch = _put(epochs[epoch][step - ends[epoch]], mesh, recipe.microbatches)
            asked = (saved is not None and saved.due(), interruption.asked())
            with jax.set_mesh(mesh):
                state, metrics = take_step(
                    state, frozen, batch, rates[step], _requests(asked, mesh)
                )
            granted = report(unread)
            unread = (step + 1, float(rates[step]), metrics)
            epoch_ends = step + 1 == ends[epoch]
            if granted or epoch_ends:
                # A state leaves the loop only after its own step is known to have been finite.
                granted |= report(unread)
                unread = None
            if epoch_ends and on_epoch is not None:
                on_epoch(epoch, result(state))
            if step + 1 < steps and "stop" in granted:
                raise _interrupted(step + 1, steps, state, saved)
            if step + 1 < steps and "save" in granted:
                saved.save(step + 1, state)
        return result(state)


def _fresh_state(start: Params, recipe: Recipe, abstract: State) -> State:
    """The state before the first step, laid out as `abstract`, from the model on devices."""

    def begin(start: Params) -> State:
        trained = start
        if recipe.lora is not None:
            trained = adapters.init(recipe.lora, start, seed=recipe.seed)
        return init_state(trained, recipe.optimizer)

    layout = jax.tree.map(lambda x: x.sharding, abstract)
    return jax.jit(begin, out_shardings=layout)(start)


def _put(batch: Batch, mesh: Mesh, microbatches: int) -> dict[str, jax.Array]:
    """The batch on the devices, [microbatches, rows, …]; a host puts its own rows only."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"] * microbatches
    layout = batch_sharding(mesh)

    def put(name: str, x: np.ndarray) -> jax.Array:
        if x.shape[0] % parts:
            raise ValueError(
                f"a batch of {x.shape[0]} rows ({name}) cannot be divided by data × fsdp × "
                f"microbatches = {parts}; choose a multiple"
            )
        x = x.reshape(microbatches, x.shape[0] // microbatches, *x.shape[1:])
        if jax.process_count() == 1:
            return jax.device_put(x, layout)
        return jax.make_array_from_callback(x.shape, layout, x.__getitem__)

    return {name: put(name, x) for name, x in batch.items()}


@functools.lru_cache(maxsize=16)
def _requests(asked: tuple[bool, bool], mesh: Mesh) -> jax.Array:
    """What this host asks for (save, stop) on each of its devices; the step adds up those of all.

    So hosts, whose clocks differ and whose signals come at different times, act at the same step,
    without a message of their own.
    """
    rows = np.broadcast_to(np.asarray(asked, np.int32), (mesh.size, 2))
    return jax.make_array_from_callback(rows.shape, request_sharding(mesh), rows.__getitem__)


def _report(
    unread: tuple[int, float, dict] | None,
    *,
    steps: int,
    saved: Checkpoints | None,
    on_step: OnStep | None,
) -> set[str]:
    """Waits for a step's metrics and passes them on; what all hosts are to do: "save", "stop"."""
    if unread is None:
        return set()
    step, rate, metrics = unread
    metrics = jax.device_get(metrics)
    save, stop = metrics.pop("requests").tolist()
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
    return {name for name, count in (("save", save), ("stop", stop)) if count}


def _interrupted(step: int, steps: int, state: State, saved: Checkpoints | None) -> Interrupted:
    """Saves if there is time; the exception that says where the run resumes."""
    if saved is None:
        return Interrupted(f"stopped at step {step} of {steps}, without checkpoints")
    saved.wait()
    quick = saved.seconds is None or saved.seconds <= interruption.GRACE_S
    if jax.process_count() > 1:  # all hosts save, or none does
        quick = bool(multihost_utils.broadcast_one_to_all(np.asarray(quick)))
    if quick:
        saved.save(step, state)
        saved.wait()
    where = f"it resumes from step {saved.latest}" if saved.latest else "it will start again"
    return Interrupted(f"stopped at step {step} of {steps}; run again, {where} ({saved.directory})")
