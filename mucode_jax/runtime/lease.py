"""Who works in a place of a bucket: the holder of its lock, an object that is made and touched.

It is made on the condition that it is not there, and its holder touches it every few seconds. A
lock that nobody touches any more was left by a machine that is gone; who waits for it sees so
without comparing clocks, and takes it over on the condition that it is still the same.
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

BEAT_S = 10.0  # the holder touches its lock so often
SILENT_S = 60.0  # who has not touched it for so long is gone

_BUILTIN = OSError.__module__


class Lease:
    """The lock of one place; nothing is held before `claim`.

    Attributes:
      held: whether this process made the lock.
      lost: whether another has taken it over since.
    """

    def __init__(self, files: Any, where: str, say: Callable[[str], None]) -> None:
        """
        Args:
          files: the file system of gs:// (gcsfs).
          where: gs://BUCKET/PATH.
          say: shows a person one line.
        """
        self._files, self._where, self._say = files, where, say
        self._bucket, _, path = where.partition("://")[2].partition("/")
        self._key = f"{path}/lock"
        self._generation: str | None = None  # of the object that we made
        self._stop_beating: Callable[[], None] = lambda: None
        self.lost = False

    @property
    def held(self) -> bool:
        return self._generation is not None

    def claim(self, mirror: str) -> None:
        """Makes the lock, or takes over one that was left.

        Args:
          mirror: names what one living process only has: who else made a lock by it has ended.

        Raises:
          ValueError: another process works there.
          OSError: the bucket does not do what is asked.
        """
        about = {
            "mirror": mirror,
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        lock = f"{self._bucket}/{self._key}"
        living = None
        while not self.held and living is None:
            with asking(self._where), contextlib.suppress(FileExistsError):
                self._files.pipe_file(lock, json.dumps(about).encode(), mode="create")
                self._generation = self._files.info(lock)["generation"]
                continue
            # Somebody's: gone meanwhile, left behind, or in use.
            with asking(self._where), contextlib.suppress(FileNotFoundError, FileExistsError):
                found = self._files.info(lock)
                theirs = json.loads(self._files.cat_file(lock))
                if theirs["mirror"] != mirror:
                    living = self._who_lives(lock, found, theirs)
                if living is None:
                    self._on_lock("DELETE", found["generation"])
        if living is not None:
            raise ValueError(
                f"another process works in {self._where}: {living}; wait for it, or give another "
                "--workdir"
            )
        self._stop_beating = repeat(lambda: BEAT_S, self._beat)

    def _who_lives(
        self, lock: str, found: Mapping[str, Any], theirs: Mapping[str, Any]
    ) -> str | None:
        """Who it is that still touches the lock; None, after a while, where nobody does."""
        who = f"process {theirs['process']} on {theirs['host']}, since {theirs['since']}"
        self._say(f"{self._where} is held by {who}; looking for {SILENT_S:.0f} s if it still works")
        until = time.monotonic() + SILENT_S
        while time.monotonic() < until:
            time.sleep(BEAT_S / 5)
            now = self._files.info(lock)
            if any(now[key] != found[key] for key in ("generation", "metageneration")):
                return who
        return None

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

    def _on_lock(self, method: str, generation: str | None, **what: Any) -> None:
        """Asks for something of the lock as it was; FileExistsError where it is another by now."""
        where = (self._bucket, self._key)
        self._files.call(method, "b/{}/o/{}", *where, ifGenerationMatch=generation, **what)

    def release(self) -> None:
        """Removes the lock if it is ours."""
        self._stop_beating()
        if self.held:
            with contextlib.suppress(OSError), asking(self._where):
                self._on_lock("DELETE", self._generation)
            self._generation = None


@contextlib.contextmanager
def asking(where: str) -> Iterator[None]:
    """Whatever goes wrong on the way to the bucket becomes an OSError with one line."""
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
    """Does it again and again in a thread, `pause()` seconds apart; returns what ends that."""
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
