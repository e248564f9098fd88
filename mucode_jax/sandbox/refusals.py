"""Test texts that cannot be run here: said before anything is executed, with the line.

Tests run in the judge, apart from the program. What could only work in the program's own process
(replacing what it calls, giving it input, awaiting it), and what nobody here runs (doctests,
fixtures of pytest's plugins), would give every program the same wrong verdict.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import sys
from collections.abc import Iterator

from . import pytest_words

PROGRAM_MODULES = ("solution", "__main__")  # what tests call the program when they import it
_STREAMS = ("sys.stdout", "sys.stderr")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_ASYNC = (ast.Await, ast.AsyncFor, ast.AsyncWith)


class BrokenTest(ValueError):
    """The test text itself is at fault."""


def check(trees: list[ast.Module], nodes: list[list[ast.AST]]) -> None:
    """Raises BrokenTest for the first thing in the texts that cannot be run.

    Args: the texts; of each of them what `walk` gives.
    """
    functions = (x for inside in nodes for x in inside if isinstance(x, _FUNCTIONS))
    fixtures = {*pytest_words.FIXTURES, *(x.name for x in functions if _is_fixture(x))}
    for number, (tree, inside) in enumerate(zip(trees, nodes, strict=True), 1):
        modules = dict(_modules(inside))
        for node in inside:
            if reason := _reason(node, modules):
                raise BrokenTest(f"test {number}, line {node.lineno}: {reason}")
        for function, reason in _of_cases(tree, inside, fixtures):
            raise BrokenTest(f"test {number}, line {function.lineno}: {reason}")


@functools.lru_cache(256)
def check_setup(setup: str) -> None:
    """Raises BrokenTest where the text that runs with the program imports what is not there."""
    try:
        body = ast.parse(setup).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return  # compiling it says so
    for node in body:
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), level=0):
                modules = [module]
            case _:
                continue
        for root in (module.partition(".")[0] for module in modules):
            if root not in sys.modules and importlib.util.find_spec(root) is None:
                raise BrokenTest(f"the setup of the tests, line {node.lineno}: no module {root!r}")


def walk(tree: ast.AST) -> list[ast.AST]:
    """The nodes of a text in its order, but for operators and constants, of which data consist."""
    nodes = []
    pending = [tree]
    while pending:
        node = pending.pop()
        nodes.append(node)
        children = ast.iter_child_nodes(node)
        pending += reversed([x for x in children if type(x) is not ast.Constant and x._fields])
    return nodes


def _modules(nodes: list[ast.AST]) -> Iterator[tuple[str, str]]:
    """(name, what it was imported as a name for), like ("mp", "unittest.mock.patch")."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (root, root)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _whole_name(node: ast.AST, modules: dict[str, str]) -> str:
    """Such as "unittest.mock.patch.object"; "" where it is no name of an import's."""
    if isinstance(node, ast.Name):
        return modules.get(node.id, "")
    if isinstance(node, ast.Attribute):
        base = _whole_name(node.value, modules)
        return f"{base}.{node.attr}" if base else ""
    return ""


def _reason(node: ast.AST, modules: dict[str, str]) -> str:
    """Why a test with this node in it cannot be run; "" where it can."""
    match node:
        case ast.Import(names=names) if any(x.name == "doctest" for x in names):
            return "doctests are not run; write asserts"
        case ast.ImportFrom(module="doctest"):
            return "doctests are not run; write asserts"
        case ast.ImportFrom(module="pytest", names=names):
            for alias in names:
                if alias.name not in pytest_words.WORDS:
                    return f"pytest.{alias.name} is not served here"
        case ast.Attribute(attr=word, value=ast.Name(id=name)):
            if modules.get(name) == "pytest" and word not in pytest_words.WORDS:
                return f"pytest.{word} is not served here"
            if isinstance(node.ctx, ast.Store):
                target = f"{modules.get(name, name)}.{word}"
                if target == "sys.stdin" or target.startswith("builtins."):
                    return f"a test cannot replace the program's {target}"
        case ast.Call(func=function, args=arguments):
            return _of_patch(_whole_name(function, modules), arguments, modules)
        case ast.Await() | ast.AsyncFor() | ast.AsyncWith():
            return "a test cannot await the program's coroutines"
    return ""


