"""Tokenizers: Llama 3's vectors, and what an export carries along."""

import dataclasses
import functools
import importlib.util
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from mucode_jax.models import huggingface, llama3_tokenizer, verifier
from mucode_jax.models.tokenizer import CODE
from mucode_jax.rollouts.scorer import Scorer
from tests.models import tiny

CONFIG = tiny.CONFIGS["llama3"]


@pytest.fixture(scope="module")
def llama3(data_dir, tmp_path_factory):
    directory = tmp_path_factory.mktemp("llama3")
    llama3_tokenizer.build(data_dir / "llama3", directory)
    return data_dir / "llama3", directory, huggingface.load_tokenizer(directory)


def vectors(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_every_token_vector_of_llama_3_is_reproduced(llama3):
    source, _, tokenizer = llama3
    stored = vectors(source / "token_vectors.jsonl")
    assert len(stored) == 70
    for vector in stored:
        ids = tokenizer.encode(vector["text"], add_special_tokens=False, split_special_tokens=True)
        assert ids == vector["ids"], vector["text"][:60]
        assert tokenizer.decode(vector["ids"]) == vector["text"]


def test_every_chat_vector_of_llama_3_is_reproduced(llama3):
    source, _, tokenizer = llama3
    stored = vectors(source / "chat_vectors.jsonl")
    assert len(stored) == 8
    for vector in stored:
        settings = {key: vector[key] for key in ("add_generation_prompt", "date_string")}
        text = tokenizer.apply_chat_template(vector["messages"], tokenize=False, **settings)
        assert text == vector["text"]
        ids = tokenizer.apply_chat_template(vector["messages"], return_dict=False, **settings)
        assert ids == vector["ids"]


def test_the_built_directory_passes_on_ids_and_licences(llama3):
    _, directory, tokenizer = llama3
    assert len(tokenizer) == 128256
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (128000, 128009)
    told = json.loads((directory / "generation_config.json").read_text())
    assert told["eos_token_id"] == [128001, 128008, 128009]
    assert (directory / "LICENSE").is_file()


def byte_level(*before):
    """A tokenizer of the 256 bytes and a few words; text is split by `before` and GPT-2's rule."""
    names = ["<unk>", "<s>", "</s>", "<pad>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "Ġ"), ("ĠĠ", "ĠĠ"), ("Ċ", "Ġ"), ("1", "2"), ("d", "e"), ("de", "f")]
    words = [*names, *letters, *map("".join, merges)]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges))
    split = [*before, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(names)
    return tokenizer


def sentencepiece():
    """As Llama 2's: U+2581 for blanks, one before the text; bytes for what it has no piece of."""
    merges = [("▁", "▁"), ("▁▁", "▁▁"), ("r", "e"), ("▁", "re"), ("d", "e"), ("▁", "de")]
    letters = [*"▁abcdefghijklmnopqrstuvwxyz", *map("".join, merges)]
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        + [decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(words[:3])
    return tokenizer


TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"


def save(directory, tokenizer, **settings):
    directory.mkdir()
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"} | settings
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    (directory / "config.json").write_text('{"model_type": "llama"}')
    return directory


@pytest.mark.parametrize(
    ("tokenizer", "settings"),
    [
        (byte_level(), {"tokenizer_class": "LlamaTokenizer"}),
        (byte_level(), {"tokenizer_class": "LlamaTokenizerFast"}),
        (byte_level(pre_tokenizers.Digits(True)), {"tokenizer_class": "GPT2Tokenizer"}),
        (sentencepiece(), {"tokenizer_class": "LlamaTokenizer", "legacy": False}),
        (sentencepiece(), {"tokenizer_class": "CodeLlamaTokenizer"}),
        (byte_level(), {}),
        (byte_level(), {"clean_up_tokenization_spaces": True}),
    ],
)
def test_the_tokenizer_is_that_of_tokenizer_json_whatever_class_is_named(
    tokenizer, settings, tmp_path
):
    loaded = huggingface.load_tokenizer(save(tmp_path / "model", tokenizer, **settings))
    for text in (*CODE, "<s>    return a", "x =  12 , don't", "a</s>  b", "\n    12"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert loaded.encode(text, add_special_tokens=False) == ids
    for text in (*CODE, "x =  12 , don't !", "    return a", "\n\n2. n't"):
        assert loaded.decode(loaded.encode(text, add_special_tokens=False)) == text
    message = [{"role": "user", "content": "def"}]
    ids = tokenizer.encode("<s>def</s>", add_special_tokens=False).ids
    assert loaded.apply_chat_template(message, return_dict=False) == ids


def test_special_tokens_and_templates_come_from_all_their_files(tmp_path):
    directory = save(tmp_path / "model", byte_level(), tokenizer_class="GPT2Tokenizer")
    (directory / "special_tokens_map.json").write_text('{"pad_token": {"content": "<pad>"}}')
    (directory / "tokenizer_config.json").write_text(
        '{"eos_token": "</s>", "chat_template": "{{ 1 }}", "add_prefix_space": true}'
    )
    loaded = huggingface.load_tokenizer(directory)
    assert (loaded.eos_token, loaded.pad_token, loaded.chat_template) == ("</s>", "<pad>", TEMPLATE)
    assert loaded.decode(loaded.encode("def")) == "def"


@pytest.mark.parametrize("described", [False, True])
def test_tokens_described_otherwise_beside_it_change_no_id(described, tmp_path):
    tokenizer = sentencepiece()
    added = {"1": {"content": "<s>", "normalized": described, "special": True}}
    loaded = huggingface.load_tokenizer(
        save(tmp_path / "model", tokenizer, added_tokens_decoder=added)
    )
    for text in ("<s>    return a", "<s>a<s> b"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert loaded.encode(text, add_special_tokens=False) == ids


def test_a_token_that_only_the_settings_name_is_added(tmp_path):
    directory = save(tmp_path / "model", byte_level(), bos_token="<new>")
    loaded = huggingface.load_tokenizer(directory)
    assert loaded.bos_token_id == byte_level().get_vocab_size()


@pytest.mark.parametrize(
    "loses",
    [
        {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}},
        {"normalizer": {"type": "Replace", "pattern": {"String": "\t"}, "content": " "}},
        {"normalizer": {"type": "Replace", "pattern": {"String": "  "}, "content": " "}},
        {"normalizer": {"type": "Replace", "pattern": {"String": " !"}, "content": "!"}},
        {"normalizer": {"type": "Replace", "pattern": {"String": " n't"}, "content": "n't"}},
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "WhitespaceSplit"}},
    ],
)
def test_a_tokenizer_that_does_not_give_code_back_is_refused(loses, tmp_path):
    directory = save(tmp_path / "model", byte_level())
    stored = json.loads((directory / "tokenizer.json").read_text())
    (directory / "tokenizer.json").write_text(json.dumps(stored | loses))
    with pytest.raises(ValueError, match=r"model does not give code back: .* becomes ") as refused:
        huggingface.load_tokenizer(directory)
    assert "\n" not in str(refused.value)


def test_a_tokenizer_that_transformers_reads_otherwise_is_refused(tmp_path, monkeypatch):
    directory = save(tmp_path / "model", byte_level(pre_tokenizers.Digits(True)))
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    other = functools.partial(transformers.AutoTokenizer.from_pretrained, str(directory))
    monkeypatch.setattr("transformers.PreTrainedTokenizerFast", lambda **_: other())
    with pytest.raises(ValueError, match=r"transformers gives .* other ids than tokenizer.json"):
        huggingface.load_tokenizer(directory)


def test_a_directory_without_tokenizer_json_is_read_by_transformers_and_checked(tmp_path):
    directory = tmp_path / "model"
    directory.mkdir()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: i for i, word in enumerate(["<|endoftext|>", *letters])}
    (directory / "vocab.json").write_text(json.dumps(vocabulary))
    (directory / "merges.txt").write_text("#version: 0.2\n")
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    (directory / "config.json").write_text('{"model_type": "gpt2"}')
    loaded = huggingface.load_tokenizer(directory)
    assert loaded.decode(loaded.encode("  a !")) == "  a !"
    (directory / "vocab.json").write_text(json.dumps({"<|endoftext|>": 0, "a": 1}))
    with pytest.raises(ValueError, match="does not give code back"):
        huggingface.load_tokenizer(directory)


