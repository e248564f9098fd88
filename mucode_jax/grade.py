"""Grades code against the public and private tests of a benchmark.

    python -m mucode_jax.grade --benchmark mbpp --candidates code.jsonl --out graded.jsonl
    python -m mucode_jax.grade --benchmark jsonl --data own.jsonl --candidates code.jsonl \\
        --out graded.jsonl.gz --timeout 5

A candidate is {"task_id", "code"}: a whole program, or a body where it begins indented.

The candidates are read twice: once to check every line before anything runs, once to grade them.
What is in flight is bounded, so the memory needed does not grow with their number, and the results
are written in the order of the candidates as they come.
"""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":  # the imports below take a while

    def _leave(*_: object) -> None:
        os.write(2, b"python -m mucode_jax.grade: error: interrupted\n")
        os._exit(130)

    signal.signal(signal.SIGINT, _leave)

import argparse
import collections
import dataclasses
import functools
import json
import logging
import pathlib
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from mucode_jax import benchmarks
from mucode_jax.benchmarks.files import Row, read_jsonl
from mucode_jax.core.records import Benchmark, Grade, Problem, Tests
from mucode_jax.rollouts.broken_tests import Trial
from mucode_jax.runtime.command import Parser, fail, positive, seconds, workers, writing
from mucode_jax.runtime.progress import Progress
from mucode_jax.sandbox import LEVELS, Outcome, Pool

MAX_PENDING = 2048  # candidates whose results wait for an earlier one
MAX_PENDING_SIZE = 64 << 20  # characters of code of those


@dataclasses.dataclass
class Tally:
    """How the candidates fared so far."""

    graded: int = 0
    passed: int = 0
    infra: int = 0

    def __str__(self) -> str:
        infra = f", {self.infra} not to be graded (infra)" if self.infra else ""
        return f"{self.graded} graded, {self.passed} pass all their tests{infra}"


def check_candidates(path: str, known: Iterable[str]) -> int:
    """How many candidates `path` holds.

    Raises:
      ValueError: a line is not {"task_id", "code"} with an id of the benchmark, or there is none,
        or `path` is a pipe.
    """
    file = pathlib.Path(path)
    if file.is_fifo() or file.is_char_device() or file.is_socket():
        raise ValueError(f"{path}: must be a file that can be read twice, no pipe")
    known = frozenset(known)
    count = 0
    for row in read_jsonl(path):
        candidate(row, known)
        count += 1
    if not count:
        raise ValueError(f"{path}: no candidates in it")
    return count


def candidate(row: Row, known: Iterable[str]) -> tuple[str, str]:
    """(task id, code) of one line of candidates. Raises ValueError with the line."""
    task_id, code = row.task_id(), row.fields.get("code")
    if not isinstance(code, str):
        raise ValueError(f"{row.where}: field 'code' must be there and be text")
    if task_id not in known:
        some = ", ".join(sorted(known)[:3])
        raise ValueError(
            f"{row.where}: task_id {task_id!r} is not in the benchmark (its ids are like {some})"
        )
    return task_id, code


def grade(
    pool: Pool, benchmark: Benchmark, rows: Iterable[Row], *, timeout_s: float | None = None
) -> Iterator[tuple[Row, Grade, Grade | None]]:
    """Grades candidates; yields them in their order with their public and private grade.

    What fails in the tests' own code is no candidate's fault where it fails with the benchmark's
    reference solution too, nor is what stands before the program or sets up the tests: it is graded
    `infra`.

    Args:
      pool: where the programs run.
      benchmark: what the candidates answer; a problem without private tests has None for a grade.
      rows: the candidates, taken only as fast as they are graded.
      timeout_s: a limit in place of the one that each problem's tests have.

    Raises:
      ValueError: a candidate is not one.
    """
    problems = {problem.task_id: problem for problem in benchmark.problems}
    trial = Trial(pool, benchmark.solutions)

    @functools.cache
    def sides(task_id: str) -> list[Tests]:
        private = benchmark.private.get(task_id)
        public = problems[task_id].public
        both = [public] if private is None else [public, private]
        if timeout_s is not None:
            both = [dataclasses.replace(tests, timeout_s=timeout_s) for tests in both]
        return both

    def submit(problem: Problem, code: str) -> list[Future[Outcome]]:
        program = problem.program(code)
        return [_unheard(pool.submit(program, tests)) for tests in sides(problem.task_id)]

    def result(row: Row, futures: list[Future[Outcome]]) -> tuple[Row, Grade, Grade | None]:
        problem = problems[row.task_id()]
        grades = []
        for future, tests in zip(futures, sides(problem.task_id), strict=True):
            outcome = future.result()
            grades.append(outcome.grade())
            why = trial.reason if outcome.in_tests else trial.around
            if outcome.status == "error" and (reason := why(problem, tests)):
                grades[-1] = Grade("infra", summary=reason)
        return row, grades[0], grades[1] if len(grades) > 1 else None

    pending: collections.deque[tuple[Row, list[Future[Outcome]]]] = collections.deque()
    pending_size = 0
    for row in rows:
        task_id, code = candidate(row, problems.keys())
        pending.append((row, submit(problems[task_id], code)))
        pending_size += len(code)
        while pending and (
            len(pending) >= MAX_PENDING
            or pending_size >= MAX_PENDING_SIZE
            or all(future.done() for future in pending[0][1])
        ):
            pending_size -= len(pending[0][0].fields["code"])
            yield result(*pending.popleft())
    while pending:
        yield result(*pending.popleft())


