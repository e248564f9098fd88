"""How many slots the free memory holds."""

from __future__ import annotations

import math
import os

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


def fitting_slots(config: llama.LlamaConfig, context: int, mesh: Mesh | None = None) -> int:
    """Slots whose cache fits the free memory of the devices, a multiple of 8, at least 8.

    Raises ValueError where not even 8 fit.
    """
    per_slot = slot_bytes(config, context)
    devices = list(mesh.devices.flat) if mesh is not None else [jax.devices()[0]]
    # Devices that hold copies of the same rows do not add up.
    parts = 1
    if mesh is not None:
        width = config.n_kv_heads * config.head_dim
        rows = math.prod(mesh.shape[axis] for axis in ("data", "fsdp"))
        spec = sharding.spec(llama.CACHE_AXES, (rows, context, width), dict(mesh.shape))
        named = [axis for entry in spec if entry for axis in entry]
        parts = math.prod(mesh.shape[axis] for axis in named)
    free = []
    for device in devices:
        stats = device.memory_stats() if device.platform != "cpu" else None
        if stats and "bytes_limit" in stats:
            free.append(_SHARE * (stats["bytes_limit"] - stats["bytes_in_use"]))
    if free:
        slots = int(min(free) * parts / per_slot)
        most = _MOST
    else:
        known = "SC_AVPHYS_PAGES" in os.sysconf_names  # not on macOS
        pages = os.sysconf("SC_AVPHYS_PAGES" if known else "SC_PHYS_PAGES")
        slots = int(_HOST_SHARE * pages * os.sysconf("SC_PAGE_SIZE") / per_slot)
        most = _HOST_SLOTS
    if slots < 8:
        raise ValueError(
            f"free memory holds {slots} slots of {context} tokens ({per_slot / 2**20:.0f} MiB"
            " each); lower the context, or set the number of slots"
        )
    return min(most, slots // 8 * 8)
