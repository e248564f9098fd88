#!/usr/bin/env bash
# transformers 5.24.0, tokenizers 0.23.3.
#
# `AutoTokenizer.from_pretrained` of a directory whose tokenizer_config.json names a class of
# transformers' own, like GPT2Tokenizer or LlamaTokenizer, does not use all of its tokenizer.json: it
# takes the vocabulary and merges, and builds normalizer and pre-tokenizer as that class has them.
# A step that splits digits is lost under GPT2Tokenizer; under LlamaTokenizer a text that begins with
# a blank gets the ids of the text without it. There is no warning. With PreTrainedTokenizerFast in
# its place the ids are the file's.
#
# One would expect the ids of tokenizer.json, which the `tokenizers` library gives of the same file:
# a model that was trained with them reads other tokens than it learned.
#
# Output:
#   PreTrainedTokenizerFast of '12': the file [16, 17], AutoTokenizer [16, 17]
#   PreTrainedTokenizerFast of ' ab': the file [3, 7], AutoTokenizer [3, 7]
#   GPT2Tokenizer of '12': the file [16, 17], AutoTokenizer [256]
#   LlamaTokenizer of ' ab': the file [3, 7], AutoTokenizer [7]
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 tokenizers==0.23.3

HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error \
  "$folder/venv/bin/python" - "$folder" <<'PY'
import json
import pathlib
import sys

import tokenizers
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

print("transformers", transformers.__version__, "tokenizers", tokenizers.__version__)
directory = pathlib.Path(sys.argv[1])


def ids(tokenizer, name, text):
    """By the file itself, and by the tokenizer that AutoTokenizer makes of its directory."""
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    auto = transformers.AutoTokenizer.from_pretrained(str(directory))
    own = tokenizer.encode(text, add_special_tokens=False).ids
    read = auto(text, add_special_tokens=False)["input_ids"]
    print(f"{name} of {text!r}: the file {own}, AutoTokenizer {read}")
    return own, read


def differ(pair):
    return pair[0] != pair[1]


(directory / "config.json").write_text(json.dumps({"model_type": "llama"}))
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
vocabulary = {token: i for i, token in enumerate([*alphabet, "12"])}
digits = Tokenizer(models.BPE(vocabulary, [("1", "2")]))
digits.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)

tokens = ["<unk>", "<s>", "</s>", "\u2581", "a", "b", "\u2581a", "\u2581ab"]
vocabulary = {token: i for i, token in enumerate(tokens)}
merges = [("\u2581", "a"), ("\u2581a", "b")]
blanks = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
blanks.normalizer = normalizers.Sequence(
    [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
)

plain = "PreTrainedTokenizerFast"
same = [ids(digits, plain, "12"), ids(blanks, plain, " ab")]
other = [ids(digits, "GPT2Tokenizer", "12"), ids(blanks, "LlamaTokenizer", " ab")]
sys.exit(any(map(differ, same)) or not all(map(differ, other)))
PY
