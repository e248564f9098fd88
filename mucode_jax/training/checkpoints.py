"""Checkpoints of a training run: asynchronous, sharded, whole or not at all.

Orbax writes under a temporary name and renames when everything is on disk, so that a half-written
checkpoint is never found. A checkpoint carries a checksum per array, which does not depend on how
the array is split over devices; one that does not give back its checksums is passed over, with a
warning that names it, and the one before is taken.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

_log = logging.getLogger(__name__)


@jax.jit
def _sums(arrays: list[jax.Array]) -> list[jax.Array]:
    """uint32 scalars: the sum of each array's bit patterns modulo 2^32; one flipped bit shows."""

    def one(x: jax.Array) -> jax.Array:
        unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
        return jnp.sum(jax.lax.bitcast_convert_type(x, unsigned), dtype=jnp.uint32)

    return [one(x) for x in arrays]


def checksums(state: Any) -> list[int]:
    """The checksum of every array, in the order of `jax.tree.leaves`."""
    return [int(x) for x in jax.device_get(_sums(jax.tree.leaves(state)))]


@dataclasses.dataclass
class Pace:
    """Says when the next save is due: at the earliest 20 × the time a save takes after the last.

    Attributes:
      every_s: least seconds between saves.
      seconds: how long the last save took, until it was on disk; None before the first.
    """

    every_s: float
    last: float = dataclasses.field(default_factory=time.monotonic)
    seconds: float | None = None

    def due(self, now: float) -> bool:
        return now - self.last >= max(self.every_s, 20 * (self.seconds or 0.0))


class Checkpoints:
    """The checkpoint directory of one training run.

    Args:
      directory: local or remote (`gs://…`) path; made if absent.
      run: JSON-ready description of the run. A checkpoint of a run described otherwise is an error,
        not something to go on from.
      keep: how many checkpoints stay.
      every_s: see `Pace`.
    """

    def __init__(self, directory: str, run: dict, *, keep: int = 2, every_s: float = 30.0):
        self.directory = epath.Path(directory)
        self.pace = Pace(every_s)
        self._run = run
        self._began: float | None = None
        self._bad: set[int] = set()  # steps passed over by `restore`
        if self.directory.exists() and not self.directory.is_dir():
            _log.warning("%s is no folder of checkpoints; removed", self.directory)
            self.directory.unlink()
        self._manager = ocp.CheckpointManager(
            self.directory.absolute() if "://" not in str(directory) else self.directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, cleanup_tmp_directories=True, create=True
            ),
            item_names=("state", "run"),
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: Any) -> None:
        self._manager.close()  # waits for a save under way

    @property
    def latest(self) -> int | None:
        """The step of the latest whole checkpoint, or None."""
        return max(set(self._manager.all_steps()) - self._bad, default=None)

    def due(self) -> bool:
        """Whether a save is due; also notes the end of one under way."""
        if self._began is not None:
            if self._manager.is_saving_in_progress():
                return False
            self._finish()
        return self.pace.due(time.monotonic())

    def save(self, step: int, state: Any) -> None:
        """Starts saving; the arrays are copied before this returns and may be donated after it.

        Raises:
          OSError, ValueError: this save, or the one before, could not be written.
        """
        if step == self.latest:
            return
        self.wait()
        if step in self._bad:
            self._manager.delete(step)
            self._bad.remove(step)
        self._began = time.monotonic()
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            run=ocp.args.JsonSave({**self._run, "checksums": checksums(state)}),
        )
        self._manager.save(step, args=arguments, force=True)

    def wait(self) -> None:
        """Returns when nothing is being saved; raises what a save under way ran into."""
        if self._began is not None:
            self._manager.wait_until_finished()
            self._finish()
        self._manager.check_for_errors()

    def _finish(self) -> None:
        now = time.monotonic()
        self.pace.seconds, self.pace.last, self._began = now - self._began, now, None

    def restore(self, abstract: Any) -> tuple[int, Any] | None:
        """(step, state) of the latest good checkpoint, or None where there is none.

        Args:
          abstract: the state as `jax.ShapeDtypeStruct`s with the shardings to restore to; they need
            not be those it was saved with.

        Raises:
          ValueError: the checkpoint belongs to a run of another description.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                found = self._manager.restore(
                    step, args=ocp.args.Composite(run=ocp.args.JsonRestore())
                )["run"]
                run = {k: v for k, v in found.items() if k != "checksums"}
                self._compare(step, run)
                state = self._manager.restore(
                    step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
                )["state"]
            except OtherRun:
                raise
            except Exception as error:  # whatever orbax raises for a damaged file
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                _log.warning("checkpoint %s of %s cannot be read: %s", step, self.directory, reason)
                self._bad.add(step)
                continue
            if checksums(state) == found["checksums"]:
                return step, state
            _log.warning(
                "checkpoint %s of %s is damaged (its checksums differ); passing it over",
                *(step, self.directory),
            )
            self._bad.add(step)
        return None

    def _compare(self, step: int, run: dict) -> None:
        differing = [k for k in {**run, **self._run} if run.get(k) != self._run.get(k)]
        if differing:
            name = differing[0]
            raise OtherRun(
                f"checkpoint {step} in {self.directory} was made with {name} = {run.get(name)!r}, "
                f"this run has {self._run.get(name)!r}; remove it or choose another directory"
            )


class OtherRun(ValueError):
    """A checkpoint directory holds the checkpoints of a run with other settings."""
