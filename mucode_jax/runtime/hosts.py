"""The hosts of one run: which one this is, what is its share, waiting for each other, agreeing.

A run is one process a host; `connect` joins them by JAX's own distributed runtime. All of them go
through the same program and make the same stages in the same order; the first alone writes ledgers
and speaks. Without `connect` there is one host, and nothing here does anything.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Json = Any

# A host that is silent for so long is lost, and the others end: within a minute in all.
HEARTBEAT_S = 30
JOIN_S = 300  # at the start the hosts wait so long for each other
_TELL_AFTER_S = 15.0  # a wait that is longer is explained

_index, _count = 0, 1
_client: Any = None  # of JAX's coordination service: a store of names and values
_made = 0  # meetings so far; the same on all hosts, as they take the same way


class Lost(RuntimeError):
    """Another host failed; the message is its own."""


def connect(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the other hosts, if there are any.

    On a Cloud TPU pod, GKE or SLURM they are found without arguments; elsewhere all three are
    needed.

    Args:
      coordinator: HOST:PORT of the first process.
      processes: how many there are.
      process: which one this is, from 0.

    Raises:
      ValueError: some of the three are missing, or make no sense, or there is no cluster.
    """
    global _index, _count, _client
    given = [x is not None for x in (coordinator, processes, process)]
    if any(given):
        if not all(given):
            raise ValueError("give --coordinator, --processes and --process together")
        if processes < 1:
            raise ValueError(f"--processes is {processes}; there is at least 1")
        if not 0 <= process < processes:
            raise ValueError(f"--process is {process}; of {processes} they are 0 … {processes - 1}")
        if processes == 1:
            return
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(f"--coordinator is {coordinator!r}; it is to be HOST:PORT")
    elif not _in_cluster():
        return
    import jax
    from jax._src import distributed  # the store has no public name

    print(f"joining the other hosts ({coordinator or 'as the cluster says'})", file=sys.stderr)
    # Where they do not come, the runtime would abort the process, with a stack of its own.
    patience = threading.Timer(JOIN_S, _alone)
    patience.start()
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            initialization_timeout=JOIN_S + 30,
            heartbeat_timeout_seconds=HEARTBEAT_S,
        )
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"no other hosts are known ({type(error).__name__}: {error}); start each with "
            "--coordinator=HOST:PORT --processes=N --process=I"
        ) from error
    finally:
        patience.cancel()
    _index, _count = jax.process_index(), jax.process_count()
    _client = distributed.global_state.client


