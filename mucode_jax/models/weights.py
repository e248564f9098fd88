"""Safetensors files, single or sharded, read and written one tensor at a time.

The package `safetensors` reads: a file is mapped, and a slice of a tensor touches only its own
pages. We write: the package takes all tensors of a file at once, here each is fetched when its turn
comes, so that no host ever holds a whole model.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import struct
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open

_DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor in a file; `read` takes slices, one per axis, and copies what they name."""

    name: str
    file: pathlib.Path
    dtype: np.dtype
    shape: tuple[int, ...]
    read: Callable[[tuple[slice, ...]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Outgoing:
    """A tensor to be written; `fetch` gives its values when its turn comes."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    fetch: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def are_in(directory: pathlib.Path) -> bool:
    """Whether a directory holds weights in this format."""
    return any((directory / name).is_file() for name in (_SINGLE, _INDEX))


def refuse_adapter(directory: pathlib.Path) -> None:
    """Raises ValueError where a directory holds a PEFT adapter: it says how to merge it."""
    if (directory / "adapter_config.json").is_file():
        raise ValueError(
            f"{directory} holds a PEFT adapter (adapter_config.json), not a whole model; merge it"
            " into its base first: peft.AutoPeftModelForCausalLM.from_pretrained(ADAPTER)"
            ".merge_and_unload().save_pretrained(DIR), and the tokenizer's files beside it"
        )


def index(directory: pathlib.Path) -> dict[str, Stored]:
    """Every tensor of a model directory, by name.

    Where there is an index, it decides which file a tensor is read from: others may hold an old
    copy.

    Raises:
      ValueError: no safetensors there, a file is missing or damaged, the index names what its file
        does not hold, or a dtype is not one of float32, float16, bfloat16.
    """
    if not are_in(directory):
        refuse_adapter(directory)
        raise ValueError(
            f"{directory} holds neither {_SINGLE} nor {_INDEX}; weights in other formats"
            " (pytorch_model.bin) must be saved as safetensors first"
        )
    if not (directory / _INDEX).is_file():
        return _open(directory / _SINGLE)
    try:
        weight_map = json.loads((directory / _INDEX).read_text(encoding="utf-8"))["weight_map"]
        file_of = {tensor: directory / name for tensor, name in weight_map.items()}
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{directory / _INDEX} is damaged ({error})") from error
    opened = {}
    for file in sorted(set(file_of.values())):
        if not file.is_file():
            raise ValueError(f"{directory}: {_INDEX} names {file.name}, which is not there")
        opened[file] = _open(file)
    for tensor, file in file_of.items():
        if tensor not in opened[file]:
            raise ValueError(f"{directory}: {_INDEX} names {tensor}, which {file.name} lacks")
    return {tensor: opened[file][tensor] for tensor, file in file_of.items()}


def _open(file: pathlib.Path) -> dict[str, Stored]:
    """Every tensor of a file, by name."""
    try:
        tensors: Any = safe_open(str(file), framework="numpy")
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged, or is cut short ({error})") from error
    stored = {}
    for name in tensors.keys():  # noqa: SIM118 (it is no mapping)
        values = tensors.get_slice(name)
        code = values.get_dtype()
        if code not in _DTYPES:
            raise ValueError(f"{file}: tensor {name} is {code}; known are {', '.join(_DTYPES)}")
        shape = tuple(values.get_shape())
        stored[name] = Stored(name, file, _DTYPES[code], shape, values.__getitem__)
    return stored


def write(
    tensors: Sequence[Outgoing],
    directory: pathlib.Path,
    *,
    shard_bytes: int = 5_000_000_000,
    keep: bool = True,
) -> None:
    """Writes tensors as one safetensors file, or several of at most `shard_bytes` with an index.

    Args:
      tensors: what to write, fetched one at a time, file by file.
      directory: an existing directory; weight files of an earlier export there are replaced.
      shard_bytes: the size above which a further file is begun.
      keep: whether to write what is fetched. Hosts that only take part in fetching pass False.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    split = split_state_dict_into_shards_factory(
        by_name,
        get_storage_size=lambda tensor: tensor.nbytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_bytes,
    )
    if keep:
        for old in (*directory.glob("model*.safetensors"), directory / _INDEX):
            old.unlink(missing_ok=True)
    for file, names in split.filename_to_tensors.items():
        shard = [by_name[name] for name in names]
        if keep:
            _write_file(directory / file, shard)
        else:
            for tensor in shard:
                tensor.fetch()
    if keep and split.is_sharded:
        described = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        text = json.dumps(described, indent=1) + "\n"
        (directory / _INDEX).write_text(text, encoding="utf-8")


def _write_file(file: pathlib.Path, tensors: Sequence[Outgoing]) -> None:
    """The length of the header (8 bytes, little-endian), the header in JSON, the tensors' bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": tensor.shape,
            "data_offsets": (end, end + tensor.nbytes),
        }
        end += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    part = file.with_suffix(".part")
    with part.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            values = np.ascontiguousarray(tensor.fetch())
            assert values.dtype == tensor.dtype and values.shape == tensor.shape, tensor.name
            stream.write(memoryview(values.reshape(-1).view(np.uint8)))
    part.replace(file)
