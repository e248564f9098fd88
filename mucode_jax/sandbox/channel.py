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
_AT_ONCE = 1 << 16
_DECODER, _ENCODER = json.JSONDecoder(), json.JSONEncoder(separators=(",", ":"))
# What the two use: called directly, for a program's process pays for every page that it touches.
_scanned = _DECODER.scan_once
_pieces = json.encoder.c_make_encoder(
    *(None, _ENCODER.default, json.encoder.encode_basestring_ascii, None),
    *(_ENCODER.key_separator, _ENCODER.item_separator, False, False, True),
)


class Gone(Exception):
    """The other end has closed."""


class Late(Exception):
    """The deadline passed."""


def pack(message: Any) -> bytes:
    """The bytes of one message; ASCII, so that lone surrogates pass."""
    body = "".join(_pieces(message, 0)).encode("ascii")
    return _LENGTH.pack(len(body)) + body


def write(handle: int, data: bytes) -> None:
    """Writes all of `data`, blocking."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def read(handle: int) -> Any:
    """One message from the trusted side, blocking; raises Gone at the end of the stream.

    The next one does not come before this one is answered.
    """
    data = os.read(handle, _AT_ONCE)
    while len(data) < _LENGTH.size or len(data) < _LENGTH.size + _LENGTH.unpack_from(data)[0]:
        more = os.read(handle, 1 << 20)
        if not more:
            raise Gone
        data += more
    return _scanned(data[_LENGTH.size :].decode("ascii"), 0)[0]


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
        self._event = select.POLLIN
        self._received = bytearray()  # what is not dealt with yet

    def _wait(self, event: int) -> None:
        if event != self._event:
            self._poller.modify(self._end, event)
            self._event = event
        while True:
            left = self.deadline - time.monotonic()
            ready = self._poller.poll(max(0.0, left) * 1000)
            for handle, _ in ready:
                if handle == self._owner:
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
        self._receive(_LENGTH.size)
        (size,) = _LENGTH.unpack_from(self._received)
        if size > codec.MAX_BYTES:
            raise codec.Malformed("a value is too large to be carried out of the sandbox")
        end = _LENGTH.size + size
        self._receive(end)
        body = self._received[_LENGTH.size : end]
        del self._received[:end]
        codec.check_bounds(body)
        try:
            message, length = _scanned(body.decode("ascii"), 0)
        except (ValueError, RecursionError, StopIteration) as error:
            raise codec.Malformed(f"not JSON: {error}") from None
        if length != size:
            raise codec.Malformed("more than JSON")
        return message, size

    def _receive(self, size: int) -> None:
        """Waits until at least so many bytes have been received."""
        while len(self._received) < size:
            self._wait(select.POLLIN)
            try:
                part = self._end.recv(_AT_ONCE if size <= _AT_ONCE else 1 << 20)
            except BlockingIOError:
                continue
            except OSError:
                raise Gone from None
            if not part:
                raise Gone
            self._received += part
