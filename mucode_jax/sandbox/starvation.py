"""Time in which a program could not run because others had the processor.

A limit of ten seconds says that the program may take ten seconds, not that the machine is idle. The
kernel counts how long a task stood in line; that much is given back at the deadline, so that a right
program is not called slow because training fills every core. Where the kernel does not say (no
/proc, no scheduler statistics) nothing is given.
"""

from __future__ import annotations

import os

MOST = 9.0  # times the limit itself that is given at most
_WORTH_S = 0.02


def _seconds_in_line(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def children(pid: int) -> list[int]:
    """The children of `pid`, as numbered here; none where the kernel does not say."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


class Allowance:
    """What one program is given back, counted from the making of this object."""

    def __init__(self, server: int, seconds: float):
        """Args: the fork server's process (0 where unknown), the program's limit."""
        self._server = server
        self._seconds = seconds
        self._given = 0.0
        self._before = {pid: _seconds_in_line(pid) for pid in (os.getpid(), server)}

    def more(self, *others: int) -> float:
        """Seconds to add to the deadline that has just passed, 0 where the time is really up.

        Args:
          others: further processes whose waiting counts, such as a fork of the judge.
        """
        tasks = {os.getpid(), self._server, *children(self._server), *others}
        lost = sum(_seconds_in_line(pid) - self._before.get(pid, 0.0) for pid in tasks)
        more = min(lost, MOST * self._seconds) - self._given
        if more < _WORTH_S:
            return 0.0
        self._given += more
        return more
