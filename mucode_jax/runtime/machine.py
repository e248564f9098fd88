"""What this machine computes with, and which versions are installed."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform

from mucode_jax import __version__
from mucode_jax.runtime import hosts

_ACCELERATORS = ("/dev/nvidia0", "/dev/accel0", "/dev/vfio/0")
_PACKAGES = ("jax", "jaxlib", "flax", "transformers", "numpy")


def backend() -> str:
    """The platform that JAX computes on: cpu, gpu or tpu.

    Raises:
      ValueError: this machine has an accelerator that JAX does not use, and JAX_PLATFORMS does not
        say that it should not.
    """
    name = hosts.backend()
    idle = [device for device in _ACCELERATORS if pathlib.Path(device).exists()]
    if name == "cpu" and idle and not os.environ.get("JAX_PLATFORMS"):
        raise ValueError(
            f"this machine has an accelerator ({idle[0]}) that JAX does not use; install it with "
            "pip install -e '.[cuda]' (or '.[tpu]'), or set JAX_PLATFORMS=cpu to do without"
        )
    return name


def versions() -> dict[str, str]:
    """Package -> version, of what decides results."""
    return {
        "mucode_jax": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }
