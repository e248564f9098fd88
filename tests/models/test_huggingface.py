"""Model directories: bit-exact round trips, files as others write them, errors that name names."""

import dataclasses
import importlib.util
import json
import math
import shutil
import struct
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from mucode_jax.models import hub, huggingface, llama, sharding, verifier, weights
from tests.models import tiny

CONFIG = tiny.CONFIGS["llama31"]


def equal(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


@pytest.fixture
def saved(tmp_path):
    huggingface.save_generator(tiny.params(CONFIG), CONFIG, tmp_path / "model")
    return tmp_path / "model"


def edit(directory, name="config.json", **changes):
    file = directory / name
    stored = json.loads(file.read_text())
    file.write_text(json.dumps(stored | changes))


def change_tensors(directory, change):
    file = directory / "model.safetensors"
    tensors = safetensors.load_file(file)
    change(tensors)
    safetensors.save_file(tensors, file)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", list(tiny.CONFIGS))
def test_a_generator_comes_back_bit_for_bit(name, dtype, tmp_path):
    config = dataclasses.replace(tiny.CONFIGS[name], dtype=dtype, param_dtype=dtype)
    params = tiny.params(config)
    huggingface.save_generator(params, config, tmp_path)
    assert huggingface.read_config(tmp_path) == config
    back = huggingface.load_generator(tmp_path, config)
    equal(back, params)
    assert {x.dtype for x in jax.tree.leaves(back)} == {jnp.dtype(dtype)}


def test_a_verifier_comes_back_bit_for_bit(tmp_path):
    params = verifier.from_generator(CONFIG, tiny.params(CONFIG), jax.random.key(0))
    huggingface.save_verifier(params, CONFIG, tmp_path)
    equal(huggingface.load_verifier(tmp_path, CONFIG), params)


def test_several_weight_files_hold_the_same_as_one(saved, tmp_path):
    params = tiny.params(CONFIG)
    huggingface.save_generator(params, CONFIG, tmp_path / "parts", shard_bytes=20_000)
    files = sorted((tmp_path / "parts").glob("*.safetensors"))
    assert len(files) > 2 and all(file.stat().st_size < 25_000 for file in files)
    equal(huggingface.load_generator(tmp_path / "parts", CONFIG), params)
    # A later export in one piece leaves nothing of them behind.
    huggingface.save_generator(params, CONFIG, tmp_path / "parts")
    assert [file.name for file in (tmp_path / "parts").glob("*safetensors*")] == [
        "model.safetensors"
    ]


def test_others_read_the_weights_as_they_are_meant(saved):
    tensors = safetensors.load_file(saved / "model.safetensors")
    kernel = tiny.params(CONFIG)["layers"]["mlp"]["gate"]["kernel"][1]
    np.testing.assert_array_equal(tensors["model.layers.1.mlp.gate_proj.weight"], kernel.T)


def test_unstacked_parameters_are_saved_alike(saved, tmp_path):
    huggingface.save_generator(llama.unstack(tiny.params(CONFIG)), CONFIG, tmp_path / "again")
    ours, theirs = (d / "model.safetensors" for d in (tmp_path / "again", saved))
    assert ours.read_bytes() == theirs.read_bytes()


def test_loading_onto_a_mesh_lays_parameters_out_by_the_table(saved):
    mesh = sharding.make_mesh(2, 2, 2)
    back = huggingface.load_generator(saved, CONFIG, mesh=mesh)
    equal(back, tiny.params(CONFIG))
    layout = sharding.shardings(llama.abstract_params(CONFIG), llama.logical_axes(CONFIG), mesh)
    assert jax.tree.map(lambda x: x.sharding, back) == layout
    assert back["layers"]["mlp"]["gate"]["kernel"].addressable_shards[0].data.shape == (3, 16, 24)


def test_no_more_than_one_tensors_shard_is_read_at_once(saved, monkeypatch):
    pieces, right = [], weights.Stored

    def watched(*fields):
        *of_tensor, read = fields

        def note(where):
            pieces.append(read(where).nbytes)
            return read(where)

        return right(*of_tensor, note)

    monkeypatch.setattr(weights, "Stored", watched)
    huggingface.load_generator(saved, CONFIG, mesh=sharding.make_mesh(1, 8, 1))
    assert max(pieces) == 64 * 32 * 4 // 8


def test_rotary_scaling_is_read_in_old_and_new_spelling(saved):
    stored = json.loads((saved / "config.json").read_text())
    new = {**stored.pop("rope_scaling"), "rope_theta": stored.pop("rope_theta")}
    (saved / "config.json").write_text(json.dumps(stored | {"rope_parameters": new}))
    assert huggingface.read_config(saved) == CONFIG


SCALING = {
    **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mistral"}, "model_type is 'mistral'; only llama is supported"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope type is 'yarn'; supported are"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope type is 'linear'"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "factor is missing"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu' is supported"),
        ({"attention_bias": True}, "attention_bias is True; only False is supported"),
        ({"quantization_config": {"bits": 4}}, "the weights are quantized"),
        ({"rope_scaling": "llama3"}, "is 'llama3', no object"),
        ({"num_key_value_heads": -1}, "n_kv_heads is -1, no whole number"),
        ({"num_hidden_layers": 2.5}, "n_layers is 2.5, no whole number"),
        ({"max_position_embeddings": "9"}, "max_positions is '9', no whole number"),
        ({"rms_norm_eps": float("nan")}, "rms_eps is nan, no number above 0"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no', neither true nor false"),
        ({"rope_theta": -1.0}, "rope_theta is -1.0, no number above 0"),
        ({"vocab_size": 10**30}, "vocab_size is 1000000000000000000000000000000, no whole number"),
        ({"rope_theta": 10**400}, "of the wrong kind"),
        ({"rope_scaling": SCALING | {"factor": 0}}, "factor is 0.0, no number above 0"),
        ({"rope_scaling": SCALING | {"factor": float("nan")}}, "factor is nan, no number above 0"),
        ({"rope_scaling": SCALING | {"low_freq_factor": 4.0}}, "not below its high_freq_factor"),
    ],
)
def test_a_config_that_is_not_this_llama_is_refused(saved, changes, message):
    edit(saved, **changes)
    with pytest.raises(ValueError, match=message):
        huggingface.read_config(saved)


