"""Trained models on disk: in which dtype, and that what samples and scores reads the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mucode_jax.lab import lab as labs
from mucode_jax.models import hub, huggingface, weights
from tests import micro


def storing(dtype):
    """A lab that only knows in which dtype models are written."""
    lab = object.__new__(labs.Lab)
    lab._stored_dtype = jnp.dtype(dtype)
    return lab


def test_trained_models_have_the_dtype_that_is_set(tmp_path):
    assert micro.run(tmp_path, "--config.generator.stored_dtype=bfloat16") == 0
    for name in ("base/verifier", "mucode_1/generator"):
        tensors = weights.index(tmp_path / "stages" / name / "model").values()
        assert {tensor.dtype for tensor in tensors} == {np.dtype(jnp.bfloat16)}


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
