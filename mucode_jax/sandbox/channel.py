"""Messages over a socket or pipe: four bytes of length, then JSON."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from . import codec

_LENGTH = struct.Struct("!I")
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class Gone(Exception):
    """The other end has closed."""


class Late(Exception):
    """The deadline passed."""


def pack(message: Any) -> bytes:
    """The bytes of one message; ASCII, so that lone surrogates pass."""
    body = _encode(message).encode("ascii")
    return _LENGTH.pack(len(body)) + body


def write(handle: int, data: bytes) -> None:
    """Writes all of `data`, blocking."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def read(handle: int) -> Any:
    """One message from the trusted side, blocking; raises Gone at the end of the stream."""
    (size,) = _LENGTH.unpack(_read_exactly(handle, _LENGTH.size))
    return json.loads(_read_exactly(handle, size))


def _read_exactly(handle: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(handle, min(size, 1 << 20))
        if not part:
            raise Gone
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class Guarded:
    """The judge's end of the connection to a program: every wait ends at the deadline.

    Attributes:
      deadline: `time.monotonic()` at which it is late.
    """

    def __init__(
        self,
        end: socket.socket,
        owner: socket.socket,
        deadline: float,
        more: Callable[[], float],
    ):
        """What it needs to wait.

        Args:
          end: the connected socket.
          owner: the pool's socket; when that closes, this process ends.
          deadline: `time.monotonic()` at which it is late.
          more: seconds to wait on when the deadline has passed, 0 where it is really late.
        """
        self.deadline = deadline
        self._more = more
        self._end = end
        end.setblocking(False)
        self._owner = owner.fileno()
        self._poller = select.poll()
        self._poller.register(end, select.POLLIN)
        self._poller.register(owner, 0)

    def _wait(self, event: int) -> None:
        self._poller.modify(self._end, event)
        while True:
            left = self.deadline - time.monotonic()
            ready = dict(self._poller.poll(max(0.0, left) * 1000))
            if self._owner in ready:
                os._exit(0)  # nobody waits for the verdict any more
            self._look_at_the_clock()
            if ready:
                return

    def _look_at_the_clock(self) -> None:
        """Raises Late where time is up, and none is given back."""
        if time.monotonic() >= self.deadline:
            more = self._more()
            if not more:
                raise Late
            self.deadline += more

    def send(self, message: Any) -> None:
        """Raises Gone or Late."""
        view = memoryview(pack(message))
        while view:
            try:
                view = view[self._end.send(view) :]
            except BlockingIOError:
                self._wait(select.POLLOUT)
            except OSError:
                raise Gone from None

    def receive(self) -> tuple[Any, int]:
        """(message, its bytes); raises Gone, Late or codec.Malformed."""
        self._look_at_the_clock()  # a program may answer before it is asked, for ever
        (size,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        if size > codec.MAX_BYTES:
            raise codec.Malformed("a value is too large to be carried out of the sandbox")
        body = self._exactly(size)
        codec.check_bounds(body)
        try:
            return json.loads(body), size
        except (ValueError, RecursionError) as error:
            raise codec.Malformed(f"not JSON: {error}") from None

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            try:
                part = self._end.recv(min(size, 1 << 20))
            except BlockingIOError:
                self._wait(select.POLLIN)
                continue
            except OSError:
                raise Gone from None
            if not part:
                raise Gone
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
