"""The fork server: inside the walls, it forks one process per program and clears up after it.

It never sees a program or a test: it is handed the ends of the program's channels, forks, and says
how the child ended, so that there is nothing in its memory for the next program to find. As process
1 of its own process table (at level namespaces) it can end whatever a program left behind. The two
sides keep in step: one request, one word that the judge is done, one report.
"""

from __future__ import annotations

import array  # noqa: F401  socket.recv_fds imports it when first called, which may be too late
import contextlib
import dataclasses
import gc
import math
import os
import random
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from . import inside, seccomp, starvation, streams, system

REQUEST = struct.Struct("!d?")  # seconds, stdio
REPORT = struct.Struct("!i?")  # wait status, whether the server killed it
DONE = b"D"  # the verdict is known: end it
ENDING = b"E"  # it closed its connection: it is ending by itself, and how it does is of interest
_ENDING_S = 0.5
_GRACE_S = 2.0  # the judge's own limit comes first
_POLL_MS = 5.0
_OUTPUT_BYTES = 16 << 20
_OPEN_FILES = 64
_PROCESSES = 64
_CONNECTION = 3  # where a program's process finds its connection to the judge


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
      address_space: bytes of address space, the interpreter's own included.
      private: the process table is this server's own (level namespaces).
      own_user: the number of processes of this user is this worker's alone.
      filtered: system-call filters work here.
      scratch: the folder for temporary files.
    """

    address_space: int
    private: bool
    own_user: bool
    filtered: bool
    scratch: str


def serve(control: socket.socket, namespace: dict[str, Any], limits: Limits) -> NoReturn:
    """Forks a process per request until `control` closes.

    Args:
      control: requests come here, each with the descriptors (connection, stdout, stderr[, stdin]);
        reports go back.
      namespace: the prelude; every program gets this state, untouched.
      limits: for every program.
    """
    main = _become_main(namespace, limits.scratch)
    _limit_all(limits)
    null = os.open(os.devnull, os.O_RDWR)
    # What is handed over gets higher numbers than those under which a program finds it.
    while os.dup(null) <= _CONNECTION:
        continue
    filter_program = seccomp.prepare(seccomp.program_filter()) if limits.filtered else None
    random.seed(0)  # two runs of one program draw the same numbers
    session = inside.Session(_CONNECTION, main, dict(main))
    gc.collect()
    gc.freeze()
    while True:
        data, handles, _, _ = socket.recv_fds(control, REQUEST.size, 4)
        if not data:
            os._exit(0)
        seconds, stdio = REQUEST.unpack(data)
        pid = system.bare_fork()
        if pid == 0:
            _become_program(handles, null, seconds, limits, filter_program)
            inside.run(session, stdio=stdio)
        for handle in handles:
            os.close(handle)
        most = seconds * (1 + starvation.MOST) + _GRACE_S
        status, killed = _wait(pid, control, most)
        clean = _sweep(limits)
        control.sendall(REPORT.pack(status, killed))
        if not clean:
            os._exit(1)  # the worker is replaced, and the scratch folder with it


def _become_main(namespace: dict[str, Any], scratch: str) -> dict[str, Any]:
    """Gives the process the state in which every program starts; the namespace of `__main__`."""
    main = type(sys)("__main__")
    main.__dict__.update(namespace, __builtins__=__builtins__)
    sys.modules["__main__"] = main
    for name in [name for name in sys.modules if name.split(".")[0] == "mucode_jax"]:
        del sys.modules[name]
    sys.argv[:] = sys.orig_argv[:] = [inside.FILE]
    os.environ.clear()
    os.environ.update(HOME=scratch, TMPDIR=scratch, PATH="/usr/bin:/bin", LANG="C.UTF-8")
    streams.install()
    return main.__dict__


def _become_program(
    handles: list[int],
    null: int,
    seconds: float,
    limits: Limits,
    filter_program: Callable[[int], None] | None,
) -> None:
    try:
        os.dup2(handles[3] if len(handles) > 3 else null, 0)
        os.dup2(handles[1], 1)
        os.dup2(handles[2], 2)
        os.dup2(handles[0], _CONNECTION)
        os.closerange(_CONNECTION + 1, _OPEN_FILES)
        cpu = math.ceil(seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
        if filter_program:
            filter_program(os.getpid())
    except BaseException:
        os._exit(1)  # before it said that it is ready: the judge knows that this is no one's fault


def _limit_all(limits: Limits) -> None:
    """What is the same for every program is set once, on the server, and inherited."""
    values = {
        resource.RLIMIT_FSIZE: (_OUTPUT_BYTES, _OUTPUT_BYTES),
        resource.RLIMIT_NOFILE: (_OPEN_FILES, _OPEN_FILES),
        resource.RLIMIT_CORE: (0, 0),
    }
    if sys.platform == "linux":
        values[resource.RLIMIT_AS] = (limits.address_space, limits.address_space)
        values[resource.RLIMIT_MEMLOCK] = (0, 0)
    if limits.own_user:
        values[resource.RLIMIT_NPROC] = (_PROCESSES, _PROCESSES)
    for kind, pair in values.items():
        resource.setrlimit(kind, pair)


def _wait(pid: int, control: socket.socket, seconds: float) -> tuple[int, bool]:
    """Waits for the child's end and for the judge to be done; kills at either's or time's call."""
    deadline = time.monotonic() + seconds
    poller = select.poll()
    poller.register(control, select.POLLIN)
    handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
    if handle >= 0:
        poller.register(handle, select.POLLIN)
    ended, done, killed = 0, False, False
    while not (ended and done):
        left = max(0.0, deadline - time.monotonic()) * 1000
        if handle < 0:
            left = min(left, _POLL_MS)  # elsewhere than on Linux: looked after now and then
        ready = dict(poller.poll(None if ended or (killed and handle >= 0) else left))
        if control.fileno() in ready:
            done = True
            word = control.recv(1)
            if not word:
                if not ended:
                    os.kill(pid, signal.SIGKILL)
                os._exit(0)
            deadline = time.monotonic() + (_ENDING_S if word == ENDING else 0.0)
        if not ended:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended and handle >= 0:
                poller.unregister(handle)
                os.close(handle)
        if not (ended or killed) and time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            killed = True
    return status, killed


