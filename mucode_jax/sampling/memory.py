"""How many slots the free memory holds."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from mucode_jax.models import llama, sharding
from mucode_jax.models.llama import PAGE
from mucode_jax.sampling.pages import pages_of

# What is left for activations, logits and the allocator.
_SHARE = 0.8
# A machine's own memory is shared with much else, and past some hundreds of rows a CPU gains
# nothing from more.
_HOST_SHARE, _HOST_SLOTS = 0.25, 128
# Past this an accelerator's decode step has long been bound by the cache alone.
_MOST = 1024
# An accelerator's memory is short, most conversations are far shorter than the longest, and those
# that begin alike share their beginning. (Where pages run short after all, samples wait.)
_OF_CONTEXT = 1 / 3


def on_cpu(mesh: Mesh | None) -> bool:
    """Whether an engine's devices are a CPU's."""
    device = jax.local_devices()[0] if mesh is None else mesh.devices.flat[0]
    return device.platform == "cpu"


def _share(mesh: Mesh | None) -> float:
    """The share of a whole context that the cache has for each slot."""
    return 1 if on_cpu(mesh) else _OF_CONTEXT


def pool_pages(slots: int, context: int, mesh: Mesh | None = None) -> int:
    """How many pages the cache of so many slots has; more than one conversation takes."""
    return max(1, math.ceil(slots * _share(mesh))) * pages_of(context) + 1


def slot_bytes(config: llama.LlamaConfig, context: int, mesh: Mesh | None = None) -> int:
    """Bytes of the cache for each slot, where conversations take at most `context` tokens."""
    columns = 2 * config.n_layers * pages_of(context) * PAGE * config.n_kv_heads * config.head_dim
    return round(columns * jnp.dtype(config.dtype).itemsize * _share(mesh))


def cache_spec(config: llama.LlamaConfig, mesh: Mesh) -> PartitionSpec:
    """How each array of the cache is split over the devices of one engine."""
    shape = (1, PAGE, config.n_kv_heads * config.head_dim)
    return sharding.spec(llama.CACHE_AXES, shape, dict(mesh.shape), "cache")


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
    free = _device_free(mesh)
    if free is not None:
        return slots_in(free, config, context, mesh)
    known = "SC_AVPHYS_PAGES" in os.sysconf_names  # not on macOS
    pages = os.sysconf("SC_AVPHYS_PAGES" if known else "SC_PHYS_PAGES")
    slots = _HOST_SHARE * pages * os.sysconf("SC_PAGE_SIZE") / slot_bytes(config, context, mesh)
    return _rounded(slots, _HOST_SLOTS, config, context, mesh)


def most_slots(config: llama.LlamaConfig, context: int, mesh: Mesh | None = None) -> int:
    """Slots whose cache fits if it takes all of the memory that can be had; may be 0."""
    free = _device_free(mesh)
    bytes_had = _host_available() if free is None else free * _parts(config, mesh)
    return bytes_had // slot_bytes(config, context, mesh)


def _device_free(mesh: Mesh | None) -> int | None:
    """Free bytes of the device that has least; None: devices share the machine's memory."""
    devices = list(mesh.devices.flat) if mesh is not None else jax.local_devices()[:1]
    stats = [s for s in map(_stats, devices) if "bytes_limit" in s]
    return min((s["bytes_limit"] - s["bytes_in_use"] for s in stats), default=None)


def _host_available() -> int:
    """Bytes of this machine's memory that are free or that the system would free."""
    with contextlib.suppress(OSError):  # Linux has this file
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        kib = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(kib) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def slots_in(free: int, config: llama.LlamaConfig, context: int, mesh: Mesh | None = None) -> int:
    """Slots whose cache fits where each device has `free` bytes; see `fitting_slots`."""
    slots = _SHARE * free * _parts(config, mesh) / slot_bytes(config, context, mesh)
    return _rounded(slots, _MOST, config, context, mesh)


def _parts(config: llama.LlamaConfig, mesh: Mesh | None) -> int:
    """How many parts the cache is split into; devices that hold the same columns do not add up."""
    if mesh is None:
        return 1
    split = jax.tree.leaves(tuple(cache_spec(config, mesh)))
    return mesh.shape["data"] * math.prod(mesh.shape[axis] for axis in split)


def _rounded(
    slots: float, most: int, config: llama.LlamaConfig, context: int, mesh: Mesh | None
) -> int:
    if slots < 8:
        raise ValueError(
            f"free memory holds {max(0, int(slots))} slots of {context} tokens "
            f"({slot_bytes(config, context, mesh) / 2**20:.0f} MiB each); lower the context, or "
            "set the number of slots"
        )
    return min(most, int(slots) // 8 * 8)
