"""A generator of random parameters: made once, of the files it names."""

import base64
import contextlib
import json

import numpy as np
import pytest

from mucode_jax.core.conversation import Chat
from mucode_jax.lab import scratch
from mucode_jax.models import huggingface, llama3_tokenizer
from mucode_jax.models.llama import LlamaConfig
from mucode_jax.runtime.workdir import Workdir

NAMES = ("begin_of_text", "end_of_text", "eom_id", "eot_id", "finetune_right_pad_id")
SHAPE = LlamaConfig(
    vocab_size=257 + len(NAMES),
    d_model=16,
    n_layers=2,
    n_heads=2,
    n_kv_heads=1,
    head_dim=8,
    d_ff=16,
    tied=True,
    max_positions=64,
)
TEMPLATE = (
    "{{ '<|begin_of_text|>' }}{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}"
    "{{ '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


@pytest.fixture
def files(tmp_path):
    """Every byte and one pair of them, in the form of Llama 3's files."""
    source = tmp_path / "llama3"
    source.mkdir()
    tokens = [bytes([i]) for i in range(256)] + [b"de"]
    ranks = [b"%s %d" % (base64.b64encode(t), i) for i, t in enumerate(tokens)]
    (source / "tokenizer.model").write_bytes(b"\n".join(ranks) + b"\n")
    special = {f"<|{name}|>": 257 + i for i, name in enumerate(NAMES)}
    described = {"pattern": r"\w+|\s+|[^\w\s]+", "special_tokens": special}
    (source / "special_tokens.json").write_text(json.dumps(described))
    (source / "template.jinja").write_text(TEMPLATE)
    (source / "LICENSE").write_text("a licence")
    return source


def made(where, files, seed=0):
    """The generator's directory, and what was said of stages made again."""
    lines = []
    with contextlib.closing(Workdir(where, lines.append)) as workdir:
        return scratch.generator(workdir, SHAPE, files, seed), lines


def test_it_is_a_whole_model_directory_and_made_once(tmp_path, files):
    directory, lines = made(tmp_path / "run", files)
    config = huggingface.read_config(directory)
    embedding = huggingface.load_generator(directory, config)["embed"]["embedding"]
    chat = Chat(huggingface.load_tokenizer(directory), huggingface.eot_ids(directory))
    assert embedding.shape == (262, 16) and 0.01 < np.std(embedding) < 0.03
    assert chat.vocab_size == 262 and 256 in chat.first("def f") and chat.eot_ids[0] == 260
    assert (directory / "LICENSE").read_text() == "a licence"
    assert not lines and made(tmp_path / "run", files) == (directory, [])


@pytest.mark.parametrize("changed", ["template.jinja", "special_tokens.json"])
def test_other_tokenizer_files_make_it_anew(tmp_path, files, changed):
    made(tmp_path / "run", files)
    with open(files / changed, "a") as file:
        file.write(" ")
    _, lines = made(tmp_path / "run", files)
    assert lines == [f"base/random: setting tokenizer.{changed} has changed; made again"]


def test_another_seed_is_another_model(tmp_path, files):
    one, two = (made(tmp_path / f"run{seed}", files, seed)[0] for seed in (0, 1))
    assert (one / "model.safetensors").read_bytes() != (two / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tokenizer.model", None, "holds 0 of tokenizer.model"),
        ("second.jinja", "x", r"holds 2 of \*.jinja"),
        ("tokenizer.model", "x y z", "damaged .ValueError"),
        ("special_tokens.json", "[]", "damaged .TypeError"),
        ("special_tokens.json", '{"pattern": "x", "special_tokens": {}}', "damaged .KeyError"),
        (
            "special_tokens.json",
            '{"pattern": "(", "special_tokens": {"<|begin_of_text|>": 1}}',
            "damaged",
        ),
    ],
)
def test_files_that_are_no_tokenizer_are_named(tmp_path, files, name, text, message):
    (files / name).unlink() if text is None else (files / name).write_text(text)
    with pytest.raises(ValueError, match=message) as refused:
        llama3_tokenizer.build(files, tmp_path / "tokenizer")
    assert str(files) in str(refused.value) and not (tmp_path / "tokenizer").exists()
