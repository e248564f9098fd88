"""Compiles every program of an experiment for a TPU slice that is not there: does it fit?

    python -m mucode_jax.aot --config configs/llama32_1b_mbpp.py --topology v5e:2x2
    python -m mucode_jax.aot --config configs/llama31_8b_mbpp.py --topology v5e:4x4 --slices 2 \\
        --config.mesh.data=2

A topology is a kind of TPU and the sizes of a slice in chips: v4, v5p or tpu7x with three of them
(v5p:2x2x1), v5e or v6e with two (v5e:4x4, or v5e:1x1 for one chip). Each half of a tpu7x chip is a
device with memory of its own; below, a chip is a device.

Needs the package `libtpu` (pip install -e '.[aot]') and minutes a program; no TPU and no weights.
Training is compiled for all chips, scoring for those of one host, sampling for those of one of its
replicas (`mesh.sampling_tensor` chips; each replica samples by itself). The table says, in GiB a
chip: what a program is given, what it needs besides, what else lies there meanwhile, and the chip's
memory; the seconds of compiling; and the collectives by kind, their number and bytes (those in a
loop counted once). `--only NAME,NAME` compiles some of the programs. Not among them are merging
adapters, and measuring a verifier on the training mesh. Exit status: 0, 1 something does not fit,
2 bad input.
"""

from __future__ import annotations

from mucode_jax.runtime import interruption

if __name__ == "__main__":
    interruption.leave_at_once()  # the imports below take seconds

import collections
import dataclasses
import functools
import importlib.util
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict, config_flags

from mucode_jax.checks import faults, plan, settings
from mucode_jax.checks.plan import GIB
from mucode_jax.models import llama, sharding, verifier
from mucode_jax.models.llama import LlamaConfig
from mucode_jax.rollouts import scorer
from mucode_jax.rollouts.collect import Limits
from mucode_jax.rollouts.search import goes_by_score
from mucode_jax.runtime import config_file
from mucode_jax.runtime.command import fail, show, spell_all, unheard
from mucode_jax.sampling import engine, programs, replicas
from mucode_jax.sampling.memory import cache_spec, pool_pages, slots_in
from mucode_jax.sampling.pages import pages_of
from mucode_jax.training.step import placed

# GiB of a device's memory that programs may use, by the compiler; the axes of a slice.
HBM_GIB = {"v4": 30.75, "v5e": 15.75, "v5p": 95.74, "v6e": 31.25, "tpu7x": 94.74}
_AXES = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2, "tpu7x": 3}
_ACCEPTED = (
    "v5e or v6e with two sizes, like v5e:4x4, or v4, v5p or tpu7x with three, like v5p:2x2x1"
)

# It need not look for a TPU, nor complain that there is none.
_LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


@dataclasses.dataclass(frozen=True)
class Program:
    """One program to compile.

    Attributes:
      name: of it.
      mesh: the devices it runs on.
      lower: gives its lowered form.
      beside: bytes that a chip holds for something else while it runs.
      about: its shapes, for people.
    """

    name: str
    mesh: Mesh
    lower: Callable[[], jax.stages.Lowered]
    beside: int
    about: str


