"""A Hugging Face tokenizer of the files that Meta publishes: Llama 3's ranks and special tokens."""

from __future__ import annotations

import base64
import json
import pathlib
import shutil

import tokenizers

from mucode_jax.models.tokenizer import write_json

_BEGIN, _END, _PAD = "<|begin_of_text|>", "<|eot_id|>", "<|finetune_right_pad_id|>"
_ENDS = ("<|end_of_text|>", "<|eom_id|>", _END)


def files(source: pathlib.Path) -> list[pathlib.Path]:
    """What `build` reads of a folder: ranks, special tokens, chat template, licence texts.

    Raises:
      ValueError: something of it is missing.
    """
    needed = []
    for pattern in ("tokenizer.model", "special_tokens.json", "*.jinja"):
        matching = sorted(source.glob(pattern))
        if len(matching) != 1:
            raise ValueError(
                f"{source} holds {len(matching)} of {pattern}; a Llama-3 tokenizer is made of "
                "tokenizer.model, special_tokens.json and one chat template, *.jinja"
            )
        needed += matching
    return needed + sorted(source.glob("LICENSE*"))


def build(source: pathlib.Path, directory: pathlib.Path) -> None:
    """Makes a Hugging Face tokenizer directory from the files that Meta publishes.

    Args:
      source: holds tokenizer.model (lines of base64 bytes and rank), special_tokens.json
        ({"pattern", "special_tokens": {text: id}}) and a chat template `*.jinja`; licence texts
        there are passed on, as the licence asks.
      directory: where to write; made if need be.

    Raises:
      ValueError: a file is missing or damaged.
    """
    ranks, names, template, *licences = files(source)
    try:
        described = json.loads(names.read_text(encoding="utf-8"))
        ids = dict(described["special_tokens"])
        tokenizer = _tokenizer(ranks, described["pattern"], ids)
        generation = {
            "bos_token_id": ids[_BEGIN],
            "eos_token_id": [ids[name] for name in _ENDS],
            "pad_token_id": ids[_PAD],
        }
    except Exception as error:  # tokenizers raises nothing more special
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"the Llama-3 tokenizer in {source} is damaged ({reason})") from error
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": _BEGIN,
        "eos_token": _END,
        "pad_token": _PAD,
        "model_max_length": 131072,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    write_json(directory / "tokenizer_config.json", settings)
    write_json(directory / "generation_config.json", generation)
    shutil.copyfile(template, directory / "chat_template.jinja")
    for licence in licences:
        shutil.copyfile(licence, directory / licence.name)


def _tokenizer(ranks: pathlib.Path, pattern: str, special: dict[str, int]) -> tokenizers.Tokenizer:
    from transformers.convert_slow_tokenizer import TikTokenConverter

    class Converter(TikTokenConverter):
        @staticmethod
        def load_tiktoken_bpe(tiktoken_url: str) -> dict[bytes, int]:
            """Token -> rank; the converter's own asks for the package tiktoken to read this."""
            lines = map(bytes.split, pathlib.Path(tiktoken_url).read_bytes().splitlines())
            return {base64.b64decode(token): int(rank) for token, rank in lines}

    names = sorted(special, key=special.__getitem__)
    tokenizer = Converter(str(ranks), pattern, extra_special_tokens=names).converted()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{_BEGIN} $A",
        pair=f"{_BEGIN} $A {_BEGIN} $B",
        special_tokens=[(_BEGIN, special[_BEGIN])],
    )
    for name, token_id in special.items():
        if tokenizer.token_to_id(name) != token_id:
            raise ValueError(f"special token {name} would not get id {token_id}")
    return tokenizer
