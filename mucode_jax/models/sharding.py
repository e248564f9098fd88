"""Where arrays lie: one mesh, one table from logical axes to mesh axes, one place that applies it.

A parameter's axes have names that say what they are ("embed", "heads", "ff" …); `RULES` says over
which mesh axes each of them is split. Linen would leave an unknown name unsharded without a word,
so every name is looked up here, and an unknown one, or two names of one array that want the same
mesh axis, is an error.

Code that is compiled for several devices runs under `jax.set_mesh(mesh)`: `constrain` and the
attention kernels read the mesh from that context. Without one they do nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")

# Logical axis -> the mesh axes it is split over, in order. Parameters are split over `fsdp` along
# the model width and over `tensor` along heads, feed-forward width and vocabulary; activations over
# `data` and `fsdp` along the batch.
RULES: Mapping[str, tuple[str, ...]] = {
    "layers": (),
    "vocab": ("tensor",),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "ff": ("tensor",),
    "norm": (),
    "score": (),
    "batch": ("data", "fsdp"),
    "pages": (),
    "length": (),
    "width": (),
}

_log = logging.getLogger(__name__)


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None
) -> Mesh:
    """A mesh (data, fsdp, tensor) over `devices` (default: all); one size may be -1, the rest.

    Over several TPU slices `data` is laid across the slices, so that only gradients pass the slower
    network between them. GPUs' slices are their nodes or NVLink domains: there it is so where
    `data` is a multiple of them, and else the devices come in their own order.

    Raises:
      ValueError: the sizes do not make up the number of devices, or `data` not the slices.
    """
    devices = jax.devices() if devices is None else list(devices)
    shape = [data, fsdp, tensor]
    known = math.prod(size for size in shape if size != -1)
    if shape.count(-1) == 1 and known > 0 and len(devices) % known == 0:
        shape[shape.index(-1)] = len(devices) // known
    if min(shape) < 1 or math.prod(shape) != len(devices):
        raise ValueError(
            f"mesh data={data} fsdp={fsdp} tensor={tensor} does not make up {len(devices)} devices;"
            " the product of the three must be their number (one of them may be -1)"
        )
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    apart = slices > 1 and shape[0] % slices == 0
    if slices > 1 and not apart and devices[0].platform == "tpu":
        raise ValueError(f"data={shape[0]} is not a multiple of the {slices} slices")
    if apart:
        grid = mesh_utils.create_hybrid_device_mesh(
            (shape[0] // slices, *shape[1:]), (slices, 1, 1), devices=devices
        )
    elif slices > 1:
        grid = np.array(_by_host(devices), object).reshape(shape)
    else:
        grid = mesh_utils.create_device_mesh(shape, devices=devices)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 3)


def _by_host(devices: Iterable[Any]) -> list[Any]:
    return sorted(devices, key=lambda device: (device.process_index, device.id))


def host_mesh(tensor: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh (data, 1, tensor) over one host's devices (default: this one's), in their ids' order.

    The heads are split over `tensor` of them (-1: all); ValueError if it does not divide them.
    """
    devices = sorted(devices or jax.local_devices(), key=lambda device: device.id)
    tensor = len(devices) if tensor == -1 else tensor
    if len(devices) % tensor:
        raise ValueError(
            f"mesh.sampling_tensor={tensor} does not divide the {len(devices)} devices of a host"
        )
    grid = np.array(devices, object).reshape(-1, 1, tensor)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 3)


def across_hosts(mesh: Mesh, local: Mesh) -> Mesh:
    """The devices of `mesh` as (hosts, data, fsdp, tensor), each host's own as `local` has them."""
    grid = np.array(_by_host(mesh.devices.flat), object).reshape(-1, *local.devices.shape)
    return Mesh(grid, ("hosts", *AXES), axis_types=(AxisType.Auto,) * 4)


def to_hosts(params: Any, axes: Any, mesh: Mesh, local: Mesh, dtype: str) -> Any:
    """Parameters from the mesh of all hosts to each host's own, in `dtype`; all hosts call it.

    One transfer over the devices' own network gives each host a copy of every array, laid out as on
    `local`; this host's copy is then an array of `local` without another move. `axes` are the
    parameters' logical axes.
    """
    whole = across_hosts(mesh, local)
    cast = jax.jit(lambda x: x.astype(dtype))

    def move(x: jax.Array, place: NamedSharding) -> jax.Array:
        copies = jax.device_put(cast(x), NamedSharding(whole, place.spec))
        return jax.make_array_from_single_device_arrays(
            x.shape, place, [shard.data for shard in copies.addressable_shards]
        )

    return jax.tree.map(move, params, shardings(params, axes, local))