def test_weights_that_are_no_numbers_are_refused(saved):
    config = huggingface.read_config(saved)
    file = saved / "model.safetensors"
    for value in (math.nan, -math.inf):
        spoilt = bytearray(file.read_bytes())
        spoilt[-4:] = struct.pack("<f", value)
        file.write_bytes(spoilt)
        with pytest.raises(
            ValueError, match=r"tensor model\..*weight holds what is no finite number"
        ):
            huggingface.load_generator(saved, config)


@pytest.mark.parametrize("header", [{"shape": [1]}, {"dtype": "F32"}, {"data_offsets": [-4, 0]}])
def test_a_damaged_header_is_refused(saved, header):
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    entry = header if len(header) == 1 and "data_offsets" not in header else entry | header
    text = json.dumps({"q": entry}).encode()
    (saved / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(ValueError, match="model.safetensors is damaged"):
        huggingface.load_generator(saved, CONFIG)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": 5}, "architectures is 5, no list of names"),
        ({"eos_token_id": [[1]]}, "eos_token_id is .*; ids are whole numbers"),
        ({"eos_token_id": -1}, "eos_token_id is -1; ids are whole numbers of at least 0"),
    ],
)
def test_odd_names_and_ids_are_refused(saved, changes, message):
    edit(saved, **changes)
    with pytest.raises(ValueError, match=message):
        huggingface.eot_ids(saved)
        huggingface.load_generator(saved, CONFIG)


def test_another_architecture_is_refused(saved):
    with pytest.raises(ValueError, match="holds a LlamaForCausalLM, expected a LlamaForSequenceC"):
        huggingface.load_verifier(saved, CONFIG)


