"""CodeContests (Li et al. 2022): programs that read standard input and write standard output.

Public are the examples of the statement, private are `private_tests`, or `generated_tests` where
there are none. A problem without public tests (nothing to learn from between turns), or one that
reads a file, is left out, as published. A local file is the split that is asked for: upstream
keeps its splits in files.
"""

from __future__ import annotations

import re

from mucode_jax.benchmarks import prompts
from mucode_jax.benchmarks.files import Entry, Row
from mucode_jax.core.records import Problem, Tests

SPLITS = ("train", "validation", "test")
TIMEOUT_S = 10.0  # a pair, where the record gives no limit of its own
COMPAT_TIMEOUT_S = 1.0

_PYTHON3 = (3, "PYTHON3")  # upstream's enumeration of languages, as number and as name
_EXAMPLES = re.compile(r"^Examples?\s*$.*?(?=^Note\s*$|\Z)", re.MULTILINE | re.DOTALL)


def read(row: Row, *, compat: bool, testless: bool) -> Entry | None:
    """One record; None where it is left out. With `testless` the statement loses its examples.

    Raises:
      ValueError: a field is missing or of another kind, or there are no tests at all.
    """
    name = row.task_id("name")
    public = row.pairs("public_tests")
    private = row.pairs("private_tests") or row.pairs("generated_tests")
    if not public and not private:
        raise ValueError(f"{row.where}: problem {name!r} has no tests of any kind")
    if not public or row.text("input_file", "") or row.text("output_file", ""):
        return None
    timeout_s = _time_limit(row, COMPAT_TIMEOUT_S if compat else TIMEOUT_S)
    description = row.words("description")
    problem = Problem(
        benchmark="code_contests",
        task_id=name,
        split="",  # filled in by `load`: the record does not say
        prompt=prompts.program_prompt(_EXAMPLES.sub("", description) if testless else description),
        public=Tests(stdio=public, timeout_s=timeout_s),
        feedback=prompts.COMPAT_FEEDBACK if compat else prompts.FEEDBACK,
    )
    hidden = Tests(stdio=private, timeout_s=timeout_s) if private else None
    return Entry(problem, hidden, _solution(row))


def _time_limit(row: Row, default: float) -> float:
    """Seconds a pair: the record's own limit, or the default."""
    if not row.has("time_limit"):
        return default
    limit = row.fields["time_limit"]
    try:
        seconds = float(limit["seconds"] or 0) + 1e-9 * float(limit["nanos"] or 0)
    except (TypeError, KeyError, ValueError, OverflowError):
        raise ValueError(
            f'{row.where}: time_limit must be {{"seconds": S, "nanos": N}} or null, not {limit!r}'
        ) from None
    if not 0 < seconds < 3600:
        raise ValueError(f"{row.where}: a time limit of {seconds} s is not between 0 and an hour")
    return seconds


def _solution(row: Row) -> str | None:
    """The first Python 3 solution, if there is one."""
    solutions = row.table("solutions", "language", "solution")
    return next((text for language, text in solutions if language in _PYTHON3), None)
