"""The standard streams of a program: as Python itself makes them, under all their names.

Python runs as under a judge: standard input and output are no terminals, UTF-8, and what is
undecodable passes through as in the C locale. `/dev/stdin` and its kind are the same streams at
every level of isolation, with or without a /proc that has them.
"""

from __future__ import annotations

import builtins
import functools
import io
import os
import sys
from typing import Any

NAMES = {
    **{f"/dev/{name}": i for i, name in enumerate(("stdin", "stdout", "stderr"))},
    **{f"/dev/fd/{i}": i for i in range(3)},
    **{f"/proc/self/fd/{i}": i for i in range(3)},
}
_open, _os_open = io.open, os.open


def install() -> None:
    """Gives this process its streams, and the ways to open them by name."""
    sys.stdin = sys.__stdin__ = _stream(0, "r", "surrogateescape")
    sys.stdout = sys.__stdout__ = _stream(1, "w", "surrogateescape")
    sys.stderr = sys.__stderr__ = _stream(2, "w", "backslashreplace")
    builtins.open = io.open = open_by_name
    os.open = open_handle_by_name


def _stream(handle: int, mode: str, errors: str) -> io.TextIOWrapper:
    buffer: Any = _open(handle, mode + "b", closefd=False)
    buffer.raw.name = f"<{('stdin', 'stdout', 'stderr')[handle]}>"
    stream: Any = io.TextIOWrapper(buffer, "utf-8", errors, "\n", line_buffering=handle == 2)
    stream.mode = mode
    return stream


def _named(path: Any) -> int | None:
    """The stream that a path names."""
    return NAMES.get(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else None


@functools.wraps(_open)
def open_by_name(file: Any, *arguments: Any, **named: Any) -> Any:
    """`open`."""
    if (number := _named(file)) is not None and "opener" not in named and len(arguments) < 7:
        named["opener"] = lambda *_: os.dup(number)
    return _open(file, *arguments, **named)


@functools.wraps(_os_open)
def open_handle_by_name(path: Any, *arguments: Any, **named: Any) -> int:
    """`os.open`."""
    if (number := _named(path)) is not None:
        return os.dup(number)
    return _os_open(path, *arguments, **named)