def _unheard(outcome: Future[Outcome]) -> Future[Outcome]:
    """The outcome without what the program printed, which is not kept while it waits."""
    bare: Future[Outcome] = Future()

    def keep(done: Future[Outcome]) -> None:
        if done.cancelled():  # the pool was closed
            bare.cancel()
        elif error := done.exception():
            bare.set_exception(error)
        else:
            bare.set_result(dataclasses.replace(done.result(), stdout="", stderr=""))

    outcome.add_done_callback(keep)
    return bare


def _as_json(grade: Grade | None) -> dict[str, Any] | None:
    if grade is None:
        return None
    # An infrastructure fault has nothing to say to a model, but a reason for a person.
    feedback = grade.summary if grade.status == "infra" else grade.feedback
    return {"passed": grade.passed, "status": grade.status, "feedback": feedback}


def _flags(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("grade", __doc__, "0 graded, 1 something could not be graded, 2 bad input")
    parser.add_argument("--benchmark", required=True, choices=benchmarks.NAMES)
    parser.add_argument(
        "--data", help="the benchmark as .jsonl or .jsonl.gz in the upstream's field names"
    )
    parser.add_argument(
        "--candidates", required=True, help='.jsonl or .jsonl.gz of {"task_id", "code"}'
    )
    parser.add_argument("--out", required=True, help=".jsonl or .jsonl.gz for the results")
    parser.add_argument(
        "--timeout", type=seconds, help="seconds a program (default: the benchmark's own)"
    )
    parser.add_argument("--workers", type=workers, help="processes (default: one a core)")
    parser.add_isolation(LEVELS)
    parser.add_argument("--split", help="only problems of this split (default: all; of mini, test)")
    parser.add_argument("--seed", type=int, default=0, help="of mini: what it was made from")
    parser.add_argument("--size", type=positive, help="of mini: how many problems")
    parser.add_argument(
        "--compat", action="store_true", help="the published division into public and private"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    tally = Tally()
    try:
        if __name__ == "__main__":
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return _grade(_flags(argv), tally)
    except KeyboardInterrupt:
        return fail(
            "grade", f"interrupted after {tally.graded} candidates; nothing is written", 130
        )


def _grade(flags: argparse.Namespace, tally: Tally) -> int:
    split = flags.split or ("test" if flags.benchmark == "mini" else benchmarks.ALL)
    try:
        benchmark = benchmarks.load(
            flags.benchmark,
            split,
            data=flags.data,
            seed=flags.seed,
            size=flags.size,
            compat=flags.compat,
        )
        total = check_candidates(flags.candidates, (p.task_id for p in benchmark.problems))
    except ValueError as error:
        return fail("grade", str(error), 2)
    try:
        with (
            writing(flags.out, of=[*filter(None, [flags.data]), flags.candidates]) as out,
            Pool(workers=flags.workers, isolation=flags.isolation) as pool,
            Progress().task("grading", total, "candidates") as advance,
        ):
            print(f"isolation: {json.dumps(pool.isolation)}", file=sys.stderr)
            rows = read_jsonl(flags.candidates)
            for row, public, private in grade(pool, benchmark, rows, timeout_s=flags.timeout):
                tests = {"public": _as_json(public), "private": _as_json(private)}
                out.write(json.dumps({**row.fields, **tests}) + "\n")
                sides = [side for side in (public, private) if side]
                tally.graded += 1
                tally.passed += all(side.passed for side in sides)
                if lost := [side.summary for side in sides if side.status == "infra"]:
                    tally.infra += 1
                    print(f"{row.where}: could not be graded ({lost[0]})", file=sys.stderr)
                advance(1, f"{tally.passed} pass")
    except ValueError as error:
        return fail("grade", str(error), 2)
    except (OSError, RuntimeError) as error:
        return fail("grade", str(error), 1)
    print(f"{tally}; written to {flags.out}", file=sys.stderr)
    return 1 if tally.infra else 0


if __name__ == "__main__":
    sys.exit(main())
