"""The verdict: tests run here, in a process that the program cannot touch.

The judge keeps the expected values. It has the program loaded inside, runs each test statement
against stand-ins for the program's names (`remote`), and compares outside. A test that could be
made to last, and any large value, is dealt with in a fork of the judge, ended at the deadline.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import select
import signal
import socket
import time
from typing import Any

from . import channel, codec, errors, feedback, remote, standins, starvation, statements

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
    """

    status: str
    traceback: str = ""
    summary: str = ""
    values: str = ""


class _HandedOver(BaseException):
    """A fork of this process goes on with the program. No Exception, that no test may catch it."""


class _Hand:
    """Moves what is under way to a fork of this process, at most once.

    Attributes:
      fork: in the judge, once it was done: the fork's pid, and the pipe with its verdict.
      pipe: in the fork: where the verdict goes.
    """

    def __init__(self, end: socket.socket, stranger: socket.socket):
        """Args: the connection, the fork's from then on; a socket it has no business with."""
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
        random.seed(0)  # a fork is seeded anew by Python; tests that draw numbers draw the same
        self.pipe = writer


def examine(
    program: str,
    setup: str,
    texts: tuple[str, ...],
    end: socket.socket,
    owner: socket.socket,
    control: socket.socket,
    deadline: float,
    allowance: starvation.Allowance,
    prelude: dict[str, Any],
    own: frozenset[str],
    *,
    apart: bool,
) -> Verdict:
    """Runs `program`, then `setup`, then the tests `texts`.

    Args:
      program, setup, texts: Python.
      end: the connection to the program's process.
      owner, control: the sockets to the pool and to the server.
      deadline: `time.monotonic()` at which it is late.
      allowance: what is added to the deadline where the machine was busy.
      prelude: what the tests find, by name.
      own: those names.
      apart: judge in a fork, whatever the tests are.
    """
    try:
        prepared = statements.prepare(texts, own)
    except statements.BrokenTest as error:
        return Verdict("broken", summary=str(error))
    hand = _Hand(end, control)
    guarded = channel.Guarded(end, owner, deadline, allowance.more)
    link = remote.Link(guarded, hand.over)
    try:
        if apart or not prepared.light:
            hand.over()
        else:
            # A value may hang the judge itself. The alarm ends it, and the next one tries `apart`.
            left = max(0.0, deadline - time.monotonic())
            signal.setitimer(signal.ITIMER_PROF, left + _JUDGE_GRACE_S)
        verdict = _run(program, setup, prepared, link, prelude)
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


def _run(
    program: str,
    setup: str,
    prepared: statements.Prepared,
    link: remote.Link,
    prelude: dict[str, Any],
) -> Verdict:
    names = {**prelude, "__name__": "__main__"}
    kept: dict[int, Any] = {}
    asserted = [-1]

    def keep(number: int, side: int, value: Any) -> Any:
        if side == 0:
            kept.clear()
        asserted[0] = number
        kept[side] = value
        return value

    names[statements.KEEP] = keep
    try:
        link.load(program, setup, prepared.wanted, names)
        for piece in prepared.pieces:
            exec(piece, names)
        if link.fault is not None:
            raise link.fault  # a test caught it
        return Verdict("pass")
    except remote.NeverStarted:
        return Verdict("unstarted")
    except channel.Gone:
        return Verdict("gone")
    except channel.Late:
        return Verdict("late")
    except codec.Malformed as error:
        return Verdict("error", summary=f"no result: {error}")
    except standins.Unsendable as error:
        return Verdict("broken", summary=str(error))
    except _HandedOver:
        raise
    except BaseException as error:
        if isinstance(error, MemoryError) and errors.text_of(error) is None:
            return Verdict("oom", summary="MemoryError: the returned values are too large")
        return _raised(error, prepared, kept, asserted[0], link)


def _raised(
    error: BaseException,
    prepared: statements.Prepared,
    kept: dict[int, Any],
    number: int,
    link: remote.Link,
) -> Verdict:
    frames = feedback.test_frames(error, prepared.lines)
    if (inside := errors.text_of(error)) is not None:
        status = "oom" if isinstance(error, MemoryError) else "error"
        text = feedback.joined(frames, inside["text"])
        return Verdict(status, text, inside["last"].strip().split("\n")[-1])
    try:
        line = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    except Exception:  # a message of the program's: an object that is gone, too long an integer
        line = type(error).__name__
    if not isinstance(error, AssertionError):
        return Verdict("error", feedback.whole(frames, line), line.split("\n")[0])
    values = ""
    if 0 <= number < len(prepared.comparisons):
        try:
            values = feedback.comparison(kept, prepared.comparisons[number], link.last)
        except (channel.Gone, channel.Late, codec.Malformed):
            values = ""  # the program is no longer there to say what its objects look like
    failed = frames.rstrip("\n").rsplit("\n", 1)[-1].strip()
    return Verdict("fail", feedback.whole(frames, line), failed, values)


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
