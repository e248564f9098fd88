"""One program, start to outcome: processes are asked of the server, verdicts of the judge."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import signal
import socket
import tempfile
import time
from collections.abc import Iterable
from typing import Any

from . import (
    channel,
    codec,
    errors,
    feedback,
    judge,
    prelude,
    recording,
    refusals,
    remote,
    server,
    starvation,
    statements,
)

_KEPT_OUTPUT = 128 << 10
_WHOLE_OUTPUT = 16 << 20
_MOST_RECORDED = 256 << 20  # bytes of values of reference solutions


class ServerLost(Exception):
    """The fork server is gone; a fresh worker is needed."""


@dataclasses.dataclass(frozen=True)
class Server:
    """A fork server as the judge sees it.

    Attributes:
      control: the socket to it.
      process: its process.
      handles: what opens its scratch folder, where that is shared; see `namespaces.join`.
    """

    control: socket.socket
    process: starvation.Watched
    handles: tuple[int, ...]


class Trials:
    """The judge's side of the fork servers; runs one program after the other.

    Attributes:
      owner: the socket to the pool; when it closes, everything ends.
      prelude: names that the tests find.
    """

    def __init__(self, light: Server, full: Server, owner: socket.socket, prelude: dict[str, Any]):
        """Args: the servers without and with numpy; the rest as the attributes."""
        self.owner = owner
        self.prelude = prelude
        self._light, self._full = light, full
        self._names = frozenset(prelude)
        self._recorded: dict[tuple[str, str], bytes] = {}
        self._judge = starvation.Watched(os.getpid())
        # One pair for all programs (making them anew is a tenth of the judge's work): whoever could
        # write to it has been ended, and it is emptied, before the next program gets it.
        self._output = (_memory_file("stdout"), _memory_file("stderr"))

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """The outcome of one job.

        Args:
          job: program, setup, statements, stdio, timeout_s, feedback (a mode of `feedback`), apart
            (see `judge.examine`); and where it is so tested reference, record,
            reference_timeout_s.

        Returns:
          status, feedback, summary, stdout, stderr, seconds, in_tests; `final` where trying again
          is useless.

        Raises:
          ServerLost: and nothing is known of the program.
        """
        began = time.monotonic()
        if job["stdio"]:
            outcome = self._run_pairs(job)
        elif "reference" in job:
            outcome = self._run_against_reference(job)
        else:
            outcome = self._run_tests(job)[0]
        return {**outcome, "seconds": time.monotonic() - began}

    def _run_tests(
        self, job: dict[str, Any], expected: bytes = b"", recorded: str = ""
    ) -> tuple[dict[str, Any], Any]:
        """The outcome, and what the tests gave the name `recorded`.

        Args:
          job: as of `run`.
          expected: what the tests find under the name `judge.EXPECTED`, pickled.
          recorded: a name; "" for none.
        """
        own = self._names | {judge.EXPECTED} if expected else self._names
        # Compiled beforehand (`examine` finds it done): not at the program's expense.
        with contextlib.suppress(refusals.BrokenTest):  # `examine` says so
            statements.prepare(tuple(job["statements"]), own)
        with self._process(job, job["statements"]) as process:
            verdict = judge.examine(
                job["program"],
                job["setup"],
                tuple(job["statements"]),
                process.end,
                self.owner,
                process.server.control,
                self._output,
                process.deadline,
                process.allowance,
                self.prelude,
                own,
                expected=expected,
                shared=process.server.handles,
                recorded=recorded,
                apart=job["apart"],
            )
            process.ending = verdict.status == "gone"
        return _outcome(verdict, process, job), verdict.recorded

    def _run_against_reference(self, job: dict[str, Any]) -> dict[str, Any]:
        key = job["reference"], job["record"]
        expected = self._recorded.get(key)
        if expected is None:
            trial = {**job, "program": job["reference"], "statements": [job["record"]]}
            trial["timeout_s"] = job["reference_timeout_s"]
            outcome, values = self._run_tests(trial, recorded=judge.EXPECTED)
            if outcome["status"] != "pass":
                reason = outcome["summary"] or outcome["status"]
                summary = f"the reference solution gives no expected values: {reason}"
                return {**outcome, "status": "infra", "summary": summary, "final": True} | {
                    "feedback": "",
                    "in_tests": True,
                }
            expected = self._recorded[key] = pickle.dumps(recording.decode(values))
            while sum(map(len, self._recorded.values())) > _MOST_RECORDED:
                del self._recorded[next(iter(self._recorded))]
        return self._run_tests(job, expected)[0]

    def _process(
        self, job: dict[str, Any], tests: Iterable[str] = (), stdin: bytes | None = None
    ) -> _Process:
        numpy = prelude.uses_numpy(job["program"], job["setup"], *tests)
        server = self._full if numpy else self._light
        allowance = starvation.Allowance(self._judge, server.process, job["timeout_s"])
        return _Process(server, self._output, job["timeout_s"], allowance, stdin)

    def _run_pairs(self, job: dict[str, Any]) -> dict[str, Any]:
        outcome: dict[str, Any] = {}
        for given, expected in job["stdio"]:
            text = given if given.endswith("\n") or not given else given + "\n"
            data = text.encode("utf-8", "surrogateescape")
            with self._process(job, stdin=data) as process:
                verdict = _run_whole(job, process, self.owner)
                process.ending = verdict.status == "pass"
            if verdict.status == "pass":
                verdict = _compared(verdict, process, given, expected)
            outcome = _outcome(verdict, process, job)
            if outcome["status"] != "pass":
                break
        return outcome


class _Process:
    """A process inside, from its start to the server's report on it.

    Attributes:
      server: its fork server.
      end: the connection to it.
      deadline: `time.monotonic()` at which its time is up.
      allowance: what is added to it where the machine was busy.
      ending: to be set where it closed its connection by itself.
      status, killed: how it ended, once the block is left.
      stdout, stderr: what it wrote, bytes, once the block is left.
    """

    def __init__(
        self,
        server: Server,
        output: tuple[int, int],
        seconds: float,
        allowance: starvation.Allowance,
        stdin: bytes | None,
    ):
        self.server = server
        self.allowance = allowance
        self._output = output
        self._seconds = seconds
        self._stdin = stdin
        self.stdout = self.stderr = b""
        self.status, self.killed, self.ending = 0, False, False

    def __enter__(self) -> _Process:
        self.end, theirs = socket.socketpair()
        handles = [theirs.fileno(), *self._output]
        try:
            if self._stdin is not None:
                handles.append(_memory_file("stdin"))
                channel.write(handles[3], self._stdin)
                os.lseek(handles[3], 0, os.SEEK_SET)
            request = server.REQUEST.pack(self._seconds, self._stdin is not None)
            socket.send_fds(self.server.control, [request], handles)
        except OSError as error:
            raise ServerLost(str(error)) from None
        finally:
            theirs.close()
            for handle in handles[3:]:
                os.close(handle)
        self.deadline = time.monotonic() + self._seconds
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.end.close()
        try:
            self.server.control.sendall(server.ENDING if self.ending else server.DONE)
            report = self.server.control.recv(server.REPORT.size, socket.MSG_WAITALL)
        except OSError:
            report = b""
        if len(report) < server.REPORT.size:
            raise ServerLost("the fork server ended")
        self.status, self.killed = server.REPORT.unpack(report)
        self.stdout, self.stderr = map(_emptied, self._output)


def _memory_file(name: str) -> int:
    """A file that is nowhere in the file system; its descriptor."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _emptied(handle: int) -> bytes:
    """What was written to `handle`, which is empty afterwards."""
    if not os.fstat(handle).st_size and not os.lseek(handle, 0, os.SEEK_CUR):
        return b""
    data = os.pread(handle, _WHOLE_OUTPUT, 0)
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    return data


