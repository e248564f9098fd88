"""HumanEval (Chen et al. 2021), HumanEvalPack (Muennighoff et al. 2023) and HumanEval+ (EvalPlus).

A function's head with its docstring is given; the body is asked for. An answer may be a body (it
begins indented and runs after the whole prompt) or the whole function (it runs after what the
prompt holds before the function: imports, and helpers). Tests that call a helper bring their own,
but in `compat`, so that a program cannot put another in its place.
"""

from __future__ import annotations

import re

from mucode_jax.benchmarks import evalplus, prompts
from mucode_jax.benchmarks.examples import docstring_asserts
from mucode_jax.benchmarks.files import Entry, Row, python_tests, syntax_error, with_shapes
from mucode_jax.core.records import Problem, Tests

SPLITS = ("test",)
TIMEOUT_S = 10.0
PLUS_TIMEOUT_S = 60.0  # the test programs are up to 502 kB long, and some inputs are large


def read(row: Row, *, compat: bool, testless: bool) -> Entry:
    """One record of HumanEval: public are the docstring's examples, private is `test`.

    Raises:
      ValueError: a field is missing or of another kind, or a test does not parse.
    """
    return _read(row, "humaneval", TIMEOUT_S, compat=compat, testless=testless)


def read_plus(row: Row, *, compat: bool, testless: bool) -> Entry:
    """One record of HumanEval+, of the release files (`evalplus`) or in HumanEval's form.

    In HumanEval's form `test` is longer than HumanEval's: it holds all the inputs.

    Raises:
      ValueError: as `read`; or there are no tests but HumanEval's.
    """
    if evalplus.is_release(row):
        name, prompt = row.text("entry_point"), row.text("prompt")
        public = _public(row, name, PLUS_TIMEOUT_S)
        solution = prompt + row.text("canonical_solution")
        private = evalplus.tests(row, solution, timeout_s=PLUS_TIMEOUT_S)
        shown = "" if testless else "\n".join(public.statements)
        return _entry(row, "humaneval_plus", public, private, shown, compat=compat)
    if "inputs = " not in _test(row):
        raise ValueError(
            f"{row.where}: there are no plus tests in it, neither a field 'plus_input' nor inputs "
            "in 'test'; is it HumanEval's own file?"
        )
    return _read(row, "humaneval_plus", PLUS_TIMEOUT_S, compat=compat, testless=testless)


def _read(row: Row, benchmark: str, timeout_s: float, *, compat: bool, testless: bool) -> Entry:
    name = row.text("entry_point")
    preamble, _ = _split_prompt(row, name)
    public = _public(row, name, timeout_s)
    # `test` only defines `check`: somebody has to call it.
    program = f"{with_shapes(_test(row)).rstrip()}\n\ncheck({name})\n"
    if not compat:
        program = _with_helpers(preamble, program)
    private = python_tests(row, (program,), timeout_s=timeout_s)
    shown = "" if testless else "\n".join(public.statements)
    return _entry(row, benchmark, public, private, shown, compat=compat)


def _public(row: Row, name: str, timeout_s: float) -> Tests:
    """The examples of the docstring."""
    docstring = _split_prompt(row, name)[1].partition("\n")[2]
    return python_tests(row, docstring_asserts(docstring, name), timeout_s=timeout_s)


def read_pack(row: Row, *, compat: bool, testless: bool) -> Entry:
    """One record of HumanEvalPack: public is the whole `example_test`, private is `test`.

    With `compat`: the second assert of `example_test` (the first where it has one alone) is public;
    what is left of the text is put before `test`. Where that leaves a function without a body, or
    an indented first line, no program can pass.

    Raises:
      ValueError: a field is missing or of another kind, or a test does not parse.
    """
    example, test = row.text("example_test"), _test(row)
    if compat:
        shown, private_text = example.strip(), test.strip()
        asserts = re.findall(r"assert .+?(?=\n)", shown)
        public_text = asserts[min(1, len(asserts) - 1)] if asserts else shown
        if asserts:
            private_text = f"{shown.replace(public_text, '', 1).strip()}\n{private_text}"
        public = python_tests(row, (public_text,) if public_text else (), timeout_s=TIMEOUT_S)
        impossible = bool(syntax_error(private_text))
        if impossible:  # the text itself would be refused; as published it fails every program
            private_text = f"raise SyntaxError({private_text!r})"
        private = python_tests(row, (private_text,), timeout_s=TIMEOUT_S)
    else:
        preamble, _ = _split_prompt(row, row.text("entry_point"))
        shown = _without_indented_head(example).strip()
        text = _with_helpers(preamble, shown)
        public = python_tests(row, (text,) if text else (), timeout_s=TIMEOUT_S)
        private = python_tests(row, (_with_helpers(preamble, test),), timeout_s=TIMEOUT_S)
        impossible = False
    shown = "" if testless else shown
    return _entry(
        row, "humanevalpack", public, private, shown, compat=compat, impossible=impossible
    )


def _entry(
    row: Row,
    benchmark: str,
    public: Tests,
    private: Tests,
    shown: str,
    *,
    compat: bool,
    impossible: bool = False,
) -> Entry:
    prompt, name = row.text("prompt"), row.text("entry_point")
    preamble, _ = _split_prompt(row, name)
    problem = Problem(
        benchmark=benchmark,
        task_id=row.task_id(),
        split="test",
        prompt=prompts.function_prompt(prompt, tests=shown),
        public=public,
        entry_point=name,
        preamble=preamble,
        stub=prompt,
        feedback=prompts.COMPAT_FEEDBACK if compat else prompts.FEEDBACK,
    )
    return Entry(problem, private, prompt + row.text("canonical_solution"), impossible)


def _test(row: Row) -> str:
    test = row.text("test")
    if not test.strip():
        raise ValueError(f"{row.where}: field 'test' is empty; there must be tests")
    return test


def _split_prompt(row: Row, name: str) -> tuple[str, str]:
    """What the prompt holds before the tested function, and the function itself."""
    prompt = row.text("prompt")
    match = re.search(rf"^(?:async )?def {re.escape(name)}\b", prompt, re.MULTILINE)
    if not name or not match:
        raise ValueError(f"{row.where}: the prompt has no 'def {name}', its entry point")
    return prompt[: match.start()], prompt[match.start() :]


def _with_helpers(preamble: str, test: str) -> str:
    """`test` with the helpers of the prompt that it names, which are so no longer the program's."""
    helpers = re.findall(r"^def (\w+)", preamble, re.MULTILINE)
    return preamble + test if any(re.search(rf"\b{name}\b", test) for name in helpers) else test


def _without_indented_head(text: str) -> str:
    """`text` from its first line that is not indented.

    The `example_test` of Python/119 begins with lines of a function body, which parse only when
    pasted behind one.
    """
    lines = text.split("\n")
    first = next((i for i, line in enumerate(lines) if line and not line[0].isspace()), len(lines))
    return "\n".join(lines[first:])