@pytest.fixture
def small(tmp_path):
    return save(tmp_path / "tokenizer", byte_level(), tokenizer_class="LlamaTokenizer")


WIDE = dataclasses.replace(CONFIG, vocab_size=320)


def export(source, directory, save=huggingface.save_generator, params=None):
    save(params or tiny.params(WIDE), WIDE, directory, tokenizer_from=source)
    return json.loads((directory / "config.json").read_text())


def test_an_export_carries_tokenizer_template_and_special_ids(small, tmp_path):
    out = tmp_path / "out"
    stored = export(small, out)
    tokenizer = huggingface.load_tokenizer(out)
    message = [{"role": "user", "content": "w5"}]
    ids = tokenizer.apply_chat_template(message, return_dict=False)
    assert tokenizer.convert_ids_to_tokens(ids) == ["<s>", "w", "5", "</s>"]
    assert (stored["bos_token_id"], stored["eos_token_id"], stored["pad_token_id"]) == (1, 2, 2)
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == 2


def test_others_read_an_export_with_the_tokenizer_that_it_was_trained_with(tmp_path):
    source = save(
        tmp_path / "source",
        byte_level(pre_tokenizers.Digits(True)),
        tokenizer_class="GPT2Tokenizer",
    )
    export(source, tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "out"))
    ours = huggingface.load_tokenizer(source)
    for text in (*CODE, "12 12"):
        assert theirs(text)["input_ids"] == ours(text)["input_ids"]


