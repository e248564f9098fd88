"""What is recorded of a stage: `begun.json` while it is made, `stage.json` when it is finished.

Both are written atomically and carry a checksum of themselves.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mucode_jax.runtime import pieces
from mucode_jax.runtime.files import checksum, write_atomically

Json = Any
Checksum = Callable[[pathlib.Path], str]  # SHA-256 of a file, in hexadecimal

CHECKPOINTS = "checkpoints"  # of a training, in its stage's folder until the stage is finished
_TEMPORARY = {"begun.json", "stage.json", pieces.FOLDER, CHECKPOINTS}
# What reading a damaged record may raise.
_DAMAGED = (KeyError, TypeError, AttributeError, RecursionError, ValueError)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A finished stage.

    Attributes:
      name: its folder below `stages/`.
      path: the folder.
      fingerprint: changes whenever its settings, inputs or files do.
      record: what `stage.json` holds: settings, inputs, files, seconds, metered, counts.
    """

    name: str
    path: pathlib.Path
    fingerprint: str
    record: Mapping[str, Json]

    def damage(self, checksum: Checksum = checksum) -> str | None:
        """The first file that has changed since it was written, and how; None: none has."""
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
        fingerprint = _digest([record[key] for key in ("settings", "inputs", "files")])
    except FileNotFoundError:
        return None
    except _DAMAGED as error:
        raise ValueError(f"{path}: its ledger is damaged") from error
    return Stage(name, path, fingerprint, record)


def intact_stage(path: pathlib.Path, checksum: Checksum = checksum) -> Stage | None:
    """As `read_stage`, with all of its files compared to their checksums.

    Raises:
      ValueError: its ledger or a file is damaged or missing.
    """
    stage = read_stage(path)
    if stage is not None and (damage := stage.damage(checksum)):
        raise ValueError(f"{path}: {damage}; run main again, which makes what is damaged anew")
    return stage


def write_stage(path: pathlib.Path, begun: Json, counts: Json, checksum: Checksum) -> None:
    """Finishes the stage in `path`: writes its ledger, removes what was needed to make it."""
    files = {str(file.relative_to(path)): checksum(file) for file in _outputs(path)}
    record = {
        "settings": begun["settings"],
        "inputs": begun["inputs"],
        "files": files,
        "seconds": round(begun["seconds"], 3),
        "metered": begun["metered"],
        "counts": {**begun["chosen"], **counts},
    }
    record["checksum"] = _digest(record)
    write_atomically(path / "stage.json", json.dumps(record, indent=1))
    (path / "begun.json").unlink()
    for folder in (pieces.FOLDER, CHECKPOINTS):
        shutil.rmtree(path / folder, ignore_errors=True)


def _outputs(path: pathlib.Path) -> Iterator[pathlib.Path]:
    for file in sorted(path.rglob("*")):
        top = file.relative_to(path).parts[0].removesuffix(".part")
        if file.is_file() and top not in _TEMPORARY:
            yield file


def fresh(settings: Json, inputs: Json) -> Json:
    """What `begun.json` holds of a stage that nothing was done for yet.

    `seconds` and `metered` add up over interruptions; `chosen` is what the first session chose and
    later ones keep.
    """
    return {"settings": settings, "inputs": inputs, "seconds": 0.0, "metered": {}, "chosen": {}}


def write_begun(path: pathlib.Path, begun: Json) -> None:
    write_atomically(path / "begun.json", json.dumps(begun | {"checksum": _digest(begun)}))


def read_begun(path: pathlib.Path, settings: Json, inputs: Json) -> tuple[Json, str | None]:
    """What the stage under way in `path` was begun with, and why it cannot be resumed, if so."""
    new = fresh(settings, inputs)
    try:
        begun = json.loads((path / "begun.json").read_text())
        reason = reason_to_redo(begun, settings, inputs)
        whole = begun.pop("checksum", None) == _digest(begun)
    except (OSError, *_DAMAGED):
        empty = not any(path.iterdir())
        return new, None if empty else "nothing tells what it was begun with"
    # Where the record is damaged elsewhere, what was spent on the stage is not known.
    return (new | begun if whole else new), reason


def reason_to_redo(record: Json, settings: Json, inputs: Json) -> str | None:
    """The first setting or input of a stage that is not what its record says; None: all are."""
    for name, (old, new) in _differences(record["settings"], settings).items():
        if all(isinstance(x, str) and re.fullmatch("[0-9a-f]{16,}", x) for x in (old, new)):
            return f"setting {name} has changed"  # these are digests
        return f"setting {name} was {old!r}, is now {new!r}"
    for name in _differences(record["inputs"], inputs):
        return f"its input {name.partition('/')[2] or name} has changed"
    return None


def _differences(old: Json, new: Json, prefix: str = "") -> dict[str, tuple[Json, Json]]:
    """Name -> (old value, new value) where two tables differ; nested tables by their entries."""
    differences: dict[str, tuple[Json, Json]] = {}
    for key in sorted({*old, *new}):
        before, now, name = old.get(key), new.get(key), f"{prefix}{key}"
        if before == now:
            continue
        nested = isinstance(before, dict) and isinstance(now, dict)
        # Two tables may differ by an entry that is null, which their entries do not show.
        entries = _differences(before, now, f"{name}.") if nested else {}
        differences |= entries or {name: (before, now)}
    return differences


def _digest(value: Json) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
