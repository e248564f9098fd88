"""What training costs: memory on TPU slices, speed on this CPU or GPU, padding of real batches.

python tests/bench/training.py aot [POINT …]     # needs libtpu; minutes a point
python tests/bench/training.py cpu [25m|135m]    # needs torch and transformers; minutes
python tests/bench/training.py gpu               # needs a GPU
python tests/bench/training.py padding --data ../shared/data
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time

GIB = 2**30


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
    "tiny-sft-2-slices": Point("tiny", "sft", "v5e:2x2", (2, 4, 1), 8, slices=2, length=256),
}


def model_config(name: str, **settings):
    from mucode_jax.models.llama import LlamaConfig, RopeScaling

    shape = {  # V, D, L, N, K, H, F
        "8b": (128256, 4096, 32, 32, 8, 128, 14336),
        "1b": (128256, 2048, 16, 32, 8, 64, 8192),
        "135m": (49152, 576, 30, 9, 3, 64, 1536),
        "25m": (8192, 384, 8, 6, 6, 64, 1536),
        "tiny": (512, 256, 2, 2, 2, 128, 512),
    }[name]
    if name in ("8b", "1b"):
        scaling = RopeScaling(8.0 if name == "8b" else 32.0, 1.0, 4.0, 8192)
        settings |= {"rope_theta": 500000.0, "rope_scaling": scaling, "max_positions": 131072}
    return LlamaConfig(*shape, tied=name in ("1b", "135m", "tiny"), **settings)


def abstract_params(point: Point, config):
    from mucode_jax.models import llama, verifier

    return (llama if point.loss == "sft" else verifier).abstract_params(config)


def lower(point: Point, config, devices):
    from mucode_jax.checks import plan
    from mucode_jax.models import llama, sharding, verifier
    from mucode_jax.training import losses, step
    from mucode_jax.training.lora import LoRA

    model = llama if point.loss == "sft" else verifier
    return step.lower(
        getattr(losses, point.loss)(config),
        abstract_params(point, config),
        model.logical_axes(config),
        plan.batch_shapes(point.loss, point.rows, point.length),
        step.OptimizerConfig(1e-6, moment_dtype=point.moments, param_dtype=point.params),
        sharding.make_mesh(*point.mesh, devices=devices),
        microbatches=point.microbatches,
        lora=LoRA(point.lora) if point.lora else None,
    )


def aot(names: list[str], dump: str | None) -> int:
    """Compiles the points for slices that are not there, and prints what a chip needs."""
    import jax

    from mucode_jax.aot import HBM_GIB, between_slices, collectives, devices

    print("| point | arguments | temporary | net GiB a chip | of | compile s | collectives |")
    print("|---|---|---|---|---|---|---|", flush=True)
    over = 0
    for name in names or [n for n in POINTS if not n.startswith("tiny")]:
        point = POINTS[name]
        config = model_config(
            point.model,
            dtype="bfloat16",
            param_dtype="bfloat16" if point.lora else "float32",
            remat=point.model != "tiny",
            attention="splash",
        )
        began = time.process_time()
        compiled = lower(point, config, devices(point.topology, point.slices)).compile()
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
        over_slices = between_slices(compiled.as_text())
        if over_slices:
            parameters = sum(
                math.prod(x.shape) for x in jax.tree.leaves(abstract_params(point, config))
            )
            share = 4 * parameters / point.mesh[1] / point.mesh[2]
            used += f"; between slices {over_slices} bytes; gradients are {share:.0f}"
        print(
            f"| {name} | {m.argument_size_in_bytes / GIB:.2f} | {m.temp_size_in_bytes / GIB:.2f} "
            f"| {net / GIB:.2f} | {limit} | {seconds:.0f} | {used} |",
            flush=True,
        )
        if dump:
            pathlib.Path(dump, f"{name}.txt").write_text(compiled.as_text())
    return 1 if over else 0


def random_batch(loss: str, config, rows: int, length: int):
    """Full rows: one text each (sft), or pairs of texts of a quarter of a row."""
    import numpy as np

    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (rows, length), np.int32)
    text_length = length if loss == "sft" else length // 4
    columns = np.arange(length, dtype=np.int32)
    batch = {
        "tokens": tokens,
        "positions": np.tile(columns % text_length, (rows, 1)),
        "segment_ids": np.tile(1 + columns // text_length, (rows, 1)),
    }
    if loss == "sft":
        targets, weights = np.roll(tokens, -1, axis=1), np.ones((rows, length), np.float32)
        return batch | {"targets": targets, "weights": weights}
    ends = np.tile(np.arange(1, 5, dtype=np.int32) * text_length - 1, (rows, 1))
    pairs = loss == "bradley_terry"
    batch |= {"ends": ends, "weights": np.ones((rows, 2 if pairs else 4), np.float32)}
    return batch if pairs else batch | {"labels": np.zeros((rows, 4), np.float32)}


def runner(loss: str, config, batch, *, rank: int = 0, **optimizer):
    """A function that takes one step on the default device and waits for it."""
    import functools

    import jax
    import numpy as np

    from mucode_jax.models import llama, sharding, verifier
    from mucode_jax.training import lora, losses, step

    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    axes = (llama if loss == "sft" else verifier).logical_axes(config)
    settings = step.OptimizerConfig(1e-5, **optimizer)
    adapters = lora.LoRA(rank) if rank else None

    def params(key):
        base = llama.init(config, key)
        return base if loss == "sft" else verifier.from_generator(config, base, key)

    base = jax.jit(params)(jax.random.key(0))
    abstract, _ = step.abstract_state(base, axes, settings, mesh, adapters)
    trained = lora.init(adapters, base, seed=0) if rank else base
    state = jax.jit(functools.partial(step.init_state, optimizer=settings))(trained)
    frozen = base if rank else None
    del base, trained
    take = step.make_step(getattr(losses, loss)(config), abstract, settings, mesh, adapters)
    requests = np.zeros((1, 2), np.int32)

    def one() -> float:
        nonlocal state
        parts = {k: jax.device_put(x[None], step.batch_sharding(mesh)) for k, x in batch.items()}
        with jax.set_mesh(mesh):
            state, metrics = take(state, frozen, parts, np.float32(1e-5), requests)
        return float(metrics["loss"])

    return one


def torch_runner(config, batch):
    """The same step in torch and transformers."""
    import torch
    import transformers

    torch.set_num_threads(1)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            intermediate_size=config.d_ff,
            tie_word_embeddings=config.tied,
            attn_implementation="sdpa",
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    ids = torch.tensor(batch["tokens"]).long()

    def one() -> float:
        loss = model(ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return one


# Steps on one CPU thread: (rows, length).
CPU = {"25m": (8, 512), "135m": (2, 512)}


def contender(checkout: str, model: str, kind: str) -> int:
    """For each line read takes a step of the checkout's, and writes its CPU-seconds."""
    sys.path[:0] = [checkout, f"{checkout}/tests/bench"]
    import training  # the checkout's own, which knows its modules

    config = model_config(model, scan=kind == "scanned")
    batch = random_batch("sft", config, *CPU[model])
    if kind == "torch":
        one = torch_runner(config, batch)
    else:
        one = training.runner("sft", config, batch)
    for _ in sys.stdin:
        began = time.process_time()
        one()
        print(time.process_time() - began, flush=True)
    return 0


