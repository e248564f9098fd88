"""Low-rank adapters on the attention and MLP projections (Hu et al. 2021).

A projection x·W, W [L, D, O], becomes x·W + (alpha / r) · (x·left)·right with left [L, D, r] and
right [L, r, O]. Only the adapters are trained: the base model's weights need no gradient, no
moments and no float32 copy. `right` starts at zero, so that training starts at the base model.

The model knows nothing of adapters: `attach` lays them beside the kernels in the tree of
parameters, and `applied` adds their product to every projection that finds some at its kernel.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

PROJECTIONS = ("query", "key", "value", "output", "gate", "up", "down")


@dataclasses.dataclass(frozen=True)
class LoRA:
    """Settings: `rank` r, and `alpha`; the adapters' product is scaled by alpha / r."""

    rank: int = 16
    alpha: float = 32.0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise ValueError(f"LoRA needs rank ≥ 1 and alpha > 0, not {self.rank} and {self.alpha}")


def _trained(tree: Any, adapter: Callable[[Any], Any], name: str = "") -> Any:
    """The part of a tree of parameters that is trained, with `adapter(kernel)` per projection.

    A verifier's own head, fresh as it is, is trained whole.
    """
    if not isinstance(tree, dict):
        return None
    if name in PROJECTIONS and "kernel" in tree:
        return adapter(tree["kernel"])
    parts = {k: _trained(v, adapter, k) for k, v in tree.items()}
    if "trunk" in tree:
        parts["head"] = tree["head"]
    return {k: v for k, v in parts.items() if v} or None


def init(lora: LoRA, params: Any, *, seed: int) -> Any:
    """Fresh float32 adapters: the tree of `params`, with {"left", "right"} at each projection.

    `left` is normal with std 1/√D, `right` zero.
    """
    key, number = jax.random.key(seed), itertools.count()

    def fresh(kernel: jax.Array) -> dict[str, jax.Array]:
        *layers, width, out = kernel.shape
        left = jax.random.normal(jax.random.fold_in(key, next(number)), (*layers, width, lora.rank))
        return {"left": left / math.sqrt(width), "right": jnp.zeros((*layers, lora.rank, out))}

    return _trained(params, fresh)


def logical_axes(axes: Any) -> Any:
    """The adapters' logical axes, from those of the model: the rank is never split."""

    def split(spec: PartitionSpec) -> dict[str, PartitionSpec]:
        *layers, width, out = spec
        return {
            "left": PartitionSpec(*layers, width, None),
            "right": PartitionSpec(*layers, None, out),
        }

    return _trained(axes, split)


def _joined(base: Any, adapters: Any, join: Callable[[Any, Any], Any]) -> Any:
    """`base` with `join(projection, adapter)` per adapter, and what is trained whole replaced."""
    if not isinstance(adapters, dict):
        return adapters
    if "left" in adapters:
        return join(base, adapters)
    return {k: _joined(v, adapters[k], join) if k in adapters else v for k, v in base.items()}


def attach(lora: LoRA, base: Any, adapters: Any) -> Any:
    """Parameters for a model run under `applied`."""
    scale = lora.alpha / lora.rank
    return _joined(base, adapters, lambda part, a: {**part, **a, "left": a["left"] * scale})


def merge(lora: LoRA, base: Any, adapters: Any) -> Any:
    """Plain parameters: W + (alpha / r) · left · right, in the dtype of the base's W.

    What is trained whole beside the adapters (a verifier's head) keeps its own dtype.
    """
    scale = lora.alpha / lora.rank

    def add(part: Any, a: Any) -> Any:
        kernel = part["kernel"]
        change = scale * jnp.matmul(a["left"], a["right"], preferred_element_type=jnp.float32)
        return {"kernel": (kernel.astype(jnp.float32) + change).astype(kernel.dtype)}

    return _joined(base, adapters, add)


def applied() -> contextlib.AbstractContextManager:
    """While it is open, projections add the product of the adapters beside their kernel."""

    def project(call, args, kwargs, context):
        out = call(*args, **kwargs)
        dense = context.module
        if not isinstance(dense, nn.Dense) or not dense.has_variable("params", "left"):
            return out
        left, right = (dense.get_variable("params", k).astype(out.dtype) for k in ("left", "right"))
        return out + (args[0].astype(out.dtype) @ left) @ right

    return nn.intercept_methods(project)
