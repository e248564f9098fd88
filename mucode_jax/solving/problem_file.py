"""A person's own problem: what a JSON or Python file asks for, and how a generator reads it."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import json
import pathlib
from collections.abc import Sequence

from mucode_jax.benchmarks import files, prompts
from mucode_jax.core.records import Problem, Tests

TIMEOUT_S = 10.0
_SHAPE = (
    'give {"prompt": .., "tests": ["assert ..", ..], "setup"?: .., "preamble"?: ..}, or a .py file '
    "with docstring and asserts"
)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a file asks for.

    Attributes:
      words: the problem in words.
      stub: the head of an empty function with its docstring, "" where there is none.
      tests: assert statements, each of which parses.
      setup: Python text that the tests need, run after the program.
      preamble: Python text that the program needs, as for annotations; run before it.
      name: the function that the tests call, "" where none stands out.
    """

    words: str
    stub: str
    tests: tuple[str, ...]
    setup: str
    preamble: str
    name: str


def read(path: str | pathlib.Path) -> Asked:
    """The problem in a file, Python where its name ends in .py, else JSON.

    Raises:
      ValueError: it cannot be read, or lacks the problem's text or its tests.
    """
    try:
        source = pathlib.Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ValueError(f"{path} cannot be read: {reason}") from error
    asked = _of_python(str(path), source) if str(path).endswith(".py") else _of_json(path, source)
    if not asked.words.strip():
        raise ValueError(f"{path}: the problem has no text; {_SHAPE}")
    if not asked.tests:
        raise ValueError(f"{path}: the problem has no tests; {_SHAPE}")
    return asked


def _of_json(path: str | pathlib.Path, source: str) -> Asked:
    try:
        fields = json.loads(source)
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path} is not JSON ({error}); {_SHAPE}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path} holds no JSON object; {_SHAPE}")
    row = files.Row(fields, str(path))
    setup = row.text("setup", "").strip()
    tests = files.python_tests(row, row.texts("tests"), setup=setup, timeout_s=TIMEOUT_S)
    files.refuse_idle(row, tests)
    preamble = row.text("preamble", "").strip()
    if fault := files.syntax_error(preamble):
        raise ValueError(f"{path}: 'preamble' does not parse ({fault})")
    name = _called(tests.statements)
    return Asked(row.text("prompt"), "", tests.statements, setup, preamble, name)


def _of_python(path: str, source: str) -> Asked:
    if error := files.syntax_error(source):
        raise ValueError(f"{path} is not Python: {error}")
    tree = ast.parse(source)
    words, stub, name, written = ast.get_docstring(tree) or "", "", "", ""
    preamble = ""
    tests: list[str] = []
    setup: list[str] = []
    brought: list[str] = []  # what tests in classes and functions need beside themselves
    for node in tree.body[1:] if words else tree.body:
        segment = _segment(source, node)
        if _runs_tests(node):
            continue  # they are run without being asked to
        if isinstance(node, ast.Assert):
            tests.append(segment)
        elif isinstance(node, ast.FunctionDef) and _empty(node) and not stub:
            words, stub, name = words or ast.get_docstring(node) or "", segment, node.name
            preamble = "\n".join(setup)  # run again behind the program, which may replace nothing
        elif _is_case(node):  # it runs apart from the program, with what it imports
            tests.append("\n".join([*brought, segment]))
        elif "pytest.fixture" in segment or _imports(node, "unittest", "pytest"):
            brought.append(segment)
        else:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                brought.append(segment)
            setup.append(segment)
            if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
                written = written or node.name
    files.refuse_idle(files.Row({}, path), Tests(tuple(tests), setup="\n".join(setup)))
    if written and not words:
        raise ValueError(f"{path}: {written} has a body already; leave it empty (docstring only)")
    return Asked(words, stub, tuple(tests), "\n".join(setup), preamble, name or _called(tests))


def _segment(source: str, node: ast.stmt) -> str:
    """The text of a statement, with what decorates it."""
    decorators = getattr(node, "decorator_list", [])
    text = ast.get_source_segment(source, node) or ""
    marks = [f"@{ast.get_source_segment(source, decorator)}" for decorator in decorators]
    return "\n".join([*marks, text])


def _imports(node: ast.stmt, *modules: str) -> bool:
    match node:
        case ast.Import(names=names):
            return any(alias.name.partition(".")[0] in modules for alias in names)
        case ast.ImportFrom(module=str(module)):
            return module.partition(".")[0] in modules
    return False


def _runs_tests(node: ast.stmt) -> bool:
    """Whether a statement is a main guard, or a call of `unittest.main` or `pytest.main`."""
    match node:
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="main"))):
            return name in ("unittest", "pytest")
    return False


def _is_case(node: ast.stmt) -> bool:
    """Whether the sandbox runs a definition as a test: `test_...`, or a class of such."""
    match node:
        case ast.FunctionDef(name=name):
            return name.startswith("test") and not _empty(node)
        case ast.ClassDef(body=body):
            return any(isinstance(x, ast.FunctionDef) and x.name.startswith("test") for x in body)
    return False


def _empty(function: ast.FunctionDef) -> bool:
    """Whether a function is a stub: a docstring, `...`, `pass` or raise NotImplementedError."""
    return all(
        isinstance(node, ast.Pass)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Raise) and "NotImplementedError" in ast.unparse(node))
        for node in function.body
    )


def _called(tests: Sequence[str]) -> str:
    """The first name that the first test calls and that Python does not bring along."""
    for node in ast.walk(ast.parse(tests[0])) if tests else ():
        match node:
            case ast.Call(func=ast.Name(id=name)) if not hasattr(builtins, name):
                return name
    return ""


def problem_of(asked: Asked, *, embedded: bool) -> Problem:
    """The problem as a generator reads it.

    `embedded`: as the suite `mini` puts it, one line and one test; else as the other benchmarks do.
    """
    tests = Tests(asked.tests, setup=asked.setup, timeout_s=TIMEOUT_S)
    if not embedded:
        both = asked.stub if asked.words in asked.stub else f"{asked.words}\n\n{asked.stub}"
        shown = "\n".join([*filter(None, [asked.setup]), *asked.tests])
        preamble = "" if asked.preamble in asked.setup else asked.preamble
        prompt = prompts.function_prompt(both, preamble=preamble, tests=shown)
    elif asked.tests[0] in asked.words:
        prompt = asked.words.strip()
    else:
        line = " ".join(asked.words.split()).removeprefix(f"{asked.name}: ")
        prompt = f"{asked.name}: {line}\n{asked.tests[0]}"
    feedback = "{summary}" if embedded else prompts.FEEDBACK
    return Problem(
        *("solve", "yours", "", prompt, tests),
        entry_point=asked.name,
        preamble=asked.preamble and f"{asked.preamble}\n\n",
        feedback=feedback,
    )