def cpu(models: list[str], repeats: int, against: str | None) -> int:
    """A float32 step on one thread: tokens per CPU-second, each contender a process, in turns.

    `against` is the folder of another checkout, whose steps run beside this one's.
    """
    checkout = str(pathlib.Path(__file__).resolve().parents[2])
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    }
    for model in models or CPU:
        contenders = {"torch + transformers": (checkout, "torch")}
        for kind in ("scanned", "unrolled"):
            contenders[f"mucode_jax, {kind}"] = (checkout, kind)
            if against:
                contenders[f"{against}, {kind}"] = (against, kind)
        workers = {
            name: subprocess.Popen(
                [sys.executable, __file__, "contender", folder, model, kind],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for name, (folder, kind) in contenders.items()
        }
        seconds = {name: [] for name in workers}
        for _ in range(1 + repeats):
            for name, worker in workers.items():
                worker.stdin.write("\n")
                worker.stdin.flush()
                seconds[name].append(float(worker.stdout.readline()))
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()
        rows, length = CPU[model]
        medians = {name: statistics.median(s[1:]) for name, s in seconds.items()}  # 0 compiles
        for name, median in medians.items():
            print(
                f"{model}, {rows} × {length}, {name}: {rows * length / median:.0f} tokens/CPU-s, "
                f"{medians['torch + transformers'] / median:.2f}×",
                flush=True,
            )
    return 0


# Steps on one GPU: (model, loss, rows of 2048, adapters' rank, dtype of parameters and moments).
GPU = (
    ("1b", "sft", 8, 0, "float32"),
    ("1b", "bradley_terry", 8, 0, "float32"),
    ("8b", "sft", 4, 16, "bfloat16"),
    ("8b", "sft", 4, 0, "bfloat16"),
    ("8b", "bradley_terry", 4, 0, "bfloat16"),
)


def gpu(repeats: int, peak: float) -> int:
    """Tokens and model flops per second of packed rows of 2048 on one GPU."""
    import jax

    from mucode_jax.models import llama

    length = 2048
    for model, loss, rows, rank, dtype in GPU:
        stored = "bfloat16" if rank else dtype
        config = model_config(model, dtype="bfloat16", param_dtype=stored, remat=True)
        batch = random_batch(loss, config, rows, length)
        kinds = {"param_dtype": "float32" if rank else dtype, "moment_dtype": dtype}
        one = runner(loss, config, batch, rank=rank, **kinds)
        one()
        began = time.perf_counter()
        for _ in range(repeats):
            one()
        seconds = (time.perf_counter() - began) / repeats
        weights = sum(x.size for x in jax.tree.leaves(llama.abstract_params(config)))
        weights -= config.vocab_size * config.d_model * (not config.tied or loss != "sft")
        context = length if loss == "sft" else length // 4
        attention = 6 * config.n_layers * config.n_heads * config.head_dim * context
        # A frozen weight needs no gradient of its own: two thirds of the work.
        flops = rows * length * ((4 if rank else 6) * weights + attention)
        print(
            f"{model} {loss}{' LoRA' if rank else ''} {rows} × {length}, {dtype}: "
            f"{rows * length / seconds:.0f} tokens/s, {flops / seconds / 1e12:.0f} TFLOP/s "
            f"({flops / seconds / peak / 1e12:.0%} of {peak:.0f})",
            flush=True,
        )
        del one
        jax.clear_caches()
    return 0


def padding(data: str) -> int:
    """The share of real tokens in packed batches of MBPP conversations (Llama-3 tokenizer)."""
    import json

    import numpy as np

    from mucode_jax.core import keys
    from mucode_jax.core.records import SFTExample, VerifierExample
    from mucode_jax.training import batches

    encode = _llama3_encoder(pathlib.Path(data) / "llama3")
    rng = keys.rng(0, "padding")
    conversations, singles = [], []
    with open(pathlib.Path(data) / "mbpp.jsonl") as lines:
        problems = [json.loads(line) for line in lines][600:]
    for problem in problems:
        tests = "\n".join(problem["test_list"])
        task = str(problem["task_id"])
        prompt = encode(f"Write a Python function.\n{problem['text']}\nIt must pass:\n{tests}\n")
        answer = encode(f"```python\n{problem['code']}\n```")
        feedback = encode(f"This fails:\n{problem['test_list'][0]}\nTry again.")
        for _ in range(6):  # rollouts of one to three turns, completions of varied length
            ids, weights = list(prompt), [0.0] * len(prompt)
            for turn in range(int(rng.integers(1, 4))):
                own = answer[: max(8, int(len(answer) * rng.uniform(0.6, 1.0)))]
                if turn:
                    ids, weights = ids + feedback, weights + [0.0] * len(feedback)
                ids, weights = ids + own, weights + [1.0] * len(own)
            record = SFTExample(task, np.array(ids, np.int32), np.array(weights, np.float32))
            conversations.append(record)
            own = np.array(prompt + own, np.int32)
            singles.append(VerifierExample(task, own, bool(rng.random() < 0.4)))
    pairs = batches.make_pairs(singles, pairs_per_problem=32, key=(0,))
    kinds = (
        ("sft", batches.pack_sft, conversations, 16, 8192),
        ("pairs", batches.pack_pairs, pairs, 64, 2048),
        ("singles", batches.pack_singles, singles, 128, 2048),
    )
    for name, pack, items, batch, length in kinds:
        for devices in (1, 8, 32):
            packed = pack(items, batches.Packing(batch, length, parts=devices), (0,))
            shape = packed.epochs[0].shape
            share = packed.tokens / (packed.steps * shape.rows * shape.length)
            print(
                f"{name}: {len(items)} of mean length {packed.tokens / len(items):.0f}, {devices} "
                f"devices: {shape.rows} × {shape.length}, {packed.steps} batches, {share:.1%} real "
                f"tokens, {packed.dropped} dropped"
            )
    return 0


def _llama3_encoder(folder):
    """Text to ids by the ranks in tokenizer.model: only lengths matter here, so greedy merging."""
    import base64
    import json

    ranks = {}
    for line in (folder / "tokenizer.model").read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    import regex

    pattern = regex.compile(json.loads((folder / "special_tokens.json").read_text())["pattern"])

    def encode(text: str) -> list[int]:
        ids = []
        for word in pattern.findall(text):
            parts = [bytes([b]) for b in word.encode()]
            while len(parts) > 1:
                joined = [ranks.get(a + b, 1 << 30) for a, b in zip(parts, parts[1:], strict=False)]
                best = min(range(len(joined)), key=joined.__getitem__)
                if joined[best] == 1 << 30:
                    break
                parts[best : best + 2] = [parts[best] + parts[best + 1]]
            ids += [ranks[part] for part in parts]
        return ids

    return encode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    ahead = commands.add_parser("aot")
    ahead.add_argument("points", nargs="*", metavar="POINT", help=", ".join(POINTS))
    ahead.add_argument("--dump", metavar="DIR", help="write the compiled programs there")
    on_cpu = commands.add_parser("cpu")
    on_cpu.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(CPU))
    on_cpu.add_argument("--repeats", type=int, default=5)
    on_cpu.add_argument("--against", metavar="DIR", help="another checkout, to run beside this one")
    worker = commands.add_parser("contender", help="used by cpu")
    worker.add_argument("checkout")
    worker.add_argument("model")
    worker.add_argument("kind")
    on_gpu = commands.add_parser("gpu")
    on_gpu.add_argument("--repeats", type=int, default=10)
    on_gpu.add_argument("--peak", type=float, default=790.0, help="TFLOP/s (H200 as measured)")
    commands.add_parser("padding").add_argument("--data", required=True)
    arguments = parser.parse_args()
    if arguments.command == "aot":
        os.environ["JAX_PLATFORMS"] = "cpu"
        return aot(arguments.points, arguments.dump)
    if arguments.command == "cpu":
        return cpu(arguments.models, arguments.repeats, arguments.against)
    if arguments.command == "contender":
        return contender(arguments.checkout, arguments.model, arguments.kind)
    if arguments.command == "gpu":
        return gpu(arguments.repeats, arguments.peak)
    return padding(arguments.data)


if __name__ == "__main__":
    sys.exit(main())
