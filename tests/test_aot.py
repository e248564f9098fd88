"""The ahead-of-time command, at one small point (real models: launch/TPU_FIT.md)."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest

from configs import base
from mucode_jax import aot
from mucode_jax.checks import plan
from mucode_jax.models import hub, huggingface, sharding

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHAPE = {"vocab_size": 512, "d_model": 256, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2}
SHAPE |= {"head_dim": 128, "d_ff": 512}
SMALL = [
    *(f"--config.generator.shape.{name}={value}" for name, value in SHAPE.items()),
    "--config.rollout.context=640",
    "--config.rollout.max_new_tokens=100",
    "--config.rollout.max_feedback_tokens=64",
    "--config.sft.length=256",
]


def call(*arguments):
    command = [sys.executable, "-m", "mucode_jax.aot", "--config", "configs/llama32_1b_mbpp.py"]
    return subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )


needs_libtpu = pytest.mark.skipif(
    not importlib.util.find_spec("libtpu"), reason="needs libtpu (extra `aot`)"
)


@needs_libtpu
def test_the_devices_of_every_kind_of_slice_and_of_its_hosts():
    """In a process of its own: libtpu logs as it pleases."""
    expected = {
        **{"v4:2x2x1": (4, 4), "v4:2x2x2": (8, 4), "v5p:1x1x1": (1, 1), "v5p:2x2x2": (8, 4)},
        **{"v5e:1x1": (1, 1), "v6e:1x1": (1, 1), "v5e:2x4": (8, 8), "v6e:4x4": (16, 4)},
        **{"tpu7x:1x1x1": (2, 2), "tpu7x:2x2x1": (8, 8), "tpu7x:2x2x2": (16, 8)},
    }
    code = (
        "from mucode_jax import aot\n"
        f"for t in {list(expected)}: print(t, len(aot.devices(t)), len(aot.host_devices(t)))\n"
        "print(len(aot.devices('v4:2x2x1', slices=2)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *lines, two_slices = done.stdout.splitlines()
    assert lines == [f"{name} {whole} {host}" for name, (whole, host) in expected.items()]
    assert two_slices == "8"


@pytest.mark.slow
@needs_libtpu
def test_programs_are_compiled_for_a_slice_that_is_not_there():
    """Sixteen chips train, each of a host samples by itself; a cache that is too large is told."""
    only = "--only=decode,SFT step,re-layout"
    done = call("--topology", "v5e:4x4", *SMALL, "--config.rollout.slots=64", only)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ["| decode", "| SFT step", "| re-layout"]
    assert [row[2] for row in rows] == ["1 × 1 × 1", "1 × 16 × 1", "1 × 16 × 1"]
    assert all(float(row[6]) < 15.75 == float(row[7]) for row in rows) and float(rows[0][6]) > 0
    # Parameters, gradients and the generator's copies travel.
    assert "all-gather" in rows[1][9] and "all-gather" in rows[2][9]
    whole = ("--config.mesh.data=-1", "--config.mesh.fsdp=1")  # a copy of the model on each chip
    done = call("--topology", "v5e:2x2", *SMALL, *whole, "--only=SFT step")
    assert done.returncode == 0 and " | 4 × 1 × 1 | " in done.stdout, done.stderr[-2000:]
    done = call("--topology", "v5e:1x1", *SMALL, "--config.rollout.slots=65536", "--only=decode")
    assert done.returncode == 1 and "does not fit" in done.stdout
    assert re.search(r"needs [\d.]+G of 15.75G", done.stdout), done.stdout
    for topology, memory in (("v4:2x2x1", "30.75"), ("tpu7x:2x2x1", "94.74"), ("v6e:1x1", "31.25")):
        done = call("--topology", topology, *SMALL, "--config.rollout.slots=8", "--only=decode")
        assert done.returncode == 0 and f" | {memory} | " in done.stdout, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --config configs/NAME.py and --topology"),
        (("--topology", "v99:1x1"), "must be v5e or v6e with two sizes, like v5e:4x4, or v4, "),
        (("--topology", "v5e"), "must be v5e or v6e with two sizes, like v5e:4x4, or v4, "),
        (("--topology", "v4:2x2"), "or v4, v5p or tpu7x with three, like v5p:2x2x1"),
        (("--topology", "v5e:0x0"), "must be v5e or v6e with two sizes, like v5e:4x4, or v4, "),
        (("--topology", "v5e:4x4", "--config.rollout.turns=0"), "config.rollout.turns is 0"),
        (("--topology", "v5e:4x4", "more"), "unexpected argument 'more'"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert aot.main(["aot", "--config", "configs/llama32_1b_mbpp.py", *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err and len(said.err.strip().splitlines()) == 1 and not said.out


def test_help_has_an_example(capsys):
    assert aot.main(["aot", "--help"]) == 0
    assert "--topology v5e:2x2" in capsys.readouterr().out


def llama(shape, **mesh):
    c = base.mbpp(base.llama("meta-llama/nowhere", shape))
    c.mesh.update(mesh)
    return c


def test_memory_is_worked_out_before_anything_is_loaded():
    """A step's state by hand: float32 parameters, two moments and gradients, over four devices."""
    config = llama(base.LLAMA_32_1B)
    mesh = sharding.make_mesh(1, 4, 1, jax.devices()[:4])
    sft = plan.trainings(config, mesh)[1]
    assert (sft.rows, sft.length) == (16, 5248)
    parameters = 128256 * 2048 + 16 * (2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192)
    states = 16 * (16 * 5248 / 4) * 2048 * 2
    norms = 33 * 2048 * 4 * 4  # not divided
    assert plan.training_bytes(sft, mesh) == pytest.approx(
        parameters * 16 / 4 + states + norms, rel=1e-3
    )
    # With adapters the base takes two bytes a parameter and nothing else.
    sft = plan.trainings(base.variants(config, "lora"), mesh)[1]
    assert plan.training_bytes(sft, mesh) < parameters * 2 / 4 + states + 2**28


