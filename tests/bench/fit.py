"""Does a decode step fit a TPU slice that is not here? Compiled ahead of time, printed as a table.

    python tests/bench/fit.py                    # every row below (minutes)
    python tests/bench/fit.py 1b v5e:1x1 128 2048 1 1
                                                 # model, topology, batch, length, data, tensor

Needs the package `libtpu` (extra `aot`), no TPU. Memory is the compiler's own account, per chip:
`cache` is the KV cache, `stored` how it is stored over its logical size, `temporary` what a step
needs beside its arguments, also as a share of the cache. Exit status 1 if a row does not fit,
stores more than 1.02 of the cache's logical size, or needs more than a tenth of it as temporary
memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import sys
import time

os.environ["JAX_PLATFORMS"] = "cpu"  # before jax is imported

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from mucode_jax import aot
from mucode_jax.models import llama, sharding
from mucode_jax.models.llama import LlamaConfig, RopeScaling
from mucode_jax.sampling import memory as sampling_memory

GIB = 1 << 30

MODELS = {
    "tiny": LlamaConfig(1024, 256, 2, 4, 2, 64, 512, tied=True, dtype="bfloat16"),
    "1b": LlamaConfig(
        *(128256, 2048, 16, 32, 8, 64, 8192),
        rope_theta=500000.0,
        rope_scaling=RopeScaling(32.0, 1.0, 4.0, 8192),
        tied=True,
        max_positions=131072,
        dtype="bfloat16",
    ),
    "8b": LlamaConfig(
        *(128256, 4096, 32, 32, 8, 128, 14336),
        rope_theta=500000.0,
        rope_scaling=RopeScaling(8.0, 1.0, 4.0, 8192),
        max_positions=131072,
        dtype="bfloat16",
    ),
}

# model, topology, batch, length, data, tensor
ROWS = (
    ("1b", "v5e:1x1", 64, 2048, 1, 1),
    ("1b", "v5e:1x1", 128, 2048, 1, 1),
    ("1b", "v5e:2x2", 256, 2048, 4, 1),
    ("8b", "v5e:2x4", 128, 2048, 2, 4),
    ("8b", "v5e:2x4", 128, 2048, 1, 8),
    ("8b", "v5p:2x2x1", 128, 2048, 4, 1),
    ("8b", "v6e:2x4", 256, 2048, 4, 2),
)


@dataclasses.dataclass(frozen=True)
class Fit:
    """What one row of the table says; bytes are per chip."""

    model: str
    topology: str
    batch: int
    length: int
    data: int
    tensor: int
    arguments: int
    cache_logical: int
    cache_stored: int
    temporary: int
    hbm: int
    seconds: float

    @property
    def problems(self) -> list[str]:
        out = []
        if self.arguments + self.temporary > self.hbm:
            out.append("does not fit")
        if self.cache_stored > 1.02 * self.cache_logical:
            out.append("cache stored with padding")
        if self.temporary > 0.10 * self.cache_logical:
            out.append("temporary memory above a tenth of the cache")
        return out


def decode(config, steps, params, tokens, positions, tables, cache):
    """`steps` greedy steps in one loop, ended early when all rows are at their last column."""
    last = tables.shape[1] * llama.PAGE - 1

    def step(state):
        done, tokens, positions, cache = state
        hidden, cache = llama.extend(config, params, tokens, positions, cache, tables)
        tokens = jnp.argmax(llama.logits(config, params, hidden), axis=-1).astype(jnp.int32)
        return done + 1, tokens, jnp.minimum(positions + 1, last), cache

    def more(state):
        return (state[0] < steps) & jnp.any(state[2] < last)

    return jax.lax.while_loop(more, step, (0, tokens, positions, cache))[1:]


def fit(model, topology, batch, length, data, tensor, *, steps=16):
    """Compiles the decode loop of one of `data` replicas and reads off its memory."""
    config = dataclasses.replace(MODELS[model], param_dtype="bfloat16", attention="splash")
    mesh = sharding.make_mesh(1, 1, tensor, aot.devices(topology)[:tensor])
    params = jax.eval_shape(llama.unstack, llama.abstract_params(config))
    layout = sharding.shardings(params, llama.logical_axes(config, stacked=False), mesh)
    rows, pages = batch // data, length // llama.PAGE
    cache = jax.eval_shape(functools.partial(llama.init_cache, config, rows * pages))
    cache_layout = jax.tree.map(
        lambda _: NamedSharding(mesh, sampling_memory.cache_spec(config, mesh)), cache
    )
    column = jax.ShapeDtypeStruct((rows, 1), jnp.int32)
    tables = jax.ShapeDtypeStruct((rows, pages), jnp.int32)
    everywhere = NamedSharding(mesh, PartitionSpec())
    arguments = (params, column, column, tables, cache)
    places = (layout, everywhere, everywhere, everywhere, cache_layout)

    started = time.perf_counter()
    with jax.set_mesh(mesh):
        program = jax.jit(
            functools.partial(decode, config, steps),
            in_shardings=places,
            out_shardings=(everywhere, everywhere, cache_layout),
            donate_argnums=4,
        )
        compiled = program.lower(*arguments).compile()
    memory = compiled.memory_analysis()
    cache_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(cache)) // tensor
    # What is updated in place is the cache (and the few bytes of tokens and positions).
    return Fit(
        *(model, topology, batch, length, data, tensor),
        arguments=memory.argument_size_in_bytes,
        cache_logical=cache_bytes,
        cache_stored=memory.alias_size_in_bytes,
        temporary=memory.temp_size_in_bytes,
        hbm=int(aot.HBM_GIB[topology.split(":")[0]] * GIB),
        seconds=time.perf_counter() - started,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("row", nargs="*", help="model topology batch length data tensor")
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    options = parser.parse_args()
    rows = ROWS
    if options.row:
        if len(options.row) != 6:
            parser.error("a row is: model topology batch length data tensor")
        rows = ((*options.row[:2], *(int(x) for x in options.row[2:])),)
    if not options.json:
        print("| model | chips | batch × length | data × tensor | arguments | cache | stored "
              "| temporary | of cache | HBM | compile | |")  # fmt: skip
        print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    failed = False
    for row in rows:
        f = fit(*row)
        failed |= bool(f.problems)
        if options.json:
            print(json.dumps(dataclasses.asdict(f) | {"problems": f.problems}), flush=True)
            continue
        print(
            f"| {f.model} | {f.topology} | {f.batch} × {f.length} | {f.data} × {f.tensor}"
            f" | {f.arguments / GIB:.2f} | {f.cache_logical / GIB:.2f}"
            f" | {f.cache_stored / f.cache_logical:.3f} | {f.temporary / GIB:.2f}"
            f" | {f.temporary / f.cache_logical:.1%} | {f.hbm / GIB:.2f} | {f.seconds:.0f} s"
            f" | {'; '.join(f.problems) or 'fits'} |",
            flush=True,
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
