"""The verdict: tests run here, in a process that the program cannot touch.

The judge keeps the expected values. It has the program loaded inside, runs each test statement
against stand-ins for the program's names (`remote`), and compares outside; tests that a statement
defines (`cases`) are run after it. A test that could be made to last, and any large value, is dealt
with in a fork of the judge, ended at the deadline.
"""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import os
import pickle
import random
import select
import signal
import socket
import sys
import time
import types
from typing import Any

from . import (
    blame,
    channel,
    codec,
    errors,
    feedback,
    isolation,
    namespaces,
    pytest_words,
    recording,
    refusals,
    remote,
    standins,
    starvation,
    statements,
)

EXPECTED = "_expected"  # as in `records`, which the judge does not import
_FORK_GRACE_S = 0.5  # a fork of the judge knows its own deadline; this is for one that hangs
_JUDGE_GRACE_S = 1.0  # of processor time, beyond what the program has


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the tests say of one program.

    Attributes:
      status: pass, fail, error or oom; "gone" where the process ended before it answered, "late"
        where time ran out, "unstarted" where the process was lost before it read the program,
        "broken" where the tests are at fault.
      traceback: the whole text, as Python would print it; "" where it passed.
      summary: the same in one line.
      values: for a failed comparison, what was returned and what expected.
      in_tests: an error that came about in the tests' own code.
      recorded: the value that was asked for, as data of `recording`.
    """

    status: str
    traceback: str = ""
    summary: str = ""
    values: str = ""
    in_tests: bool = False
    recorded: Any = None


class _HandedOver(BaseException):
    """A fork of this process goes on with the program. No Exception, that no test may catch it."""


# What ends the tests of a program, whatever a test expects.
_FATAL = (
    *(_HandedOver, channel.Gone, channel.Late, codec.Malformed),
    *(remote.NeverStarted, standins.Unsendable, refusals.BrokenTest),
)


class _Hand:
    """Moves what is under way to a fork of this process, at most once.

    Attributes:
      fork: in the judge, once it was done: the fork's pid, and the pipe with its verdict.
      pipe: in the fork: where the verdict goes.
    """

    def __init__(self, end: socket.socket, stranger: socket.socket, shared: tuple[int, ...]):
        """Args: the connection, the fork's from then on; a socket it has no business with; what
        opens the folder that the fork shares with the program, if it does.
        """
        self._shared = shared
        self.fork: tuple[int, int] | None = None
        self.pipe: int | None = None
        self._end = end
        self._stranger = stranger

    def over(self) -> None:
        """Returns in the fork; raises _HandedOver in the judge itself."""
        if self.pipe is not None:
            return
        reader, writer = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writer)
            self.fork = pid, reader
            self._end.close()  # numpy clears any exception: who goes on all the same finds nobody
            raise _HandedOver
        os.close(reader)
        self._stranger.close()
        if self._shared:
            namespaces.join(self._shared, isolation.view().scratch)
        random.seed(0)  # a fork is seeded anew by Python; tests that draw numbers draw the same
        self.pipe = writer


class _Conversation(channel.Guarded):
    """The connection to a program, which remembers what a test may have overlooked.

    Attributes:
      sent: how many messages the program was sent.
      ended: why there will be no more of it, whatever the tests make of that.
    """

    def __init__(self, output: tuple[int, int], *arguments: Any):
        """Args: what the program writes its output and errors to; what `Guarded` takes."""
        super().__init__(*arguments)
        self.sent = 0
        self.ended: Exception | None = None
        self._output = output
        self._shown = [0, 0]

    def send(self, message: Any) -> None:
        self.sent += 1
        if _is_redirected():
            self._shown = [os.fstat(handle).st_size for handle in self._output]
        try:
            super().send(message)
        except (channel.Gone, channel.Late) as error:
            self.ended = error
            raise

    def receive(self) -> tuple[Any, int]:
        try:
            return super().receive()
        except (channel.Gone, channel.Late, codec.Malformed) as error:
            self.ended = error
            raise
        finally:
            if _is_redirected():
                self._show()

    def _show(self) -> None:
        """Writes what the program has written to where a test has redirected the judge's output."""
        for i, stream in enumerate((sys.stdout, sys.stderr)):
            size = os.fstat(self._output[i]).st_size
            if stream is not (sys.__stdout__, sys.__stderr__)[i] and size > self._shown[i]:
                data = os.pread(self._output[i], size - self._shown[i], self._shown[i])
                stream.write(data.decode("utf-8", "replace"))
            self._shown[i] = size


def _is_redirected() -> bool:
    return sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__


class _Solution(types.ModuleType):
    """What a test gets that imports the program."""

    def __init__(self, link: remote.Link):
        super().__init__("solution")
        object.__setattr__(self, "_link", link)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self._link.value_of(name)
        except NameError:
            raise AttributeError(f"the program defines no {name!r}") from None


