"""How many slots the free memory holds."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib

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


def device_memory() -> tuple[int, str]:
    """Bytes of one device, and what to call it. On a CPU the devices share the machine's."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"], f"a {device.device_kind}"
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return pages // jax.local_device_count(), "a device of this machine"


def fitting_slots(config: llama.LlamaConfig, context: int, mesh: Mesh | None = None) -> int:
    """Slots whose cache fits the free memory of the devices, a multiple of 8, at least 8.

    Raises ValueError where not even 8 fit.
    """
    free = _device_free(mesh)
    if free is not None:
        return slots_in(free, config, context, mesh)
    known = "SC_AVPHYS_PAGES" in os.sysconf_names  # not on macOS
    pages = os.sysconf("SC_AVPHYS_PAGES" if known else "SC_PHYS_PAGES")
    slots = _HOST_SHARE * pages * os.sysconf("SC_PAGE_SIZE") / slot_bytes(config, context)
    return _rounded(slots, _HOST_SLOTS, config, context)


def most_slots(config: llama.LlamaConfig, context: int, mesh: Mesh | None = None) -> int:
    """Slots whose cache fits if it takes all of the memory that can be had; may be 0."""
    free = _device_free(mesh)
    bytes_had = _host_available() if free is None else free * _parts(config, context, mesh)
    return bytes_had // slot_bytes(config, context)


def _device_free(mesh: Mesh | None) -> int | None:
    """Free bytes of the device that has least; None: devices share the machine's memory."""
    devices = list(mesh.devices.flat) if mesh is not None else jax.local_devices()[:1]
    free = []
    for device in devices:
        stats = device.memory_stats() if device.platform != "cpu" else None
        if stats and "bytes_limit" in stats:
            free.append(stats["bytes_limit"] - stats["bytes_in_use"])
    return min(free, default=None)


def _host_available() -> int:
    """Bytes of this machine's memory that are free or that the system would free."""
    with contextlib.suppress(OSError):  # Linux has this file
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        kib = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(kib) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def slots_in(free: int, config: llama.LlamaConfig, context: int, mesh: Mesh | None = None) -> int:
    """Slots whose cache fits where each device has `free` bytes; see `fitting_slots`."""
    slots = _SHARE * free * _parts(config, context, mesh) / slot_bytes(config, context)
    return _rounded(slots, _MOST, config, context)


def _parts(config: llama.LlamaConfig, context: int, mesh: Mesh | None) -> int:
    """How many parts the cache is split into; devices that hold the same rows do not add up."""
    if mesh is None:
        return 1
    width = config.n_kv_heads * config.head_dim
    rows = math.prod(mesh.shape[axis] for axis in ("data", "fsdp"))
    spec = sharding.spec(llama.CACHE_AXES, (rows, context, width), dict(mesh.shape))
    entries = [(entry,) if isinstance(entry, str) else entry or () for entry in spec]
    return math.prod(mesh.shape[axis] for entry in entries for axis in entry)


def _rounded(slots: float, most: int, config: llama.LlamaConfig, context: int) -> int:
    if slots < 8:
        raise ValueError(
            f"free memory holds {max(0, int(slots))} slots of {context} tokens "
            f"({slot_bytes(config, context) / 2**20:.0f} MiB each); lower the context, or set the "
            "number of slots"
        )
    return min(most, int(slots) // 8 * 8)
