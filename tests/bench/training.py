"""What training costs: memory on TPU slices, speed on this CPU or GPU, padding of real batches.

    python tests/bench/training.py aot [POINT …]     # needs libtpu; minutes a point
    python tests/bench/training.py cpu               # needs torch and transformers
    python tests/bench/training.py gpu               # needs a GPU
    python tests/bench/training.py padding --data ../shared/data
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import os
import re
import sys
import time

GIB = 2**30
# Bytes of HBM that a program may use on one chip.
HBM_GIB = {"v5e": 15.75, "v5p": 95.74, "v6e": 31.25}


@dataclasses.dataclass(frozen=True)
class Point:
    """One program: a model and a loss on a slice."""

    model: str
    loss: str
    topology: str
    mesh: tuple[int, int, int]
    rows: int
    moments: str = "float32"
    params: str = "float32"
    slices: int = 1
    microbatches: int = 1
    length: int = 2048
    lora: int = 0


POINTS = {
    "8b-sft-v5e16": Point("8b", "sft", "v5e:4x4", (1, 16, 1), 16),
    "8b-sft-v5e16-bf16-moments": Point("8b", "sft", "v5e:4x4", (1, 16, 1), 16, "bfloat16"),
    "8b-sft-v5e8-bf16-moments": Point("8b", "sft", "v5e:2x4", (1, 8, 1), 8, "bfloat16"),
    "8b-bt-v5e16": Point("8b", "bradley_terry", "v5e:4x4", (1, 16, 1), 16),
    "8b-sft-2-slices": Point("8b", "sft", "v5e:4x4", (2, 16, 1), 32, slices=2),
    "8b-sft-v5p4": Point("8b", "sft", "v5p:2x2x1", (1, 4, 1), 8),
    "8b-sft-v6e8": Point("8b", "sft", "v6e:2x4", (1, 8, 1), 8),
    "8b-lora-v5e8": Point("8b", "sft", "v5e:2x4", (1, 8, 1), 8, lora=16),
    "1b-sft-v5e4": Point("1b", "sft", "v5e:2x2", (1, 4, 1), 8),
    "1b-bt-v5e4": Point("1b", "bradley_terry", "v5e:2x2", (1, 4, 1), 8),
    "1b-sft-v5e1-lora": Point("1b", "sft", "v5e:1x1", (1, 1, 1), 4, lora=16),
    "tiny-sft-v5e4": Point("tiny", "sft", "v5e:2x2", (2, 2, 1), 8, length=256),
}


def model_config(name: str, **settings):
    from mucode_jax.models.llama import LlamaConfig, RopeScaling

    scaling = RopeScaling(8.0 if name == "8b" else 32.0, 1.0, 4.0, 8192)
    llama3 = {"rope_theta": 500000.0, "rope_scaling": scaling, "max_positions": 131072}
    shapes = {
        "8b": dict(vocab_size=128256, d_model=4096, n_layers=32, n_heads=32, n_kv_heads=8)
        | dict(head_dim=128, d_ff=14336, tied=False, **llama3),
        "1b": dict(vocab_size=128256, d_model=2048, n_layers=16, n_heads=32, n_kv_heads=8)
        | dict(head_dim=64, d_ff=8192, tied=True, **llama3),
        "25m": dict(vocab_size=8192, d_model=384, n_layers=8, n_heads=6, n_kv_heads=6)
        | dict(head_dim=64, d_ff=1536, tied=False),
        "tiny": dict(vocab_size=512, d_model=256, n_layers=2, n_heads=2, n_kv_heads=2)
        | dict(head_dim=128, d_ff=512, tied=True),
    }
    return LlamaConfig(**(shapes[name] | settings))


def shapes(loss: str, rows: int, length: int, ends: int = 16):
    """A batch of `loss`, as shapes."""
    import jax
    import numpy as np

    fields = {k: (np.int32, length) for k in ("tokens", "positions", "segment_ids")}
    if loss == "sft":
        fields |= {"targets": (np.int32, length), "weights": (np.float32, length)}
    else:
        pairs = loss == "bradley_terry"
        fields |= {"ends": (np.int32, ends), "weights": (np.float32, ends // (2 if pairs else 1))}
        if not pairs:
            fields["labels"] = (np.float32, ends)
    return {k: jax.ShapeDtypeStruct((rows, n), dtype) for k, (dtype, n) in fields.items()}


def lower(point: Point, config, devices):
    from mucode_jax.models import llama, sharding, verifier
    from mucode_jax.training import losses, step
    from mucode_jax.training.lora import LoRA

    model = llama if point.loss == "sft" else verifier
    return step.lower(
        getattr(losses, point.loss)(config),
        model.abstract_params(config),
        model.logical_axes(config),
        shapes(point.loss, point.rows, point.length),
        step.OptimizerConfig(1e-6, moment_dtype=point.moments, param_dtype=point.params),
        sharding.make_mesh(*point.mesh, devices=devices),
        microbatches=point.microbatches,
        lora=LoRA(point.lora) if point.lora else None,
    )


_COLLECTIVE = re.compile(
    r"= (\(?[a-z0-9]+\[.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    r"(?:-start)?\((.*)"
)
_BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1, "u8": 1, "s8": 1, "f16": 2}


def _size(shape: str) -> int:
    total = 0
    for kind, dims in re.findall(r"([a-z]+[0-9]*)\[([0-9,]*)\]", shape):
        count = 1
        for n in dims.split(","):
            count *= int(n or 1)
        total += _BYTES.get(kind, 4) * count
    return total


def collectives(text: str) -> dict[str, tuple[int, int]]:
    """kind -> (number in the program, bytes of their results); a loop's body counts once."""
    found: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    for shape, kind, _ in _COLLECTIVE.findall(text):
        found[kind][0] += 1
        found[kind][1] += _size(shape)
    return {k: tuple(v) for k, v in sorted(found.items())}