def _sweep(limits: Limits) -> bool:
    """Ends what a program left running, empties the scratch folder; whether that succeeded."""
    if limits.private:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(-1, signal.SIGKILL)
            while True:
                os.waitpid(-1, 0)
        return _empty(limits.scratch)
    elif not limits.filtered and sys.platform == "linux":
        _kill_children()
    return True


def _kill_children() -> None:
    """Without filters a program may fork; its orphans become children of this subreaper."""
    while True:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            children = file.read().split()
        if not children:
            return
        for child in map(int, children):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _empty(scratch: str) -> bool:
    """Makes the scratch folder what it was at first; whether that succeeded."""
    _open_folder(scratch, 0o1777)
    if _is_clean(scratch):
        return True
    _clean(scratch)
    return _is_clean(scratch)


def _open_folder(path: str, mode: int) -> None:
    with contextlib.suppress(PermissionError):  # it is another's: no program can have closed it
        os.chmod(path, mode)


def _is_clean(scratch: str) -> bool:
    with os.scandir(scratch) as entries:
        return next(entries, None) is None


def _clean(scratch: str) -> None:
    """Empties the scratch folder, however deep and however closed: folders are first moved up."""
    number = 0
    with contextlib.suppress(OSError):
        while entries := list(os.scandir(scratch)):
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                _open_folder(entry.path, 0o700)
                for inner in list(os.scandir(entry.path)):
                    if inner.is_dir(follow_symlinks=False):
                        number += 1
                        _open_folder(inner.path, 0o700)
                        os.rename(inner.path, f"{scratch}/\x01{number}")
                    else:
                        os.unlink(inner.path)
                os.rmdir(entry.path)


def become_subreaper() -> None:
    """Orphans of this process's descendants become its children."""
    if sys.platform == "linux":
        system.prctl("subreaper", system.PR_SET_CHILD_SUBREAPER, 1)
