"""SIGTERM and Ctrl-C: finish the piece, leave; the second one, or too long a piece, leaves at once.

    with interruption.watched(say):
        for piece in work:
            do(piece)
            interruption.check()  # raises Interrupted once one has come

A machine that is about to be taken away says so by SIGTERM some 30 seconds ahead. The signals are
heard by a thread of their own, so that a second one is obeyed while the main thread compiles.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

GRACE_S = 25.0  # how long what is under way may take
QUIET_S = 1.0  # how long it may take without a word
SIGNALS = (signal.SIGINT, signal.SIGTERM)
GO_ON = "the same command goes on from the last finished piece or checkpoint"
_SHOW_CURSOR = "\x1b[?25h"  # a progress bar hides it

_received: int | None = None  # the signal that asked this process to stop


class Interrupted(Exception):
    """The process was asked to stop, and what was under way is stored."""


def asked() -> bool:
    """Whether this process was asked to stop."""
    return _received is not None


def check() -> None:
    """Raises Interrupted if this process was asked to stop."""
    if asked():
        raise Interrupted


def status() -> int:
    """The exit status of a process that was asked to stop: 128 + the signal's number."""
    return 128 + (_received or signal.SIGINT)


def leave_at_once() -> None:
    """From here on a signal ends the process with one line; for a command that has just started.

    To be called by the main thread, before the imports that take seconds. Within `watched` it does
    not hold.
    """

    def leave(number: int) -> None:
        global _received
        _received = number
        _leave("interrupted" if number == signal.SIGINT else "stopped")

    _listen(leave)


@contextlib.contextmanager
def watched(say: Callable[[str], None]) -> Iterator[None]:
    """Hears the signals within the block; to be entered by the main thread.

    Args:
      say: shows one line.
    """
    global _received
    _received = None
    timers: list[threading.Timer] = []

    def after(seconds: float, do: Callable[[str], None], line: str) -> None:
        timer = threading.Timer(seconds, do, [line])
        timer.daemon = True
        timer.start()
        timers.append(timer)

    def stop(number: int) -> None:
        global _received
        if _received is not None:
            _leave(f"stopped at once; {GO_ON}")
        _received = number
        after(
            QUIET_S,
            say,
            f"{signal.Signals(number).name}: finishing what is under way, at most {GRACE_S:.0f} s; "
            "once more to stop at once",
        )
        after(GRACE_S, _leave, f"not finished within {GRACE_S:.0f} s, stopped; {GO_ON}")

    restore = _listen(stop)
    try:
        yield
    finally:
        restore()
        for timer in timers:
            timer.cancel()


def _listen(react: Callable[[int], None]) -> Callable[[], None]:
    """Calls `react` with every signal, in a thread; returns what ends that and undoes it."""
    heard, written = os.pipe()
    os.set_blocking(written, False)
    # The handlers do nothing: what counts is the byte that the interpreter writes beside them.
    handlers = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(written, warn_on_full_buffer=False)

    def listen() -> None:
        while byte := os.read(heard, 1):
            if byte[0] in SIGNALS:
                react(byte[0])

    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()

    def restore() -> None:
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(written)  # ends the thread
        thread.join()
        os.close(heard)

    return restore


def _leave(line: str) -> None:
    """Ends the process; the sandbox's workers end with it."""
    if sys.stderr.isatty():
        sys.stderr.write(_SHOW_CURSOR)
    print(f"mucode_jax: {line}", file=sys.stderr, flush=True)
    os._exit(status())
