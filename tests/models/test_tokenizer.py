"""Tokenizers: Llama 3's vectors, and what an export carries along."""

import json
import subprocess
import sys

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from mucode_jax.models import huggingface, llama3_tokenizer
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


@pytest.fixture
def small(tmp_path):
    """A tokenizer directory of 60 words."""
    directory = tmp_path / "tokenizer"
    directory.mkdir()
    words = ["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(57))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    return directory


def test_an_export_carries_tokenizer_template_and_special_ids(small, tmp_path):
    out = tmp_path / "out"
    huggingface.save_generator(tiny.params(CONFIG), CONFIG, out, tokenizer_from=small)
    tokenizer = huggingface.load_tokenizer(out)
    message = [{"role": "user", "content": "w5 w0"}]
    assert tokenizer.apply_chat_template(message, return_dict=False) == [8, 3]
    stored = json.loads((out / "config.json").read_text())
    assert (stored["bos_token_id"], stored["eos_token_id"], stored["pad_token_id"]) == (1, 2, 2)
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == 2


def test_several_end_of_turn_ids_are_carried_from_the_generation_config(small, tmp_path):
    (small / "generation_config.json").write_text('{"eos_token_id": [2, 9], "temperature": 0.6}')
    out = tmp_path / "out"
    huggingface.save_generator(tiny.params(CONFIG), CONFIG, out, tokenizer_from=small)
    assert json.loads((out / "config.json").read_text())["eos_token_id"] == [2, 9]
    assert json.loads((out / "generation_config.json").read_text())["temperature"] == 0.6


def test_a_tokenizer_too_large_for_the_model_is_refused(small, tmp_path):
    config = tiny.LlamaConfig(50, 32, 2, 4, 2, 8, 48)
    with pytest.raises(ValueError, match="has 60 tokens, the model 50"):
        huggingface.save_generator(
            tiny.params(config), config, tmp_path / "out", tokenizer_from=small
        )


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
    assert run.stdout.strip() == "[8]"
    assert "torch" not in run.stderr.lower()
