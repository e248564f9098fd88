"""Time in which a program could not run because others had the processor.

A limit of ten seconds says that the program may take ten seconds, not that the machine is idle.
The kernel counts how long a task stood in line; that much is given back at the deadline, so that a
right program is not called slow because training fills every core. Where the kernel does not say
(no /proc, no scheduler statistics) nothing is given.
"""

from __future__ import annotations

import os

MOST = 4.0  # times the limit itself that is given at most
_WORTH_S = 0.02


def _seconds_in_line(pid: int) -> float:
    try:
        handle = os.open(f"/proc/{pid}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0.0
    try:
        return _read(handle)
    finally:
        os.close(handle)


def _read(handle: int) -> float:
    try:
        return int(os.pread(handle, 100, 0).split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


class Watched:
    """A process that lives long, its counter kept open: it is read once for every program."""

    def __init__(self, pid: int):
        self.pid = pid
        try:
            self._handle = os.open(f"/proc/{pid}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._handle = -1

    def seconds_in_line(self) -> float:
        """Since it began; 0 where the kernel does not say."""
        return _read(self._handle) if self._handle >= 0 else 0.0


def children(pid: int) -> list[int]:
    """The children of `pid`, as numbered here; none where the kernel does not say."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


class Allowance:
    """What one program is given back, counted from the making of this object."""

    def __init__(self, judge: Watched, server: Watched, seconds: float):
        """Args: the judge, its fork server, the program's limit."""
        self._watched = watched = (judge, server)
        self._seconds = seconds
        self._given = 0.0
        self._before = [one.seconds_in_line() for one in watched]

    def more(self, *others: int) -> float:
        """Seconds to add to the deadline that has just passed, 0 where the time is really up.

        Args:
          others: further processes whose waiting counts, such as a fork of the judge.
        """
        judge, server = (one.pid for one in self._watched)
        young = {os.getpid(), *others, *children(server)} - {judge}
        now = [one.seconds_in_line() for one in self._watched]
        lost = sum(now) - sum(self._before) + sum(map(_seconds_in_line, young))
        more = min(lost, MOST * self._seconds) - self._given
        if more < _WORTH_S:
            return 0.0
        self._given += more
        return more
