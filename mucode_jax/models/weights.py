"""Safetensors files, single or sharded, read and written one tensor at a time.

A file is eight bytes of header length (little-endian), a JSON header with dtype, shape and byte
range per tensor, then the bytes. Tensors are mapped into memory, so that reading a slice touches
only its own pages, and written as they are fetched, so that no host ever holds a whole model.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import struct
from collections.abc import Callable, Sequence

import ml_dtypes
import numpy as np

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
    """A tensor in a file; `read` maps it (read-only, shared with the page cache)."""

    name: str
    file: pathlib.Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int

    def read(self) -> np.ndarray:
        return np.memmap(self.file, self.dtype, "r", self.offset, self.shape)


@dataclasses.dataclass(frozen=True)
class Outgoing:
    """A tensor to be written; `fetch` gives its values when its turn comes."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    fetch: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


def index(directory: pathlib.Path) -> dict[str, Stored]:
    """Every tensor of a model directory, by name.

    Raises:
      ValueError: no safetensors there, a file is missing or cut short, or a dtype is not one of
        float32, float16, bfloat16.
    """
    if (directory / _INDEX).is_file():
        try:
            listed = json.loads((directory / _INDEX).read_text(encoding="utf-8"))["weight_map"]
            files = sorted({str(pathlib.PurePath(name)) for name in listed.values()})
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"{directory / _INDEX} is damaged ({error})") from error
    elif (directory / _SINGLE).is_file():
        files = [_SINGLE]
    else:
        raise ValueError(
            f"{directory} holds neither {_SINGLE} nor {_INDEX}; weights in other formats"
            " (pytorch_model.bin) are to be saved as safetensors first"
        )
    found: dict[str, Stored] = {}
    for name in files:
        if not (directory / name).is_file():
            raise ValueError(f"{directory}: {_INDEX} names {name}, which is not there")
        found.update(_header(directory / name))
    return found


def _header(file: pathlib.Path) -> dict[str, Stored]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            raise ValueError(f"{file} is no safetensors file, or is cut short")
        try:
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            entries = []
            for name, entry in header.items():
                begin, end = map(int, entry["data_offsets"])
                shape = tuple(map(int, entry["shape"]))
                entries.append((name, str(entry["dtype"]), shape, begin, end))
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is damaged: its header is not readable") from error
    found = {}
    for name, kind, shape, begin, end in entries:
        if kind not in _DTYPES:
            raise ValueError(f"{file}: tensor {name} is {kind}; known are {', '.join(_DTYPES)}")
        needed = math.prod(shape) * _DTYPES[kind].itemsize
        if min(begin, *shape, 0) < 0 or end - begin != needed:
            raise ValueError(f"{file} is damaged: tensor {name} has not the size of its shape")
        if 8 + length + end > size:
            raise ValueError(f"{file} is cut short: tensor {name} ends behind the file")
        found[name] = Stored(name, file, _DTYPES[kind], shape, 8 + length + begin)
    return found


def write(
    tensors: Sequence[Outgoing],
    directory: pathlib.Path,
    *,
    shard_bytes: int = 5_000_000_000,
    keep: bool = True,
) -> None:
    """Writes tensors as one safetensors file, or several of at most `shard_bytes` with an index.

    Args:
      tensors: what to write, fetched in this order, one at a time.
      directory: an existing directory; weight files of an earlier export there are replaced.
      shard_bytes: the size above which a further file is begun.
      keep: whether to write what is fetched. Hosts that only take part in fetching pass False.
    """
    shards: list[list[Outgoing]] = [[]]
    for tensor in tensors:
        if shards[-1] and sum(t.nbytes for t in shards[-1]) + tensor.nbytes > shard_bytes:
            shards.append([])
        shards[-1].append(tensor)
    names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    if len(shards) == 1:
        names = [_SINGLE]
    if keep:
        for old in (*directory.glob("model*.safetensors"), directory / _INDEX):
            old.unlink(missing_ok=True)
    for name, shard in zip(names, shards, strict=True):
        _write_file(directory / name, shard, keep)
    if keep and len(shards) > 1:
        total = sum(tensor.nbytes for tensor in tensors)
        where = {t.name: n for n, shard in zip(names, shards, strict=True) for t in shard}
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=1)
        (directory / _INDEX).write_text(text + "\n", encoding="utf-8")


def _write_file(file: pathlib.Path, tensors: Sequence[Outgoing], keep: bool) -> None:
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
    if not keep:
        for tensor in tensors:
            tensor.fetch()
        return
    part = file.with_suffix(".part")
    with part.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            values = np.ascontiguousarray(tensor.fetch())
            assert values.dtype == tensor.dtype and values.shape == tensor.shape, tensor.name
            stream.write(memoryview(values.reshape(-1).view(np.uint8)))
    part.replace(file)
