"""The work directory: stages that are done once, kept in a ledger, taken up where they stopped.

A stage is a named folder. While it is made it holds `begun.json` (what it was begun with) and
whatever pieces are finished; when it is done, `stage.json` records its settings, the fingerprints
of its inputs, the checksums of its files, how long it took and what it counted. Both are written
atomically. A stage whose settings and inputs still hold is not made again; one whose do not is said
so, by name, and made anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mucode_jax.runtime import bucket, hosts

Json = Any

_SHARDS = "pieces"  # of a stage under way
CHECKPOINTS = "checkpoints"  # of a training under way, in its stage's folder
# What a stage's folder holds beside its outputs.
_NO_OUTPUT = {"begun.json", "stage.json", _SHARDS, CHECKPOINTS}


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes `text` so that a reader sees the old file or the new one, never a part.

    What is no ordinary file (a terminal, /dev/null) is written as it comes.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
    except OSError:
        part.unlink(missing_ok=True)
        raise
    os.replace(part, path)


def _digest(value: Json) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def checksum(path: pathlib.Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _differing(old: Json, new: Json, prefix: str = "") -> dict[str, tuple[Json, Json]]:
    """What two tables hold that is not the same, tables within by their entries."""
    found: dict[str, tuple[Json, Json]] = {}
    for key in sorted({*old, *new}):
        was, now, name = old.get(key), new.get(key), f"{prefix}{key}"
        if was == now:
            continue
        tables = isinstance(was, dict) and isinstance(now, dict)
        # Within tables that differ there may be nothing but a null more.
        found |= (tables and _differing(was, now, f"{name}.")) or {name: (was, now)}
    return found


def _write_begun(path: pathlib.Path, begun: Json) -> None:
    text = json.dumps(begun | {"checksum": _digest(begun)})
    write_atomically(path / "begun.json", text)


def _line(record: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(record), record)


def _records(path: pathlib.Path, mend: bool = True) -> list[Json]:
    """Every record up to one that is cut short or damaged; with `mend` the rest is removed."""
    if not path.exists():
        return []
    whole = []
    with open(path, "rb+" if mend else "rb") as f:
        end = 0
        for line in f:
            record = line[9:-1]
            if line != _line(record):
                break
            whole.append(json.loads(record))
            end += len(line)
        if mend:
            f.truncate(end)
    return whole


class Shards:
    """The pieces of a stage while it is made: records, a checksum and JSON a line, readable after
    any interruption.

    Each host appends to a file of its own. Whatever hosts there are, they take up what others left.
    When the stage is done they are gone.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._folder = path / _SHARDS
        self._own = self._folder / f"{hosts.index()}.jsonl"
        self._file = None

    def read(self) -> list[Json]:
        """Every whole record of every host; all of them read before one appends."""
        self._folder.mkdir(parents=True, exist_ok=True)
        found = _records(self._own)
        for path in sorted(self._folder.glob("*.jsonl")):
            if path != self._own:
                found += _records(path, mend=False)
        hosts.wait("what is there already")
        return found

    def append(self, line: str) -> None:
        """Writes one record, through to the file; OSError where it does not take all of it."""
        if self._file is None:
            # Without a buffer, which would try again, and fail again, when it is closed.
            self._file = open(self._own, "ab", buffering=0)  # noqa: SIM115 (closed below)
        left = memoryview(_line(line.encode()))
        while left:
            left = left[self._file.write(left) :]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def gather(self) -> list[Json]:
        """Every record of every host, when all have done their share; for the first host."""
        files = sorted(self._folder.glob("*.jsonl"))
        return [record for path in files for record in _records(path)]


@dataclasses.dataclass(frozen=True)
class Stage:
    """A finished stage.

    Attributes:
      name: its folder below `stages/`.
      path: the folder.
      fingerprint: changes whenever its settings, inputs or files do.
      record: what `stage.json` holds: settings, inputs, files, seconds, counts.
    """

    name: str
    path: pathlib.Path
    fingerprint: str
    record: Mapping[str, Json]

    def damage(self) -> str | None:
        """The first of its files that is not as it was written; None: all of them are."""
        for file, expected in self.record["files"].items():
            path = self.path / file
            if not path.is_file():
                return f"{file} is missing"
            if checksum(path) != expected:
                return f"{file} does not match its checksum"
        return None


def read_stage(path: pathlib.Path, name: str = "") -> Stage | None:
    """The finished stage in a folder; None: there is none.

    Raises:
      ValueError: its ledger is damaged.
    """
    try:
        record = json.loads((path / "stage.json").read_text(encoding="utf-8"))
        expected = record.pop("checksum", None)  # older ledgers have none
        if expected is not None and expected != _digest(record):
            raise ValueError
        fingerprint = _digest([record[k] for k in ("settings", "inputs", "files")])
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, AttributeError, RecursionError, ValueError) as error:
        raise ValueError(f"{path}: its ledger is damaged") from error
    return Stage(name, path, fingerprint, record)