def _builtins(link: remote.Link) -> dict[str, Any]:
    """The built-in names, with an `import` that serves the program and pytest."""
    solution = _Solution(link)

    def import_(name: str, *arguments: Any, **named: Any) -> Any:
        if name in refusals.PROGRAM_MODULES:
            return solution
        return pytest_words if name == "pytest" else __import__(name, *arguments, **named)

    return {**vars(builtins), "__import__": import_}


def examine(
    program: str,
    setup: str,
    texts: tuple[str, ...],
    end: socket.socket,
    owner: socket.socket,
    control: socket.socket,
    output: tuple[int, int],
    deadline: float,
    allowance: starvation.Allowance,
    prelude: dict[str, Any],
    own: frozenset[str],
    *,
    expected: bytes,
    shared: tuple[int, ...],
    recorded: str,
    apart: bool,
) -> Verdict:
    """Runs `program`, then `setup`, then the tests `texts`.

    Args:
      program, setup, texts: Python.
      end: the connection to the program's process.
      owner, control: the sockets to the pool and to the server.
      output: what the program writes its output and errors to.
      deadline: `time.monotonic()` at which it is late.
      allowance: what is added to the deadline where the machine was busy.
      prelude: what the tests find, by name.
      own: those names.
      expected: what the tests find under the name `EXPECTED`, pickled; b"" for nothing.
      shared: handles that open the program's scratch folder, where the tests share it.
      recorded: a name whose value is wanted after the tests; "" for none.
      apart: judge in a fork, whatever the tests are.
    """
    try:
        prepared = statements.prepare(texts, own)
        refusals.check_setup(setup)
        if shared:
            refusals.check_shared(statements.parsed(texts))
    except refusals.BrokenTest as error:
        return Verdict("broken", summary=str(error), in_tests=True)
    hand = _Hand(end, control, shared)
    guarded = _Conversation(output, end, owner, deadline, allowance.more)
    link = remote.Link(guarded, hand.over)
    if any(prepared.cases):
        from . import cases  # noqa: F401 (before the fork: it takes a while)
    try:
        if apart or not prepared.light:
            hand.over()
        else:
            # A value may hang the judge itself. The alarm ends it, and the next one tries `apart`.
            left = max(0.0, deadline - time.monotonic())
            signal.setitimer(signal.ITIMER_PROF, left + _JUDGE_GRACE_S)
        names = {**prelude, EXPECTED: pickle.loads(expected)} if expected else prelude
        run = _Run(texts, prepared, link, guarded, names, own, shared=bool(shared))
        verdict = run.verdict(program, setup, recorded)
        if hand.pipe is not None:
            channel.write(hand.pipe, channel.pack(dataclasses.asdict(verdict)))
    except _HandedOver:
        pass  # there is hand.fork
    finally:
        if hand.pipe is not None:
            os._exit(0)  # the fork must never go on as the judge
        signal.setitimer(signal.ITIMER_PROF, 0)
    if hand.fork is not None:
        return _await(*hand.fork, owner, guarded.deadline, allowance)
    return verdict


