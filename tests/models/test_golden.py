"""Torch's answers, kept: parity where torch is absent (see make_golden.py)."""

import pathlib

import numpy as np
import pytest

from mucode_jax.models import huggingface, llama, verifier

GOLDEN = pathlib.Path(__file__).parent / "golden"


def inputs(name):
    with np.load(GOLDEN / name / "expected.npz") as stored:
        tokens, mask, out = (stored[key] for key in ("tokens", "mask", "out"))
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0).astype(np.int32)
    return tokens.astype(np.int32), positions, mask, out


@pytest.mark.parametrize("name", ["llama2", "llama31", "llama32"])
def test_logits_equal_the_stored_ones_of_torch(name):
    config = huggingface.read_config(GOLDEN / name)
    params = huggingface.load_generator(GOLDEN / name, config)
    tokens, positions, mask, expected = inputs(name)
    out = llama.hidden(
        config, params, tokens, positions=positions, segment_ids=mask.astype(np.int32)
    )
    ours = np.asarray(llama.logits(config, params, out))
    np.testing.assert_allclose(ours[mask], expected[mask], atol=1e-4, rtol=0)


def test_scores_equal_the_stored_ones_of_torch():
    config = huggingface.read_config(GOLDEN / "classifier")
    params = huggingface.load_verifier(GOLDEN / "classifier", config)
    tokens, positions, mask, expected = inputs("classifier")
    ours = verifier.scores(
        *(config, params, tokens),
        positions=positions,
        segment_ids=mask.astype(np.int32),
        ends=mask.sum(axis=1, keepdims=True).astype(np.int32) - 1,
    )
    np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=0)


def test_the_files_are_small():
    assert sum(file.stat().st_size for file in GOLDEN.rglob("*") if file.is_file()) < 200_000
