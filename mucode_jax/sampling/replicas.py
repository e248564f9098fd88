"""Sampling on several devices: an engine for each replica of a mesh, with slots of its own.

Nothing passes between replicas, and none waits for another. All their engines are alike, so that
the outcome of a request does not depend on which of them it goes to.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from mucode_jax.models import llama
from mucode_jax.sampling.engine import Completion, Counters, Engine, Request
from mucode_jax.sampling.scheduler import Handle

_POLL_SECONDS = 0.0005


def meshes(mesh: Mesh | None) -> list[Mesh | None]:
    """The mesh of each replica: its part along `data`."""
    if mesh is None:
        return [None]
    return [Mesh(part[None], mesh.axis_names, axis_types=mesh.axis_types) for part in mesh.devices]


def _of_replica(params: llama.Params, mesh: Mesh | None) -> llama.Params:
    """The parameters on one replica's devices, where they lie already."""
    if mesh is None:
        return params

    def part(x: jax.Array) -> jax.Array:
        shards = {shard.device: shard.data for shard in x.addressable_shards}
        place = NamedSharding(mesh, x.sharding.spec)
        pieces = [shards[device] for device in mesh.devices.flat]
        return jax.make_array_from_single_device_arrays(x.shape, place, pieces)

    return jax.tree.map(part, params)


class Replicas:
    """Engines that are driven as one; see `Engine` for the methods."""

    def __init__(
        self,
        config: llama.LlamaConfig,
        params: llama.Params,
        *,
        slots: int,
        mesh: Mesh | None,
        **settings: Any,
    ) -> None:
        """
        Args:
          config, settings: see `Engine`.
          params: laid out on `mesh`, alike along `data`.
          slots: of all replicas together, rounded up to a multiple of their number.
          mesh: one of `sharding.host_mesh`; None: one device.
        """
        parts = meshes(mesh)
        each = -(-slots // len(parts))
        self._engines = [
            Engine(config, _of_replica(params, part), slots=each, mesh=part, **settings)
            for part in parts
        ]
        self._samples = [0] * len(parts)  # that each was given as first turns
        self._threads = ThreadPoolExecutor(len(parts)) if len(parts) > 1 else None

    def submit(self, request: Request) -> None:
        """Queues a request: with its parent, or where the fewest samples were queued before."""
        if request.parent is not None:
            self._keeper(request.parent).submit(request)
            return
        for engine in self._engines:
            engine.check_unused(request)
        place = self._samples.index(min(self._samples))
        self._engines[place].submit(request)
        self._samples[place] += len(request.keys)

    def release(self, handle: Handle) -> None:
        self._keeper(handle).release(handle)

    def _keeper(self, handle: Handle) -> Engine:
        """The engine that keeps a completion; any where none does, which says so."""
        return next((e for e in self._engines if e.keeps(handle)), self._engines[0])

    @property
    def pending(self) -> int:
        return sum(engine.pending for engine in self._engines)

    @property
    def queued(self) -> int:
        return sum(engine.queued for engine in self._engines)

    @property
    def counters(self) -> Counters:
        """The sums over the replicas; seconds are those of the engines, not of the clock."""
        counters = [dataclasses.asdict(engine.counters) for engine in self._engines]
        return Counters(**{name: sum(c[name] for c in counters) for name in counters[0]})

    def step(self) -> list[Completion]:
        """Steps the replicas whose block has ended, waiting for one if none has."""
        busy = [engine for engine in self._engines if engine.pending]
        if len(busy) < 2 or self._threads is None:
            return [done for engine in busy for done in engine.step()]
        while not (ended := [engine for engine in busy if engine.ready]):
            time.sleep(_POLL_SECONDS)
        # In threads, so that they compile at the same time.
        steps: Sequence[list[Completion]] = list(self._threads.map(Engine.step, ended))
        return [done for finished in steps for done in finished]