def test_a_verifier_may_be_another_model_than_the_generator():
    config = llama(base.LLAMA_31_8B)
    config.verifier.shape = base.LLAMA_32_1B
    judge, sft = plan.trainings(config, sharding.make_mesh(1, 4, 1, jax.devices()[:4]))
    assert (judge.section, judge.model.d_model, sft.model.d_model) == (
        "verifier_training",
        2048,
        4096,
    )
    assert judge.model.dtype == sft.model.dtype


def test_a_model_that_is_here_is_planned_with_whatever_shape_is_given():
    config = llama(base.LLAMA_32_1B)
    assert plan.model(config).n_layers == 16
    config.generator.path = "mini"
    assert plan.model(config).n_layers == huggingface.read_config(hub.MINI).n_layers


def test_a_shape_that_is_no_llama_is_named():
    config = llama(base.LLAMA_32_1B)
    config.generator.shape.n_kv_heads = 5
    with pytest.raises(
        ValueError, match=r"config\.generator\.shape: 32 heads are no multiple of 5"
    ):
        plan.model(config)


def test_rows_that_the_mesh_cannot_divide_are_refused():
    config = llama(base.LLAMA_32_1B)
    mesh = sharding.make_mesh(4, 2, 1, jax.devices())
    config.sft.rows = 12
    with pytest.raises(ValueError, match=r"config\.sft\.rows is 12, which cannot be divided"):
        plan.trainings(config, mesh)
    config.sft.rows, config.sft.microbatches = 16, 3
    with pytest.raises(ValueError, match="choose a multiple of 24"):
        plan.trainings(config, mesh)
    config.sft.rows = 24
    assert plan.trainings(config, mesh)[1].rows == 24


def test_what_does_not_fit_is_refused_with_the_memory_it_would_need(monkeypatch):
    monkeypatch.setattr(plan, "device_memory", lambda: (15 * 2**30, "a TPU v5 lite"))
    with pytest.raises(ValueError, match=r"does not fit the mesh .* at least \d+\.\d GiB .*lora"):
        plan.check(llama(base.LLAMA_31_8B))
    with pytest.raises(ValueError, match="sampling does not fit a host's devices"):
        config = base.variants(llama(base.LLAMA_31_8B), "lora")
        config.rollout.slots = 4096
        plan.check(config)
    with pytest.raises(ValueError, match=r"generator\.shape lacks vocab_size, d_model"):
        plan.check(llama({"head_dim": 64}))
