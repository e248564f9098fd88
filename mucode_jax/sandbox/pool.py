"""The pool: programs are submitted as they come and their outcomes returned as they finish."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import logging
import os
import pathlib
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from typing import Any

from mucode_jax.core import records

from . import channel, feedback, isolation, starvation

_LOG = logging.getLogger(__name__)
_WORKER = pathlib.Path(__file__).with_name("worker.py")
_ATTEMPTS = 3  # of one program, each on a fresh worker
_STARTS = 8  # of one worker, 6 s of waiting between them in all
_START_S = 120.0
_REFERENCE_TIMES = 5.0  # as long as a program may a reference solution take
_PATIENCE_S = 60.0  # beyond a program's own limits: compiling very large tests, a busy machine


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What running one program against its tests gave.

    Attributes:
      status: one of `records.STATUSES`.
      feedback: the text for the model; "" where it passed.
      summary: the same in one line; "" where it passed.
      stdout, stderr: what the program wrote (the first 128 KiB), with the traceback in stderr.
      seconds: wall time of the program with its tests.
      in_tests: what went wrong did so in the tests' own code, outside of the program. With `infra`,
        by its own fault alone; with `error`, perhaps because of what the program returned.
    """

    status: str
    feedback: str = ""
    summary: str = ""
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0
    in_tests: bool = False

    def grade(self) -> records.Grade:
        """What of it a turn keeps."""
        return records.Grade(self.status, self.feedback, self.summary)


class _Lost(Exception):
    """A worker did not start, ended, or did not answer."""


def _command(settings: dict[str, Any], python: str = "") -> list[str]:
    """How a worker is started: as isolated as by `-I`, but that its hash seed may be set."""
    path = None if python else [os.path.abspath(entry) for entry in sys.path if entry]
    told = json.dumps({**settings, "path": path})
    return [python or sys.executable, "-s", "-P", str(_WORKER), told]


