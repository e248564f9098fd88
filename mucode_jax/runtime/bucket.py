"""Work directories in a bucket, gs://BUCKET/PATH: each host works in a folder of its own.

The folder (below the user's cache) mirrors what the bucket holds, a stage at a time: before a stage
is looked at it is brought down; while it is made its pieces go up now and then, and at a stop; when
it is done its files go up, its ledger last. What is in the bucket is what counts: a host that is
taken away loses what it made since the last time. Checkpoints of a training are written to the
bucket by orbax, without a copy here.

Needs gcsfs (extra `gcs`), and the credentials that Google's own tools use.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import importlib.util
import logging
import os
import pathlib
import re
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from mucode_jax.runtime import hosts
from mucode_jax.runtime.command import cache
from mucode_jax.runtime.lease import Lease, asking, repeat

EVERY_S = 30.0  # pieces go up so often, or less often where that takes long

_DIRECT = "checkpoints"  # folders that orbax writes to the bucket itself
_BESIDE = ("xla", "tensorboard")  # folders beside the stages: compiled programs, summaries
_OWN = ("lock", "mirror")  # of a mirror; what the bucket holds of that name is another thing
_GROWING = "pieces"  # folders of files that are appended to
_LAST = "stage.json"  # a stage is done when this is there

State = tuple[int, int]  # of a file: when it was changed (ns), and its bytes


def named(where: str | os.PathLike[str]) -> bool:
    """Whether a work directory is a bucket's, and not a folder."""
    return bool(re.match(r"\w+:/", str(where)))


def fetch(where: str, wanted: Callable[[str], bool] = lambda name: True) -> pathlib.Path:
    """A folder to read a work directory in: itself, or a copy of what the bucket holds.

    Args:
      where: a folder, or gs://BUCKET/PATH.
      wanted: which files are brought down, by their names below PATH.

    Raises:
      ValueError: it cannot be read.
    """
    if not named(where):
        return pathlib.Path(where)
    try:
        copy = Bucket(where, _say, "read")
        copy.pull("", wanted)
    except OSError as error:
        raise ValueError(f"cannot read {where}: {error.strerror}") from error
    return copy.path


def local(where: str | os.PathLike[str], kind: str | None = None) -> pathlib.Path:
    """Where this host works for a work directory: itself, or the mirror of a bucket.

    Raises ValueError where `where` is an address, but not gs://BUCKET/PATH, or there is no cache.
    """
    if not named(where):
        return pathlib.Path(where)
    scheme, _, inside = str(where).rstrip("/").partition("://")
    if scheme != "gs" or not re.fullmatch("[^/]+(/[^/]+)+", inside):
        raise ValueError(f"{where} is no work directory; a bucket's is gs://BUCKET/PATH")
    return cache() / "gs" / (kind or str(hosts.index())) / inside


def store(where: str, file: pathlib.Path) -> None:
    """Takes up one file of the folder that `fetch` gave; OSError where that fails."""
    if named(where):
        Bucket(where, _say, "read").send([file.name])


def _say(text: str) -> None:
    print(text, file=sys.stderr)


