"""Where problems come from: the embedded suite, the public benchmarks, files of one's own.

`load` gives `records.Benchmark`: the problems with their public tests on one side, private tests
and reference solutions on the other.
"""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from collections.abc import Callable, Iterable

from mucode_jax.benchmarks import code_contests, hub, humaneval, jsonl, mbpp
from mucode_jax.benchmarks.files import Entry, Row, read_jsonl
from mucode_jax.core.records import Benchmark

ALL = "all"  # every problem that the file or the data set has, whatever its split

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Kind:
    """How one benchmark is read; `splits` None: the records name their own, if any."""

    read: Callable[..., Entry | None]
    splits: tuple[str, ...] | None
    source: hub.Source | None


def _one(path: str, config: str | None = None, files: str = "") -> hub.Source:
    return hub.Source(path, config, {"test": ("test",), ALL: ("test",)}, files)


# MBPP's problems are dealt by task id, not by the hub's splits, which are the same.
_MBPP_SPLITS = {name: (name,) for name in mbpp.SPLITS} | {ALL: mbpp.SPLITS}
_PLUS_SPLITS = dict.fromkeys((*mbpp.SPLITS, ALL), ("test",))
_CONTEST_SPLITS = {"train": ("train",), "validation": ("valid",), "test": ("test",)}

_KINDS = {
    "mbpp": _Kind(
        mbpp.read,
        mbpp.SPLITS,
        hub.Source("google-research-datasets/mbpp", "full", _MBPP_SPLITS),
    ),
    "humaneval": _Kind(humaneval.read, humaneval.SPLITS, _one("openai/openai_humaneval")),
    "humanevalpack": _Kind(
        humaneval.read_pack,
        humaneval.SPLITS,
        # Its loading script is not run any more; its data are one file a language.
        _one("bigcode/humanevalpack", None, "data/python/data/humanevalpack.jsonl"),
    ),
    "mbpp_plus": _Kind(
        mbpp.read_plus, mbpp.SPLITS, hub.Source("evalplus/mbppplus", None, _PLUS_SPLITS)
    ),
    "humaneval_plus": _Kind(humaneval.read_plus, humaneval.SPLITS, _one("evalplus/humanevalplus")),
    "code_contests": _Kind(
        code_contests.read,
        code_contests.SPLITS,
        hub.Source("deepmind/code_contests", None, _CONTEST_SPLITS),
    ),
    "jsonl": _Kind(jsonl.read, None, None),
}

NAMES = ("mini", *_KINDS)
MOST_OF_MINI = 100_000  # problems; making so many takes five minutes


def load(
    name: str,
    split: str,
    *,
    data: str | pathlib.Path | None = None,
    seed: int = 0,
    size: int | None = None,
    compat: bool = False,
    testless: bool = False,
) -> Benchmark:
    """The problems of one split of a benchmark.

    Args:
      name: one of `NAMES`.
      split: a split of the benchmark, or "all"; what a local file of `code_contests` holds, or of
        `jsonl` where its records name no split, is the split that is asked for.
      data: a .jsonl or .jsonl.gz file in the upstream's field names; None loads the hub's data set.
      seed: what `mini` is generated from; the others do not depend on it.
      size: how many problems; of `mini` up to `MOST_OF_MINI`, of the others the first `size`.
      compat: the published division into public and private tests, and the published limits.
      testless: prompts that do not show the public tests (they run all the same).

    Raises:
      ValueError: an unknown name or split; a file or record that cannot be used (with file and
        line); a hub that does not answer.
    """
    if name not in NAMES:
        raise ValueError(f"unknown benchmark {name!r}; one of {', '.join(NAMES)}")
    if size is not None and size < 1:
        raise ValueError(f"a benchmark of size {size}; it takes at least 1 problem")
    if name == "mini":
        if size is not None and size > MOST_OF_MINI:
            raise ValueError(f"mini of size {size}; it takes at most {MOST_OF_MINI} problems")
        return _mini(split, data=data, seed=seed, size=size, testless=testless)
    kind = _KINDS[name]
    if kind.splits is not None and split not in (*kind.splits, ALL):
        raise ValueError(f"{name} has no split {split!r}; one of {', '.join(kind.splits)}, {ALL}")
    entries = _unique(
        (row, kind.read(row, compat=compat, testless=testless))
        for row in _rows(name, kind, split, data)
    )
    where = str(data) if data is not None else kind.source.name
    if not entries:
        raise ValueError(f"{where}: no problem in it; a benchmark needs at least one")
    chosen = _of_split(entries, split, where)
    if size is not None and size > len(chosen):
        raise ValueError(f"{name}, split {split!r}: {size} problems asked for, {len(chosen)} there")
    chosen = chosen[:size]
    _tell_impossible(name, chosen)
    return Benchmark(
        name=name,
        split=split,
        problems=tuple(entry.problem for entry in chosen),
        private={e.problem.task_id: e.private for e in chosen if e.private is not None},
        solutions={e.problem.task_id: e.solution for e in chosen if e.solution is not None},
    )