def test_a_missing_tensor_is_named(saved):
    change_tensors(saved, lambda tensors: tensors.pop("model.layers.2.self_attn.k_proj.weight"))
    with pytest.raises(ValueError, match=r"lacks 1 tensor\(s\): model.layers.2.self_attn.k_proj"):
        huggingface.load_generator(saved, CONFIG)


def test_an_extra_tensor_is_named(saved):
    change_tensors(saved, lambda tensors: tensors.update({"adapter": np.zeros(3, np.float32)}))
    with pytest.raises(ValueError, match=r"beside what config.json describes, 1 .*: adapter"):
        huggingface.load_generator(saved, CONFIG)


def test_a_misshapen_tensor_is_named(saved):
    name = "model.layers.0.mlp.up_proj.weight"
    change_tensors(saved, lambda tensors: tensors.update({name: tensors[name].T.copy()}))
    with pytest.raises(ValueError, match=rf"{name} has shape \(32, 48\); .* should be \(48, 32\)"):
        huggingface.load_generator(saved, CONFIG)


def test_copies_that_old_files_carry_are_overlooked(saved):
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(4, np.float32)}
    change_tensors(saved, lambda tensors: tensors.update(extra))
    equal(huggingface.load_generator(saved, CONFIG), tiny.params(CONFIG))


def test_a_tensor_in_an_unknown_format_is_named(saved):
    change_tensors(saved, lambda tensors: tensors.update({"q": np.zeros(3, np.int8)}))
    with pytest.raises(ValueError, match="tensor q is I8; known are F32, F16, BF16"):
        huggingface.load_generator(saved, CONFIG)


def test_a_file_cut_short_is_refused(saved):
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is cut short"):
        huggingface.load_generator(saved, CONFIG)


def test_float16_weights_are_read_into_float32(saved):
    def halve(tensors):
        tensors.update({name: x.astype(np.float16) for name, x in tensors.items()})

    change_tensors(saved, halve)
    edit(saved, torch_dtype="float16")
    config = huggingface.read_config(saved)
    assert (config.dtype, config.param_dtype) == ("float32", "float32")
    expected = jax.tree.map(
        lambda x: x.astype(jnp.float16).astype(jnp.float32), tiny.params(CONFIG)
    )
    equal(huggingface.load_generator(saved, config), expected)


def test_an_export_cut_short_is_no_model(saved, monkeypatch):
    monkeypatch.setattr(weights, "_write_file", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        huggingface.save_generator(tiny.params(CONFIG), CONFIG, saved)
    with pytest.raises(ValueError, match="holds no config.json"):
        huggingface.read_config(saved)


def in_two_files(directory):
    """Splits the weights into shards, the later of which holds an old copy of the embedding."""
    tensors = safetensors.load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    embedding = "model.embed_tokens.weight"
    first = {embedding: tensors.pop(embedding)}
    safetensors.save_file(first, directory / "a.safetensors")
    safetensors.save_file(tensors | {embedding: 0 * first[embedding]}, directory / "b.safetensors")
    weight_map = dict.fromkeys(tensors, "b.safetensors") | {embedding: "a.safetensors"}
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    return index, weight_map


def test_the_index_decides_which_copy_of_a_tensor_is_read(saved):
    in_two_files(saved)
    equal(huggingface.load_generator(saved, CONFIG), tiny.params(CONFIG))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model.norm.weight": "a.safetensors"},
            r"index.json names model.norm.weight, which a\.saf",
        ),
        (
            {"model.norm.weight": "c.safetensors"},
            r"index.json names c\.safetensors, which is not th",
        ),
        ({"model.norm.weight": 7}, "index.json is damaged"),
    ],
)
def test_an_index_that_its_files_do_not_bear_out_is_refused(change, message, saved):
    index, weight_map = in_two_files(saved)
    index.write_text(json.dumps({"weight_map": weight_map | change}))
    with pytest.raises(ValueError, match=message):
        huggingface.load_generator(saved, CONFIG)


