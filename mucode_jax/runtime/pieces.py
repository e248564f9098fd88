"""The pieces of a stage while it is made: one record per line, each with a checksum."""

from __future__ import annotations

import json
import pathlib
import zlib
from typing import Any

from mucode_jax.runtime import hosts

Json = Any
FOLDER = "pieces"  # in the stage's folder


class Pieces:
    """The records that are finished, readable after any interruption.

    Each host appends to a file of its own. A later session reads the files of all hosts, however
    many there were.
    """

    def __init__(self, stage: pathlib.Path) -> None:
        self._folder = stage / FOLDER
        self._path = self._folder / f"{hosts.index()}.jsonl"
        self._file = None

    def read(self) -> list[Json]:
        """Every whole record of every host; returns when all hosts have read."""
        self._folder.mkdir(parents=True, exist_ok=True)
        records = _read(self._path, repair=True)
        for path in sorted(self._folder.glob("*.jsonl")):
            if path != self._path:
                records += _read(path)
        hosts.wait("what is there already")
        return records

    def append(self, record: Json) -> None:
        """Writes one record through to the file; OSError where the disk does not take all of it."""
        if self._file is None:
            # A buffer would be written again, and fail again, when the file is closed.
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 (see `close`)
        rest = memoryview(_line(json.dumps(record, separators=(",", ":")).encode()))
        while rest:
            rest = rest[self._file.write(rest) :]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def gather(self) -> list[Json]:
        """Every record of every host; for the first host, once all have finished."""
        return [
            record
            for path in sorted(self._folder.glob("*.jsonl"))
            for record in _read(path, repair=True)
        ]


def _line(record: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(record), record)


def _read(path: pathlib.Path, repair: bool = False) -> list[Json]:
    """The records before the first that is cut short or damaged; `repair` removes the rest."""
    if not path.exists():
        return []
    records, end = [], 0
    with open(path, "rb+" if repair else "rb") as f:
        for line in f:
            record = line[9:-1]
            if line != _line(record):
                break
            records.append(json.loads(record))
            end += len(line)
        if repair:
            f.truncate(end)
    return records
