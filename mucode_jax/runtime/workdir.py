"""The work directory: stages that are made once and resumed where they stopped.

A stage is a folder below `stages/`. While it is made it holds `begun.json` (what it was begun with)
and the pieces that are finished. When it is finished, `stage.json` records its settings, the
fingerprints of its inputs, the checksums of its files, how long it took and what it counted
(`ledger`). A stage whose settings and inputs are still the same is not made again; one whose
settings or inputs have changed is made again, with a line that names the change.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mucode_jax.runtime import bucket, hosts, ledger
from mucode_jax.runtime.ledger import Stage

Json = Any


class Workdir:
    """The folder of one run. One process at a time: it holds a lock while it lives.

    Attributes:
      path: where this host works; with a bucket, its mirror (`bucket`).
      where: the folder or bucket as it was given.
      stages: those that this process has made or found finished, in the order it asked for them.
      making: the name of the stage that is being made, "" for none.
      made: whether this process has made a stage.
      checksums: of files, here and elsewhere.
      meter: called when this process has made a stage, or a part of it; returns numbers that add up
        over interruptions. They are recorded beside its time, for the first host, and decide
        nothing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        say: Callable[[str], None] = print,
        lenders: Sequence[pathlib.Path] = (),
        verify: bool = False,
    ) -> None:
        """Opens or makes the folder.

        Args:
          path: the folder, or gs://BUCKET/PATH.
          say: shows one line: what is made again, and why.
          lenders: other work directories; a stage of the same settings and inputs that one of them
            has is taken over (as hard links) instead of made.
          verify: every file of a finished stage is read and compared to its checksum; else those
            whose size, time of change or inode is another than when that was last done.

        Raises:
          ValueError: it cannot be written, or another process works in it.
        """
        place = bucket.Bucket if bucket.named(path) else bucket.Folder
        self._away = place(path, say, verify=verify)
        self.path, self.where = self._away.path, self._away.where
        self.checksums = self._away.checksums
        self.stages: list[Stage] = []
        self.making, self.made = "", False
        self.meter: Callable[[], Mapping[str, float]] = dict
        self._begun: Json = {}  # of the stage that is being made
        self._say = say
        self._lenders = lenders
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock()
            try:
                self._away.hold()
            except BaseException:
                self._lock_file.close()
                raise
        except OSError as error:
            reason = error.strerror
            if isinstance(error, FileExistsError):
                reason = "it is no folder, or a link to nowhere"
            raise ValueError(f"cannot write to --workdir {self.where}: {reason}") from error

    def _lock(self) -> None:
        import fcntl  # not on Windows, where runs can be read

        self._lock_file = open(self.path / "lock", "a+")  # noqa: SIM115 (held while we live)
        try:
            if hosts.first():
                fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock_file.close()
            raise ValueError(
                f"another process works in {self.where}; wait for it, or give another --workdir"
            ) from error

    def _lock_again_if_removed(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            held, current = os.fstat(self._lock_file.fileno()), os.stat(self.path / "lock")
            if os.path.samestat(held, current):
                return
        self._lock_file.close()
        self._lock()

    def close(self) -> None:
        """Lets go of it; what a bucket lacks of the files beside the stages is uploaded before.

        Raises:
          OSError: the bucket does not take it.
        """
        with self._lock_file:
            self._away.close()

    def address(self, path: pathlib.Path) -> str:
        """Where to write what all hosts see at once: `path`, or its name in the bucket."""
        return self._away.address(path)

    def stage(
        self,
        name: str,
        settings: Mapping[str, Json],
        inputs: Mapping[str, Stage],
        make: Callable[[pathlib.Path], Mapping[str, Json]],
        share: Callable[[pathlib.Path], None] = lambda path: None,
    ) -> Stage:
        """The stage `name`, made now unless it is finished already.

        Args:
          name: its folder below `stages/`.
          settings: everything that decides what it makes, besides its inputs; JSON values.
          inputs: the stages that it reads.
          make: fills the folder it is given, using the pieces that are there, and returns what the
            stage counted (JSON values, the same however often it was interrupted). Of several hosts
            only the first calls it, when all have done their `share`.
          share: what every host does before.
        """
        settings = json.loads(json.dumps(settings))
        fingerprints = {key: stage.fingerprint for key, stage in inputs.items()}
        facts = {"stage": name, **settings, **{f"input {k}": v for k, v in fingerprints.items()}}
        hosts.agree(name, facts, self._say)
        begun = hosts.first_does(name, lambda: self._begin(name, settings, fingerprints), self._say)
        if not hosts.first():
            self._away.pull(f"stages/{name}")
        if begun is not None:
            self._make(name, begun, make, share)
        stage = self._finished(name)
        if stage.name not in (known.name for known in self.stages):
            self.stages.append(stage)
        return stage

    def recorded(self, name: str) -> Json | None:
        """What an earlier session chose for the stage that is being made; None: nothing."""
        return self._begun["chosen"].get(name)

    def record(self, name: str, value: Json) -> None:
        """Records a choice that later sessions keep; it stands among the stage's counts.

        All hosts call this with the same value, before they store any piece that depends on it.
        """
        self._begun["chosen"][name] = value
        if hosts.first():
            ledger.write_begun(self.path / "stages" / self.making, self._begun)
            self._away.push(f"stages/{self.making}")

    def _begin(self, name: str, settings: Json, inputs: Json) -> Json | None:
        """What `begun.json` holds of a stage that is to be made; None: it is finished."""
        folder = f"stages/{name}"
        path = self.path / folder
        self._lock_again_if_removed()
        self._away.pull(folder)
        if stage := self._finished(name):
            reason = ledger.reason_to_redo(stage.record, settings, inputs)
            reason = reason or stage.damage(self.checksums.sha256)
            self.checksums.save()
            if reason is None:
                return None
            self._say(f"{name}: {reason}; made again")
            self._away.remove(folder)
        if self._borrow(name, settings, inputs):
            self._away.push(folder, whole=True)
            return None
        path.mkdir(parents=True, exist_ok=True)
        begun, reason = ledger.read_begun(path, settings, inputs)
        if reason is not None:
            self._say(f"{name}: {reason}; begun again")
            self._away.remove(folder)
            path.mkdir(parents=True)
            begun = ledger.fresh(settings, inputs)
        ledger.write_begun(path, begun)
        self._away.push(folder)
        return begun

    def _make(
        self,
        name: str,
        begun: Json,
        make: Callable[[pathlib.Path], Mapping[str, Json]],
        share: Callable[[pathlib.Path], None],
    ) -> None:
        """Every host's share, then what the first host makes of them, then the ledger."""
        folder = f"stages/{name}"
        path = self.path / folder
        self.making, self._begun = name, begun
        with self._away.kept(folder), self._metered(path):
            share(path)
            self._away.push(folder)
            hosts.wait(name, self._say)
            if hosts.first():
                if hosts.count() > 1:
                    self._away.pull(folder)
                counts = make(path)
        if hosts.first():
            ledger.write_stage(path, begun, counts, self.checksums.sha256)
            self.checksums.save()
            self._away.push(folder, whole=True)
        hosts.wait(name, self._say)
        if not hosts.first():
            self._away.pull(folder)
        self.making, self.made = "", True

    @contextlib.contextmanager
    def _metered(self, path: pathlib.Path) -> Iterator[None]:
        """Adds the time and the meter's numbers of the block to what the stage was begun with."""
        started = time.monotonic()
        try:
            yield
        finally:
            begun = self._begun
            begun["seconds"] += time.monotonic() - started
            for key, value in self.meter().items():
                begun["metered"][key] = begun["metered"].get(key, 0) + value
            if hosts.first() and path.exists():
                with contextlib.suppress(OSError):  # a full disk must not hide the first error
                    ledger.write_begun(path, begun)

    def _finished(self, name: str, home: pathlib.Path | None = None) -> Stage | None:
        """The finished stage of that name here, or in another work directory; None: none is."""
        try:
            return ledger.read_stage((home or self.path) / "stages" / name, name)
        except ValueError:
            self._say(f"{name}: its ledger is damaged")
            return None

    def _borrow(self, name: str, settings: Json, inputs: Json) -> bool:
        """Whether a lender has this stage; then it is linked here."""
        for home in self._lenders:
            stage = self._finished(name, home)
            if (
                stage is None
                or ledger.reason_to_redo(stage.record, settings, inputs)
                or stage.damage(self.checksums.sha256)
            ):
                continue
            path = self.path / "stages" / name
            new = path.with_name(path.name + ".new")
            for folder in (path, new):
                shutil.rmtree(folder, ignore_errors=True)
            for file in (*stage.record["files"], "stage.json"):
                (new / file).parent.mkdir(parents=True, exist_ok=True)
                _link(stage.path / file, new / file)
            new.rename(path)
            self.checksums.save()
            return True
        return False


def _link(file: pathlib.Path, new: pathlib.Path) -> None:
    try:
        os.link(file, new)
    except OSError:  # a file system without links
        shutil.copyfile(file, new)
