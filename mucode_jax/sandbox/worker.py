"""A worker process: judge and fork server, started as a script by the pool.

    python -s -P worker.py '{"handle": 5, "level": "landlock", "memory": 536870912, "path": [..]}'

It imports the prelude once, forks the servers, which go behind the walls, and then judges what the
pool sends until the pool hangs up. With `"probe": true` it only tries the walls and says what it
met. It never imports jax, nor this package's own `__init__`, which would import the pool.
"""

from __future__ import annotations

import gc
import json
import os
import resource
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


def _serve_behind_walls(control: socket.socket, level: str, memory: int, names: dict) -> None:
    from mucode_jax.sandbox import channel, isolation, server

    seen = isolation.view()
    space = _address_space() + memory
    private = level == "namespaces"
    try:
        if not private:
            server.become_subreaper()
        reached = isolation.enter(level, seen)
    except OSError as error:
        control.sendall(channel.pack({"error": str(error)}))
        os._exit(1)
    control.sendall(channel.pack(reached))
    own = reached["user"] == "own" or (private and reached["user"] == "same")
    limits = server.Limits(space, private, own, bool(reached["seccomp"]), seen.scratch)
    sys.path[:] = [path for path in sys.path if any(path.startswith(x) for x in seen.readable)]
    server.serve(control, names, limits)


def _start_server(
    strangers: tuple[socket.socket, ...], level: str, memory: int, names: dict
) -> tuple[socket.socket, int, dict]:
    """Forks a server: the socket to it, its process, what walls it reached (or "error")."""
    from mucode_jax.sandbox import channel, starvation

    before = starvation.children(os.getpid())
    control, theirs = socket.socketpair()
    gc.collect()
    gc.freeze()  # the pages of what is loaded stay shared between judge, server and programs
    if (pid := os.fork()) == 0:
        try:
            for stranger in (*strangers, control):
                stranger.close()
            _serve_behind_walls(theirs, level, memory, names)
        finally:
            os._exit(1)
    theirs.close()
    try:
        reached = channel.read(control.fileno())
    except channel.Gone:
        reached = {"error": "the fork server ended before it was ready"}
    if level == "namespaces":
        os.waitpid(pid, 0)
        pid = next((x for x in starvation.children(os.getpid()) if x not in before), 0)
    return control, pid, reached


def _work(owner: socket.socket, level: str, memory: int) -> None:
    from mucode_jax.sandbox import channel, prelude, server, starvation

    server.become_subreaper()  # the servers become children of this process, not of process 1
    control, pid, reached = _start_server((owner,), level, memory, prelude.load(numpy=False))
    if "error" not in reached:
        from mucode_jax.sandbox import trials

        light = trials.Server(control, starvation.Watched(pid))
        names = prelude.load(numpy=True)
        control, pid, reached = _start_server((owner, control), level, memory, names)
    owner.sendall(channel.pack(reached))
    if "error" in reached:
        os._exit(1)
    space = _address_space() + _JUDGE_MEMORY
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.modules["random"].seed(0)
    del names["__name__"]
    full = trials.Server(control, starvation.Watched(pid))
    bench = trials.Trials(light, full, owner, names)
    while True:
        job = channel.read(owner.fileno())
        try:
            outcome = bench.run(job)
        except trials.ServerLost as error:
            outcome = {"status": "infra", "summary": f"the sandbox was lost: {error}"}
        except OSError as error:  # no descriptors, no memory, a full disk
            outcome = {"status": "infra", "summary": f"{type(error).__name__}: {error}"}
        owner.sendall(channel.pack(outcome))
        if outcome["status"] == "infra" and not outcome.get("final"):
            os._exit(1)  # the pool starts another


def main() -> None:
    """The entry point."""
    settings = json.loads(sys.argv[1])
    sys.path[:] = settings["path"]
    if settings.get("probe"):
        print(json.dumps(_try_walls(settings["level"])))
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    owner = socket.socket(fileno=settings["handle"])
    from mucode_jax.sandbox import channel

    try:
        _work(owner, settings["level"], settings["memory"])
    except channel.Gone:
        return


if __name__ == "__main__":
    main()
