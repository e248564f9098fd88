#!/usr/bin/env bash
# jax 0.10.2, jaxlib 0.10.2, numpy 2.3.5; on the CPU.
#
# A gradient taken inside `jax.shard_map` with respect to a replicated parameter is already summed
# over the devices (with the default, check_vma=True). A `jax.lax.psum` of it, right under `jax.pmap`
# and with check_vma=False, multiplies it by the number of devices.
#
# One would expect that the three maps agree: the gradient of the local loss is local until a
# collective sums it. Instead, code moved from pmap to shard_map trains with a gradient that is as
# many times too large as there are devices. Where gradients are clipped to a norm, or Adam divides
# by their size, no loss curve shows it.
#
# Output:
#   the gradient is 11.0
#   pmap, with psum: 11.0
#   shard_map with check_vma=False, with psum: 11.0
#   shard_map, with psum: 22.0
#   shard_map, without psum: 11.0
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.3.5

JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=2 \
  "$folder/venv/bin/python" -W ignore - <<'PY'
import sys

import jax
import numpy as np
from jax.sharding import AxisType, PartitionSpec

print("jax", jax.__version__)
weight, inputs = np.float32(3), np.float32([1, 10])  # the loss is weight * input, summed
expected = float(inputs.sum())


def gradient(weight, inputs, summed):
    local = jax.grad(lambda w: (w * inputs).sum())(weight)
    return jax.lax.psum(local, "data") if summed else local


def shard_map(summed, **options):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    specs = {"in_specs": (PartitionSpec(), PartitionSpec("data")), "out_specs": PartitionSpec()}
    mapped = jax.shard_map(
        lambda w, x: gradient(w, x, summed), mesh=mesh, **specs, **options
    )
    return float(jax.jit(mapped)(weight, inputs))


mapped = jax.pmap(lambda w, x: gradient(w, x, True), axis_name="data", in_axes=(None, 0))
seen = {
    "pmap, with psum": float(mapped(weight, inputs.reshape(2, 1))[0]),
    "shard_map with check_vma=False, with psum": shard_map(True, check_vma=False),
    "shard_map, with psum": shard_map(True),
    "shard_map, without psum": shard_map(False),
}
print(f"the gradient is {expected}")
for name, value in seen.items():
    print(f"{name}: {value}")
sys.exit(list(seen.values()) != [expected, expected, 2 * expected, expected])
PY