def intact_stage(path: pathlib.Path) -> Stage | None:
    """As `read_stage`, with all of its files compared to their checksums.

    Raises:
      ValueError: its ledger or a file is damaged or missing.
    """
    stage = read_stage(path)
    if stage is not None and (reason := stage.damage()):
        raise ValueError(f"{path}: {reason}; run main again, which makes what is damaged anew")
    return stage


class Workdir:
    """The folder of one run. One process at a time: it holds a lock while it lives.

    Attributes:
      path: where this host works; with a bucket, its mirror (`bucket`).
      where: the folder or bucket as it was given.
      stages: those that this process has made or found done, in the order it asked for them.
      making: the name of the stage that is being made, "" for none.
      made: whether this process has made a stage.
      meter: called when this process has made a stage, or some of it; gives numbers that add up
        over interruptions, recorded beside its time, and deciding as little. Of the first host.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        say: Callable[[str], None] = print,
        lenders: Sequence[pathlib.Path] = (),
    ) -> None:
        """Opens or makes the folder.

        Args:
          path: the folder; or gs://BUCKET/PATH.
          say: where it tells what is made again, and why.
          lenders: other work directories; a stage that one of them has, of the same settings and
            inputs, is taken over (as hard links) instead of made.

        Raises:
          ValueError: it cannot be written, or another process works in it.
        """
        self._away = bucket.Bucket(str(path), say) if bucket.named(path) else bucket.Folder(path)
        self.path, self.where = self._away.path, self._away.where
        self.stages: list[Stage] = []
        self.making, self.made = "", False
        self.meter: Callable[[], Mapping[str, float]] = dict
        self._say = say
        self._lenders = lenders
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._hold()
            try:
                self._away.hold()
            except BaseException:
                self._lock.close()
                raise
        except OSError as error:
            reason = error.strerror
            if isinstance(error, FileExistsError):
                reason = "it is no folder, or a link to nowhere"
            raise ValueError(f"cannot write to --workdir {self.where}: {reason}") from error

    def _hold(self) -> None:
        import fcntl

        self._lock = open(self.path / "lock", "a+")  # noqa: SIM115 (held while we live)
        try:
            if hosts.first():
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise ValueError(
                f"another process works in {self.where}; wait for it, or give another --workdir"
            ) from error

    def _hold_on(self) -> None:
        """Takes the lock again where somebody has removed its file; see `_hold`."""
        try:
            same = os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self.path / "lock"))
        except FileNotFoundError:
            same = False
        if not same:
            self._lock.close()
            self._hold()

    def close(self) -> None:
        """Lets go of it; with a bucket, what lies beside the stages is taken up before.

        Raises:
          OSError: the bucket does not take it.
        """
        with self._lock:
            self._away.close()

    def address(self, path: pathlib.Path) -> str:
        """Where to write what all hosts see at once: `path`, or its name in the bucket."""
        return self._away.address(path)

    def _load(self, name: str, home: pathlib.Path | None = None) -> Stage | None:
        try:
            return read_stage((home or self.path) / "stages" / name, name)
        except ValueError:
            self._say(f"{name}: its ledger is damaged")
            return None

    def _reason_to_redo(self, begun: Json, settings: Json, inputs: Json) -> str | None:
        for key, (old, new) in _differing(begun["settings"], settings).items():
            if all(isinstance(x, str) and re.fullmatch("[0-9a-f]{16,}", x) for x in (old, new)):
                return f"setting {key} has changed"  # these are digests
            return f"setting {key} was {old!r}, is now {new!r}"
        for key in _differing(begun["inputs"], inputs):
            return f"its input {key.partition('/')[2] or key} has changed"
        return None

    def stage(
        self,
        name: str,
        settings: Mapping[str, Json],
        inputs: Mapping[str, Stage],
        make: Callable[[pathlib.Path], Mapping[str, Json]],
        share: Callable[[pathlib.Path], None] = lambda path: None,
    ) -> Stage:
        """The stage `name`, made now unless it is there already.

        Args:
          name: its folder below `stages/`.
          settings: everything that decides what it makes, besides its inputs; JSON values.
          inputs: the stages that it reads.
          make: fills the folder it is given, taking up the pieces that are there, and returns what
            the stage counted (JSON values, the same however often it was interrupted). Of several
            hosts the first alone does this, when all have done their `share`.
          share: what every host does of it, before.
        """
        settings = json.loads(json.dumps(settings))
        fingerprints = {key: stage.fingerprint for key, stage in inputs.items()}
        hosts.agree(
            name, {"stage": name, **settings, **{f"input {k}": v for k, v in fingerprints.items()}}
        )
        begun = hosts.first_does(name, lambda: self._begin(name, settings, fingerprints), self._say)
        if not hosts.first():
            self._away.pull(f"stages/{name}")
        if begun is not None:
            self._make(name, begun, make, share)
        return self._remember(self._load(name))

    def _begin(self, name: str, settings: Json, fingerprints: Json) -> Json | None:
        """What `begun.json` holds of a stage that is to be made; None: it is there."""
        folder = f"stages/{name}"
        path = self.path / folder
        self._hold_on()
        self._away.pull(folder)
        stage = self._load(name)
        if stage is not None:
            reason = self._reason_to_redo(stage.record, settings, fingerprints)
            reason = reason or stage.damage()
            if reason is None:
                return None
            self._say(f"{name}: {reason}; made again")
            self._away.remove(folder)
        if self._borrow(name, settings, fingerprints):
            self._away.push(folder, whole=True)
            return None
        begun = {"settings": settings, "inputs": fingerprints, "seconds": 0.0, "metered": {}}
        path.mkdir(parents=True, exist_ok=True)
        try:
            before = json.loads((path / "begun.json").read_text())
            reason = self._reason_to_redo(before, settings, fingerprints)
            if before.pop("checksum", None) != _digest(before):
                before = begun  # what was spent on it is not known
        except (OSError, KeyError, TypeError, AttributeError, RecursionError, ValueError):
            reason = "nothing tells what it was begun with" if any(path.iterdir()) else None
            before = begun
        if reason is not None:
            self._say(f"{name}: {reason}; begun again")
            self._away.remove(folder)
            path.mkdir(parents=True)
            before = begun
        _write_begun(path, before)
        self._away.push(folder)
        return before

    def _make(
        self,
        name: str,
        before: Json,
        make: Callable[[pathlib.Path], Mapping[str, Json]],
        share: Callable[[pathlib.Path], None],
    ) -> None:
        folder = f"stages/{name}"
        path = self.path / folder
        started, self.making = time.monotonic(), name
        with self._away.kept(folder):
            try:
                share(path)
                self._away.push(folder)
                hosts.wait(name, self._say)
                if hosts.first() and hosts.count() > 1:
                    self._away.pull(folder)
                counts = dict(make(path)) if hosts.first() else {}
            finally:
                before["seconds"] += time.monotonic() - started
                metered = before["metered"]
                for key, value in self.meter().items():
                    metered[key] = metered.get(key, 0) + value
                if hosts.first() and path.exists():
                    with contextlib.suppress(OSError):  # a full disk must not hide the first error
                        _write_begun(path, before)
        if hosts.first():
            self._record(path, before, counts)
            self._away.push(folder, whole=True)
        hosts.wait(name, self._say)
        if not hosts.first():
            self._away.pull(folder)
        self.making, self.made = "", True

    def _record(self, path: pathlib.Path, before: Json, counts: Json) -> None:
        record = {
            "settings": before["settings"],
            "inputs": before["inputs"],
            "files": {str(file.relative_to(path)): checksum(file) for file in _files(path)},
            "seconds": round(before["seconds"], 3),
            "metered": before["metered"],
            "counts": counts,
        }
        record["checksum"] = _digest(record)
        write_atomically(path / "stage.json", json.dumps(record, indent=1))
        (path / "begun.json").unlink()
        for done in (_SHARDS, CHECKPOINTS):
            shutil.rmtree(path / done, ignore_errors=True)

    def _borrow(self, name: str, settings: Json, inputs: Json) -> bool:
        for home in self._lenders:
            stage = self._load(name, home)
            if stage is None or self._reason_to_redo(stage.record, settings, inputs):
                continue
            if stage.damage() is None:
                path = self.path / "stages" / name
                shutil.rmtree(path, ignore_errors=True)
                new = path.with_name(path.name + ".new")
                shutil.rmtree(new, ignore_errors=True)
                for file in (*stage.record["files"], "stage.json"):
                    (new / file).parent.mkdir(parents=True, exist_ok=True)
                    _link(stage.path / file, new / file)
                new.rename(path)
                return True
        return False

    def _remember(self, stage: Stage) -> Stage:
        if all(stage.name != known.name for known in self.stages):
            self.stages.append(stage)
        return stage


def _link(file: pathlib.Path, new: pathlib.Path) -> None:
    try:
        os.link(file, new)
    except OSError:  # a file system without links
        shutil.copyfile(file, new)


def _files(path: pathlib.Path) -> Iterator[pathlib.Path]:
    for file in sorted(path.rglob("*")):
        first = file.relative_to(path).parts[0].removesuffix(".part")
        if file.is_file() and first not in _NO_OUTPUT:
            yield file
