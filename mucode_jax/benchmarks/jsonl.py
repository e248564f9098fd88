"""Problems of one's own: a JSONL file with tests in Python.

A line is {"task_id", "prompt", "public_tests": [..], "private_tests": [..]} and, where wanted,
"entry_point", "preamble" (Python text that stands before the program), "setup" (Python text run
between the program and its tests), "solution" and "split".
`prompt` is the problem's text; the request around it is the one of the other benchmarks. With
"verbatim": true it is the whole first message instead. "feedback" is the template of the message
after a failed turn, with {feedback} (all that happened) or {summary} (one line). Other fields are
passed over.
"""

from __future__ import annotations

from mucode_jax.benchmarks import prompts
from mucode_jax.benchmarks.files import Entry, Row, python_tests, refuse_idle, syntax_error
from mucode_jax.core.records import Problem

TIMEOUT_S = 10.0


def read(row: Row, *, compat: bool, testless: bool) -> Entry:
    """One record. Its split is "" where it names none.

    Raises:
      ValueError: a field is missing or of another kind, there is no test, or one does not parse
        or asserts nothing, or the feedback's template has no place for it.
    """
    task_id, text = row.task_id(), row.words("prompt")
    shown, hidden = row.texts("public_tests"), row.texts("private_tests")
    if not shown and not hidden:
        raise ValueError(f"{row.where}: problem {task_id!r} has no tests, public or private")
    setup, name = row.text("setup", "").strip(), row.text("entry_point", "")
    preamble = row.text("preamble", "").strip()
    if error := syntax_error(preamble):
        raise ValueError(f"{row.where}: 'preamble' does not parse ({error})")
    public = python_tests(row, shown, setup=setup, timeout_s=TIMEOUT_S)
    private = python_tests(row, hidden, setup=setup, timeout_s=TIMEOUT_S) if hidden else None
    for tests in filter(None, (public, private)):
        refuse_idle(row, tests)
    feedback = row.text("feedback", prompts.COMPAT_FEEDBACK if compat else prompts.FEEDBACK)
    if "{feedback}" not in feedback and "{summary}" not in feedback:
        raise ValueError(f"{row.where}: 'feedback' has no place for {{feedback}} or {{summary}}")
    if row.flag("verbatim"):
        prompt = text
    elif testless:
        signature = name and f"def {name}(...):"
        prompt = prompts.function_prompt(text, preamble=preamble, signature=signature)
    else:
        told = "\n".join([setup, *shown])
        prompt = prompts.function_prompt(text, preamble=preamble, tests=told)
    problem = Problem(
        benchmark="jsonl",
        task_id=task_id,
        split=row.text("split", ""),
        prompt=prompt,
        public=public,
        entry_point=name,
        preamble=preamble and f"{preamble}\n\n",
        feedback=feedback,
    )
    return Entry(problem, private, row.text("solution", "") or None)
