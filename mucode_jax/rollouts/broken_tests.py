"""Problems whose tests cannot run, whatever the program: found before a run, left out and counted.

A module that is not there, a missing file, an error of the test's own: such a problem would call
every program wrong. Its tests are tried with the benchmark's reference solution. What then fails in
the tests' own code is their fault; a solution that is wrong or slow is not. Where there is no
reference, a stub that raises when it is called shows what fails outside of the program.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future

from mucode_jax.core.records import Benchmark, Problem, ReferenceTests, Tests, encode
from mucode_jax.rollouts.grading import InfrastructureError
from mucode_jax.runtime.files import write_atomically
from mucode_jax.runtime.workdir import Workdir
from mucode_jax.sandbox import Outcome, Pool

TIMEOUT_S = 10.0  # most that a reference is given; what takes longer runs, and that is all we ask
_STUB = "def {name}(*_, **__):\n    raise NotImplementedError\n"
# Statements that say something each on its own.
_SINGLE = (ast.Expr, ast.Assert, ast.Assign, ast.Import, ast.ImportFrom, ast.With, ast.For)

log = logging.getLogger(__name__)


class Trial:
    """Tries tests, each problem's once.

    Attributes:
      executions: how many programs were executed for it.
    """

    def __init__(self, pool: Pool, solutions: Mapping[str, str]) -> None:
        """`solutions`: reference solutions by task id, where there are any."""
        self._pool = pool
        self._solutions = solutions
        self._outcomes: dict[tuple[str, Tests], list[Future[Outcome]]] = {}
        self._reasons: dict[tuple[str, str], str] = {}
        self.executions = 0

    def begin(self, problem: Problem, tests: Tests) -> list[Future[Outcome]]:
        """Submits what `reason` will look at."""
        key = problem.task_id, tests
        if key not in self._outcomes:
            pairs = self._programs(problem, tests)
            self._outcomes[key] = [self._submit(*pair) for pair in pairs]
        return self._outcomes[key]

    def _submit(self, program: str, tests: Tests) -> Future[Outcome]:
        self.executions += 1
        return self._pool.submit(program, tests)

    def reason(self, problem: Problem, tests: Tests) -> str:
        """Why `tests` cannot run, with their line; "" where they can. Waits for the sandbox.

        Raises:
          InfrastructureError: the sandbox failed.
        """
        for future in self.begin(problem, tests):
            outcome = future.result()
            if outcome.status == "infra" and not outcome.in_tests:
                raise InfrastructureError(f"the sandbox could not try tests: {outcome.summary}")
            if outcome.status == "error" and (around := self.around(problem, tests)):
                return around
            if not outcome.in_tests:
                continue
            if outcome.status == "infra" and not self._is_of_its_place(outcome):
                return outcome.summary
            if outcome.status == "error" and problem.task_id in self._solutions:
                return f"the reference solution fails with {outcome.summary}, raised by the tests"
        return ""

    def around(self, problem: Problem, tests: Tests) -> str:
        """What is wrong with the texts that run before and after the program; "" if nothing."""
        key = problem.task_id, tests.setup
        if key not in self._reasons:
            self._reasons[key] = self._around(problem, tests)
        return self._reasons[key]

    def _around(self, problem: Problem, tests: Tests) -> str:
        if problem.preamble and (reason := self._fault(problem.preamble)):
            return f"what stands before the program fails: {reason}"
        if tests.setup and problem.task_id in self._solutions:
            program = problem.program(self._solutions[problem.task_id])
            if not self._fault(program) and (reason := self._fault(program, tests.setup)):
                return f"the setup of the tests fails: {reason}"
        return ""

    def _fault(self, program: str, setup: str = "") -> str:
        outcome = self._submit(program, Tests(setup=setup)).result()
        return outcome.summary if outcome.status == "error" else ""

    def _is_of_its_place(self, outcome: Outcome) -> bool:
        """Whether a statement that was tried alone lacks but a name that another one makes."""
        return "NameError: " in outcome.summary or "UnboundLocalError: " in outcome.summary

    def _programs(self, problem: Problem, tests: Tests) -> Iterator[tuple[str, Tests]]:
        if not isinstance(tests, ReferenceTests):  # there the reference is the test
            tests = dataclasses.replace(tests, timeout_s=min(tests.timeout_s, TIMEOUT_S))
        if problem.task_id in self._solutions:
            yield problem.program(self._solutions[problem.task_id]), tests
            return
        name = problem.entry_point
        program = problem.program(_STUB.format(name=name) if name.isidentifier() else "")
        yield program, tests
        for number, text in enumerate(tests.statements):
            for statement in _single_statements(text):
                # In its place, so that its line is told; and with something that is asserted.
                alone = (*[""] * number, statement, "assert True")
                yield program, dataclasses.replace(tests, statements=alone)


def _single_statements(text: str) -> Iterator[str]:
    """The statements of a text, each behind as many empty lines as stand before it there."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # the sandbox says so
    if len(body) > 1:
        for node in body:
            if isinstance(node, _SINGLE):
                yield "\n" * (node.lineno - 1) + (ast.get_source_segment(text, node) or "")