def test_a_head_trained_apart_is_kept_though_the_config_ties_it(tmp_path):
    """As transformers does: it ties what is equal."""
    config = dataclasses.replace(CONFIG, tied=True)
    huggingface.save_generator(tiny.params(config), config, tmp_path)
    tokens = tiny.tokens(CONFIG, 2, 9)

    def logits():
        read = huggingface.read_config(tmp_path)
        params = huggingface.load_generator(tmp_path, read)
        where = tiny.positions(*tokens.shape)
        hidden = llama.hidden(read, params, tokens, positions=where, segment_ids=None)
        return read.tied, np.asarray(llama.logits(read, params, hidden))

    def set_head(change):
        def change_head(tensors):
            head = tensors["model.embed_tokens.weight"].copy()
            tensors["lm_head.weight"] = change(head)

        change_tensors(tmp_path, change_head)

    tied, as_tied = logits()
    assert tied
    set_head(lambda head: head)
    tied, again = logits()
    assert tied
    np.testing.assert_array_equal(again, as_tied)
    set_head(lambda head: head * np.r_[np.ones(63), 2].astype(np.float32)[:, None])
    tied, apart = logits()
    assert not tied
    np.testing.assert_array_equal(apart[..., :63], as_tied[..., :63])
    np.testing.assert_allclose(apart[..., 63], 2 * as_tied[..., 63], rtol=1e-6)
    if importlib.util.find_spec("torch"):
        import torch
        import transformers

        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        with torch.no_grad():
            theirs = model(torch.tensor(tokens.astype(np.int64))).logits
        np.testing.assert_allclose(apart, theirs, atol=1e-3)


@pytest.mark.parametrize("has_config", [False, True])
def test_an_adapter_is_refused_by_its_name(saved, has_config):
    shutil.move(saved / "model.safetensors", saved / "adapter_model.safetensors")
    (saved / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    if not has_config:
        (saved / "config.json").unlink()
    with pytest.raises(ValueError, match=r"holds a PEFT adapter .*merge_and_unload\(\)") as refused:
        huggingface.load_generator(saved, huggingface.read_config(saved))
    assert "\n" not in str(refused.value)


def test_other_weight_formats_are_refused(saved):
    shutil.move(saved / "model.safetensors", saved / "pytorch_model.bin")
    with pytest.raises(ValueError, match="neither model.safetensors nor model.safetensors.index"):
        huggingface.load_generator(saved, CONFIG)


# Finding a model.


def test_a_directory_is_itself_and_a_wrong_path_says_so(tmp_path):
    assert huggingface.resolve(tmp_path) == tmp_path
    assert huggingface.resolve("mini").name == "mini"
    with pytest.raises(ValueError, match="model ./nowhere: no such directory, and not a hub id"):
        huggingface.resolve("./nowhere")


@pytest.fixture
def fake_hub(monkeypatch):
    """Lets a test say what the hub answers, one answer a call."""
    import huggingface_hub

    calls = []

    def answer(*answers):
        def download(name, allow_patterns):
            calls.append(name)
            result = answers[len(calls) - 1]
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: None)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "WAITS_S", (0.0,) * 3)
        return calls

    return answer


def refusal(kind):
    from huggingface_hub import errors

    response = types.SimpleNamespace(headers={}, request=None)
    return getattr(errors, kind)("no", response=response)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GatedRepoError", "is gated: accept its licence at https://huggingface.co/a/b and log in"),
        ("RepositoryNotFoundError", "no such model on the hub; if it is private, log in"),
    ],
)
def test_a_model_that_is_not_given_out_says_how_to_get_it(fake_hub, kind, message):
    fake_hub(refusal(kind))
    with pytest.raises(ValueError, match=f"{message}.*path of a local copy"):
        huggingface.resolve("a/b")


def test_a_failing_network_is_tried_again(fake_hub, tmp_path):
    calls = fake_hub(OSError("reset"), TimeoutError("slow"), str(tmp_path))
    assert hub.resolve("a/b") == tmp_path
    assert len(calls) == 3


def test_an_unreachable_hub_is_one_error(fake_hub):
    calls = fake_hub(*[OSError("no route")] * 4)
    with pytest.raises(ValueError, match=r"a/b cannot be fetched from the hub \(OSError: no route"):
        hub.resolve("a/b")
    assert len(calls) == 4
