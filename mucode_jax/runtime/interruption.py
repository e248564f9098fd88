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

GRACE_S = 25.0  # what is under way may take so long
SIGNALS = (signal.SIGINT, signal.SIGTERM)
GO_ON = "the same command goes on from the last finished piece or checkpoint"
_SHOW_CURSOR = "\x1b[?25h"  # a progress bar hides it

_came: int | None = None  # the signal that asked this process to stop


class Interrupted(Exception):
    """The process was asked to stop, and what was under way is stored."""


def asked() -> bool:
    """Whether this process was asked to stop."""
    return _came is not None


def check() -> None:
    """Raises Interrupted if this process was asked to stop."""
    if asked():
        raise Interrupted


def status() -> int:
    """The exit status of a process that was asked to stop: 128 + the signal's number."""
    return 128 + (_came or signal.SIGINT)


@contextlib.contextmanager
def watched(say: Callable[[str], None]) -> Iterator[None]:
    """Hears the signals within the block; to be entered by the main thread.

    Args:
      say: shows a person one line.
    """
    global _came
    _came = None
    heard, written = os.pipe()
    os.set_blocking(written, False)
    # The handlers do nothing: what counts is the byte that the interpreter writes beside them.
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    thread = threading.Thread(target=_listen, args=(heard, say), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(written)  # ends the thread
        thread.join()
        os.close(heard)


def _listen(heard: int, say: Callable[[str], None]) -> None:
    global _came
    late = None
    while byte := os.read(heard, 1):
        if byte[0] not in SIGNALS:
            continue
        if _came is not None:
            _leave("stopped at once")
        _came = byte[0]
        say(
            f"{signal.Signals(_came).name}: finishing what is under way, at most {GRACE_S:.0f} s; "
            "once more to stop at once"
        )
        late = threading.Timer(GRACE_S, _leave, [f"not finished within {GRACE_S:.0f} s, stopped"])
        late.daemon = True
        late.start()
    if late is not None:
        late.cancel()


def _leave(how: str) -> None:
    """Ends the process; the sandbox's workers end with it."""
    if sys.stderr.isatty():
        sys.stderr.write(_SHOW_CURSOR)
    print(f"mucode_jax: {how}; {GO_ON}", file=sys.stderr, flush=True)
    os._exit(status())
