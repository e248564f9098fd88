"""Whose fault an exception is that was raised in the tests' own code.

`1 / 0` in a test, a module that is not there, a file that is missing: these fail with every
program, and say nothing of this one. `f(1)[0]` may fail because of what the program returned. What
the failing expression consists of tells: where none of its names can have come by a value of the
program's, the test is at fault. In doubt it is the program, so that no program can have its tests
called broken.
"""

from __future__ import annotations

import ast
import builtins
import types
from collections.abc import Iterator

from . import remote, statements
from .refusals import PROGRAM_MODULES

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def of(
    error: BaseException,
    texts: tuple[str, ...],
    prepared: statements.Prepared,
    theirs: tuple[str, ...],
    prelude: frozenset[str],
    *,
    callables: frozenset[str],
    asked: bool,
) -> str:
    """Whose: "tests", with which any program would have met `error`; "raised", for the tests raised
    it on purpose; "unclear", for the program may be the reason.

    Args:
      error: raised in the judge, by no assertion, and not by the program.
      texts: the test statements.
      prepared: the same, ready.
      theirs: the names that are the program's.
      prelude: the names that tests find without importing them.
      callables: those of `theirs` that are functions and classes.
      asked: whether the program was asked for anything after it was loaded.
    """
    span = failing(error)
    if span is None:
        return "tests"  # they could not even be called
    if remote.was_called_back(error):
        return "unclear"  # the program could have caught it
    number, first = prepared.place(span[0])
    span = (first, first + span[1] - span[0], *span[2:])
    trees = statements.parsed(texts)
    if not asked:  # so none of them was called
        theirs = tuple({*theirs} - (callables & _only_called(trees)))
    touched = _touched(trees, theirs, prelude, asked=asked)
    own = set()
    for node in ast.walk(trees[number - 1]):
        if isinstance(node, ast.Raise) and _within(_span(node), span):
            return "raised"
        if isinstance(node, (ast.Import, ast.ImportFrom)) and _within(_span(node), span):
            return "unclear" if _modules(node) & {*PROGRAM_MODULES} else "tests"
        if hasattr(node, "lineno") and _within(_span(node), span):
            own |= set(_names(node))
        for catching in _catching(node):
            if _within(span, _span(node)):
                own |= {name for part in ast.walk(catching) for name in _names(part)}
    return "unclear" if own & touched else "tests"


def failing(error: BaseException) -> tuple[int, int, int, int] | None:
    """(first line, last line, first column, end column) of what failed, in the tests' lines."""
    span = None
    trace: types.TracebackType | None = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename == statements.FILE:
            places = list(code.co_positions())
            line, end, column, end_column = places[trace.tb_lasti // 2]
            line = line or trace.tb_lineno
            span = (line, end or line, column or 0, end_column or 1 << 30)
        trace = trace.tb_next
    return span


def _catching(node: ast.AST) -> list[ast.AST]:
    """What decides whether an exception in `node` goes further: contexts, decorators, `except`."""
    if isinstance(node, (ast.With, ast.AsyncWith)):
        return [item.context_expr for item in node.items]
    if isinstance(node, _DEFINITIONS):
        return list(node.decorator_list)
    if isinstance(node, ast.Try):
        return [handler.type for handler in node.handlers if handler.type is not None]
    return []


def _span(node: ast.AST) -> tuple[int, int, int, int]:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset  # type: ignore


def _within(inner: tuple[int, int, int, int], outer: tuple[int, int, int, int]) -> bool:
    starts = (inner[0], inner[2]) >= (outer[0], outer[2])
    return starts and (inner[1], inner[3]) <= (outer[1], outer[3])


def _names(node: ast.AST) -> Iterator[str]:
    """The name of a variable, and ".name" of an attribute that may be one of the test's."""
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield f".{node.attr}"


def _only_called(trees: list[ast.Module]) -> set[str]:
    """The names with which the tests do nothing but call them."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    called = [x.func for x in nodes if isinstance(x, ast.Call) and isinstance(x.func, ast.Name)]
    uses = [x.id for x in nodes if isinstance(x, ast.Name)]
    calls = [x.id for x in called]
    return {name for name in calls if calls.count(name) == uses.count(name)}


def _modules(node: ast.Import | ast.ImportFrom) -> set[str | None]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    return {node.module}


def _touched(
    trees: list[ast.Module], theirs: tuple[str, ...], prelude: frozenset[str], *, asked: bool
) -> set[str]:
    """The names through which a value of the program's may come.

    What stands in one statement with such a name is one too: it may be given the value, or be
    changed by the program. Parameters are, for anything may be passed.
    """
    nodes = [node for tree in trees for node in ast.walk(tree)]
    touched = set(theirs)
    if asked:
        touched |= {node.arg for node in nodes if isinstance(node, ast.arg)}
        touched |= {x.name for x in nodes if isinstance(x, ast.ExceptHandler) and x.name}
    innocent = set(dir(builtins))
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            bound = {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            if _modules(node) & {*PROGRAM_MODULES}:
                touched |= bound
            else:
                innocent |= bound
    stored = {name for node in nodes if _is_stored(node) for name in _names(node)}
    touched -= {"self", "cls"}
    innocent = (innocent - stored - set(theirs)) | {"self", "cls"}
    prelude = prelude - innocent - stored - set(theirs)

    def kept(names: set[str]) -> set[str]:
        return {x for x in names - innocent - prelude if x[0] != "." or x in stored}

    groups = [kept(set(_mentioned(node))) for node in nodes if isinstance(node, ast.stmt)]
    groups += [kept(set(_mentioned(node))) for node in nodes if isinstance(node, ast.comprehension)]
    bodies = {
        node.name: kept({name for part in ast.walk(node) for name in _names(part)})
        for node in nodes
        if isinstance(node, _DEFINITIONS)
    }
    before = -1
    while before < len(touched):
        before = len(touched)
        for group in groups:
            if group & touched:
                touched |= group
        touched |= {name for name, body in bodies.items() if body & touched}
    # In a test's own file these would be what the program imported.
    return touched | prelude


def _is_stored(node: ast.AST) -> bool:
    return isinstance(getattr(node, "ctx", None), ast.Store)


def _mentioned(node: ast.AST) -> Iterator[str]:
    """The names in a statement itself, without those that it holds."""
    yield from _names(node)
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.stmt, ast.ExceptHandler, ast.match_case)):
            yield from _mentioned(child)
