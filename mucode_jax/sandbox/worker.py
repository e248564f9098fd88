"""A worker process: judge and fork server, started as a script by the pool.

    python -s -P worker.py '{"handle": 5, "level": "landlock", "memory": 536870912,
                             "shared": false, "path": [..]}'

`path` is null where this interpreter is another than the caller's: it has its own.

It imports the prelude once, forks the servers, which go behind the walls, and then judges what the
pool sends until the pool hangs up. With `"probe": true` it only tries the walls and says what it
met. It never imports jax, nor this package's own `__init__`, which would import the pool.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import resource
import shutil
import signal
import socket
import sys
import types

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
for _name, _folder in (("mucode_jax", os.path.dirname(_PACKAGE)), ("mucode_jax.sandbox", _PACKAGE)):
    _stub = types.ModuleType(_name)
    _stub.__path__ = [_folder]
    sys.modules[_name] = _stub

_JUDGE_MEMORY = 4 << 30


def _address_space() -> int:
    """Bytes of address space that this process has now; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except FileNotFoundError:
        return 0


def _versions() -> dict[str, str]:
    """What programs see, and verdicts may depend on."""
    numpy = sys.modules.get("numpy")
    return {"python": platform.python_version(), "numpy": getattr(numpy, "__version__", "")}


def _try_walls(level: str) -> dict:
    from mucode_jax.sandbox import isolation

    reader, writer = os.pipe()
    seen = isolation.view()
    if (pid := os.fork()) == 0:
        try:
            said = isolation.enter(level, seen)
        except OSError as error:
            said = {"error": str(error)}
        os.write(writer, json.dumps(said).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        said = json.loads(file.read() or '{"error": "the probe ended without a word"}')
    os.waitpid(pid, 0)
    return said


def _serve_behind_walls(
    control: socket.socket,
    sharing: socket.socket,
    level: str,
    memory: int,
    shared: bool,
    names: dict,
) -> None:
    from mucode_jax.sandbox import channel, isolation, server

    seen = isolation.view()
    space = _address_space() + memory
    private = level == "namespaces"

    def share(handles: list[int]) -> None:
        socket.send_fds(sharing, [b"F"], handles)
        for handle in handles:
            os.close(handle)

    try:
        if not private:
            server.become_subreaper()
        reached = isolation.enter(level, seen, share if shared else None)
        sharing.close()
    except OSError as error:
        control.sendall(channel.pack({"error": str(error)}))
        os._exit(1)
    control.sendall(channel.pack(reached))
    own = reached["user"] == "own" or (private and reached["user"] == "same")
    limits = server.Limits(space, private, own, bool(reached["seccomp"]), seen.scratch)
    sys.path[:] = [path for path in sys.path if any(path.startswith(x) for x in seen.readable)]
    server.serve(control, names, limits)


def _start_server(
    strangers: tuple[socket.socket, ...], level: str, memory: int, shared: bool, names: dict
) -> tuple[socket.socket, int, dict, list[int]]:
    """Forks a server: the socket to it, its process, what walls it reached (or "error"), handles
    that open its scratch folder where it is shared."""
    from mucode_jax.sandbox import channel, starvation

    before = starvation.children(os.getpid())
    control, theirs = socket.socketpair()
    sharing, theirs_to_share = socket.socketpair()
    gc.collect()
    gc.freeze()  # the pages of what is loaded stay shared between judge, server and programs
    if (pid := os.fork()) == 0:
        try:
            for stranger in (*strangers, control, sharing):
                stranger.close()
            _serve_behind_walls(theirs, theirs_to_share, level, memory, shared, names)
        finally:
            os._exit(1)
    theirs.close()
    theirs_to_share.close()
    try:
        reached = channel.read(control.fileno())
    except channel.Gone:
        reached = {"error": "the fork server ended before it was ready"}
    with sharing:
        handles = socket.recv_fds(sharing, 1, 2)[1]  # none where it is not shared
    if level == "namespaces":
        os.waitpid(pid, 0)
        pid = next((x for x in starvation.children(os.getpid()) if x not in before), 0)
    return control, pid, reached, handles


def _empty(folder: str) -> None:
    with os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


def _work(owner: socket.socket, level: str, memory: int, shared: bool) -> None:
    from mucode_jax.sandbox import channel, prelude, server, starvation

    server.become_subreaper()  # the servers become children of this process, not of process 1
    settings = (level, memory, shared)
    names = prelude.load(numpy=False)
    control, pid, reached, handles = _start_server((owner,), *settings, names)
    if "error" not in reached:
        from mucode_jax.sandbox import trials

        light = trials.Server(control, starvation.Watched(pid), tuple(handles))
        names = prelude.load(numpy=True)
        control, pid, reached, handles = _start_server((owner, control), *settings, names)
    owner.sendall(channel.pack(reached | _versions()))
    if "error" in reached:
        os._exit(1)
    space = _address_space() + _JUDGE_MEMORY
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.modules["random"].seed(0)
    del names["__name__"]
    full = trials.Server(control, starvation.Watched(pid), tuple(handles))
    bench = trials.Trials(light, full, owner, names)
    while True:
        job = channel.read(owner.fileno())
        try:
            outcome = bench.run(job)
        except trials.ServerLost as error:
            outcome = {"status": "infra", "summary": f"the sandbox was lost: {error}"}
        except OSError as error:  # no descriptors, no memory, a full disk
            outcome = {"status": "infra", "summary": f"{type(error).__name__}: {error}"}
        _empty(".")  # of what the tests wrote
        owner.sendall(channel.pack(outcome))
        if outcome["status"] == "infra" and not outcome.get("final"):
            os._exit(1)  # the pool starts another


def main() -> None:
    """The entry point."""
    settings = json.loads(sys.argv[1])
    if settings["path"] is not None:
        sys.path[:] = settings["path"]
    if settings.get("probe"):
        print(json.dumps(_try_walls(settings["level"])))
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    owner = socket.socket(fileno=settings["handle"])
    from mucode_jax.sandbox import channel

    try:
        _work(owner, settings["level"], settings["memory"], settings["shared"])
    except channel.Gone:
        shutil.rmtree(os.getcwd(), ignore_errors=True)  # the caller may have been killed


if __name__ == "__main__":
    main()
