"""The same numbers as torch transformers, option by option (needs torch, extra `parity`)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mucode_jax.models import huggingface, llama, verifier
from tests.models import tiny

torch = pytest.importorskip("torch", reason="needs torch (extra `parity`); see test_golden")
import transformers  # noqa: E402

TOLERANCE = 1e-4

_hidden = jax.jit(llama.hidden, static_argnums=0)
_scores = jax.jit(verifier.scores, static_argnums=0)


def reference(directory, kind, dtype="float32"):
    return kind.from_pretrained(directory, dtype=getattr(torch, dtype)).eval()


@pytest.fixture(scope="module", params=list(tiny.CONFIGS))
def exported(request, tmp_path_factory):
    """(config, our parameters, the torch model read from what we exported)."""
    config = tiny.CONFIGS[request.param]
    params = tiny.params(config)
    directory = tmp_path_factory.mktemp(request.param)
    huggingface.save_generator(params, config, directory)
    return config, params, directory, reference(directory, transformers.LlamaForCausalLM)


def test_every_layer_and_the_logits_equal_torchs(exported):
    config, params, _, model = exported
    tokens = tiny.tokens(config, 2, 24)
    with torch.no_grad():
        theirs = model(torch.tensor(tokens), output_hidden_states=True)
    states = []
    # A model cut after layer n gives the n-th hidden state (torch's last one is normed).
    for depth in range(1, config.n_layers + 1):
        cut = dataclasses.replace(config, n_layers=depth)
        layers = jax.tree.map(lambda x, depth=depth: x[:depth], params["layers"])
        normed = _hidden(cut, {**params, "layers": layers}, tokens, positions=tiny.positions(2, 24))
        states.append(normed)
    for depth, ours in enumerate(states, 1):
        with torch.no_grad():
            raw = theirs.hidden_states[depth]
            raw = raw if depth == config.n_layers else model.model.norm(raw)
        np.testing.assert_allclose(ours, raw.numpy(), atol=TOLERANCE, rtol=0)
    ours = llama.logits(config, params, states[-1])
    assert ours.dtype == jnp.float32
    assert np.abs(theirs.logits.numpy()).max() > 3  # not a comparison of zeros
    np.testing.assert_allclose(ours, theirs.logits.numpy(), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(exported, side):
    config, params, _, model = exported
    length, lengths = 16, np.array([16, 11, 1])
    columns = np.arange(length)
    real = columns < lengths[:, None] if side == "right" else columns >= length - lengths[:, None]
    tokens = np.where(real, tiny.tokens(config, 3, length), 0)
    positions = np.maximum(np.cumsum(real, axis=1) - 1, 0).astype(np.int32)
    with torch.no_grad():
        theirs = model(
            torch.tensor(tokens),
            attention_mask=torch.tensor(real).long(),
            position_ids=torch.tensor(positions).long(),
        ).logits.numpy()
    out = _hidden(config, params, tokens, positions=positions, segment_ids=real.astype(np.int32))
    ours = np.asarray(llama.logits(config, params, out))
    np.testing.assert_allclose(ours[real], theirs[real], atol=TOLERANCE, rtol=0)


def test_cached_decoding_equals_torchs_own(exported):
    config, params, _, model = exported
    prompt = tiny.tokens(config, 1, 7)
    with torch.no_grad():
        theirs = model.generate(
            torch.tensor(prompt, dtype=torch.long),
            attention_mask=torch.ones(prompt.shape, dtype=torch.long),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0, 7:].tolist()
    extend = jax.jit(llama.extend, static_argnums=0, donate_argnums=4)
    layers = llama.unstack(params)
    cache, tables = llama.init_cache(config, 1), np.zeros((1, 1), np.int32)
    out, cache = extend(config, layers, prompt, tiny.positions(1, 7), cache, tables)
    ours = []
    for position in range(7, 19):
        ours.append(int(jnp.argmax(llama.logits(config, params, out[:, -1]))))
        out, cache = extend(
            *(config, layers, np.array([[ours[-1]]]), np.array([[position]], np.int32)),
            *(cache, tables),
        )
    assert ours == theirs


def test_bfloat16_is_as_near_to_float32_as_torchs_bfloat16(exported):
    config, params, directory, model = exported
    low = dataclasses.replace(config, dtype="bfloat16")
    tokens = tiny.tokens(config, 4, 24)
    theirs = reference(directory, transformers.LlamaForCausalLM, "bfloat16")
    with torch.no_grad():
        exact = model(torch.tensor(tokens)).logits.numpy()
        rough = theirs(torch.tensor(tokens)).logits.float().numpy()
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    out = _hidden(low, rounded, tokens, positions=tiny.positions(4, 24))
    ours = np.asarray(llama.logits(low, rounded, out))
    assert out.dtype == jnp.bfloat16

    def error(x):
        return np.sqrt(np.mean((x - exact) ** 2))

    assert 0 < error(ours) < 1.2 * error(rough)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["llama3", "llama32"])
def test_scores_equal_sequence_classification(name, side, tmp_path):
    config = tiny.CONFIGS[name]
    head = {"kernel": jnp.asarray(np.random.default_rng(1).normal(size=(32, 1)), jnp.float32)}
    trunk = {k: v for k, v in tiny.params(config).items() if k != "head"}
    params = {"trunk": trunk, "head": head}
    huggingface.save_verifier(params, config, tmp_path)
    model = reference(tmp_path, transformers.LlamaForSequenceClassification)
    model.config.pad_token_id = 0
    lengths, length = np.array([16, 5, 1]), 16
    columns = np.arange(length)
    real = columns < lengths[:, None] if side == "right" else columns >= length - lengths[:, None]
    tokens = np.where(real, tiny.tokens(config, 3, length), 0)
    positions = np.maximum(np.cumsum(real, axis=1) - 1, 0).astype(np.int32)
    with torch.no_grad():
        theirs = model(
            torch.tensor(tokens),
            attention_mask=torch.tensor(real).long(),
            position_ids=torch.tensor(positions).long(),
        ).logits.numpy()
    ends = (lengths - 1 if side == "right" else np.full(3, length - 1))[:, None].astype(np.int32)
    ours = _scores(
        *(config, params, tokens),
        positions=positions,
        segment_ids=real.astype(np.int32),
        ends=ends,
    )
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama2", "llama32"])
def test_what_torch_saved_comes_back_bit_for_bit(name, dtype, shard, tmp_path):
    config = dataclasses.replace(tiny.CONFIGS[name], dtype=dtype, param_dtype=dtype)
    params = tiny.params(config)
    huggingface.save_generator(params, config, tmp_path / "ours")
    model = reference(tmp_path / "ours", transformers.LlamaForCausalLM, dtype)
    model.save_pretrained(tmp_path / "theirs", max_shard_size="10KB" if shard else "1GB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists() == shard
    assert huggingface.read_config(tmp_path / "theirs") == config
    back = huggingface.load_generator(tmp_path / "theirs", config)
    jax.tree.map(np.testing.assert_array_equal, params, back)
