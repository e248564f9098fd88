"""Tokenizers of model directories."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import tokenizers

Path = str | pathlib.Path

# What a tokenizer must give back unchanged: blanks, tabs, newlines, digits, and the places where a
# tokenizer for prose tidies up.
CODE = (
    "def add(a, b):\n    return a + b\n",
    "    return a",
    "\tif x != y :\n\t\tprint( 'a  b' , end = '' )\n\n\n",
    "x =  10 ** 2.50 # do n't , I 'm ! we 've ? 1234567\n\n2.",
    'class A :\n\n  def f(self):\n    """It \'s ? they \'re ."""\n    1',
)

_SPECIAL = [f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")]


def load_tokenizer(directory: Path) -> Any:
    """The tokenizer of a model directory, with its chat template (`transformers`).

    It is the one of tokenizer.json, whatever class tokenizer_config.json names: `AutoTokenizer`
    builds another one from the class. Without tokenizer.json it is what `AutoTokenizer` makes of
    tokenizer.model, or of vocab.json and merges.txt.

    Raises:
      ValueError: there is none, it is damaged, or it does not give code back as it was.
    """
    directory = pathlib.Path(directory)
    file = directory / "tokenizer.json"
    names = (file.name, "tokenizer.model", "vocab.json")
    if not any((directory / name).is_file() for name in names):
        raise ValueError(f"{directory} holds no tokenizer (tokenizer.json or tokenizer.model)")
    # Nothing here needs torch; transformers would say at import that it is not there.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    import transformers

    tidy = {"clean_up_tokenization_spaces": False}  # code is never tidied up
    try:
        if file.is_file():
            described = _described(directory) | tidy
            tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(file), **described)
            tokenizer.name_or_path = str(directory)
            _check_ids(tokenizer, file)
        else:
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(directory), **tidy)
    except Exception as error:  # the layers below raise all kinds for a damaged file
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the tokenizer of {directory} cannot be read ({reason})") from error
    # What is too long for a model is refused by whoever knows its context.
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    for text in CODE:
        back = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False))
        if back != text:
            raise ValueError(
                f"the tokenizer of {directory} does not give code back: {text!r} becomes {back!r}"
            )
    return tokenizer


def _described(directory: pathlib.Path) -> dict[str, Any]:
    """The special tokens and the chat template that stand beside tokenizer.json."""
    config, special = (
        json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        for file in map(directory.joinpath, ("tokenizer_config.json", "special_tokens_map.json"))
    )
    # Where the config describes its tokens, the other file is a leftover.
    settings = special | config if "added_tokens_decoder" in config else config | special
    described = {
        name: value["content"] if isinstance(value, dict) else value
        for name, value in settings.items()
        if name in _SPECIAL and value is not None
    }
    template = directory / "chat_template.jinja"
    if template.is_file():
        described["chat_template"] = template.read_text(encoding="utf-8")
    elif config.get("chat_template"):
        described["chat_template"] = config["chat_template"]
    return described


def _check_ids(tokenizer: Any, file: pathlib.Path) -> None:
    """Raises ValueError where `tokenizer` reads code otherwise than the file that it is made of."""
    stored = tokenizers.Tokenizer.from_file(str(file))
    stored.no_truncation()
    stored.no_padding()
    begin = tokenizer.bos_token if tokenizer.bos_token in stored.get_vocab() else ""
    for text in (*CODE, *(begin + code for code in CODE)):
        ids = tokenizer.encode(text, add_special_tokens=False)
        if ids != stored.encode(text, add_special_tokens=False).ids:
            raise ValueError(
                f"the installed transformers gives {text!r} other ids than {file.name}"
            )


def write_json(file: pathlib.Path, value: dict[str, Any]) -> None:
    """Writes `value`, indented as in the hub's model directories."""
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
