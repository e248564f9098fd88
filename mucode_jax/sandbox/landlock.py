"""Landlock: without any privilege a process gives up the file system and TCP but for what is named.

Covers: opening, listing, creating, removing, renaming and truncating files; executing; TCP connect
and bind (kernel 6.7); signals and abstract sockets to the outside (kernel 6.12). Does not cover:
whether a path exists and what stat says of it; chmod, chown and file times, which the system-call
filter refuses.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator, Sequence

from . import system

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
# By ABI version: how many file-system rights there are to give up.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_BOTH_TCP_RIGHTS, _BOTH_SCOPES = 0b11, 0b11


def abi() -> int:
    """The version that the kernel speaks; raises OSError where it speaks none."""
    return system.syscall("landlock", _CREATE_RULESET, None, 0, _VERSION)


def _readable(path: str, hidden: str) -> Iterator[tuple[str, int]]:
    """(path, rights) that open everything beneath `path` but `hidden`, whose name stays visible."""
    if path == hidden:
        return
    if not hidden.startswith(path.rstrip("/") + "/"):
        yield path, _READ_FILE | _READ_DIR
        return
    yield path, _READ_DIR
    for entry in sorted(os.listdir(path)):
        yield from _readable(os.path.join(path, entry), hidden)


def restrict(readable: Sequence[str], writable_devices: Sequence[str], hidden: str) -> None:
    """Leaves this process only the reading of `readable` and the use of `writable_devices`.

    Args:
      readable: existing files and folders, resolved.
      writable_devices: device files such as /dev/null.
      hidden: a folder that stays closed although it lies beneath a readable one.

    Raises:
      OSError: the kernel has no Landlock, or it is disabled.
    """
    version = abi()
    rights = (1 << _RIGHTS.get(version, 16)) - 1
    words = [rights, _BOTH_TCP_RIGHTS, _BOTH_SCOPES][: 1 + (version >= 4) + (version >= 6)]
    attributes = struct.pack(f"{len(words)}Q", *words)
    ruleset = system.syscall("landlock", _CREATE_RULESET, attributes, len(attributes), 0)
    try:
        rules = [rule for path in readable for rule in _readable(path, hidden)]
        rules += [(path, _READ_FILE | _WRITE_FILE) for path in writable_devices]
        for path, allowed in rules:
            try:
                handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue  # a dangling link or a closed folder: nobody reads it anyway
            try:
                if not os.path.isdir(path):
                    allowed &= ~_READ_DIR
                rule = ctypes.create_string_buffer(struct.pack("=Qi", allowed, handle), 12)
                system.syscall("landlock rule", _ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
            finally:
                os.close(handle)
        system.prctl("no_new_privs", system.PR_SET_NO_NEW_PRIVS, 1)
        system.syscall("landlock restrict", _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
