"""Which candidates agree: the programs that passed, executed on further inputs and compared.

Programs that return the same on every further input (`inputs`) form a group, and the largest group
comes first: right programs agree, wrong ones mostly differ (AlphaCode's clusters, Li et al., 2022;
MBR-exec, Shi et al., 2022). Inputs are made of the public tests and nothing else. What comes out of
a program's process is its own word: it is compared with that of the others and decides no verdict.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future

import numpy as np

from mucode_jax.core.records import Problem, Tests, Turn
from mucode_jax.rollouts import inputs
from mucode_jax.rollouts.grading import grade_of
from mucode_jax.sandbox import Outcome, Pool

INPUTS = 16  # of a problem, where nothing else is asked for
_MARK = "further input: "
# Runs after the program, in its process; a name of the program's may hide a built-in one. It writes
# one line per call: the value's text, or the class of what was raised.
_DRIVER = """
def _further_inputs(calls):
    import builtins as b, contextlib, hashlib, io, itertools, re, sys

    def text(value):
        if b.isinstance(value, b.dict):
            pairs = b.sorted(text(k) + ": " + text(v) for k, v in value.items())
            return "{" + ", ".join(pairs) + "}"
        if b.isinstance(value, (b.set, b.frozenset)):
            return "set(" + ", ".join(b.sorted(b.map(text, value))) + ")"
        if b.isinstance(value, (b.list, b.tuple)):
            ends = "[]" if b.isinstance(value, b.list) else "()"
            return ends[0] + ", ".join(b.map(text, value)) + ends[1]
        return re.sub(" at 0x[0-9a-f]+", "", b.repr(value))

    for call in calls:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                value = call()
                if b.hasattr(value, "__next__"):
                    value = b.list(itertools.islice(value, 1000))
                shown = text(value)
        except b.BaseException as error:
            shown = "raises " + b.type(error).__name__
        shown = shown.encode("unicode_escape").decode()
        if b.len(shown) > 1000:
            shown = hashlib.sha256(shown.encode()).hexdigest()
        sys.__stdout__.write("\\n" + MARK + shown + "\\n")
        sys.__stdout__.flush()


_further_inputs([CALLS])
"""


@dataclasses.dataclass(frozen=True)
class Runs:
    """The programs of some candidates on further inputs, under way or finished.

    Attributes:
      inputs: what they are executed on.
      outcomes: code -> outcomes, of the programs that are to be told apart.
    """

    inputs: inputs.Inputs
    outcomes: Mapping[str, tuple[Future[Outcome], ...]]

    @property
    def futures(self) -> list[Future[Outcome]]:
        return list(itertools.chain(*self.outcomes.values()))

    def sizes(self, turns: Sequence[Turn]) -> np.ndarray:
        """int32 [N]: how many candidates that passed return what this one returns; else 0."""
        returned = {code: self._returned(of_code) for code, of_code in self.outcomes.items()}
        values = [returned.get(turn.code, ()) if turn.grade.passed else None for turn in turns]
        counts = collections.Counter(values)
        return np.array([0 if v is None else counts[v] for v in values], np.int32)

    def _returned(self, outcomes: Sequence[Future[Outcome]]) -> tuple[str, ...]:
        """What a program returned on every input; how it ended where it did not answer.

        Raises InfrastructureError where it could not be executed.
        """
        if not self.inputs.calls:
            return tuple(_printed(outcome) for outcome in outcomes)
        (outcome,) = outcomes
        status = grade_of(outcome).status
        lines = outcome.result().stdout.split("\n")
        values = [line.removeprefix(_MARK) for line in lines if line.startswith(_MARK)]
        missing = len(self.inputs.calls) - len(values)
        return (*values, *[f"ended: {status}"] * missing)


def _printed(outcome: Future[Outcome]) -> str:
    """What a program printed for one standard input, spaces apart; or how it ended."""
    status = grade_of(outcome).status
    printed = status in ("pass", "fail")  # nothing is expected of it
    return " ".join(outcome.result().stdout.split()) if printed else f"ended: {status}"


class Agreement:
    """Executes programs on further inputs, each (problem, program) once."""

    def __init__(self, pool: Pool, count: int = INPUTS) -> None:
        """Args: what executes; inputs per problem."""
        self._pool = pool
        self._count = count
        self._inputs: dict[tuple[str, str], inputs.Inputs] = {}
        self._outcomes: dict[tuple[str, str, str], tuple[Future[Outcome], ...]] = {}

    def submit(self, problem: Problem, turns: Sequence[Turn]) -> Runs | None:
        """Begins to execute the programs that passed, where there are several.

        None where no further inputs can be made of the public tests.
        """
        name = problem.benchmark, problem.task_id
        if name not in self._inputs:
            self._inputs[name] = inputs.further(problem, self._count)
        made = self._inputs[name]
        if not made:
            return None
        outcomes = {}
        for code in passing(turns):
            key = (*name, program := problem.program(code))
            if key not in self._outcomes:
                self._outcomes[key] = tuple(
                    self._pool.submit(program, tests) for tests in _tests(problem, made)
                )
            outcomes[code] = self._outcomes[key]
        return Runs(made, outcomes)


def passing(turns: Iterable[Turn]) -> list[str]:
    """The different codes that passed, where further inputs can tell any apart; else none."""
    codes = list(dict.fromkeys(turn.code for turn in turns if turn.grade.passed))
    return codes if len(codes) > 1 else []


def _tests(problem: Problem, made: inputs.Inputs) -> list[Tests]:
    """What a program is executed with: one process for all calls, one per standard input."""
    timeout_s = problem.public.timeout_s
    if made.stdin:
        return [Tests(stdio=((text, ""),), timeout_s=timeout_s) for text in made.stdin]
    calls = ", ".join(f"lambda: {call}" for call in made.calls)
    driver = _DRIVER.replace("MARK", repr(_MARK)).replace("CALLS", calls)
    return [Tests(setup=f"{problem.public.setup}\n{driver}", timeout_s=timeout_s)]