def _of_patch(function: str, arguments: list[ast.expr], modules: dict[str, str]) -> str:
    """Why a call of `unittest.mock.patch` and its kind has no effect on the program."""
    patch = "unittest.mock.patch"
    of_names = (f"{patch}.dict", f"{patch}.multiple")
    match arguments:
        case [ast.Constant(value=str(target)), *_] if function == patch:
            return "" if target in _STREAMS else f"a test cannot replace the program's {target}"
        case [ast.Constant(value=str(target)), *_] if function in of_names:
            return f"a test cannot replace the program's {target}"
        case [first, *rest] if function in (f"{patch}.object", f"{patch}.dict"):
            module = _whole_name(first, modules)
            word = rest[0].value if rest and isinstance(rest[0], ast.Constant) else ""
            if module and f"{module}.{word}" not in _STREAMS:
                return f"a test cannot replace what is in the program's {module}"
    return ""


def _is_fixture(function: ast.AST) -> bool:
    return any("fixture" in ast.unparse(x) for x in function.decorator_list)


def _of_cases(
    tree: ast.Module, nodes: list[ast.AST], fixtures: set[str]
) -> Iterator[tuple[ast.AST, str]]:
    """The functions and classes that are tests and cannot be run, and why."""
    loads = {x.id for x in nodes if isinstance(x, ast.Name) and type(x.ctx) is ast.Load}
    for node in tree.body:
        if isinstance(node, _FUNCTIONS) and node.name.startswith("test"):
            if node.name not in loads:
                yield from _of_function(node, [], fixtures)
        elif isinstance(node, ast.ClassDef):
            bases = [ast.unparse(base) for base in node.bases]
            plain = node.name.startswith("Test") and not any("TestCase" in x for x in bases)
            for method in node.body:
                if not isinstance(method, _FUNCTIONS) or not method.name.startswith("test"):
                    continue
                if plain:
                    yield from _of_function(method, node.decorator_list, fixtures)
                elif isinstance(method, ast.AsyncFunctionDef):
                    yield method, "a test cannot be a coroutine"


def _of_function(
    function: ast.AST, decorators: list[ast.expr], fixtures: set[str]
) -> Iterator[tuple[ast.AST, str]]:
    if isinstance(function, ast.AsyncFunctionDef):
        yield function, "a test cannot be a coroutine"
        return
    decorators = [*function.decorator_list, *decorators]
    texts = [x.value for d in decorators for x in ast.walk(d) if isinstance(x, ast.Constant)]
    given = {name.strip() for x in texts if isinstance(x, str) for name in x.split(",")}
    if not all("mark." in ast.unparse(x) for x in decorators):
        return  # what it takes is up to what decorates it
    parameters = [*function.args.posonlyargs, *function.args.args]
    needed = parameters[: len(parameters) - len(function.args.defaults)]
    for parameter in needed:
        name = parameter.arg
        if name not in {"self", "cls", *given, *fixtures}:
            yield (
                function,
                f"{function.name} asks for the fixture {name!r}, which is not here",
            )


# What makes code of a file: where programs write files too, that would be their code in the judge.
_LOADING_MODULES = frozenset(
    (
        *("pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"),
        *("subprocess", "multiprocessing", "runpy", "importlib", "imp", "ctypes", "code"),
    )
)
_LOADING_FUNCTIONS = frozenset(("exec", "eval", "compile", "__import__"))
_LOADING_METHODS = frozenset(("read_pickle", "unsafe_load", "load_module", "exec_module"))
_LOADING_OF_OS = re.compile("(exec|spawn|posix_spawn|popen|system).*")


def check_shared(trees: list[ast.Module]) -> None:
    """Raises BrokenTest for a test that would run what the program may have written to a file."""
    for number, tree in enumerate(trees, 1):
        for node in walk(tree):
            names: set[str] = set()
            match node:
                case ast.Import(names=aliases):
                    names = {x.name.partition(".")[0] for x in aliases} & _LOADING_MODULES
                case ast.ImportFrom(module=str(module), names=aliases):
                    names = {module.partition(".")[0]} & _LOADING_MODULES
                    if module == "os":
                        names |= {x.name for x in aliases if _LOADING_OF_OS.fullmatch(x.name)}
                    names |= {x.name for x in aliases} & _LOADING_METHODS
                case ast.Name(id=name):
                    names = {name} & _LOADING_FUNCTIONS
                case ast.Attribute(attr=name, value=ast.Name(id="os")):
                    names = {name} if _LOADING_OF_OS.fullmatch(name) else set()
                case ast.Attribute(attr=name):
                    names = {name} & _LOADING_METHODS
                case ast.keyword(arg="allow_pickle"):
                    names = {"allow_pickle"}
            if names:
                raise BrokenTest(
                    f"test {number}, line {getattr(node, 'lineno', 1)}: {min(names)} may run what "
                    "is in a file, which the program may have written (share_folder)"
                )