def find(
    pool: Pool, benchmark: Benchmark, advance: Callable[[int], object] = lambda units: None
) -> tuple[dict[str, str], int]:
    """Task id -> why its tests cannot run, for the problems of which that is so.

    Args:
      pool: where the tests are tried.
      benchmark: its problems with public and private tests in Python; pairs of standard input and
        output always run.
      advance: called with 1 for every problem that was looked at.

    Returns:
      The reasons, and how many programs were executed.
    """
    trial = Trial(pool, benchmark.solutions)
    sides = {
        problem: [
            tests
            for tests in (problem.public, benchmark.private.get(problem.task_id))
            if tests is not None and tests.statements
        ]
        for problem in benchmark.problems
    }
    for problem, both in sides.items():
        for tests in both:
            trial.begin(problem, tests)
    reasons = {}
    for problem, both in sides.items():
        if reason := next(filter(None, (trial.reason(problem, tests) for tests in both)), ""):
            reasons[problem.task_id] = reason
        advance(1)
    return reasons, trial.executions


def leave_out(
    workdir: Workdir,
    pool: Pool,
    benchmarks: Sequence[Benchmark],
    *,
    most: float,
    say: Callable[[str], None],
) -> list[Benchmark]:
    """The benchmarks without the problems whose tests cannot run: a stage for each of them.

    `mini` is taken as it is: its tests are made with it. Each stage holds `broken.json`, task id ->
    reason, and counts `problems`, `left_out` and `executions`.

    Args:
      workdir: where it is remembered.
      pool: where the tests are tried.
      benchmarks: what is learned from and evaluated on.
      most: the largest share of a benchmark's problems that may be left out.
      say: told of every benchmark that loses problems.

    Raises:
      ValueError: more than that cannot run, or all.
    """
    return [
        benchmark
        if benchmark.name == "mini"
        else _without(benchmark, _broken(workdir, pool, benchmark), most, say)
        for benchmark in benchmarks
    ]


def _broken(workdir: Workdir, pool: Pool, benchmark: Benchmark) -> dict[str, str]:
    def make(path: pathlib.Path) -> Mapping[str, int]:
        reasons, executions = find(pool, benchmark)
        write_atomically(path / "broken.json", json.dumps(reasons, indent=1))
        counts = {"problems": len(benchmark.problems), "left_out": len(reasons)}
        return {"executions": executions, **counts}

    parts = [benchmark.problems, sorted(benchmark.private.items())]
    parts.append(sorted(benchmark.solutions.items()))
    digest = hashlib.sha256(json.dumps(encode(parts)).encode()).hexdigest()[:16]
    versions = {name: pool.isolation[name] for name in ("python", "numpy")}
    name = f"base/tests_{benchmark.name}_{benchmark.split}_{digest[:4]}"
    stage = workdir.stage(name, {"tests": digest, **versions}, {}, make)
    return json.loads((stage.path / "broken.json").read_text())


def _without(
    benchmark: Benchmark, broken: Mapping[str, str], most: float, say: Callable[[str], None]
) -> Benchmark:
    if not broken:
        return benchmark
    total = len(benchmark.problems)
    task_id, reason = next(iter(broken.items()))
    where = f"{benchmark.name}, {benchmark.split}: the tests of {len(broken)} of {total} problems"
    if len(broken) > most * total or len(broken) == total:
        raise ValueError(
            f"{where} cannot run, more than config.sandbox.broken_tests, {most:g}, allows; "
            f"{task_id}: {reason}"
        )
    say(f"{where} cannot run; they are left out ({', '.join(broken)}); {task_id}: {reason}")
    return dataclasses.replace(
        benchmark, problems=tuple(p for p in benchmark.problems if p.task_id not in broken)
    )
