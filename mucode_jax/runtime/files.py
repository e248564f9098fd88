"""Files that are written as a whole, and what is known of their contents."""

from __future__ import annotations

import hashlib
import os
import pathlib


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