def _mini(split: str, *, data, seed: int, size: int | None, testless: bool) -> Benchmark:
    if data is not None:
        raise ValueError("the benchmark 'mini' is generated; it takes no data file")
    if testless:
        raise ValueError("the benchmark 'mini' has no prompts without tests")
    from mucode_jax.benchmarks import mini

    return mini.load(split, seed=seed, size=size)


def _rows(name: str, kind: _Kind, split: str, data: str | pathlib.Path | None) -> Iterable[Row]:
    if data is not None:
        return read_jsonl(data)
    if kind.source is None:
        raise ValueError(
            f"the benchmark {name!r} is read from a file; give it as data (grade: --data)"
        )
    if split not in kind.source.splits:
        raise ValueError(f"{name} is loaded from the hub by split: {', '.join(kind.source.splits)}")
    return hub.rows(kind.source, split)


def _unique(pairs: Iterable[tuple[Row, Entry | None]]) -> list[Entry]:
    """The entries, without those a reader leaves out; an id that comes twice is an error."""
    entries: list[Entry] = []
    seen: dict[str, str] = {}
    left_out = 0
    for row, entry in pairs:
        if entry is None:
            left_out += 1
            continue
        task_id = entry.problem.task_id
        if task_id in seen:
            raise ValueError(f"{row.where}: id {task_id!r} is there already ({seen[task_id]})")
        seen[task_id] = row.where
        entries.append(entry)
    if left_out:
        log.warning("%d problems left out: no public tests, or they read a file", left_out)
    return entries


def _of_split(entries: list[Entry], split: str, where: str) -> list[Entry]:
    """The entries of one split; where no record names a split, all of them, under that name."""
    named = [entry for entry in entries if entry.problem.split]
    if not named:
        return [
            dataclasses.replace(e, problem=dataclasses.replace(e.problem, split=split))
            for e in entries
        ]
    if len(named) < len(entries):
        lost = next(entry for entry in entries if not entry.problem.split)
        raise ValueError(
            f"{where}: some problems name a split and {lost.problem.task_id!r} does not; "
            "either all do or none"
        )
    chosen = [entry for entry in entries if split in (entry.problem.split, ALL)]
    if not chosen:
        there = ", ".join(sorted({entry.problem.split for entry in entries}))
        raise ValueError(f"{where}: no problem of split {split!r} (there: {there})")
    return chosen


def _tell_impossible(name: str, entries: list[Entry]) -> None:
    impossible = [entry.problem.task_id for entry in entries if entry.impossible]
    if impossible:
        log.warning(
            "%s, compat: the published division makes %d of %d problems impossible to pass (their "
            "private tests do not parse): %s",
            name,
            len(impossible),
            len(entries),
            ", ".join(impossible),
        )
