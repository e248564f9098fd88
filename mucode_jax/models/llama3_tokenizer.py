"""A Hugging Face tokenizer of the files that Meta publishes: Llama 3's ranks and special tokens."""

from __future__ import annotations

import base64
import json
import pathlib
import shutil
from collections.abc import Mapping

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from mucode_jax.models.tokenizer import write_json

_BEGIN, _END, _PAD = "<|begin_of_text|>", "<|eot_id|>", "<|finetune_right_pad_id|>"
_ENDS = ("<|end_of_text|>", "<|eom_id|>", _END)


def files(source: pathlib.Path) -> list[pathlib.Path]:
    """What `build` reads of a folder: ranks, special tokens, chat template, licence texts.

    Raises:
      ValueError: something of it is missing.
    """
    found = []
    for pattern in ("tokenizer.model", "special_tokens.json", "*.jinja"):
        matching = sorted(source.glob(pattern))
        if len(matching) != 1:
            raise ValueError(
                f"{source} holds {len(matching)} of {pattern}; a Llama-3 tokenizer is made of "
                "tokenizer.model, special_tokens.json and one chat template, *.jinja"
            )
        found += matching
    return found + sorted(source.glob("LICENSE*"))


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
    model, names, template, *licences = files(source)
    try:
        lines = model.read_bytes().splitlines()
        ranks = {base64.b64decode(token): int(rank) for token, rank in (ln.split() for ln in lines)}
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


def _tokenizer(ranks: Mapping[bytes, int], pattern: str, special: Mapping[str, int]) -> Tokenizer:
    # Byte-level BPE writes each byte as a printable character.
    written = _byte_characters()

    def text(token: bytes) -> str:
        return "".join(written[byte] for byte in token)

    # Ranks say which two neighbours to join first: those whose union has the lowest. A merge list
    # says the same when every way to make a token stands in it, ordered by the token's rank.
    merges = [
        (rank, ranks[token[:cut]], ranks[token[cut:]], token[:cut], token[cut:])
        for token, rank in ranks.items()
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    ]
    merges.sort()
    tokenizer = Tokenizer(
        models.BPE(
            {text(token): rank for token, rank in ranks.items()},
            [(text(left), text(right)) for *_, left, right in merges],
            ignore_merges=True,  # a whole word that is a token is that token
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    names = sorted(special, key=special.__getitem__)
    tokenizer.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BEGIN} $A",
        pair=f"{_BEGIN} $A {_BEGIN} $B",
        special_tokens=[(_BEGIN, special[_BEGIN])],
    )
    for name, token_id in special.items():
        if tokenizer.token_to_id(name) != token_id:
            raise ValueError(f"special token {name} would not get id {token_id}")
    return tokenizer


def _byte_characters() -> dict[int, str]:
    """Byte -> character: printable ones as they are, the others from 256 on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(hidden)}