def _alone() -> None:
    print(
        f"mucode_jax: in {JOIN_S} s the hosts did not find each other; see that all of them run "
        "and reach the coordinator",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def _in_cluster() -> bool:
    """Whether JAX would find other processes by itself."""
    chips = any(pathlib.Path(d).exists() for d in ("/dev/accel0", "/dev/vfio/0"))
    # A notebook's TPU is one host, and has nobody to ask about others.
    notebook = {"COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"} & set(os.environ)
    tpu = chips and not notebook and not os.environ.get("JAX_PLATFORMS", "").startswith("cpu")
    return tpu or _tasks("SLURM_STEP_NUM_TASKS") > 1 or _tasks("OMPI_COMM_WORLD_SIZE") > 1


def _tasks(variable: str) -> int:
    """How many processes a launcher says that it started."""
    told = os.environ.get(variable, "1")
    if not told.isdecimal():
        raise ValueError(f"the environment's {variable} is {told!r}; it is to be a number")
    return int(told)


def index() -> int:
    """Which host this is, from 0."""
    return _index


def count() -> int:
    """How many hosts there are."""
    return _count


def backend() -> str:
    """The platform that JAX computes on; asked after `connect`.

    Raises:
      ValueError: JAX_PLATFORMS names one that is not there.
    """
    import jax

    try:
        return jax.default_backend()
    except (AssertionError, RuntimeError) as error:  # the first where it finds nothing
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise ValueError(
            f"JAX_PLATFORMS={asked}: {str(error) or 'there is no such device'}"
        ) from error


def first() -> bool:
    """Whether this host writes and speaks."""
    return _index == 0


def mine(ids: Sequence[str]) -> list[int]:
    """The places in `ids` that are this host's: problems are dealt in turn, by id."""
    owner = {name: i % _count for i, name in enumerate(dict.fromkeys(ids))}
    return [i for i, name in enumerate(ids) if owner[name] == _index]


def wait(where: str, say: Callable[[str], None] = print) -> None:
    """Returns when all hosts are here; says for whom it waits.

    Raises:
      Lost: another host failed meanwhile.
    """
    if _count > 1:
        _gather(where, None, say)


def first_does(what: str, work: Callable[[], Json], say: Callable[[str], None] = print) -> Json:
    """What `work` returns on the first host, on all of them."""
    if _count == 1:
        return work()
    return _gather(what, work() if first() else None, say)[0]


def agree(what: str, facts: Mapping[str, Json]) -> None:
    """Checks that all hosts have the same.

    Raises:
      ValueError: names the first thing that differs, and the host.
    """
    if _count == 1:
        return
    for host, theirs in enumerate(_gather(what, dict(facts), lambda text: None)):
        ours = json.loads(json.dumps(dict(facts)))
        for name in sorted({*ours, *theirs}):
            if ours.get(name) != theirs.get(name):
                raise ValueError(
                    f"the hosts differ in {what}: {name} is {_short(theirs.get(name))} on host "
                    f"{host}, {_short(ours.get(name))} on host {_index}; start them all alike"
                )


def shares(path: pathlib.Path) -> None:
    """Checks that all hosts see the same folder.

    Raises:
      ValueError: they do not.
    """
    if _count == 1:
        return
    token = first_does("the work directory", lambda: f"{time.time_ns()} {os.getpid()}")
    file = path / "hosts"
    if first():
        file.write_text(token)
    wait("the work directory")
    until = time.monotonic() + 10  # network file systems look again after a few seconds
    while not (seen := file.is_file() and file.read_text() == token):
        if time.monotonic() > until:
            break
        time.sleep(0.2)
    blind = [i for i, ok in enumerate(_gather("the work directory", seen, print)) if not ok]
    if blind:
        raise ValueError(
            f"--workdir {path} is not one folder: what host 0 writes there, host "
            f"{', '.join(map(str, blind))} does not see; give one that all hosts share (gs:// or "
            "NFS)"
        )


def leave(status: int, message: str = "") -> int:
    """Ends this host's part: together where all went well, else so that the others learn of it."""
    if _count == 1:
        return status
    sys.stdout.flush()
    sys.stderr.flush()
    if status == 0:
        import jax

        wait("the end")
        jax.distributed.shutdown()
        return 0
    with contextlib.suppress(Exception):  # the store may be gone: then they know already
        _client.key_value_set(f"mucode/failed/{_index}", message or f"exit status {status}")
        time.sleep(2)  # for those who wait; the first host keeps the store
    os._exit(status)  # an orderly end would wait for those who wait for us


def _gather(where: str, value: Json, say: Callable[[str], None]) -> list[Json]:
    """Every host's value, in their order."""
    global _made
    _made += 1
    room = f"mucode/{_made}"
    _client.key_value_set(f"{room}/{_index}", json.dumps(value))
    began = told = time.monotonic()
    pause = 0.002
    while True:
        found = {int(k.rpartition("/")[2]): v for k, v in _client.key_value_dir_get(room + "/")}
        if len(found) == _count:
            return [json.loads(found[i]) for i in range(_count)]
        for key, message in _client.key_value_dir_get("mucode/failed/"):
            raise Lost(f"host {key.rpartition('/')[2]} failed: {message}")
        if time.monotonic() - told > _TELL_AFTER_S:
            told = time.monotonic()
            missing = ", ".join(str(i) for i in range(_count) if i not in found)
            say(f"{where}: waiting for host {missing} ({told - began:.0f} s)")
        time.sleep(pause)
        pause = min(2 * pause, 0.25)


def _short(value: Json) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "…"
