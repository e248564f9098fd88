"""Trained models on disk: in which dtype, and that what samples and scores reads the same."""

import dataclasses
import json
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mucode_jax.lab import lab as labs
from mucode_jax.models import hub, huggingface, weights
from mucode_jax.sampling import memory
from tests import micro


def storing(dtype):
    """A lab that only knows in which dtype models are written."""
    lab = object.__new__(labs.Lab)
    lab._stored_dtype = jnp.dtype(dtype)
    return lab


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that stores bfloat16; (its directory, in which order models and slots were had)."""
    directory, order = tmp_path_factory.mktemp("run"), []

    def load(home, *arguments, **options):
        order.append("verifier")
        return load_verifier(home, *arguments, **options)

    def fitting_slots(*_):
        order.append("slots")
        return 8

    load_verifier = huggingface.load_verifier
    with (
        mock.patch.object(huggingface, "load_verifier", load),
        mock.patch.object(memory, "fitting_slots", fitting_slots),
    ):
        settings = ("--config.generator.stored_dtype=bfloat16", "--config.rollout.slots=0")
        assert micro.run(directory, *settings) == 0
    return directory, order


def test_trained_models_have_the_dtype_that_is_set(run):
    for name in ("base/verifier", "mucode_1/generator"):
        tensors = weights.index(run[0] / "stages" / name / "model").values()
        assert {tensor.dtype for tensor in tensors} == {np.dtype(jnp.bfloat16)}


def test_a_stage_loads_its_verifier_once_and_before_it_looks_how_much_memory_is_free(run):
    directory, order = run
    ledgers = [json.loads(f.read_text()) for f in (directory / "stages").rglob("stage.json")]
    assert order.count("verifier") == sum("verifier" in ledger["inputs"] for ledger in ledgers) > 1
    assert order[-2:] == ["verifier", "slots"]  # the searches'


def test_what_computes_in_that_dtype_reads_the_same_numbers(tmp_path):
    config = huggingface.read_config(hub.resolve("mini"))
    trained = huggingface.load_generator(hub.resolve("mini"), config)
    computing = dataclasses.replace(config, dtype="bfloat16", param_dtype="bfloat16")
    read = []
    for dtype in ("float32", "bfloat16"):
        home = tmp_path / dtype
        huggingface.save_generator(storing(dtype).stored(trained), config, home)
        read.append(huggingface.load_generator(home, computing))
    jax.tree.map(np.testing.assert_array_equal, *read)
    wide, narrow = (
        sum(f.stat().st_size for f in (tmp_path / d).glob("*.safetensors"))
        for d in ("float32", "bfloat16")
    )
    assert narrow < 0.51 * wide


def test_a_generator_kept_in_memory_is_rounded_as_on_disk():
    params = {"wide": jnp.float32([1 + 2**-10, 3.0]), "narrow": jnp.bfloat16([1.5])}
    stored = storing("bfloat16").stored(params)
    assert stored["wide"].dtype == stored["narrow"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(stored["wide"].astype(np.float32), [1.0, 3.0])


def test_nothing_is_widened():
    assert storing("float32").stored({"a": jnp.bfloat16([1.5])})["a"].dtype == jnp.bfloat16