class _Run:
    """The tests of one program."""

    def __init__(
        self,
        texts: tuple[str, ...],
        prepared: statements.Prepared,
        link: remote.Link,
        guarded: _Conversation,
        prelude: dict[str, Any],
        own: frozenset[str],
        *,
        shared: bool,
    ):
        self._shared = shared
        self._texts, self._prepared = texts, prepared
        self._link, self._guarded = link, guarded
        self._names = {**prelude, "__name__": "__main__", statements.KEEP: self._keep}
        if prepared.served:
            self._names["__builtins__"] = _builtins(link)
        self._own = own
        self._kept: dict[int, Any] = {}
        self._compared = -1  # the comparison that was made last
        self._count = 0  # what was asserted, and tests that were run

    def _keep(self, number: int, side: int, value: Any) -> Any:
        if side == 0:
            self._kept.clear()
            self._count += 1
        self._compared = number
        self._kept[side] = value
        return value

    def verdict(self, program: str, setup: str, recorded: str) -> Verdict:
        """Runs the program, then the tests; with what they gave the name `recorded`."""
        try:
            try:
                self._test(program, setup)
            except _HandedOver:
                raise
            except BaseException:
                if self._fault() is None:
                    raise
            if (fault := self._fault()) is not None:
                raise fault  # a test that expects any exception does not catch this
            data = recording.encode(self._names[recorded]) if recorded else None
            return Verdict("pass", recorded=data)
        except remote.NeverStarted:
            return Verdict("unstarted")
        except channel.Gone:
            return Verdict("gone")
        except channel.Late:
            return Verdict("late")
        except codec.Malformed as error:
            return Verdict("error", summary=f"no result: {error}")
        except (standins.Unsendable, refusals.BrokenTest) as error:
            return Verdict("broken", summary=str(error), in_tests=True)
        except _HandedOver:
            raise
        except BaseException as error:
            if isinstance(error, MemoryError) and errors.text_of(error) is None:
                return Verdict("oom", summary="MemoryError: the returned values are too large")
            return self._raised(error)

    def _fault(self) -> BaseException | None:
        """What has ended the conversation, if it has ended."""
        return self._guarded.ended or self._link.fault

    def _test(self, program: str, setup: str) -> None:
        self._link.load(program, setup, self._prepared.wanted, self._names)
        self._loaded = self._guarded.sent
        for piece, cases in zip(self._prepared.pieces, self._prepared.cases, strict=True):
            try:
                exec(piece, self._names)
            except SystemExit as error:
                if not _is_own_exit(error):
                    raise
            if cases:
                from .cases import run

                self._count += run(cases, self._names, _FATAL)
        if self._texts and not self._count and self._guarded.sent == self._loaded:
            raise refusals.BrokenTest("the tests run nothing: they assert nothing, call nothing")

    def _raised(self, error: BaseException) -> Verdict:
        frames = feedback.test_frames(error, self._prepared.lines)
        if (inside := errors.text_of(error)) is not None:
            status = "oom" if isinstance(error, MemoryError) else "error"
            text = feedback.joined(frames, inside["text"])
            return Verdict(status, text, inside["last"].strip().split("\n")[-1])
        line = _described(error)
        if isinstance(error, (AssertionError, pytest_words.Failed, SystemExit)):
            failed = frames.rstrip("\n").rsplit("\n", 1)[-1].strip()
            return Verdict("fail", feedback.whole(frames, line), failed, self._values(error))
        asked = self._guarded.sent > self._loaded
        given = self._link.given
        fault = blame.of(
            error,
            self._texts,
            self._prepared,
            (*self._prepared.free, *given),
            self._own,
            callables=frozenset(x for x in given if standins.is_callable(given[x])),
            asked=asked,
        )
        if fault == "tests" and self._shared and asked:
            fault = "unclear"  # it may have come by the files
        if fault == "tests":
            return Verdict("broken", summary=self._broken(error, line), in_tests=True)
        text, summary = feedback.whole(frames, line), line.split("\n")[0]
        return Verdict("error", text, summary, in_tests=fault == "unclear")

    def _values(self, error: BaseException) -> str:
        """What was returned and what expected, where it was a comparison that failed."""
        place = blame.failing(error)
        if not 0 <= self._compared < len(self._prepared.comparisons) or place is None:
            return ""
        comparison = self._prepared.comparisons[self._compared]
        if not comparison.is_on(place[0]):
            return ""
        try:
            return feedback.comparison(self._kept, comparison, self._link.last)
        except (channel.Gone, channel.Late, codec.Malformed):
            return ""  # the program is no longer there to say what its objects look like

    def _broken(self, error: BaseException, line: str) -> str:
        place = blame.failing(error)
        if place is None:
            return f"the tests cannot be run: {line}"
        number, first = self._prepared.place(place[0])
        source = self._prepared.lines[place[0] - 1].strip()
        return f"test {number}, line {first} fails with any program: {source}: {line}"


def _is_own_exit(error: SystemExit) -> bool:
    """Whether a text ended itself, and says that all is well; never what the program raised."""
    if type(error) is not SystemExit or errors.text_of(error) is not None:
        return False
    return error.code is None or (type(error.code) in (int, bool) and error.code == 0)


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}".rstrip().removesuffix(":")
    except _HandedOver:
        raise
    except BaseException:  # a message of the program's: an object that is gone, too long an integer
        return type(error).__name__


def _await(
    pid: int,
    pipe: int,
    owner: socket.socket,
    deadline: float,
    allowance: starvation.Allowance,
) -> Verdict:
    """The verdict of a fork, which is ended shortly after the deadline."""
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    poller.register(owner.fileno(), 0)
    ready: dict[int, int] = {}
    while not ready:
        left = deadline + _FORK_GRACE_S - time.monotonic()
        ready = dict(poller.poll(max(0.0, left) * 1000))
        more = 0.0 if ready else allowance.more(pid)
        if not more:
            break
        deadline += more
    verdict = Verdict("late")
    try:
        if owner.fileno() in ready:
            os._exit(0)
        if pipe in ready:
            verdict = Verdict(**channel.read(pipe))
    except channel.Gone:
        verdict = Verdict("error", summary="the returned values are too large to be compared")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pipe)
    return verdict


def same_output(got: str, expected: str) -> bool:
    """Whether two outputs are equal but for blanks at line ends and around the whole."""

    def lines(text: str) -> list[str]:
        return [line.rstrip() for line in text.strip().splitlines()]

    return lines(got) == lines(expected)
