"""Pretraining of the embedded generator: what it is taught, and that its config makes a model."""

import contextlib
import importlib.util
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mucode_jax.algorithms import pretrain
from mucode_jax.core.conversation import Chat
from mucode_jax.models import huggingface, llama
from mucode_jax.runtime.workdir import Workdir

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "configs" / "mini_pretrain.py"


def get_config(arg):
    spec = importlib.util.spec_from_file_location("mini_pretrain", CONFIG)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg)


def test_a_conversation_is_taught_as_it_is_sampled_and_its_ends_of_turn_are_supervised():
    directory = huggingface.resolve("mini")
    tokenizer = huggingface.load_tokenizer(directory)
    chat = Chat(tokenizer)
    messages = ["add: the sum", "def add(xs):\n    return 1", "wrong", "def add(xs):\n    return 2"]
    example = pretrain.example(chat, tokenizer, "t", messages, 0.25)
    text = tokenizer.decode(example.ids)
    assert text == (
        "<|user|>add: the sum<|assistant|>def add(xs):\n    return 1<|end|>"
        "<|user|>wrong<|assistant|>def add(xs):\n    return 2<|end|>"
    )
    supervised = tokenizer.decode(example.ids[example.weights == 1])
    assert supervised == messages[1] + "<|end|>" + messages[3] + "<|end|>"
    assert set(example.weights.tolist()) == {0.25, 1.0}
    first = chat.first(messages[0])
    np.testing.assert_array_equal(example.ids[: len(first)], first)


def test_a_small_pretraining_leaves_a_generator_that_loads_and_has_learned(tmp_path):
    config = get_config("tiny")
    config.corpus.size = 120
    config.tokenizer.vocab_size = 400
    config.model.n_layers = 1
    config.train.epochs = 3
    config.train.length = 256
    config.optimizer.warmup_steps = 5
    with contextlib.closing(Workdir(tmp_path, print)) as workdir:
        directory = pretrain.pretrain(config, workdir)
    model = huggingface.read_config(directory)
    params = huggingface.load_generator(directory, model)
    tokenizer = huggingface.load_tokenizer(directory)
    prompt = Chat(tokenizer).first("solve: the sum of the items\nassert solve([1, 2]) == 3")
    ids = jnp.asarray(prompt)[None]
    positions = jnp.arange(ids.shape[1])[None]
    states = llama.hidden(model, params, ids, positions=positions)
    after = jax.nn.log_softmax(llama.logits(model, params, states)[0, -1])
    definition = tokenizer.encode("def")[0]  # what every completion begins with
    assert after[definition] > math.log(0.5)


def test_an_unknown_variant_is_named():
    with pytest.raises(ValueError, match="no variant 'huge'"):
        get_config("huge")


def test_a_vocabulary_that_the_corpus_cannot_fill_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="vocabulary of .*, not 5000"):
        pretrain.train_tokenizer(["a b", "a b"], 5000, 128, tmp_path)


def test_a_length_that_no_conversation_fits_is_refused(tmp_path):
    config = get_config("tiny")
    config.corpus.size = 120
    config.tokenizer.vocab_size = 400
    config.train.length = 4
    with (
        contextlib.closing(Workdir(tmp_path, print)) as workdir,
        pytest.raises(ValueError, match=r"config\.train\.length is 4, but the shortest of 120"),
    ):
        pretrain.pretrain(config, workdir)
