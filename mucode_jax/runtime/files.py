"""Files that are written as a whole, and what is known of their contents."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pathlib

CHECKSUMS = "checksums.json"  # in a work directory: what `Checksums` remembers


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes `text` so that a reader sees the old file or the new one, never a part.

    What is not a regular file (a terminal, /dev/null) is written directly.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
    except OSError:
        part.unlink(missing_ok=True)
        raise
    os.replace(part, path)


def checksum(path: pathlib.Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


class Checksums:
    """Checksums of files, each computed once while its size, time of change and inode stay.

    They are remembered in a file. Where that is missing or damaged, all are computed again.
    """

    def __init__(self, folder: pathlib.Path, *, verify: bool = False) -> None:
        """
        Args:
          folder: where `CHECKSUMS` is kept.
          verify: what earlier processes have computed is not trusted.
        """
        self._file = folder / CHECKSUMS
        self._known: dict[str, str] = {}  # algorithm and state of a file -> hexadecimal digest
        self._is_saved = True
        if not verify:
            try:
                known = json.loads(self._file.read_text())
                self._known = {str(key): str(value) for key, value in known.items()}
            except (OSError, ValueError, AttributeError):
                pass

    def sha256(self, path: pathlib.Path) -> str:
        """In hexadecimal."""
        return self._digest("sha256", path)

    def md5(self, path: pathlib.Path) -> str:
        """In base 64, as buckets show it."""
        return base64.b64encode(bytes.fromhex(self._digest("md5", path))).decode()

    def _digest(self, algorithm: str, path: pathlib.Path) -> str:
        with open(path, "rb") as f:
            s = os.fstat(f.fileno())
            key = f"{algorithm} {s.st_dev} {s.st_ino} {s.st_size} {s.st_mtime_ns}"
            if key not in self._known:
                self._known[key] = hashlib.file_digest(f, algorithm).hexdigest()
                self._is_saved = False
            return self._known[key]

    def save(self) -> None:
        """Remembers what was computed, where anything was."""
        if not self._is_saved:
            write_atomically(self._file, json.dumps(self._known, indent=0))
            self._is_saved = True
