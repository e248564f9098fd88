"""A randomly initialised base generator: every path of a real run without a checkpoint."""

from __future__ import annotations

import dataclasses
import pathlib

import jax

from mucode_jax.core import keys
from mucode_jax.models import huggingface, llama, llama3_tokenizer
from mucode_jax.models.llama import LlamaConfig
from mucode_jax.runtime.workdir import Workdir


def generator(
    workdir: Workdir, config: LlamaConfig, tokenizer: pathlib.Path, seed: int
) -> pathlib.Path:
    """The directory of a generator with random parameters, a stage of the work directory.

    Args:
      workdir: where it is made.
      config: its shape and dtype.
      tokenizer: a folder with the files of a Llama-3 tokenizer (`models.llama3_tokenizer`).
      seed: of its parameters.

    Raises:
      ValueError: the tokenizer cannot be made of what is there.
    """
    files = llama3_tokenizer.files(tokenizer)
    settings = {
        "shape": dataclasses.asdict(dataclasses.replace(config, remat=False)),  # decides nothing
        "seed": seed,
        "tokenizer": {file.name: workdir.checksums.sha256(file) for file in files},
    }

    def make(path: pathlib.Path) -> dict[str, int]:
        llama3_tokenizer.build(tokenizer, path / "tokenizer")
        key = jax.random.wrap_key_data(keys.key_data(seed, "random base"))
        huggingface.save_generator(
            llama.init(config, key), config, path / "model", tokenizer_from=path / "tokenizer"
        )
        return {}

    return workdir.stage("base/random", settings, {}, make).path / "model"
