"""The three levels of isolation: what each is made of, whether this machine has it, entering it."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Callable, Mapping

from . import landlock, namespaces, seccomp, system

LEVELS = ("namespaces", "landlock", "rlimits")  # strongest first

_SYSTEM_LIBRARIES = (
    *("/usr/lib", "/usr/lib64", "/usr/lib32", "/usr/local/lib", "/lib", "/lib64", "/lib32"),
    *("/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo"),
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
# Above the ranges that container managers hand out; one user a worker, so that the limit on the
# number of processes counts one worker's alone.
_FIRST_USER = 0x70000000
_NOBODY = 65534

_HINTS = {
    "namespaces": (
        "run as root, or allow user namespaces (Ubuntu 24.04: sysctl -w "
        "kernel.apparmor_restrict_unprivileged_userns=0; Docker: --security-opt seccomp=unconfined "
        "--security-opt apparmor=unconfined)"
    ),
    "landlock": "use Linux 5.13 or newer on x86-64 with landlock among the LSMs (boot option lsm=)",
}


class IsolationError(ValueError):
    """This machine does not have the isolation that is asked for."""


@dataclasses.dataclass(frozen=True)
class View:
    """What a program may see of the file system.

    Attributes:
      readable: files and folders of libraries.
      devices: device files.
      hidden: this package, which may hold tests and lies perhaps beneath a readable folder.
      scratch: at `namespaces`, the folder that it may write.
    """

    readable: tuple[str, ...]
    devices: tuple[str, ...]
    hidden: str
    scratch: str


def view() -> View:
    """The interpreter's and the system's libraries, as far as they exist here."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    paths = {sysconfig.get_path(name) for name in names} | set(site.getsitepackages())
    numpy = importlib.util.find_spec("numpy")
    if numpy and numpy.origin:
        paths.add(os.path.dirname(os.path.dirname(numpy.origin)))
    # Conda and pyenv keep the shared libraries of extension modules beside the standard library.
    beside = os.path.dirname(sysconfig.get_path("stdlib"))
    if os.path.basename(beside) in ("lib", "lib64"):
        paths.add(beside)
    paths.update(_SYSTEM_LIBRARIES)
    present = sorted({os.path.abspath(path) for path in paths if path and os.path.exists(path)})
    devices = tuple(path for path in _DEVICES if os.path.exists(path))
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    taken = any(path.startswith("/tmp/") for path in present)  # by a virtual environment
    return View(tuple(present), devices, os.path.realpath(here), "/scratch" if taken else "/tmp")


def enter(
    level: str, seen: View, share: Callable[[list[int]], None] | None = None
) -> dict[str, object]:
    """Confines this process, a child forked for it, and all that it will start, for good.

    At `namespaces` it is a child of the calling process that returns, as process 1 of its own
    table; the calling process ends.

    Args:
      level: one of `LEVELS`.
      seen: what may be seen of the file system.
      share: given the handles for `namespaces.join` where the scratch folder is to be shared; at
        `namespaces` alone.

    Returns:
      What was reached, for the records: level, seccomp, landlock (ABI version or 0), user.

    Raises:
      OSError: a mechanism of this level is refused, with its name.
    """
    reached: dict[str, object] = {"level": level, "seccomp": False, "landlock": 0}
    if level != "rlimits" and not system.is_supported():
        machine = f"{sys.platform} on {os.uname().machine}"
        raise OSError(f"system-call filters are written for Linux on x86-64, this is {machine}")
    number = os.getpid()
    if level == "namespaces":
        namespaces.leave()
        if os.fork():
            os._exit(0)
        if share:
            share(namespaces.handles())
        namespaces.enter_root(
            seen.readable, seen.devices, seen.hidden, seen.scratch, shared=share is not None
        )
    # An interpreter in root's own home can be read by no other user.
    closed = not all(_is_open_to_all(path) for path in seen.readable)
    kept = [system.CAP_DAC_READ_SEARCH] if closed and level == "rlimits" else []
    if kept and os.getuid() == 0:
        system.prctl("keepcaps", system.PR_SET_KEEPCAPS, 1)
    reached["user"] = _leave_root_user(level, number, closed=closed)
    if level == "landlock":
        reached["landlock"] = landlock.abi()
        readable = tuple(dict.fromkeys(os.path.realpath(path) for path in seen.readable))
        landlock.restrict(readable, seen.devices, seen.hidden)
    os.chdir(seen.scratch if level == "namespaces" else "/")
    if sys.platform == "linux":
        system.prctl("dumpable", system.PR_SET_DUMPABLE, 0)
        try:
            system.drop_capabilities(*kept if os.getuid() else ())
        except OSError:
            raise OSError(
                "the interpreter lies where root alone may read, and this root cannot pass that "
                "right on; install Python outside of root's home"
            ) from None
    if system.is_supported():
        try:
            seccomp.prepare(seccomp.server_filter(file_attributes=level == "namespaces"))(0)
            reached["seccomp"] = True
        except OSError:
            if level != "rlimits":
                raise
    return reached


def _leave_root_user(level: str, number: int, *, closed: bool) -> str:
    """Root becomes a user who owns nothing; at `landlock` only where such a one may read on.

    Landlock closes root's own files as well, and an interpreter below /root would be lost.
    """
    if os.getuid() != 0:
        return "same"
    if level == "landlock" and closed:
        return "root"
    os.setgroups([])
    own = _FIRST_USER + number
    for user in (own, _NOBODY):
        try:
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            return "own" if user == own else "nobody"
        except OSError:
            continue  # the container maps fewer users
    raise OSError("setuid: this root may become no other user")


def _is_open_to_all(path: str) -> bool:
    path = os.path.realpath(path)
    while path != "/":
        if not os.stat(path).st_mode & (0o001 if os.path.isdir(path) else 0o004):
            return False
        path = os.path.dirname(path)
    return True


def accepted(weakest: str, *, exact: bool) -> tuple[str, ...]:
    """The levels from the strongest to `weakest`, or `weakest` alone; raises ValueError."""
    if weakest not in LEVELS:
        raise ValueError(f"unknown isolation {weakest!r}; one of {', '.join(LEVELS)}")
    return (weakest,) if exact else LEVELS[: LEVELS.index(weakest) + 1]


def refusal(refused: Mapping[str, str], rest: Mapping[str, str]) -> IsolationError:
    """What is missing, how to get it, and what to set to accept less.

    Args:
      refused: accepted level -> why this machine does not have it.
      rest: level that is not accepted -> the same, "" where it has it.
    """
    weakest = list(refused)[-1]
    missing = "; ".join(f"{level}: {reason}" for level, reason in refused.items())
    hints = "; or ".join(_HINTS[level] for level in refused if level in _HINTS)
    if sys.platform == "darwin":
        hints = "macOS cannot isolate programs; use a Linux machine, or a Linux container in a VM"
    left = next((level for level, reason in rest.items() if not reason), "")
    less = (
        f"To accept less: isolation={left} (--isolation {left}; "
        f"in a config --config.sandbox.isolation={left})."
        if left
        else "Nothing weaker works either."
    )
    return IsolationError(
        f"model-written code cannot be isolated here as asked ({weakest} or stronger). "
        f"Missing: {missing}. To get it: {hints or 'nothing is known to help'}. {less}"
    )
