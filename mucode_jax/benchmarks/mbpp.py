"""MBPP (Austin et al. 2021) and MBPP+ (EvalPlus): a sentence, a function, asserts.

Both are split by task id. Public in `mbpp`: the whole test list for training problems, the first
test for the others; the rest and the challenge tests are private. Public in `mbpp_plus`: the first
test; private: the long test program.
"""

from __future__ import annotations

import ast
import dataclasses
import re

from mucode_jax.benchmarks import evalplus, prompts
from mucode_jax.benchmarks.files import Entry, Row, parse, python_tests, with_shapes
from mucode_jax.core.records import Problem, Tests

SPLITS = ("prompt", "train", "validation", "test")
TIMEOUT_S = 10.0
PLUS_TIMEOUT_S = 60.0  # the test programs are up to 790 kB long

_FIRST_IDS = {1: "prompt", 11: "test", 511: "validation", 601: "train"}
_LAST_ID = 974


def split_of(row: Row) -> str:
    """The split that the record's task id belongs to; ValueError where MBPP has no such id."""
    task_id = row.task_id()
    number = int(task_id) if task_id.isdecimal() else 0
    if not 1 <= number <= _LAST_ID:
        raise ValueError(f"{row.where}: task id {task_id!r} is not one of MBPP's 1 to {_LAST_ID}")
    return _FIRST_IDS[max(first for first in _FIRST_IDS if first <= number)]


def read(row: Row, *, compat: bool, testless: bool) -> Entry:
    """One record of MBPP. With `compat` the challenge tests do not run, as in the published code.

    Raises:
      ValueError: a field is missing or of another kind, or a test does not parse.
    """
    tests, challenge = row.texts("test_list"), row.texts("challenge_test_list")
    shown = len(tests) if split_of(row) == "train" else 1
    return _entry(
        row,
        "mbpp",
        text=row.words("text"),
        setup=row.text("test_setup_code", ""),
        public=tests[:shown],
        private=tests[shown:] if compat else tests[shown:] + challenge,
        timeout_s=TIMEOUT_S,
        compat=compat,
        testless=testless,
    )


def read_plus(row: Row, *, compat: bool, testless: bool) -> Entry:
    """One record of MBPP+, of the release file (`evalplus`) or in MBPP's form.

    In MBPP's form `test` holds all the inputs; with `compat` the other tests of the list are
    private too.

    Raises:
      ValueError: a field is missing or of another kind, or a test does not parse.
    """
    if evalplus.is_release(row):
        return _read_release(row, compat=compat, testless=testless)
    tests, program = row.texts("test_list"), row.text("test")
    if not program.strip():
        raise ValueError(f"{row.where}: field 'test' is empty; there must be tests")
    if "inputs = " not in program:
        raise ValueError(f"{row.where}: there are no plus tests in it: no inputs in 'test'")
    return _entry(
        row,
        "mbpp_plus",
        text=row.words("prompt"),
        setup="\n".join(row.texts("test_imports")),
        public=tests[:1],
        private=(*(tests[1:] if compat else ()), with_shapes(program)),
        timeout_s=PLUS_TIMEOUT_S,
        compat=compat,
        testless=testless,
    )


def _read_release(row: Row, *, compat: bool, testless: bool) -> Entry:
    number = row.task_id().removeprefix("Mbpp/")
    row = dataclasses.replace(row, fields={**row.fields, "task_id": number})
    text, test, imports = evalplus.mbpp_parts(row)
    code = row.text("canonical_solution")
    split_of(row)  # so that it is a number
    private = evalplus.tests(
        row,
        code,
        expression=evalplus.mbpp_expression(number),
        timeout_s=PLUS_TIMEOUT_S,
    )
    of_mbpp = {"code": code, "test_list": [test]}
    entry = _entry(
        dataclasses.replace(row, fields={**row.fields, **of_mbpp}),
        "mbpp_plus",
        text=text,
        setup=imports,
        public=(test,),
        private=(),
        timeout_s=PLUS_TIMEOUT_S,
        compat=compat,
        testless=testless,
    )
    return dataclasses.replace(entry, private=private)


def _entry(
    row: Row,
    benchmark: str,
    *,
    text: str,
    setup: str,
    public: tuple[str, ...],
    private: tuple[str, ...],
    timeout_s: float,
    compat: bool,
    testless: bool,
) -> Entry:
    if not public:
        raise ValueError(f"{row.where}: field 'test_list' is empty; there must be tests")
    code, setup, listed = _lines(row.text("code")), _lines(setup).strip(), row.texts("test_list")
    python_tests(row, listed, setup=setup)  # all must parse: the entry point is read off them
    hidden = python_tests(row, private, setup=setup, timeout_s=timeout_s) if private else None
    if testless:
        heads = signatures(code, (setup, *public))
        prompt = prompts.function_prompt(text, signature=heads)
    else:
        prompt = prompts.function_prompt(text, tests="\n".join([setup, *public]))
    problem = Problem(
        benchmark=benchmark,
        task_id=row.task_id(),
        split=split_of(row),
        prompt=prompt,
        public=Tests(statements=public, setup=setup, timeout_s=timeout_s),
        entry_point=entry_point(code, listed),
        feedback=prompts.COMPAT_FEEDBACK if compat else prompts.FEEDBACK,
    )
    return Entry(problem, hidden, code)


def _lines(text: str) -> str:
    """`text` with plain line ends; to Python they are the same, to a generator they are not."""
    return re.sub(r"\r*\n|\r", "\n", text)


def _called(text: str) -> list[str]:
    """The plain names that are called in a Python text, in order, without repetition."""
    calls = (node for node in ast.walk(parse(text)) if isinstance(node, ast.Call))
    return list(dict.fromkeys(call.func.id for call in calls if isinstance(call.func, ast.Name)))


def entry_point(code: str, tests: tuple[str, ...]) -> str:
    """The function that every test calls and `code` defines; "" where there is none.

    The first `def` of a solution is often a helper, and solutions are named like builtins (`sum`),
    so the name is one that both sides know.
    """
    defined = {node.name for node in _body(code) if isinstance(node, ast.FunctionDef)}
    common = set.intersection(*({*_called(test)} for test in tests))
    return next((name for name in _called(tests[0]) if name in common & defined), "")


def signatures(code: str, tests: tuple[str, ...]) -> str:
    """The heads of the functions and classes of `code` that the tests call."""
    called = {name for text in tests for name in _called(text)}
    heads = []
    for node in _body(code):
        if isinstance(node, ast.FunctionDef) and node.name in called:
            heads.append(_head(node))
        if isinstance(node, ast.ClassDef) and node.name in called:
            heads.append(f"class {node.name}:")
            methods = (item for item in node.body if isinstance(item, ast.FunctionDef))
            heads += [f"    {_head(item)}" for item in methods if item.name == "__init__"]
    return "\n".join(heads)


def _body(code: str) -> list[ast.stmt]:
    """The statements of a solution; none where it does not parse."""
    try:
        return parse(code).body
    except SyntaxError:
        return []


def _head(function: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    return f"def {function.name}({ast.unparse(function.args)}){returns}:"
