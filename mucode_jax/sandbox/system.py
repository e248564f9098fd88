"""System calls that Python has no name for, through ctypes. x86-64 Linux numbers."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
# Keeps the interpreter's lock over the call, as a fork must.
_libc_fork = ctypes.PyDLL(None).fork

PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63
CAP_DAC_READ_SEARCH = 2  # reads every file, writes none


def _checked(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def syscall(name: str, number: int, *arguments: int | bytes | ctypes.Array | None) -> int:
    """Calls system call `number`; raises OSError that names it."""
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(name, _libc.syscall(ctypes.c_long(number), *words))


def prctl(name: str, option: int, *arguments: int | ctypes.Array) -> int:
    """Calls prctl, the missing arguments being 0; raises OSError that names it."""
    return prepared_prctl(name, option, *arguments)()


def prepared_prctl(name: str, option: int, *arguments: int | ctypes.Array) -> Callable[[], int]:
    """`prctl` with its arguments converted beforehand, for a process in which every page counts."""
    padded = [*arguments, 0, 0, 0, 0][:4]
    words = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in padded]
    call = functools.partial(_libc.prctl, ctypes.c_int(option), *words)
    return lambda: _checked(name, call())


def bare_fork() -> int:
    """fork(2) without Python's at-fork hooks; for a process of one thread only.

    The hooks seed generators anew and rebuild the locks of threads that are not there; they cost as
    much as the fork itself, and would make two runs of one program differ.
    """
    return _checked("fork", _libc_fork())


def unshare(flags: int) -> None:
    """Leaves the namespaces named by `flags` for new ones."""
    _checked("unshare", _libc.unshare(ctypes.c_int(flags)))


def enter_namespace(handle: int) -> None:
    """Moves this process of one thread to the namespace that `handle` is open on."""
    _checked("setns", _libc.setns(ctypes.c_int(handle), ctypes.c_int(0)))


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2)."""
    words = [text.encode() or None for text in (source, target, kind, options)]
    result = _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])
    _checked(f"mount {target}", result)


def unmount(target: str, flags: int) -> None:
    """umount2(2)."""
    _checked(f"umount {target}", _libc.umount2(target.encode(), ctypes.c_int(flags)))


def drop_capabilities(*kept: int) -> None:
    """Gives up every capability but those kept, for good, in this process and all it starts."""
    prctl("no_new_privs", PR_SET_NO_NEW_PRIVS, 1)
    for capability in range(_LAST_CAPABILITY + 1):
        # Without CAP_SETPCAP there is nothing to drop from, beyond the last known one neither.
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            break
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    mask = sum(1 << capability for capability in kept)
    _checked("capset", _libc.capset(header, (ctypes.c_uint32 * 6)(mask, mask)))


def is_supported() -> bool:
    """Whether the numbers in this package are those of this machine."""
    return sys.platform == "linux" and os.uname().machine == "x86_64" and sys.maxsize > 2**32
