#!/usr/bin/env bash
# jax 0.10.2, jaxlib 0.10.2.
#
# `jax.jit` compiles a function again for an argument whose sharding is another object of the same
# placement. On a machine with one device a SingleDeviceSharding and the NamedShardings of two meshes
# of that device, whose axes have other names, put the same bytes in the same place, and
# `is_equivalent_to` says so; but `==` does not, and each of them costs a compilation of its own.
#
# One would expect one program: the argument's shape, dtype, layout and place are the same. A function
# that is given what `jnp` made in one call and what came back from a mesh in the next compiles twice.
#
# Output:
#   equivalent [True, True], equal [False, False]
#   programs compiled after each call: [1, 2, 3, 3, 3, 3]
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2

JAX_PLATFORMS=cpu XLA_FLAGS="" "$folder/venv/bin/python" - <<'PY'
import logging
import sys

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

print("jax", jax.__version__)
compiled = []


class Count(logging.Handler):
    def emit(self, record):
        if "Finished XLA compilation" in record.getMessage():
            compiled.append(record)


logging.getLogger("jax._src.dispatch").addHandler(Count())
logging.getLogger("jax").propagate = False
(device,) = jax.devices()
shardings = (
    SingleDeviceSharding(device),
    NamedSharding(Mesh([device], "rows"), PartitionSpec()),
    NamedSharding(Mesh([device], "columns"), PartitionSpec()),
)
placed = [jax.device_put(np.ones((4, 4), np.float32), sharding) for sharding in shardings]
first, *others = (array.sharding for array in placed)
equivalent = [first.is_equivalent_to(other, 2) for other in others]
equal = [first == other for other in others]
print(f"equivalent {equivalent}, equal {equal}")

jax.config.update("jax_log_compiles", True)
logging.getLogger("jax").handlers.clear()
square = jax.jit(lambda x: x @ x)
counts = []
for array in placed * 2:
    square(array)
    counts.append(len(compiled))
print("programs compiled after each call:", counts)
sys.exit(not (all(equivalent) and not any(equal) and counts == [1, 2, 3, 3, 3, 3]))
PY
