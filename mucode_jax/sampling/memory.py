"""How many slots the free memory holds."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mucode_jax.models import llama, sharding

# What is left for activations, logits and the allocator.
_SHARE = 0.8
# A machine's own memory is shared with much else, and past some hundreds of rows a CPU gains
# nothing from more.
_HOST_SHARE, _HOST_SLOTS = 0.25, 128
# Past this an accelerator's decode step has long been bound by the cache alone.
_MOST = 1024


def slot_bytes(config: llama.LlamaConfig, context: int) -> int:
    """Bytes that the cache of one conversation of `context` tokens takes."""
    columns = 2 * config.n_layers * context * config.n_kv_heads * config.head_dim
    return columns * jnp.dtype(config.dtype).itemsize


def _stats(device: jax.Device) -> Mapping[str, int]:
    """An accelerator's memory; nothing of a CPU's devices, which share the machine's."""
    return (device.memory_stats() if device.platform != "cpu" else None) or {}


def device_memory() -> tuple[int, str]:
    """Bytes of one device, and what to call it."""
    device = jax.local_devices()[0]
    limit = _stats(device).get("bytes_limit")
    if limit is not None:
        return limit, f"a {device.device_kind}"
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return pages // jax.local_device_count(), "a device of this machine"


def fitting_slots(config: llama.LlamaConfig, context: int, mesh: Mesh | None = None) -> int:
    """Slots whose cache fits the free memory of the devices, a multiple of 8, at least 8.

    Raises ValueError where not even 8 fit.
    """
    devices = list(mesh.devices.flat) if mesh is not None else jax.local_devices()[:1]
    stats = [s for s in map(_stats, devices) if "bytes_limit" in s]
    if stats:
        return slots_in(
            min(s["bytes_limit"] - s["bytes_in_use"] for s in stats), config, context, mesh
        )
    known = "SC_AVPHYS_PAGES" in os.sysconf_names  # not on macOS
    pages = os.sysconf("SC_AVPHYS_PAGES" if known else "SC_PHYS_PAGES")
    free = _HOST_SHARE * pages * os.sysconf("SC_PAGE_SIZE")
    return _rounded(free / slot_bytes(config, context), _HOST_SLOTS, config, context)


def slots_in(free: int, config: llama.LlamaConfig, context: int, mesh: Mesh | None = None) -> int:
    """Slots whose cache fits where each device has `free` bytes; see `fitting_slots`."""
    parts = 1  # devices that hold copies of the same rows do not add up
    if mesh is not None:
        width = config.n_kv_heads * config.head_dim
        rows = sharding.padded_rows(1, mesh)
        spec = sharding.spec(llama.CACHE_AXES, (rows, context, width), dict(mesh.shape))
        parts = math.prod(mesh.shape[axis] for axis in jax.tree.leaves(tuple(spec)))
    return _rounded(_SHARE * free * parts / slot_bytes(config, context), _MOST, config, context)


def _rounded(slots: float, most: int, config: llama.LlamaConfig, context: int) -> int:
    if slots < 8:
        raise ValueError(
            f"free memory holds {max(0, int(slots))} slots of {context} tokens "
            f"({slot_bytes(config, context) / 2**20:.0f} MiB each); lower the context, or set the "
            "number of slots"
        )
    return min(most, int(slots) // 8 * 8)
