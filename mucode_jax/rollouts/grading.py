"""Grades and labels: programs go to the sandbox, each (problem, program) once.

Two graders never meet: the public one serves rollouts and search, the private one is made for
labelling and evaluation alone (`labels`), after the rollouts are finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future

from mucode_jax.core.records import Grade, Problem, Rollout, Tests
from mucode_jax.sandbox import Outcome, Pool

Label = tuple[bool, ...]  # one per turn: the code passes the public and the private tests


class InfrastructureError(RuntimeError):
    """The sandbox could not execute a program, however often it was tried. Never a wrong answer."""


class Grader:
    """Executes programs against one side of the tests and remembers every outcome.

    Attributes:
      executions: how many programs were really executed.
    """

    def __init__(self, pool: Pool, tests: Callable[[Problem], Tests]) -> None:
        self._pool = pool
        self._tests = tests
        self._outcomes: dict[tuple[str, str, str], Future[Outcome]] = {}
        self.executions = 0

    def submit(self, problem: Problem, code: str) -> Future[Outcome]:
        """Begins to execute `code`, unless the same program was seen before; see `grade_of`."""
        program = problem.program(code)
        key = (problem.benchmark, problem.task_id, program)
        if key not in self._outcomes:
            self.executions += 1
            self._outcomes[key] = self._pool.submit(program, self._tests(problem))
        return self._outcomes[key]

    def grade(self, problem: Problem, code: str) -> Grade:
        """Executes and waits."""
        return grade_of(self.submit(problem, code))


def grade_of(outcome: Future[Outcome]) -> Grade:
    """The grade that an execution gave; waits for it. It is `infra` where the tests are at fault.

    Raises:
      InfrastructureError: the sandbox failed, not the program.
    """
    result = outcome.result()
    if result.status == "infra" and not result.in_tests:
        raise InfrastructureError(
            f"the sandbox could not execute a program: {result.summary}; nothing is lost, run the "
            "same command again once it is mended"
        )
    return Grade(result.status, result.feedback, result.summary)


def public_grader(pool: Pool) -> Grader:
    """The grader of rollouts and search: it knows the public tests only."""
    return Grader(pool, lambda problem: problem.public)


def private_grader(pool: Pool, private: Mapping[str, Tests]) -> Grader:
    """The grader of labels: for problems that have private tests."""
    return Grader(pool, lambda problem: private[problem.task_id])


def label_codes(
    graded: Iterable[tuple[Problem, str, Grade]], private: Mapping[str, Tests], grader: Grader
) -> list[bool]:
    """Whether each code is correct: it passed the public tests, and passes the private ones.

    Args:
      graded: (problem, code, grade of the public tests).
      private: task_id -> private tests; a problem without an entry is judged by the public ones.
      grader: a `private_grader`; only codes that passed the public tests reach it.
    """
    pending: list[bool | Future[Outcome]] = []
    for problem, code, grade in graded:
        if grade.passed and problem.task_id in private:
            pending.append(grader.submit(problem, code))
        else:
            pending.append(grade.passed)
    return [p if isinstance(p, bool) else grade_of(p).passed for p in pending]


def labels(
    rollouts: Sequence[Rollout],
    problems: Mapping[str, Problem],
    private: Mapping[str, Tests],
    grader: Grader,
) -> list[Label]:
    """For each rollout, whether the code of each of its turns is correct (paper, section 3.1)."""
    flat = iter(
        label_codes(
            (
                (problems[rollout.task_id], turn.code, turn.grade)
                for rollout in rollouts
                for turn in rollout.turns
            ),
            private,
            grader,
        )
    )
    return [tuple(next(flat) for _ in rollout.turns) for rollout in rollouts]
