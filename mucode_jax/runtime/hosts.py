"""The hosts of one run: which one this is, what is its share, how they wait and agree.

A run is one process per host; `connect` joins them by JAX's own distributed runtime. All of them go
through the same program and make the same stages in the same order; only the first writes ledgers
and speaks. Without `connect` there is one host, and nothing here waits for anything.

The hosts meet in the key-value store of JAX's coordination service, not in collectives of
`jax.experimental.multihost_utils`: those exchange arrays of one shape and wait without a word, and
a host that fails cannot tell the others why.
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
JOIN_S = 300  # how long the hosts wait for each other at the start
_QUIET_S = 15.0  # how long a wait goes on before it is explained

_index, _count = 0, 1
_client: Any = None  # of JAX's coordination service: a store of names and values
_meetings = 0  # so far; the same on all hosts, which go through the same program


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
      ValueError: some of the three are missing or out of range, or there is no cluster.
    """
    global _index, _count, _client
    given = [x is not None for x in (coordinator, processes, process)]
    if any(given):
        if not all(given):
            raise ValueError("give --coordinator, --processes and --process together")
        if processes < 1:
            raise ValueError(f"--processes is {processes}; it must be at least 1")
        if not 0 <= process < processes:
            raise ValueError(f"--process is {process}; of {processes} they are 0 … {processes - 1}")
        if processes == 1:
            return
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(f"--coordinator is {coordinator!r}; it must be HOST:PORT")
    elif not _in_cluster():
        return
    import jax
    from jax._src import distributed  # the store has no public name

    print(f"joining the other hosts ({coordinator or 'as the cluster says'})", file=sys.stderr)
    # Where they do not come, the runtime would abort the process with a stack trace of its own.
    deadline = threading.Timer(JOIN_S, _end_alone)
    deadline.start()
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
        deadline.cancel()
    _index, _count = jax.process_index(), jax.process_count()
    _client = distributed.global_state.client


def _end_alone() -> None:
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
    # A notebook's TPU is one host, which cannot ask for others.
    notebook = {"COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"} & set(os.environ)
    tpu = chips and not notebook and not os.environ.get("JAX_PLATFORMS", "").startswith("cpu")
    return tpu or _launched("SLURM_STEP_NUM_TASKS") > 1 or _launched("OMPI_COMM_WORLD_SIZE") > 1


def _launched(variable: str) -> int:
    """How many processes a launcher says that it started."""
    value = os.environ.get(variable, "1")
    if not value.isdecimal():
        raise ValueError(f"the environment's {variable} is {value!r}; it must be a number")
    return int(value)


def index() -> int:
    """Which host this is, from 0."""
    return _index


def count() -> int:
    """How many hosts there are."""
    return _count


def first() -> bool:
    """Whether this host writes and speaks."""
    return _index == 0


def backend() -> str:
    """The platform that JAX computes on; asked after `connect`.

    Raises:
      ValueError: JAX_PLATFORMS names one that is not there.
    """
    import jax

    try:
        return jax.default_backend()
    except (AssertionError, RuntimeError) as error:  # AssertionError: it finds no platform at all
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise ValueError(
            f"JAX_PLATFORMS={platforms}: {str(error) or 'there is no such device'}"
        ) from error


def mine(ids: Sequence[str]) -> list[int]:
    """The positions in `ids` that are this host's: distinct ids are dealt to the hosts in turn."""
    owner = {name: i % _count for i, name in enumerate(dict.fromkeys(ids))}
    return [i for i, name in enumerate(ids) if owner[name] == _index]


def gather(what: str, value: Json, say: Callable[[str], None] = print) -> list[Json]:
    """Every host's value, in their order; returns when all hosts have called it.

    Args:
      what: what it is about, for the line that says for whom it waits.
      value: this host's.
      say: shows that line.

    Raises:
      Lost: another host failed meanwhile.
    """
    global _meetings
    if _count == 1:
        return [value]
    _meetings += 1
    prefix = f"mucode/{_meetings}/"
    _client.key_value_set(f"{prefix}{_index}", json.dumps(value))
    began = explained = time.monotonic()
    pause = 0.002
    while True:
        values = {int(k.rpartition("/")[2]): v for k, v in _client.key_value_dir_get(prefix)}
        if len(values) == _count:
            return [json.loads(values[host]) for host in range(_count)]
        for key, message in _client.key_value_dir_get("mucode/failed/"):
            raise Lost(f"host {key.rpartition('/')[2]} failed: {message}")
        now = time.monotonic()
        if now - explained > _QUIET_S:
            explained = now
            missing = ", ".join(str(host) for host in range(_count) if host not in values)
            say(f"{what}: waiting for host {missing} ({now - began:.0f} s)")
        time.sleep(pause)
        pause = min(2 * pause, 0.25)


def wait(what: str, say: Callable[[str], None] = print) -> None:
    """Returns when all hosts are here; see `gather`."""
    gather(what, None, say)


def first_does(what: str, work: Callable[[], Json], say: Callable[[str], None] = print) -> Json:
    """What `work` returns on the first host, on all of them; see `gather`."""
    return gather(what, work() if first() else None, say)[0]


def agree(what: str, facts: Mapping[str, Json], say: Callable[[str], None] = print) -> None:
    """Checks that all hosts have the same facts; see `gather`.

    Raises:
      ValueError: names the first that differs, and the host.
    """
    values = gather(what, facts, say)
    ours = values[_index]
    for host, theirs in enumerate(values):
        for name in sorted({*ours, *theirs}):
            if ours.get(name) != theirs.get(name):
                raise ValueError(
                    f"the hosts differ in {what}: {name} is {_short(theirs.get(name))} on host "
                    f"{host}, {_short(ours.get(name))} on host {_index}; start them all alike"
                )


def _short(value: Json) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "…"


def check_shared(path: pathlib.Path) -> None:
    """Checks that all hosts see the same folder.

    Raises:
      ValueError: they do not.
    """
    if _count == 1:
        return
    file = path / "hosts"

    def write() -> str:
        token = f"{time.time_ns()} {os.getpid()}"
        file.write_text(token)
        return token

    token = first_does("the work directory", write)
    until = time.monotonic() + 10  # network file systems look again after a few seconds
    while not (seen := file.is_file() and file.read_text() == token) and time.monotonic() < until:
        time.sleep(0.2)
    blind = [host for host, sees in enumerate(gather("the work directory", seen)) if not sees]
    if blind:
        raise ValueError(
            f"--workdir {path} is not one folder: what host 0 writes there, host "
            f"{', '.join(map(str, blind))} does not see; give one that all hosts share (gs:// or "
            "NFS)"
        )


def leave(status: int, message: str = "") -> int:
    """Ends this host's part and returns `status`; with another status than 0 the process ends.

    The hosts leave together where all went well; one that failed tells the others `message`.
    """
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
    os._exit(status)  # an orderly end would wait for the others, who wait for us
