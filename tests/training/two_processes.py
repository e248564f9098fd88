"""One of two processes that train together: python -m tests.training.two_processes INDEX PORT DIR.

Each has two of the four devices. They train to the end; then train again, where process 1 alone
asks to stop at its third step, so that a checkpoint of two hosts lies in DIR/checkpoints.
"""

import itertools
import os
import sys

index, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402

jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.config.update("jax_disable_most_optimizations", True)
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=index)

import numpy as np  # noqa: E402
from jax.experimental import multihost_utils  # noqa: E402

from mucode_jax.models import sharding  # noqa: E402
from mucode_jax.runtime import interruption  # noqa: E402
from mucode_jax.training import fit  # noqa: E402
from tests.training import toys  # noqa: E402


def main() -> None:
    mesh = sharding.make_mesh(2, 2, 1)
    first = {d.process_index for d in mesh.devices[0].flat}
    assert first == {0}, "data is not laid across the processes"
    trained = toys.fit(mesh)
    whole = multihost_utils.process_allgather(trained, tiled=True)
    if index == 0:
        leaves = [np.asarray(x) for x in jax.tree.leaves(whole)]
        np.savez(f"{folder}/together.npz", *leaves)
    steps = itertools.count(1)
    interruption.asked = lambda: index == 1 and next(steps) == 3
    try:
        toys.fit(mesh, checkpoints=f"{folder}/checkpoints")
    except fit.Interrupted as stopped:
        print(stopped, flush=True)
    jax.distributed.shutdown()


main()