def aot(names: list[str]) -> int:
    """Compiles the points for slices that are not there, and prints what a chip needs."""
    import jax
    from jax.experimental import topologies

    print("| point | arguments | temporary | net GiB a chip | of | compile s | collectives |")
    print("|---|---|---|---|---|---|---|", flush=True)
    over = 0
    for name in names or [n for n in POINTS if n != "tiny-sft-v5e4"]:
        point = POINTS[name]
        slices = {"num_slices": point.slices} if point.slices > 1 else {}
        devices = topologies.get_topology_desc(
            platform="tpu", topology_name=point.topology, **slices
        ).devices
        config = model_config(
            point.model,
            dtype="bfloat16",
            param_dtype="bfloat16" if point.lora else "float32",
            remat=point.model != "tiny",
            attention="splash",
        )
        began = time.process_time()
        compiled = lower(point, config, devices).compile()
        seconds = time.process_time() - began
        m = compiled.memory_analysis()
        net = m.argument_size_in_bytes + m.temp_size_in_bytes
        net += m.output_size_in_bytes - m.alias_size_in_bytes
        limit = HBM_GIB[point.topology.split(":")[0]]
        over += net / GIB > limit
        used = ", ".join(
            f"{kind} {n} × ({size / GIB:.2f} GiB in all)"
            for kind, (n, size) in collectives(compiled.as_text()).items()
        )
        print(
            f"| {name} | {m.argument_size_in_bytes / GIB:.2f} | {m.temp_size_in_bytes / GIB:.2f} "
            f"| {net / GIB:.2f} | {limit} | {seconds:.0f} | {used} |",
            flush=True,
        )
        if os.environ.get("DUMP"):
            with open(f"{os.environ['DUMP']}/{name}.txt", "w") as f:
                f.write(compiled.as_text())
    del jax
    return 1 if over else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("aot").add_argument("points", nargs="*", metavar="POINT")
    arguments = parser.parse_args()
    if arguments.command == "aot":
        os.environ |= {
            "JAX_PLATFORMS": "cpu",
            "TPU_SKIP_MDS_QUERY": "1",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        }
        return aot(arguments.points)
    return 0


if __name__ == "__main__":
    sys.exit(main())