def devices(topology: str, slices: int = 1) -> list[Any]:
    """The devices of `slices` TPU slices, e.g. of "v5e:4x4".

    Raises:
      ValueError: no such topology, or libtpu is absent.
    """
    for name, value in _LIBTPU.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    kind, shape = _parse(topology)
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if kind == "v4":
        options["chip_config_name"] = "megacore"  # its two cores are one device
    if math.prod(shape) == 1:
        options["chips_per_host_bounds"] = [1, 1, 1]
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options)
    except (ImportError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        hint = "; is libtpu there? pip install -e '.[aot]'"
        if importlib.util.find_spec("libtpu"):
            hint = ""
        raise ValueError(f"--topology {topology!r} cannot be had: {reason}{hint}") from error
    return list(described.devices)


def memory(topology: str) -> int:
    """The bytes of a device's memory that programs may use."""
    return int(HBM_GIB[_parse(topology)[0]] * GIB)


def _parse(topology: str) -> tuple[str, tuple[int, ...]]:
    """(kind, chips per axis) of a topology. Raises ValueError that says what is accepted."""
    kind, _, shape = topology.partition(":")
    sizes = shape.split("x")
    if len(sizes) != _AXES.get(kind) or not all(re.fullmatch(r"[1-9]\d?", n) for n in sizes):
        raise ValueError(f"--topology {topology!r}: it must be {_ACCEPTED}")
    return kind, tuple(map(int, sizes))


def host_devices(topology: str) -> list[Any]:
    """The devices of one host of such a slice: 8 chips where v5e or v6e has no more, else 4."""
    kind, shape = _parse(topology)
    if math.prod(shape) <= (8 if kind in ("v5e", "v6e") else 4):
        return devices(topology)
    return devices(f"{kind}:{'2x2' if len(shape) == 2 else '2x2x1'}")


def experiment(config: ConfigDict, topology: str, slices: int) -> Iterator[Program]:
    """The programs of an experiment, in the order in which an iteration runs them."""
    held = {"attention": "splash"}
    base = plan.model(config, **held)
    judging = plan.verifier_model(config, **held)
    mesh = plan.training_mesh(config, devices(topology, slices))
    local = plan.sampling_mesh(config, host_devices(topology))
    yield from sampling(config, base, judging, local, topology)
    for training in plan.trainings(config, mesh, **held):
        name = "SFT step" if training.kind == "sft" else "verifier step"
        about = f"{training.rows} × {training.length}"
        if training.recipe.microbatches > 1:
            about += f" in {training.recipe.microbatches} parts"
        lower = functools.partial(training.lower, mesh)
        yield Program(name, mesh, lower, 0, about)
    if slices * len(devices(topology)) > local.size:
        yield relayout(base, mesh, local)


def sampling(
    config: ConfigDict, base: LlamaConfig, judging: LlamaConfig, mesh: Mesh, topology: str
) -> Iterator[Program]:
    """Loading and scoring on one host's chips; prefill, copy and decode on those of a replica."""
    r = config.rollout
    limits = Limits(r.turns, r.max_new_tokens, r.max_feedback_tokens, r.context)
    base = dataclasses.replace(base, param_dtype=base.dtype, remat=False)
    judging = dataclasses.replace(judging, param_dtype=judging.dtype, remat=False)
    abstract = llama.abstract_params(base)
    stacked = placed(abstract, sharding.shardings(abstract, llama.logical_axes(base), mesh))
    of_judge = verifier.logical_axes(judging)
    judge = verifier.abstract_params(judging)
    judge = placed(judge, sharding.shardings(judge, of_judge, mesh))
    scored = config.search.methods and any(map(goes_by_score, config.search.choices))
    beside = plan.nbytes(judge) if scored else 0

    meshes = replicas.meshes(mesh)
    replica = meshes[0]
    prepared = jax.eval_shape(functools.partial(programs.prepare, base), abstract)
    axes = llama.logical_axes(base, stacked=False)
    params = placed(prepared, sharding.shardings(prepared, axes, replica))
    generator = plan.nbytes(params)
    free = memory(topology) - generator - beside
    slots = r.slots or slots_in(max(0, free), base, r.context, mesh)
    slots = -(-slots // len(meshes))  # of one replica
    pages = pool_pages(slots, r.context, replica)
    shapes = jax.eval_shape(functools.partial(llama.init_cache, base, pages))
    place = NamedSharding(replica, cache_spec(base, replica))
    cache = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)
    of_cache = plan.nbytes(cache)

    def ints(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, np.int32)

    def under(mesh: Mesh, lower: Callable[..., jax.stages.Lowered], *args: Any, **how: Any):
        def go() -> jax.stages.Lowered:
            with jax.set_mesh(mesh):
                return lower(*args, **how)

        return go

    lower = under(mesh, programs.prepare.lower, base, stacked)
    yield Program("load", mesh, lower, beside, "unstacked, cast")
    rows, length, longest = engine.PREFILL_ROWS, engine.PREFILL_LENGTH, pages_of(r.context)
    texts = programs.Texts(ints(rows, longest), ints(rows), ints(rows), ints(rows, length))
    lower = under(replica, programs.prefill.lower, base, params, cache, texts)
    yield Program("prefill", replica, lower, beside, f"{rows} × {length}")
    copied = ints(engine.COPIES)
    lower = under(replica, programs.copy.lower, cache, copied, copied, ints())
    yield Program("copy", replica, lower, beside + generator, f"{engine.COPIES} pages")
    decoding = programs.Slots(
        live=jax.ShapeDtypeStruct((slots,), np.bool_),
        **dict.fromkeys(("token", "position", "left"), ints(slots)),
        key=jax.ShapeDtypeStruct((slots, 2), np.uint32),
        table=ints(slots, longest),
        forced=ints(engine.STEPS, slots),
    )
    lower = under(
        *(replica, programs.decode.lower, base, params, cache, decoding),
        jax.ShapeDtypeStruct((), np.float32),
        refill=1,
        eot_ids=(0,),
        top_p=float(r.top_p),
        top_k=int(r.top_k),
    )
    yield Program("decode", replica, lower, beside, f"{slots} slots, {pages} pages")
    if scored:
        length = limits.max_prompt_tokens + limits.max_new_tokens + 1
        about = "{} × {}".format(*scorer.batch_shape(length, mesh=mesh))
        lower = under(mesh, scorer.lower, judging, judge, length, mesh)
        yield Program("scoring", mesh, lower, generator + of_cache, about)


def relayout(base: LlamaConfig, mesh: Mesh, local: Mesh) -> Program:
    """The trained generator from all chips to each host's own, array by array: the largest one.

    See `sharding.to_hosts`. Meanwhile the trained parameters lie there, and copies already made.
    """
    trained, axes = llama.abstract_params(base), llama.logical_axes(base)
    shapes = llama.abstract_params(dataclasses.replace(base, param_dtype=base.dtype))
    whole = sharding.across_hosts(mesh, local)
    # A program has one order of devices; at run time JAX renames them first, which moves nothing.
    source = Mesh(whole.devices.reshape(mesh.devices.shape), mesh.axis_names)
    arrays = jax.tree.leaves(placed(shapes, sharding.shardings(shapes, axes, source)))
    places = jax.tree.leaves(sharding.shardings(shapes, axes, local))
    array, place = max(zip(arrays, places, strict=True), key=lambda pair: pair[0].size)

    def lower() -> jax.stages.Lowered:
        same = jax.jit(lambda x: x, out_shardings=NamedSharding(whole, place.spec))
        return same.lower(array)

    lying = [
        placed(trained, sharding.shardings(trained, axes, mesh)),
        placed(shapes, sharding.shardings(shapes, axes, local)),
    ]
    beside = plan.nbytes(lying)
    return Program("re-layout", mesh, lower, beside, f"to {whole.shape['hosts']} hosts")


_COLLECTIVE = re.compile(
    r"= (\(?[a-z0-9]+\[.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    r"(?:-start)?\("
)
_BETWEEN = re.compile(
    r"= \(([a-z0-9]+\[[0-9,]*\]).*? send\(.*_xla_megascale_transfer_type=\"([A-Z_]+)\""
)
_BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1, "u8": 1, "s8": 1, "f16": 2}


def _size(shape: str) -> int:
    return sum(
        _BYTES.get(kind, 4) * math.prod(int(n or 1) for n in dims.split(","))
        for kind, dims in re.findall(r"([a-z]+[0-9]*)\[([0-9,]*)\]", shape)
    )


def collectives(text: str) -> dict[str, tuple[int, int]]:
    """kind -> (number in a compiled program's text, bytes of their results); a loop's body once."""
    sizes: dict[str, list[int]] = collections.defaultdict(list)
    for shape, kind in _COLLECTIVE.findall(text):
        sizes[kind].append(_size(shape))
    return {kind: (len(sizes[kind]), sum(sizes[kind])) for kind in sorted(sizes)}


def between_slices(text: str) -> dict[str, int]:
    """kind -> bytes that one chip sends over the network between slices."""
    sizes: collections.Counter[str] = collections.Counter()
    for shape, kind in _BETWEEN.findall(text):
        sizes[kind.lower()] += _size(shape)
    return dict(sizes)


@dataclasses.dataclass(frozen=True)
class Fit:
    """What compiling found; bytes a chip."""

    arguments: int
    besides: int  # temporaries, and outputs that do not take an argument's place
    seconds: float
    collectives: str
    failed: str = ""  # what the compiler said where it gave up

    def total(self, beside: int) -> int:
        return self.arguments + self.besides + beside


def compile(program: Program) -> Fit:
    """Compiles a program; one that the compiler itself finds too large has `failed`."""
    began = time.process_time()
    try:
        compiled = program.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        needed = re.search(r"\(([0-9.]+\w)\) exceeds available HBM \(([0-9.]+\w)\)", str(error))
        reason = f"needs {needed[1]} of {needed[2]}" if needed else "more than a chip has"
        return Fit(0, 0, time.process_time() - began, "", reason)
    seconds = time.process_time() - began
    sizes = compiled.memory_analysis()
    besides = sizes.temp_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return Fit(sizes.argument_size_in_bytes, besides, seconds, _communication(compiled))


def _communication(compiled: jax.stages.Compiled) -> str:
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError:  # of some v5p programs the compiler does not give it
        return "not decoding"
    parts = [f"{k} {n} × ({_bytes(size)})" for k, (n, size) in collectives(text).items()]
    parts += [f"between slices {k} {_bytes(size)}" for k, size in between_slices(text).items()]
    return ", ".join(parts) or "none"


def _bytes(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB // 100 else f"{size / 2**20:.2f} MiB"


def table(chosen: Sequence[Program], limit: int) -> bool:
    """Prints a row per program as it is compiled; whether each fits `limit` bytes a chip.

    Raises OSError where standard output does not take it.
    """
    spell_all()
    print(
        "| program | shape | mesh (data × fsdp × tensor) | given | besides | elsewhere | in all | "
        "of | compile | collectives |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    good = True
    for program in chosen:
        fit = compile(program)
        total = fit.total(program.beside)
        fits = not fit.failed and total <= limit
        good &= fits
        sizes = " × ".join(map(str, program.mesh.shape.values()))
        whole = fit.failed or f"{total / GIB:.2f}"
        print(
            f"| {program.name} | {program.about} | {sizes} | {fit.arguments / GIB:.2f} | "
            f"{fit.besides / GIB:.2f} | {program.beside / GIB:.2f} | "
            f"{whole}{'' if fits else ' **does not fit**'} | {limit / GIB:.2f} | "
            f"{fit.seconds:.0f} s | {fit.collectives} |",
            flush=True,
        )
    return good


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    argv = list(sys.argv if argv is None else argv)
    if set(argv[1:]) & {"-h", "--help"}:
        return show(__doc__)
    jax.config.update("jax_platforms", "cpu")
    values = flags.FlagValues()
    try:
        argv = config_file.locate(argv)
        config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
        flags.DEFINE_string("topology", None, "", flag_values=values)
        flags.DEFINE_integer("slices", 1, "", lower_bound=1, flag_values=values)
        flags.DEFINE_list("only", [], "", flag_values=values)
        _, *unexpected = values(argv)
        if unexpected:
            raise ValueError(
                f"unexpected argument {unexpected[0]!r}; settings are --config.NAME=VALUE"
            )
        config = values["config"].value
        if config is None or values.topology is None:
            raise ValueError("give --config configs/NAME.py and --topology, like v5e:4x4")
        settings.validate(config)
        if config.experiment != "iterate":
            raise ValueError(f"aot compiles an experiment's programs, not {config.experiment!r}")
        by_name = {p.name: p for p in experiment(config, values.topology, values.slices)}
        if unknown := set(values.only) - set(by_name):
            names = ", ".join(by_name)
            raise ValueError(f"--only {unknown.pop()!r}: the programs are {names}")
    except (Exception, SystemExit) as error:  # a config file is a program: it may raise anything
        return fail("aot", faults.of_input(error, argv), 2)
    chosen = [by_name[name] for name in by_name if not values.only or name in values.only]
    try:
        return 0 if table(chosen, memory(values.topology)) else 1
    except OSError as error:
        return unheard(error)


if __name__ == "__main__":
    sys.exit(main())
