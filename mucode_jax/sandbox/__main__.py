"""Runs bare programs in the sandbox.

    python -m mucode_jax.sandbox --programs IN.jsonl --out OUT.jsonl

IN holds, a line, {"name", "code", "tests": [..]} or {"name", "code", "stdin", "stdout"}, with
"timeout_s" where it differs from --timeout; OUT the same order with {"name", "status", "seconds",
"stdout", "stderr"}. Either may end in .gz.
"""

from __future__ import annotations

import collections
import concurrent.futures
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import TextIO

from mucode_jax.benchmarks.files import Row, python_tests, read_jsonl
from mucode_jax.core.records import Tests
from mucode_jax.runtime.command import Parser, fail, seconds, workers, writing
from mucode_jax.runtime.progress import Progress

from . import isolation
from .pool import Outcome, Pool


def read_programs(path: pathlib.Path, timeout_s: float) -> list[tuple[str, str, Tests]]:
    """(name, code, tests) of every line.

    Raises ValueError that names the line at fault, or says that there is none.
    """
    found = [_program(row, timeout_s) for row in read_jsonl(path)]
    if not found:
        raise ValueError(f"{path}: no program in it")
    return found


def _program(row: Row, timeout_s: float) -> tuple[str, str, Tests]:
    name, code = row.text("name"), row.text("code")
    limit = row.fields.get("timeout_s", timeout_s)
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 < limit <= 86_400:
        raise ValueError(f"{row.where}: 'timeout_s' must be a number of seconds, not {limit!r}")
    pair = {"stdin", "stdout"} & set(row.fields)
    if ("tests" in row.fields) == bool(pair):
        raise ValueError(f"{row.where}: give either 'tests' or both 'stdin' and 'stdout'")
    if pair:
        both = (row.text("stdin"), row.text("stdout"))
        return name, code, Tests(stdio=(both,), timeout_s=limit)
    return name, code, python_tests(row, row.texts("tests"), timeout_s=limit)


def in_order(pool: Pool, programs: list[tuple[str, str, Tests]]) -> Iterator[tuple[str, Outcome]]:
    """(name, outcome) of every program, in order, as soon as it and those before it are done."""
    waiting: collections.deque[tuple[str, concurrent.futures.Future[Outcome]]] = collections.deque()
    for name, code, tests in programs:
        waiting.append((name, pool.submit(code, tests)))
        while waiting and waiting[0][1].done():
            done = waiting.popleft()
            yield done[0], done[1].result()
    for name, future in waiting:
        yield name, future.result()


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status: 0, 1 where programs could not be run, 2 on bad input."""
    parser = Parser("sandbox", __doc__, "0 run, 1 something could not be run, 2 bad input")
    parser.add_argument("--programs", type=pathlib.Path, required=True, help="JSONL, or .gz of it")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="JSONL, or .gz of it")
    parser.add_argument("--timeout", type=seconds, default=10.0, help="seconds a program (10)")
    parser.add_argument("--workers", type=workers, help="processes (one a core)")
    parser.add_isolation(isolation.LEVELS)
    given = parser.parse_args(arguments)
    try:
        programs = read_programs(given.programs, given.timeout)
        with (
            writing(given.out, of=[given.programs]) as out,
            Pool(workers=given.workers, isolation=given.isolation) as pool,
        ):
            print(f"isolation: {pool.isolation['level']}", file=sys.stderr)
            lost = _run(pool, programs, out)
    except ValueError as error:
        return fail("sandbox", str(error), 2)
    except (OSError, RuntimeError) as error:
        return fail("sandbox", str(error), 1)
    except KeyboardInterrupt:
        return fail("sandbox", "interrupted; nothing is written", 130)
    return fail("sandbox", f"{lost} programs could not be run (infra)", 1) if lost else 0


def _run(pool: Pool, programs: list[tuple[str, str, Tests]], out: TextIO) -> int:
    """Writes every outcome to `out`; how many were `infra`."""
    lost = 0
    with Progress().task("running", len(programs), "programs") as advance:
        for name, outcome in in_order(pool, programs):
            row = {
                **{"name": name, "status": outcome.status, "seconds": round(outcome.seconds, 4)},
                **{"stdout": outcome.stdout, "stderr": outcome.stderr or outcome.summary},
            }
            out.write(json.dumps(row) + "\n")
            lost += outcome.status == "infra"
            advance(1)
    return lost


if __name__ == "__main__":
    sys.exit(main())
