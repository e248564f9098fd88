"""A private root, process table and network, made of Linux namespaces.

Inside there is: the interpreter and the system's libraries, read-only; /dev/null, /dev/zero,
/dev/random and /dev/urandom; a /tmp of 16 MiB in memory. There is no /proc, no other process, no
network interface that is up, and nothing of the operator's files. (The layout is bubblewrap's: the
new root is entered first, so that what is bound may lie below any folder, /tmp too.)
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from . import streams, system

_NEW_MOUNTS, _NEW_CGROUPS, _NEW_NAMES, _NEW_IPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
_NEW_USERS, _NEW_PIDS, _NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
_NOSUID, _NODEV, _NOEXEC, _BIND, _RECURSIVE, _PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
_PIVOT_ROOT, _MOUNT_SETATTR = 155, 442
_AT_RECURSIVE = 0x8000
_ATTR_READ_ONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC = 1, 2, 4, 8
_DETACH = 2
_STAGE = "/tmp"  # any folder that always exists: it is covered in the private mount table only
_OLD = "/old"


def leave() -> None:
    """Moves this process to new namespaces; its next child is process 1 of a new process table.

    Raises:
      OSError: the host or its container refuses namespaces.
    """
    user, group = os.getuid(), os.getgid()
    flags = _NEW_MOUNTS | _NEW_PIDS | _NEW_NETWORK | _NEW_IPC | _NEW_NAMES | _NEW_CGROUPS
    system.unshare(flags if user == 0 else flags | _NEW_USERS)
    if user:
        lines = {
            "setgroups": "deny",
            "uid_map": f"{user} {user} 1",
            "gid_map": f"{group} {group} 1",
        }
        for name, line in lines.items():
            with open(f"/proc/self/{name}", "w") as file:
                file.write(line)


def handles() -> list[int]:
    """Descriptors with which another process may `join` this one's users (if new) and mounts."""
    names = ("mnt",) if os.getuid() == 0 else ("user", "mnt")
    return [os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in names]


def join(handles: Sequence[int], scratch: str) -> None:
    """Sees what the process sees that gave the handles; begins in its scratch folder."""
    for handle in handles:
        system.enter_namespace(handle)
    os.chdir(scratch)
    os.umask(0)  # as root it is another user than the programs, who may change what it writes


def enter_root(
    readable: Sequence[str], devices: Sequence[str], hidden: str, scratch: str, *, shared: bool
) -> None:
    """Makes and enters the private root.

    Args:
      readable: existing files and folders; bound read-only under the same names.
      devices: device files; bound.
      hidden: a folder that is covered by an empty one where it would be visible.
      scratch: the name of the only folder that can be written, 16 MiB in memory.
      shared: other users write there too, and remove each other's files.

    Raises:
      OSError: a mount was refused (AppArmor on Ubuntu 24.04), or the kernel is older than 5.12.
    """
    real = {path: os.path.realpath(path) for path in (*readable, *devices)}
    concealed = os.path.realpath(hidden)
    system.mount("", "/", "", _RECURSIVE | _PRIVATE)
    system.mount("root", _STAGE, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    os.mkdir(_STAGE + _OLD)
    os.chdir(_STAGE)
    system.syscall("pivot_root", _PIVOT_ROOT, b".", b"." + _OLD.encode())
    os.chdir("/")
    bound: list[str] = []
    for path in sorted(readable):
        if not any(_is_beneath(path, other) for other in bound):
            bound.append(path)
            _bind(real[path], path, _ATTR_READ_ONLY | _ATTR_NOSUID | _ATTR_NODEV)
            if _is_beneath(concealed, real[path]):
                cover = path + concealed[len(real[path]) :]
                system.mount("empty", cover, "tmpfs", _NOSUID | _NODEV, "size=4k,mode=555")
                _restrict(cover, _ATTR_READ_ONLY, recursive=False)
    for path in devices:
        _bind(real[path], path, _ATTR_NOSUID | _ATTR_NOEXEC)
    os.mkdir("/dev/fd")
    for path in (x for x in streams.NAMES if x.startswith("/dev/")):
        with open(path, "w"):
            pass  # whoever opens it gets the stream
    os.mkdir(scratch)
    options = f"size=16m,nr_inodes=1024,mode={777 if shared else 1777}"
    system.mount("scratch", scratch, "tmpfs", _NOSUID | _NODEV | _NOEXEC, options)
    system.unmount(_OLD, _DETACH)
    os.rmdir(_OLD)
    _restrict("/", _ATTR_READ_ONLY | _ATTR_NOSUID | _ATTR_NODEV, recursive=False)


def _is_beneath(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _bind(source: str, path: str, attributes: int) -> None:
    source = _OLD + source
    if os.path.isdir(source):
        os.makedirs(path, 0o755, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        with open(path, "w"):
            pass
    system.mount(source, path, "", _BIND | _RECURSIVE)
    _restrict(path, attributes, recursive=True)


def _restrict(path: str, attributes: int, *, recursive: bool) -> None:
    words = struct.pack("4Q", attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    here = -100  # AT_FDCWD
    system.syscall("mount_setattr", _MOUNT_SETATTR, here, path.encode(), flags, words, len(words))
