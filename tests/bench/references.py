"""Runs every reference solution of every benchmark through its tests, and prints what passed.

    python tests/bench/references.py --data ../shared/data            # all: 15 minutes on two cores
    python tests/bench/references.py --data ../shared/data --sample 8 # some of each: a minute

The code handed in is what the benchmark publishes: whole programs for MBPP, function bodies for the
HumanEval family. HumanEvalPack's `buggy_solution` must fail its private tests in every problem, and
its references must fail in exactly the 25 problems that the published division makes impossible.
CodeContests has no Python references in the sample file. Exit status 1 where an expectation fails.
"""

import argparse
import dataclasses
import logging
import pathlib
import sys
import time

from mucode_jax import benchmarks
from mucode_jax.benchmarks.files import Row, read_jsonl
from mucode_jax.grade import grade
from mucode_jax.sandbox import Pool


@dataclasses.dataclass(frozen=True)
class Check:
    """One set of programs and what must come of them.

    Attributes:
      benchmark, file, field: which programs: a field of the upstream's records.
      failing: ids that fail, and rightly so; None: all of them.
      slack: how many more may fail.
      timeout_s: for a program with its tests; None is the benchmark's own limit.
    """

    benchmark: str
    file: str
    field: str
    failing: tuple[str, ...] | None = ()
    slack: int = 0
    compat: bool = False
    timeout_s: float | None = None


PACK = "humanevalpack_python.jsonl"
IMPOSSIBLE = (1, 2, 4, 6, 9, 11, 14, 17, 19, 21, 24, 26, 27, 34, 45, 75, 85, 106, 119, 122, 123)
IMPOSSIBLE += (130, 139, 147, 153)

CHECKS = (
    Check("mbpp", "mbpp.jsonl", "code", timeout_s=120),  # 123 takes half a minute alone
    Check("humaneval", "humaneval.jsonl", "canonical_solution"),
    Check("humanevalpack", PACK, "canonical_solution"),
    Check("humanevalpack", PACK, "buggy_solution", failing=None, timeout_s=5),  # some never end
    Check(
        "humanevalpack",
        PACK,
        "canonical_solution",
        failing=tuple(f"Python/{i}" for i in IMPOSSIBLE),
        compat=True,
    ),
    # 255 needs 2 GB for its lists, more than a program is given.
    Check("mbpp_plus", "mbpp_plus.jsonl", "code", slack=1, timeout_s=180),
    Check(
        "humaneval_plus",
        "humaneval_plus.jsonl.gz",
        "canonical_solution",
        failing=("HumanEval/32",),  # its test rejects every correct solution
        timeout_s=180,
    ),
)


def run(check: Check, folder: pathlib.Path, pool: Pool, sample: int | None) -> bool:
    """Grades one set of programs and prints a line; whether the expectation holds."""
    path = folder / check.file
    benchmark = benchmarks.load(check.benchmark, "all", data=path, compat=check.compat)
    records = list(read_jsonl(path))
    if sample is not None:
        records = [records[i * len(records) // sample] for i in range(min(sample, len(records)))]
    rows = [Row({"task_id": row.task_id(), "code": row.text(check.field)}, "") for row in records]
    start = time.monotonic()
    failed = {}
    for row, public, private in grade(pool, benchmark, rows, timeout_s=check.timeout_s):
        statuses = [side.status for side in (public, private) if side is not None]
        if check.failing is None:  # the private tests have to find the bug; the public ones may
            statuses = statuses[1:]
        if set(statuses) != {"pass"}:
            failed[row.task_id()] = "/".join(statuses)
    seconds = time.monotonic() - start
    asked = {row.task_id() for row in rows}
    expected = asked if check.failing is None else asked & set(check.failing)
    good = expected <= set(failed) and len(failed) <= len(expected) + check.slack
    name = f"{check.benchmark} {check.field}" + (" compat" if check.compat else "")
    passed = f"{len(rows) - len(failed)}/{len(rows)} pass"
    print(f"{name}: {passed} in {seconds:.0f} s{'' if good else '  <- NOT AS EXPECTED'}")
    if failed and check.failing is not None:
        print("   failing:", ", ".join(f"{task_id} ({what})" for task_id, what in failed.items()))
    sys.stdout.flush()
    return good


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description="Runs the reference solutions of the benchmarks.")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of the files")
    parser.add_argument("--benchmark", nargs="*", default=sorted({c.benchmark for c in CHECKS}))
    parser.add_argument("--sample", type=int, help="so many of each, evenly spaced")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--isolation", default="landlock")
    flags = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    with Pool(workers=flags.workers, isolation=flags.isolation) as pool:
        print(f"isolation: {pool.isolation}")
        good = [
            run(check, flags.data, pool, flags.sample)
            for check in CHECKS
            if check.benchmark in flags.benchmark
        ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