def test_several_end_of_turn_ids_are_carried_from_the_generation_config(small, tmp_path):
    (small / "generation_config.json").write_text('{"eos_token_id": [2, 9], "temperature": 0.6}')
    out = tmp_path / "out"
    assert export(small, out)["eos_token_id"] == [2, 9]
    assert json.loads((out / "generation_config.json").read_text())["temperature"] == 0.6


def test_a_tokenizer_too_large_for_the_model_is_refused(small, tmp_path):
    config = dataclasses.replace(WIDE, vocab_size=50)
    with pytest.raises(ValueError, match="has 266 tokens, the model 50"):
        huggingface.save_generator(
            tiny.params(config), config, tmp_path / "out", tokenizer_from=small
        )


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="needs torch (extra `parity`)"
)
@pytest.mark.parametrize(
    ("settings", "special", "ends", "pads"),
    [
        ({"pad_token": "</s>"}, {}, 2, "<unk>"),  # the pad ends a turn (SmolLM2)
        ({"pad_token": "</s>"}, {"pad_token": {"content": "</s>"}}, 2, "<unk>"),
        ({}, {}, 2, "<unk>"),  # none (Llama 2)
        ({"unk_token": None}, {}, 2, "<pad>"),  # neither (Llama 3)
        ({"pad_token": "<pad>"}, {}, [2, 3], "<unk>"),  # the pad ends a turn by the config (Qwen)
        ({"pad_token": "<pad>"}, {}, 2, "<pad>"),  # a pad of its own
    ],
)
def test_transformers_scores_as_we_do_with_and_without_padding(
    settings, special, ends, pads, tmp_path
):
    import torch

    source = save(tmp_path / "source", byte_level(), tokenizer_class="GPT2Tokenizer", **settings)
    (source / "special_tokens_map.json").write_text(json.dumps(special))
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    params = verifier.from_generator(WIDE, tiny.params(WIDE), jax.random.key(0))
    params["head"]["kernel"] = jax.random.normal(jax.random.key(1), (WIDE.d_model, 1))
    out = tmp_path / "out"
    stored = export(source, out, huggingface.save_verifier, params)
    texts = ["<s>def f</s>", "<s>a b c d e f g</s>", "<s>x<unk>y</s>", "<s></s>"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(out))
    assert tokenizer.pad_token == pads and stored["pad_token_id"] == tokenizer.pad_token_id
    ids = [np.array(tokenizer(text)["input_ids"], np.int32) for text in texts]
    ours = Scorer(WIDE, params)(ids)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(str(out)).eval()
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        together = model(**batch).logits[:, 0].numpy()
        alone = [model(torch.tensor(text[None].astype(np.int64))).logits.item() for text in ids]
    np.testing.assert_allclose(together, ours, atol=1e-5)
    np.testing.assert_allclose(alone, ours, atol=1e-5)


def test_a_directory_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no tokenizer"):
        huggingface.load_tokenizer(tmp_path)


def test_without_torch_nothing_is_said_about_it(small):
    """A process in which torch cannot be imported loads the tokenizer in silence."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from mucode_jax.models.tokenizer import load_tokenizer\n"
        f"print(load_tokenizer({str(small)!r}).encode('w5'))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(byte_level().encode("w5").ids)
    assert "torch" not in run.stderr.lower()
