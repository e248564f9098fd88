"""Random numbers keyed by what they are for, never by order of arrival.

A key is made of the seed and the names of its purpose: `key_data(seed, "rollouts", iteration,
benchmark, task_id, rollout, turn)`. Strings enter by a stable hash, so that the same names give the
same numbers in every process, on every host and after every interruption.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

Part = str | int


def _digest(parts: tuple[Part, ...]) -> bytes:
    for part in parts:
        if not isinstance(part, (str, int)) or isinstance(part, bool):
            raise TypeError(f"a key is made of strings and integers, not {part!r}")
    return hashlib.sha256(json.dumps(parts).encode()).digest()


def key_data(*parts: Part) -> np.ndarray:
    """uint32 [2]: the data of a threefry key (`jax.random.wrap_key_data`)."""
    return np.frombuffer(_digest(parts)[:8], "<u4").astype(np.uint32)


def rng(*parts: Part) -> np.random.Generator:
    """A numpy generator for host-side choices."""
    return np.random.default_rng(np.frombuffer(_digest(parts), "<u4"))
