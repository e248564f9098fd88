"""Work directories in a bucket, gs://BUCKET/PATH: each host works in a local mirror of it.

The mirror is a folder below the user's cache. A stage is downloaded before it is looked at. While
it is made its pieces are uploaded now and then, and at a stop; when it is finished all its files
are, its ledger last. What the bucket holds is what counts: a host that is taken away loses what it
made since the last upload. Checkpoints of a training are written to the bucket by orbax, without a
copy here.

Needs gcsfs (extra `gcs`), and the credentials that Google's own tools use. fsspec's `rsync` would
not do: it compares sizes, knows no order of files, and cannot leave checkpoints alone.
"""

from __future__ import annotations

import contextlib
import errno
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
from mucode_jax.runtime.files import CHECKSUMS, Checksums
from mucode_jax.runtime.lease import Lease, asking, repeat

EVERY_S = 30.0  # how often pieces are uploaded; less often where that takes long

_DIRECT = "checkpoints"  # folders that orbax writes to the bucket itself
_BESIDE = ("xla", "tensorboard")  # folders beside the stages: compiled programs, summaries
# Here and there files of these names are different things.
_NOT_MIRRORED = ("lock", "mirror", CHECKSUMS)
_GROWING = "pieces"  # folders of files that are appended to
_LAST = "stage.json"  # a stage is finished when this is there

State = tuple[int, int]  # of a file: time of its last change in ns, bytes


def named(where: str | os.PathLike[str]) -> bool:
    """Whether a work directory is a bucket's, and not a folder."""
    return bool(re.match(r"\w+:/", str(where)))


def local(where: str | os.PathLike[str], kind: str | None = None) -> pathlib.Path:
    """Where this host works for a work directory: the folder itself, or the mirror of a bucket.

    Raises ValueError where `where` is an address, but not gs://BUCKET/PATH, or there is no cache.
    """
    if not named(where):
        return pathlib.Path(where)
    scheme, _, inside = str(where).rstrip("/").partition("://")
    if scheme != "gs" or not re.fullmatch("[^/]+(/[^/]+)+", inside):
        raise ValueError(f"{where} is no work directory; a bucket's is gs://BUCKET/PATH")
    return cache() / "gs" / (kind or str(hosts.index())) / inside


def fetch(where: str, wanted: Callable[[str], bool] = lambda name: True) -> pathlib.Path:
    """A folder to read a work directory in: itself, or a copy of what the bucket holds.

    Args:
      where: a folder, or gs://BUCKET/PATH.
      wanted: which files are downloaded, by their names below PATH.

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


def store(where: str, file: pathlib.Path) -> None:
    """Uploads one file of the folder that `fetch` gave; OSError where that fails."""
    if named(where):
        Bucket(where, _say, "read").send([file.name])


def _say(line: str) -> None:
    print(line, file=sys.stderr)


class Folder:
    """A work directory that all hosts see as it is: nothing is uploaded or downloaded.

    Attributes:
      path: where this host works.
      where: what a person calls it.
      checksums: of files.
    """

    def __init__(
        self, where: str | os.PathLike[str], say: Callable[[str], None], *, verify: bool = False
    ) -> None:
        """
        Args:
          where: the folder.
          say: shows one line.
          verify: see `Checksums`.
        """
        self.where = str(where)
        self.path = pathlib.Path(where)
        self.checksums = Checksums(self.path, verify=verify)

    def hold(self) -> None:
        """Keeps other runs out from here on."""
        hosts.check_shared(self.path)

    def address(self, path: pathlib.Path) -> str:
        """Where to write what all hosts see at once: the path, or its name in the bucket."""
        return str(path)

    def pull(self, name: str) -> None:
        """Makes the folder `name` here what it is in the bucket."""

    def push(self, name: str, whole: bool = False) -> None:
        """Uploads what has changed in it; with `whole`, what is not here is removed there."""

    def remove(self, name: str) -> None:
        """Removes it in both places."""
        if (self.path / name).is_symlink():  # moved to another disk by hand
            (self.path / name).unlink()
        else:
            shutil.rmtree(self.path / name)

    def kept(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Within the block changes in it are uploaded now and then, all of them at its end."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Ends the work."""


