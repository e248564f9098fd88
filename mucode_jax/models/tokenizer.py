"""Tokenizers of model directories."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

Path = str | pathlib.Path


def load_tokenizer(directory: Path) -> Any:
    """The tokenizer of a model directory, with its chat template (`transformers`).

    Raises:
      ValueError: there is none, or it is damaged.
    """
    directory = pathlib.Path(directory)
    if not any((directory / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise ValueError(f"{directory} holds no tokenizer (tokenizer.json or tokenizer.model)")
    # Nothing here needs torch; transformers would say at import that it is not there.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(directory))
        # What is too long for a model is refused by whoever knows its context.
        tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = (
            True
        )
        return tokenizer
    except Exception as error:  # the layers below raise all kinds for a damaged file
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"the tokenizer of {directory}, or its config.json, cannot be read ({reason})"
        ) from error


def write_json(file: pathlib.Path, value: dict[str, Any]) -> None:
    """Writes `value`, indented as in the hub's model directories."""
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