def padded_rows(rows: int, mesh: Mesh | None) -> int:
    """The next multiple of data × fsdp; of rows that do not divide every device would do all."""
    parts = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
    return -(-rows // parts) * parts


def spec(
    names: Sequence[str | None], shape: Sequence[int], sizes: Mapping[str, int], where: str = ""
) -> PartitionSpec:
    """The mesh axes of an array with these logical axes.

    A mesh axis that does not divide its dimension (a vocabulary of 32,003 over 4 devices, two heads
    over eight) is left out for this array, which then lies whole along it; that is logged.

    Args:
      names: a logical name, or None (never split), per dimension of `shape`.
      sizes: mesh axis name -> size; axes not named here are not used.
      where: what to call the array in messages.

    Raises:
      ValueError: a name is not in RULES, two names want the same mesh axis, or there are not as
        many names as dimensions.
    """
    names, array = tuple(names), where or "array"
    if len(names) != len(shape):
        raise ValueError(f"{array}: axes {names} do not fit shape {tuple(shape)}")
    used: dict[str, str] = {}  # mesh axis -> the logical axis that it splits
    entries: list[tuple[str, ...] | None] = []
    for name, size in zip(names, shape, strict=True):
        if name is not None and name not in RULES:
            raise ValueError(
                f"{array}: unknown logical axis {name!r}; known are {', '.join(RULES)}"
            )
        split_over: tuple[str, ...] = ()
        for axis in RULES[name] if name is not None else ():
            if axis in used:
                raise ValueError(
                    f"{array}: axes {used[axis]!r} and {name!r} are both split over {axis!r};"
                    " change RULES"
                )
            used[axis] = name
            parts = sizes.get(axis, 1)
            if parts > 1 and size % (parts * math.prod(sizes[a] for a in split_over)) == 0:
                split_over += (axis,)
            elif parts > 1 and where:
                _log.warning(
                    "%s: %s of %d is not a multiple of the mesh's %s=%d; it lies whole there",
                    *(where, name, size, axis, parts),
                )
        entries.append(split_over or None)
    return PartitionSpec(*entries)


def _path(keys: Sequence[Any]) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr(keys, simple=True, separator="/").split("/"))


def shardings(abstract: Any, axes: Any, mesh: Mesh) -> Any:
    """The sharding of every array of a tree: parameters, gradients, optimizer state, a train state.

    An array is laid out as the parameter whose path ends its own path: Adam's moments are found
    below `mu` and `nu` under the parameters' names. Scalars lie on every device.

    Args:
      abstract: a tree of arrays or `jax.ShapeDtypeStruct`s (from one `jax.eval_shape`).
      axes: the tree of parameters' logical axes, a PartitionSpec of names per parameter
        (`llama.logical_axes`).

    Returns:
      the tree of `NamedSharding`s.

    Raises:
      ValueError: an array that is no scalar belongs to no parameter, or see `spec`.
    """
    known = {_path(keys): names for keys, names in jax.tree_util.tree_leaves_with_path(axes)}
    sizes = dict(mesh.shape)

    def sharding(keys: Sequence[Any], array: Any) -> NamedSharding:
        if array.ndim == 0:
            return NamedSharding(mesh, PartitionSpec())
        path = _path(keys)
        for start in range(len(path)):
            if path[start:] in known:
                where = "/".join(path)
                return NamedSharding(mesh, spec(known[path[start:]], array.shape, sizes, where))
        raise ValueError(f"{'/'.join(path)}: no parameter of this name has logical axes")

    return jax.tree_util.tree_map_with_path(sharding, abstract)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Keeps an activation split as RULES say, inside a program run under `jax.set_mesh`.

    Mesh axes that a surrounding `shard_map` has mapped are left alone; without a mesh `x` returns
    as it is.
    """
    sizes = automatic_axes()
    if math.prod(sizes.values()) == 1:
        return x
    return jax.lax.with_sharding_constraint(x, spec(names, x.shape, sizes))


def automatic_axes() -> dict[str, int]:
    """Mesh axis -> size, of the axes of the mesh in context that the compiler is to split over."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return {}
    return {
        name: size
        for name, size, kind in zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
        if kind == AxisType.Auto
    }