class Bucket(Folder):
    """gs://BUCKET/PATH and this host's mirror of it. Methods raise OSError where it fails."""

    def __init__(
        self,
        where: str | os.PathLike[str],
        say: Callable[[str], None],
        kind: str | None = None,
        *,
        verify: bool = False,
    ) -> None:
        """
        Args:
          where: gs://BUCKET/PATH.
          say: shows one line.
          kind: names mirrors of one bucket for different uses; by default one per host.
          verify: see `Checksums`.

        Raises:
          ValueError: it is no such address, or gcsfs is not installed.
        """
        self.where = str(where).rstrip("/")
        self.path = local(where, kind)
        self.checksums = Checksums(self.path, verify=verify)
        if importlib.util.find_spec("gcsfs") is None:
            raise ValueError(f"{where} needs gcsfs; install it with pip install -e '.[gcs]'")
        self._say = say
        say(f"looking into {self.where}")  # without a network it takes a minute to fail
        files = _file_system()
        from fsspec.implementations.dirfs import DirFileSystem

        self._there = DirFileSystem(self.where.partition("://")[2], files, skip_instance_cache=True)
        self._busy = threading.RLock()
        self._synced: dict[str, State | None] = {}  # files here, when they last agreed with there
        self._lease = Lease(files, self.where, say)

    def hold(self) -> None:
        hosts.agree("the work directory", {"--workdir": self.where}, self._say)
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
            remote = {n: md5 for n, md5 in self._remote(name).items() if wanted(n)}
            if exact:
                for file in filter(wanted, set(self._local(name)) - remote.keys()):
                    (self.path / file).unlink()
                if name and not remote:
                    shutil.rmtree(self.path / name, ignore_errors=True)
            changed = [n for n, md5 in remote.items() if self._md5(n) != md5]
            self.checksums.save()
            for n in changed:
                (self.path / n).unlink(missing_ok=True)  # it may be linked to another run's
            if changed:
                self._there.get(changed, self._here(changed))
            self._synced |= {n: _state(self.path / n) for n in remote}

    def push(self, name: str, whole: bool = False) -> None:
        with self._busy:
            names = self._local(name)
            self.send(names)
            if whole:
                with asking(self.where):
                    gone = self._remote(name, direct=True).keys() - set(names)
                    if gone:
                        self._there.rm(sorted(gone))

    def send(self, names: list[str]) -> None:
        """Uploads those of the files that have changed, a ledger after all others."""
        with self._busy, asking(self.where):
            if self._lease.lost:
                raise OSError(errno.EBUSY, "another process has taken it over", self.where)
            states = {n: _state(self.path / n) for n in names}
            changed = [n for n, state in states.items() if state not in (None, self._synced.get(n))]
            growing = [n for n in changed if f"/{_GROWING}/" in n]
            ledgers = [n for n in changed if n.endswith("/" + _LAST)]
            for name in growing:  # read at once, as they grow
                self._there.pipe_file(name, (self.path / name).read_bytes())
            for group in ([n for n in changed if n not in (*growing, *ledgers)], ledgers):
                if group:
                    self._there.put(self._here(group), group)
            self._synced |= {n: states[n] for n in changed}

    def remove(self, name: str) -> None:
        with self._busy:
            shutil.rmtree(self.path / name)
            self.push(name, whole=True)

    @contextlib.contextmanager
    def kept(self, name: str) -> Iterator[None]:
        seconds = 0.0  # that the last upload took
        failing = False

        def upload() -> None:
            nonlocal failing, seconds
            began = time.monotonic()
            try:
                self.push(name)
                failing = False
            except OSError as error:
                if not failing:
                    self._say(f"{self.where}: {error.strerror}; tried again until it answers")
                failing = True
            seconds = time.monotonic() - began

        stop = repeat(lambda: max(EVERY_S, 20 * seconds), upload)
        try:
            yield
        except BaseException:
            stop()
            upload()
            raise
        stop()
        self.push(name)
        self._push_beside()

    def _push_beside(self) -> None:
        if hosts.first():
            for name in _BESIDE:
                self.push(name)

    def close(self) -> None:
        """Uploads what the run left beside its stages, and releases the lock."""
        ended_by = sys.exception()
        try:
            if self._lease.held:
                self._push_beside()
                files = (f.name for f in self.path.iterdir() if f.is_file())
                self.send([name for name in files if _mirrored(name)])
        except OSError as error:
            if ended_by is None:
                raise
            self._say(f"{self.where}: {error.strerror}")  # must not hide what ended the run
        finally:
            self._lease.release()

    def _remote(self, name: str, direct: bool = False) -> dict[str, str | None]:
        """Files below `name` in the bucket, named as here, and their MD5 in base 64.

        `direct`: those that are written without a copy here, too.
        """
        objects = self._there.find(name, detail=True)
        return {
            n: about.get("md5Hash")
            for n, about in objects.items()
            if _mirrored(n) and (direct or f"/{_DIRECT}/" not in n)
        }

    def _local(self, name: str) -> list[str]:
        """The mirrored files below `name` here."""
        paths = sorted(path for path in (self.path / name).rglob("*") if path.is_file())
        return [n for n in (str(path.relative_to(self.path)) for path in paths) if _mirrored(n)]

    def _md5(self, name: str) -> str | None:
        """As the bucket shows it; None: there is no such file here."""
        path = self.path / name
        return self.checksums.md5(path) if path.is_file() else None

    def _here(self, names: list[str]) -> list[str]:
        return [str(self.path / name) for name in names]


def _file_system() -> Any:
    """That of gs://, the same for orbax."""
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


def _mirrored(name: str) -> bool:
    """Whether a file is the same here and there."""
    return name not in _NOT_MIRRORED and not name.endswith(".part")


def _state(file: pathlib.Path) -> State | None:
    """None: there is no such file any more."""
    try:
        stat = file.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_size
