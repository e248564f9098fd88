"""Checkpoints of a training run: asynchronous, sharded, whole or not at all.

Orbax writes under a temporary name and renames when everything is on disk, so that a half-written
checkpoint is never found. Its files do not notice a flipped bit among the numbers, so a checkpoint
carries a checksum per array, which does not depend on how the array is split over devices. One that
does not give back its checksums, or is of another run, is passed over with a warning that names it,
and the one before is taken.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

EVERY_S = 30.0  # least seconds between two saves
KEPT = 2  # checkpoints

_log = logging.getLogger(__name__)


@jax.jit
def _bit_sums(arrays: list[jax.Array]) -> list[jax.Array]:
    """uint32 scalars: the sum of each array's bit patterns modulo 2^32; one flipped bit shows."""
    words = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
    patterns = [jax.lax.bitcast_convert_type(x, words[x.dtype.itemsize]) for x in arrays]
    return [jnp.sum(x, dtype=jnp.uint32) for x in patterns]


def checksums(state: Any) -> list[int]:
    """The checksum of every array, in the order of `jax.tree.leaves`."""
    return [int(x) for x in jax.device_get(_bit_sums(jax.tree.leaves(state)))]


class Checkpoints:
    """The checkpoint directory of one training run.

    Args:
      directory: local or remote (`gs://…`) path; made if absent.
      run: JSON-ready description of the run; checkpoints of another description are passed over.

    Attributes:
      directory: as given.
      seconds: how long the last save took, until it was on disk; None before the first.
    """

    def __init__(self, directory: str, run: dict):
        self.directory = epath.Path(directory)
        self.seconds: float | None = None
        self._run = run
        self._last = time.monotonic()  # the end of the last save
        self._began: float | None = None  # the beginning of the save under way
        self._bad: set[int] = set()  # steps passed over by `restore`
        if self.directory.exists() and not self.directory.is_dir():
            _log.warning("%s is no folder of checkpoints; removed", self.directory)
            self.directory.unlink()
        self._manager = ocp.CheckpointManager(
            self.directory.absolute() if "://" not in str(directory) else self.directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=KEPT, cleanup_tmp_directories=True, create=True
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
        """Whether a save is due: at the earliest 20 × the time that a save takes after the last.

        Also notes the end of one under way.
        """
        if self._began is not None:
            if self._manager.is_saving_in_progress():
                return False
            self._finish()
        return time.monotonic() - self._last >= max(EVERY_S, 20 * (self.seconds or 0.0))

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
        self._last = time.monotonic()
        self.seconds, self._began = self._last - self._began, None

    def restore(self, abstract: Any) -> tuple[int, Any] | None:
        """(step, state) of the latest good checkpoint, or None where there is none.

        Args:
          abstract: the state as `jax.ShapeDtypeStruct`s with the shardings to restore to; they need
            not be those it was saved with.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                run = self._manager.restore(
                    step, args=ocp.args.Composite(run=ocp.args.JsonRestore())
                )["run"]
                expected = run.pop("checksums")
                differing = [k for k in {**run, **self._run} if run.get(k) != self._run.get(k)]
                if differing:
                    raise ValueError(f"it is of a run with other {', '.join(differing)}")
                state = self._manager.restore(
                    step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
                )["state"]
                if checksums(state) != expected:
                    raise ValueError("it is damaged, its checksums differ")
                return step, state
            except Exception as error:  # also whatever orbax raises for a damaged file
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                _log.warning("passing over checkpoint %s of %s: %s", step, self.directory, reason)
                self._bad.add(step)
        return None