def _run_whole(job: dict[str, Any], process: _Process, owner: socket.socket) -> judge.Verdict:
    guarded = channel.Guarded(process.end, owner, process.deadline, process.allowance.more)
    link = remote.Link(guarded, lambda: None)
    try:
        link.run_whole(job["program"], job["setup"])
        guarded.receive()
        return judge.Verdict("error", summary="no result")
    except channel.Gone:
        return judge.Verdict("pass")
    except channel.Late:
        return judge.Verdict("late")
    except remote.NeverStarted:
        return judge.Verdict("unstarted")
    except codec.Malformed as error:
        return judge.Verdict("error", summary=f"no result: {error}")
    except BaseException as error:
        inside = errors.text_of(error)
        if inside is None:  # the description of an exception that made no sense
            return judge.Verdict("error", summary="no result")
        status = "oom" if isinstance(error, MemoryError) else "error"
        return judge.Verdict(status, inside["text"], inside["last"].strip().split("\n")[-1])


def _compared(
    verdict: judge.Verdict, process: _Process, given: str, expected: str
) -> judge.Verdict:
    """The verdict on a process that ended by itself: its exit status, then its output."""
    if process.status:
        return judge.Verdict("gone")
    printed = process.stdout.decode("utf-8", "replace")
    if judge.same_output(printed, expected):
        return verdict
    parts = [feedback.middle_cut(x.strip(), 500) for x in (given, expected, printed)]
    text = "Input:\n{}\n\nExpected output:\n{}\n\nPrinted output:\n{}\n".format(*parts)
    short = [feedback.shown(x.strip(), 100) for x in (given, printed, expected)]
    summary = "for input {} it printed {}, expected {}".format(*short)
    return judge.Verdict("fail", "Wrong output.\n", "wrong output", values=f"{text}\0{summary}")


def _outcome(verdict: judge.Verdict, process: _Process, job: dict[str, Any]) -> dict[str, Any]:
    status, text, summary = verdict.status, verdict.traceback, verdict.summary
    final = False
    if status == "unstarted":
        raise ServerLost("a process was lost before it read the program")
    if status == "broken":
        status, final = "infra", True
    elif status == "late":
        status, summary = "timeout", f"timed out after {job['timeout_s']:g} s"
    elif status == "gone":
        status, summary = _how_it_ended(process, job)
    stderr = process.stderr[:_KEPT_OUTPUT].decode("utf-8", "replace")
    if status in ("error", "oom") and text:
        stderr += text
    shown, short = feedback.composed(job["feedback"], status, text, summary, verdict.values)
    return {
        **{"status": status, "feedback": shown, "summary": short, "final": final},
        "in_tests": verdict.in_tests,
        **{"stdout": process.stdout[:_KEPT_OUTPUT].decode("utf-8", "replace"), "stderr": stderr},
    }


def _how_it_ended(process: _Process, job: dict[str, Any]) -> tuple[str, str]:
    """(status, summary) of a program whose process ended before it gave a result."""
    if os.WIFSIGNALED(process.status):
        number = os.WTERMSIG(process.status)
        if number == signal.SIGKILL and process.killed:
            return "error", "the program closed its connection to the tests"
        if number == signal.SIGXCPU:
            return "timeout", f"timed out after {job['timeout_s']:g} s"
        return "crash", f"the program was ended by signal {signal.Signals(number).name}"
    code = os.WEXITSTATUS(process.status)
    return "error", f"the program ended itself with exit status {code}"
