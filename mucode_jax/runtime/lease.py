"""Who works in a place of a bucket: the holder of its lock, an object that is created and touched.

It is created on the condition that there is none, and its holder touches it every few seconds. A
lock that nobody touches was left by a machine that is gone. Who waits for it sees that without
comparing clocks, and removes it on the condition that it is still the same.

gcsfs has the first condition only (`mode="create"`). The others, on a touch and on a removal, are
generation preconditions of the service, given to its `call`.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

BEAT_S = 10.0  # how often the holder touches its lock
SILENT_S = 60.0  # a holder that has not touched it for so long is gone

_BUILTIN = OSError.__module__


class Lease:
    """The lock of one place; nothing is held before `claim`.

    Attributes:
      lost: whether another process has taken the lock over.
    """

    def __init__(self, files: Any, where: str, say: Callable[[str], None]) -> None:
        """
        Args:
          files: the file system of gs:// (gcsfs).
          where: gs://BUCKET/PATH.
          say: shows one line.
        """
        self._files, self._where, self._say = files, where, say
        self._bucket, _, path = where.partition("://")[2].partition("/")
        self._key = f"{path}/lock"
        self._lock = f"{self._bucket}/{self._key}"
        self._generation: str | None = None  # of the object that we created
        self._stop_beating: Callable[[], None] = lambda: None
        self.lost = False

    @property
    def held(self) -> bool:
        """Whether this process created the lock."""
        return self._generation is not None

    def claim(self, mirror: str) -> None:
        """Creates the lock, or takes over one that was left.

        Args:
          mirror: a name that only one living process can have: whoever else created a lock by it
            has ended.

        Raises:
          ValueError: another process works there.
          OSError: the bucket cannot be used.
        """
        about = {
            "mirror": mirror,
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        while not self._create(json.dumps(about).encode()):
            if holder := self._living_holder(mirror):
                raise ValueError(
                    f"another process works in {self._where}: {holder}; wait for it, or give "
                    "another --workdir"
                )
        self._stop_beating = repeat(lambda: BEAT_S, self._beat)

    def _create(self, content: bytes) -> bool:
        with asking(self._where), contextlib.suppress(FileExistsError):
            self._files.pipe_file(self._lock, content, mode="create")
            self._generation = self._files.info(self._lock)["generation"]
        return self.held

    def _living_holder(self, mirror: str) -> str | None:
        """Who holds the lock and still touches it; None: nobody does, and the lock is removed."""
        # It may vanish, or become another's, while it is looked at.
        with asking(self._where), contextlib.suppress(FileNotFoundError, FileExistsError):
            lock = self._files.info(self._lock)
            holder = json.loads(self._files.cat_file(self._lock))
            who = f"process {holder['process']} on {holder['host']}, since {holder['since']}"
            if holder["mirror"] != mirror and self._is_touched(lock, who):
                return who
            self._on_lock("DELETE", lock["generation"])
        return None

    def _is_touched(self, lock: Mapping[str, Any], who: str) -> bool:
        """Whether the lock changes within `SILENT_S`."""
        self._say(f"{self._where} is held by {who}; looking for {SILENT_S:.0f} s if it still works")
        until = time.monotonic() + SILENT_S
        while time.monotonic() < until:
            time.sleep(BEAT_S / 5)
            now = self._files.info(self._lock)
            if any(now[key] != lock[key] for key in ("generation", "metageneration")):
                return True
        return False

    def _beat(self) -> None:
        try:
            with asking(self._where):
                try:
                    body = {"metadata": {"touched": uuid.uuid4().hex}}  # any change
                    self._on_lock("PATCH", self._generation, json=body)
                except (FileNotFoundError, FileExistsError):
                    self.lost = True
        except OSError as error:  # the next one may get through
            logging.getLogger(__name__).info("the lock was not touched: %s", error)

    def _on_lock(self, method: str, generation: str | None, **request: Any) -> None:
        """Sends a request for the lock as it was; FileExistsError where it is another by now."""
        place = (self._bucket, self._key)
        self._files.call(method, "b/{}/o/{}", *place, ifGenerationMatch=generation, **request)

    def release(self) -> None:
        """Removes the lock if it is ours."""
        self._stop_beating()
        if self.held:
            with contextlib.suppress(OSError), asking(self._where):
                self._on_lock("DELETE", self._generation)
            self._generation = None


@contextlib.contextmanager
def asking(where: str) -> Iterator[None]:
    """Turns whatever goes wrong with the bucket into an OSError whose message is one line."""
    try:
        yield
    except Exception as error:  # of gcsfs, aiohttp, google.auth, or of this machine's disk
        if isinstance(error, OSError) and error.strerror and type(error).__module__ == _BUILTIN:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, FileNotFoundError):
            reason = f"not found: {reason}"
        message = f"the bucket does not do what is asked ({reason})"
        raise OSError(errno.EIO, message, where) from error


def repeat(pause: Callable[[], float], do: Callable[[], None]) -> Callable[[], None]:
    """Calls `do` in a thread, `pause()` seconds apart; returns the function that ends this."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(pause()):
            do()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()

    def stop() -> None:
        ended.set()
        thread.join()

    return stop