class Folder:
    """A work directory that all hosts see as it is: nothing is brought or taken anywhere.

    Attributes:
      path: where this host works.
      where: what a person calls it.
    """

    def __init__(self, where: str | os.PathLike[str]) -> None:
        self.where = str(where)
        self.path = pathlib.Path(where)

    def hold(self) -> None:
        """The first host's: nobody else works in it from here on."""
        hosts.shares(self.path)

    def address(self, path: pathlib.Path) -> str:
        """Where to write what all hosts see at once: the path, or its name in the bucket."""
        return str(path)

    def pull(self, name: str) -> None:
        """Makes the folder `name` here what it is in the bucket."""

    def push(self, name: str, whole: bool = False) -> None:
        """Takes up what has changed in it; with `whole`, what is not here is removed there."""

    def remove(self, name: str) -> None:
        """Removes it in both places."""
        if (self.path / name).is_symlink():  # moved to another disk by hand
            (self.path / name).unlink()
        else:
            shutil.rmtree(self.path / name)

    def kept(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Within the block what changes in it is taken up now and then, in the end all of it."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Ends the work."""


class Bucket(Folder):
    """gs://BUCKET/PATH and this host's mirror of it. Methods raise OSError where it fails."""

    def __init__(self, where: str, say: Callable[[str], None], kind: str | None = None) -> None:
        """
        Args:
          where: gs://BUCKET/PATH.
          say: shows a person one line.
          kind: mirrors of one bucket for different uses; by default one a host.

        Raises:
          ValueError: it is no such address, or gcsfs is not installed.
        """
        self.where = where.rstrip("/")
        self.path = local(where, kind)
        if importlib.util.find_spec("gcsfs") is None:
            raise ValueError(f"{where} needs gcsfs; install it with pip install -e '.[gcs]'")
        self._root = self.where.partition("://")[2]
        self._say = say
        say(f"looking into {self.where}")  # without a network it takes a minute to fail
        self._files = _client()
        self._busy = threading.RLock()
        self._seen: dict[
            str, State | None
        ] = {}  # files here, as they were when here and there agreed
        self._lease = Lease(self._files, self.where, say)

    def hold(self) -> None:
        hosts.agree("the work directory", {"--workdir": self.where})
        self.pull("xla", exact=False)
        if hosts.first():
            mark = self.path / "mirror"  # the caller holds the mirror itself
            if not mark.exists():
                mark.write_text(uuid.uuid4().hex)
            self._lease.claim(mark.read_text())

    def address(self, path: pathlib.Path) -> str:
        return f"{self.where}/{path.relative_to(self.path)}"

    def pull(
        self, name: str, wanted: Callable[[str], bool] = lambda name: True, exact: bool = True
    ) -> None:
        with self._busy, asking(self.where):
            there = {n: md5 for n, md5 in self._list(name).items() if wanted(n)}
            if exact:
                for file in filter(wanted, set(self._here(name)) - there.keys()):
                    (self.path / file).unlink()
                if name and not there:
                    shutil.rmtree(self.path / name, ignore_errors=True)
            names = [n for n, md5 in there.items() if _md5(self.path / n) != md5]
            for n in names:
                (self.path / n).unlink(missing_ok=True)  # it may be linked to another run's
            if names:
                self._files.get([f"{self._root}/{n}" for n in names], [*map(self._at, names)])
            self._seen |= {n: _state(self.path / n) for n in there}

    def push(self, name: str, whole: bool = False) -> None:
        with self._busy:
            here = self._here(name)
            self.send(here)
            if whole:
                with asking(self.where):
                    gone = self._list(name, direct=True).keys() - set(here)
                    if gone:
                        self._files.rm([f"{self._root}/{n}" for n in sorted(gone)])

    def send(self, names: list[str]) -> None:
        """Takes up those of the files that have changed, a ledger when the others are there."""
        with self._busy, asking(self.where):
            if self._lease.lost:
                raise OSError(errno.EBUSY, "another process has taken it over", self.where)
            states = {n: _state(self.path / n) for n in names}
            changed = [n for n, state in states.items() if state not in (None, self._seen.get(n))]
            growing = [n for n in changed if f"/{_GROWING}/" in n]  # read at once, as they grow
            ledger = [n for n in changed if n.endswith("/" + _LAST)]
            for name in growing:
                self._files.pipe_file(f"{self._root}/{name}", (self.path / name).read_bytes())
            for group in ([n for n in changed if n not in (*growing, *ledger)], ledger):
                if group:
                    self._files.put([*map(self._at, group)], [f"{self._root}/{n}" for n in group])
            self._seen |= {n: states[n] for n in changed}

    def remove(self, name: str) -> None:
        with self._busy:
            shutil.rmtree(self.path / name)
            self.push(name, whole=True)

    @contextlib.contextmanager
    def kept(self, name: str) -> Iterator[None]:
        took = 0.0
        told = False

        def go_up() -> None:
            nonlocal told, took
            began = time.monotonic()
            try:
                self.push(name)
                told = False
            except OSError as error:
                if not told:
                    self._say(f"{self.where}: {error.strerror}; tried again until it answers")
                told = True
            took = time.monotonic() - began

        stop = repeat(lambda: max(EVERY_S, 20 * took), go_up)
        try:
            yield
        except BaseException:
            stop()
            go_up()
            raise
        stop()
        self.push(name)
        self._push_beside()

    def _push_beside(self) -> None:
        if hosts.first():
            for name in _BESIDE:
                self.push(name)

    def close(self) -> None:
        """Takes up what the run left beside its stages, and lets go of the lock."""
        ended_by = sys.exception()
        try:
            if self._lease.held:
                self._push_beside()
                self.send([f.name for f in self.path.iterdir() if f.is_file() and _goes(f.name)])
        except OSError as error:
            if ended_by is None:
                raise
            self._say(f"{self.where}: {error.strerror}")  # must not hide what ended the run
        finally:
            self._lease.release()

    def _list(self, name: str, direct: bool = False) -> dict[str, str | None]:
        """What the bucket holds below `name`: names below the root, and their MD5 in base 64."""
        found = self._files.find(f"{self._root}/{name}".rstrip("/"), detail=True)
        names = {n.removeprefix(self._root + "/"): about for n, about in found.items()}
        return {
            n: about.get("md5Hash")
            for n, about in names.items()
            if _goes(n) and (direct or f"/{_DIRECT}/" not in n)
        }

    def _here(self, name: str) -> list[str]:
        """The files below `name` here."""
        found = sorted((self.path / name).rglob("*"))
        return [n for f in found if f.is_file() and _goes(n := str(f.relative_to(self.path)))]

    def _at(self, name: str) -> str:
        return str(self.path / name)


def _client() -> Any:
    """The file system of gs://, the same for orbax."""
    # It would ask for the kind of bucket over a second protocol, ahead of everything.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import aiohttp
    import fsspec

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # what it logs is raised, too
    # Several hosts write: a listing is never kept. A server that is silent is asked once more.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    fsspec.config.conf["gcs"] = {
        "use_listings_cache": False,
        "session_kwargs": {"timeout": timeout},
    }
    return fsspec.filesystem("gcs")


def _goes(name: str) -> bool:
    """Whether a file is the same here and there."""
    return name not in _OWN and not name.endswith(".part")


def _state(file: pathlib.Path) -> State | None:
    """None: it is gone meanwhile."""
    try:
        stat = file.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _md5(file: pathlib.Path) -> str | None:
    """As the bucket tells it; None: there is no such file."""
    if not file.is_file():
        return None
    with open(file, "rb") as f:
        return base64.b64encode(hashlib.file_digest(f, "md5").digest()).decode()