def _environment() -> dict[str, str]:
    """Nothing of the caller's but where its shared libraries are; the server drops that too."""
    own = {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8"}
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL")}
    kept = {key: os.environ[key] for key in ("LD_LIBRARY_PATH",) if key in os.environ}
    return {**kept, **own, **threads}


def probe() -> dict[str, str]:
    """Which levels of isolation this machine has: level -> "" or why not. Takes about 0.2 s."""
    return {level: _reason_against(level) for level in isolation.LEVELS}


def _check_python(python: str) -> None:
    """Raises ValueError where programs cannot be run by that interpreter."""
    code = "import sys; assert sys.version_info >= (3, 11), 'it is older than 3.11'; import numpy"
    try:
        process = subprocess.run(
            [python, "-s", "-P", "-c", code],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_START_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"sandbox.python {python!r} cannot be started: {error}") from None
    if process.returncode:
        last = (process.stderr.strip() or f"exit status {process.returncode}").splitlines()[-1]
        raise ValueError(
            f"sandbox.python {python!r} cannot run programs (it takes Python 3.11 or newer with "
            f"numpy): {last}"
        )


def _reason_against(level: str, python: str = "") -> str:
    process = subprocess.run(
        _command({"probe": True, "level": level}, python),
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_START_S,
    )
    try:
        return json.loads(process.stdout).get("error", "")
    except json.JSONDecodeError:
        last = (process.stderr.strip() or "no word").splitlines()[-1]
        return f"the probe failed: {last}"


class _Worker:
    """One worker process and the socket to it."""

    def __init__(self, level: str, memory_mb: int, shared: bool, python: str):
        """Starts it; raises OSError or _Lost."""
        _open_standard_streams()
        self._socket, theirs = socket.socketpair()
        settings = {"handle": theirs.fileno(), "level": level, "memory": memory_mb << 20}
        settings["shared"] = shared
        self._folder = tempfile.mkdtemp(prefix="mucode_tests_")
        try:
            with theirs:
                self.process = subprocess.Popen(
                    _command(settings, python),
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=self._folder,  # where tests that write files do so
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        except OSError:
            self._socket.close()
            os.rmdir(self._folder)
            raise
        self.reached: dict[str, Any] = {}

    def wait_until_ready(self) -> None:
        """Raises _Lost where it cannot work."""
        self.reached = self._receive(_START_S)
        if "error" in self.reached:
            raise _Lost(self.reached["error"])

    def run(self, job: dict[str, Any], patience: float) -> dict[str, Any]:
        """The outcome of `job`; raises _Lost."""
        try:
            self._socket.settimeout(patience)
            self._socket.sendall(channel.pack(job))
        except OSError as error:
            raise _Lost(str(error)) from None
        return self._receive(patience)

    def _receive(self, patience: float) -> dict[str, Any]:
        try:
            self._socket.settimeout(patience)
            size = int.from_bytes(self._exactly(4), "big")
            return json.loads(self._exactly(size))
        except OSError as error:
            raise _Lost(f"no answer from the worker: {error}") from None

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise _Lost("the worker ended")
            data += part
        return bytes(data)

    def stop(self) -> None:
        """Ends it and all that is behind it: its server ends when the judge is gone."""
        self.process.kill()
        self.process.wait()
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class Pool:
    """Runs untrusted programs on all cores.

    Attributes:
      isolation: for log, results and report: level, what it is made of, and why not more.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        isolation: str = "landlock",
        memory_mb: int = 512,
        feedback: str = "values",
        in_flight: int = 1024,
        exact: bool = False,
        python: str = "",
        share_folder: bool = False,
    ):
        """Starts the workers; call it before anything that takes long, so that a refusal is early.

        Args:
          workers: processes that run programs, default one a core.
          isolation: the weakest level accepted: namespaces, landlock or rlimits.
          memory_mb: what a program may use beyond the interpreter, MiB.
          feedback: "values", "traceback" or "none", see `feedback.composed`.
          in_flight: programs submitted and not finished beyond which `submit` waits.
          exact: take the level `isolation` itself, even where a stronger one is to be had.
          share_folder: a test and its program share the private temporary folder, for files; at
            level namespaces alone.
          python: the interpreter of programs and tests, with numpy; "": the one that runs this.

        Raises:
          isolation.IsolationError: nothing as strong as `isolation` is to be had here.
          ValueError: a setting is not what it may be; `python` is no such interpreter.
        """
        if feedback not in _MODES:
            raise ValueError(f"unknown feedback {feedback!r}; one of {', '.join(_MODES)}")
        count = workers if workers is not None else _cores()
        if count < 1 or memory_mb < 16 or in_flight < 1:
            raise ValueError("workers and in_flight are at least 1, memory_mb at least 16")
        levels = ("namespaces",) if share_folder else _accepted(isolation, exact=exact)
        if python:
            _check_python(python)
        self._memory_mb = memory_mb
        self._python = python
        self._shared = share_folder
        self._feedback = feedback
        self._room = threading.BoundedSemaphore(in_flight)
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        refused: dict[str, str] = {}
        first = self._first(levels, refused)
        self.isolation = {**first.reached, "accepted": isolation, "refused": refused}
        _LOG.info("sandbox: %d workers, isolation %s", count, self.isolation)
        self._threads = [
            threading.Thread(target=self._serve, args=(worker,), name="sandbox", daemon=True)
            for worker in (first, *[None] * (count - 1))
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, program: str, tests: records.Tests) -> concurrent.futures.Future[Outcome]:
        """Runs `program` with `tests`; the future's result is an Outcome, never an exception.

        Waits while too many programs are in flight. Raises RuntimeError once the pool is closed.
        """
        if not isinstance(program, str) or not isinstance(tests, records.Tests):
            raise TypeError("submit takes the program's text and records.Tests")
        self._room.acquire()
        if self._closed.is_set():
            self._room.release()
            raise RuntimeError("the sandbox pool is closed")
        future: concurrent.futures.Future[Outcome] = concurrent.futures.Future()
        future.add_done_callback(lambda _: self._room.release())
        job = {
            **{"program": program, "setup": tests.setup, "statements": tests.statements},
            **{"stdio": tests.stdio, "timeout_s": tests.timeout_s, "feedback": self._feedback},
        }
        if isinstance(tests, records.ReferenceTests):
            job |= {"reference": tests.reference, "record": tests.record}
            job["reference_timeout_s"] = _REFERENCE_TIMES * tests.timeout_s
        self._jobs.put((future, job))
        return future

    def close(self) -> None:
        """Ends all workers; what has not finished is cancelled."""
        self._closed.set()
        for _ in self._threads:
            self._jobs.put(None)
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            worker.process.kill()
        for thread in self._threads:
            thread.join()
        while not self._jobs.empty():
            if (item := self._jobs.get()) is not None:
                item[0].cancel()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _first(self, levels: tuple[str, ...], refused: dict[str, str]) -> _Worker:
        """A worker of the strongest of `levels` that works; why others do not, into `refused`."""
        for level in levels:
            self._level = level
            try:
                return self._started()
            except _Lost as error:
                refused[level] = str(error)
                _LOG.warning("sandbox: no isolation by %s: %s", level, error)
        others = [] if self._shared else [level for level in _LEVELS if level not in levels]
        raise _refusal(refused, {level: _reason_against(level, self._python) for level in others})

    def _started(self) -> _Worker:
        worker = _Worker(self._level, self._memory_mb, self._shared, self._python)
        with self._lock:
            self._workers.add(worker)
        try:
            worker.wait_until_ready()
        except BaseException:
            self._stop(worker)
            raise
        return worker

    def _stop(self, worker: _Worker) -> None:
        with self._lock:
            self._workers.discard(worker)
        worker.stop()

    def _serve(self, worker: _Worker | None) -> None:
        """One thread: hands jobs to one worker, replaces it when it is lost."""
        while (item := self._jobs.get()) is not None:
            future, job = item
            if self._closed.is_set() or not future.set_running_or_notify_cancel():
                future.cancel()
                continue
            worker, outcome = self._run(worker, job)
            future.set_result(outcome)
        if worker is not None:
            self._stop(worker)

    def _run(self, worker: _Worker | None, job: dict[str, Any]) -> tuple[_Worker | None, Outcome]:
        longest = job["timeout_s"] * (1 + starvation.MOST)
        patience = longest * max(1, len(job["stdio"])) + _PATIENCE_S
        if "reference" in job:
            patience += longest * _REFERENCE_TIMES
        reason = ""
        for attempt in range(_ATTEMPTS):
            try:
                worker = worker or self._replacement()
            except Exception as error:  # a thread that ends would leave its futures waiting
                return None, Outcome("infra", summary=f"infrastructure: {_said(error)}")
            try:
                # Perhaps it was the tests, run on the program's values, that ended a worker.
                answer = worker.run({**job, "apart": attempt > 0}, patience)
                final = answer.pop("final", False)
                if answer["status"] != "infra" or final:
                    return worker, Outcome(**answer)
                reason = answer["summary"]
            except Exception as error:  # as above
                reason = _said(error)
            self._warn("attempt %d of %d: %s", attempt + 1, _ATTEMPTS, reason)
            self._stop(worker)
            worker = None
        return None, Outcome("infra", summary=f"infrastructure: {reason}")

    def _warn(self, text: str, *arguments: object) -> None:
        """Logs a fault; a pool that is being closed ends its workers itself, which is none."""
        if not self._closed.is_set():
            _LOG.warning("sandbox: " + text, *arguments)

    def _replacement(self) -> _Worker:
        """A fresh worker; raises _Lost or OSError where it does not start time after time."""
        for attempt in range(_STARTS):
            if self._closed.is_set():
                break
            try:
                return self._started()
            except (_Lost, OSError) as error:
                self._warn("start %d of %d: %s", attempt + 1, _STARTS, error)
                if attempt == _STARTS - 1:
                    raise
            self._closed.wait(0.05 * 2**attempt)
        raise _Lost("the sandbox pool was closed")


# What the constructor's parameters of the same names hide.
_MODES = feedback.MODES
_LEVELS = isolation.LEVELS
_accepted = isolation.accepted
_refusal = isolation.refusal


def _open_standard_streams() -> None:
    """Or the socket would take the place of one that is closed, and the worker not get it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _said(error: Exception) -> str:
    known = isinstance(error, (_Lost, OSError))
    return str(error) if known else f"{type(error).__name__}: {error}"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Runner:
    """One program after the other, for the attack suite's replay."""

    def __init__(self, **settings: Any):
        self._pool = Pool(**{"workers": 1, **settings})

    def run(self, code: str, tests: list[str], timeout_s: float) -> dict[str, str]:
        """verdict (our status), stdout, stderr; never raises, whatever the program does."""
        outcome = self._pool.submit(code, records.Tests(tuple(tests), timeout_s=timeout_s)).result()
        return {"verdict": outcome.status, "stdout": outcome.stdout, "stderr": outcome.stderr}

    def close(self) -> None:
        """Ends the pool."""
        self._pool.close()


def make_runner(**settings: Any) -> Runner:
    """A runner of one worker; `settings` are those of `Pool`."""
    return Runner(**settings)
