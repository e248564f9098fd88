"""What the text of tests says of its names, before any program runs.

Which are the program's: those that are neither built in nor in the prelude, and of the others those
that the program defines and that the tests do not mix with its other names. So an own `sum` or
`Counter` can be put under test, and no program can put its own `sorted` under a test of another
function (`assert sorted(f(3)) == [1, 2]`). Which are used as classes: see `standins`.
"""

from __future__ import annotations

import ast
import collections
import datetime
import decimal
import fractions
import types
import typing
from collections.abc import Iterator

import numpy as np

from .refusals import PROGRAM_MODULES, walk

_PLAIN_TYPES = (
    *(int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range),
    *(collections.deque, collections.OrderedDict, collections.Counter, collections.defaultdict),
    *(datetime.date, datetime.datetime, datetime.time, datetime.timedelta, types.GeneratorType),
    *(decimal.Decimal, fractions.Fraction, types.FunctionType, np.ndarray, np.float64),
)
_ATTRIBUTES = tuple(frozenset(dir(kind)) for kind in _PLAIN_TYPES)
_OF_FUNCTIONS = frozenset(dir(types.FunctionType)) | {"cache_clear", "cache_info", "__wrapped__"}
_CLASS_CHECKS = frozenset(
    {
        "isinstance",
        "issubclass",
        "assertIsInstance",
        "assertNotIsInstance",
        "assertRaises",
        "raises",
    }
)
# Nothing of `typing` is of use to a test that checks something.
_NO_HELPERS = frozenset(typing.__all__) - frozenset(collections.__all__)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def any_plain_has(names: frozenset[str]) -> bool:
    """Whether there is a plain type that has all of these attributes."""
    return any(names <= attributes for attributes in _ATTRIBUTES)


def classes(nodes: list[ast.AST], names: set[str]) -> frozenset[str]:
    """Those of `names` that the tests use as a class, in a way that fits no function.

    That is: an attribute is asked of it; it is checked against; what is asked of the result of
    calling it, no single plain type has; or what an object shows is expected to begin with it
    (`repr(p) == "Point(1)"`, `type(p).__name__ == "Point"`). `nodes` are those of the tests.
    """
    shown: set[str] = set()
    results: dict[str, str] = {}  # a variable -> the name whose result it is
    asked: dict[str, set[str]] = {}  # a name -> attributes that its results are asked for
    for node in nodes:
        match node:
            case ast.Assign(targets=[target], value=ast.Call(func=ast.Name(id=name))):
                results[ast.unparse(target)] = name
            case ast.With(items=items):
                for item in items:
                    match item.context_expr:
                        case ast.Call(func=ast.Name(id=name)):
                            shown.add(name)
            case ast.ClassDef(bases=bases):
                shown |= {x.id for x in bases if isinstance(x, ast.Name)}
            case ast.ExceptHandler(type=ast.expr() as kind):
                shown |= {x.id for x in ast.walk(kind) if isinstance(x, ast.Name)}
            case ast.Call(func=ast.Attribute(attr="assertEqual"), args=[left, right, *_]):
                shown |= {*_shown_names(left, right), *_shown_names(right, left)}
            case ast.Call(func=ast.Name(id=check) | ast.Attribute(attr=check), args=arguments):
                if check in _CLASS_CHECKS:
                    parts = [part for x in arguments for part in ast.walk(x)]
                    called = {x.func.id for x in parts if _is_call_of_name(x)}
                    shown |= {x.id for x in parts if isinstance(x, ast.Name)} - called
            case ast.Compare(left=left, comparators=[right]):
                shown |= {*_shown_names(left, right), *_shown_names(right, left)}
    for node in nodes:
        match node:
            case ast.Attribute(value=value, attr=attribute):
                if isinstance(value, ast.Name) and attribute not in _OF_FUNCTIONS:
                    shown.add(value.id)
                sources = {*_sources(value, results)}
                if len(sources) == 1:
                    asked.setdefault(sources.pop(), set()).add(attribute)
    shown |= {name for name, words in asked.items() if not any_plain_has(frozenset(words))}
    return frozenset(shown & names)


def _sources(value: ast.expr, results: dict[str, str]) -> Iterator[str]:
    """The names whose results an expression is, or is computed from by operators."""
    match value:
        case ast.BinOp(left=left, right=right):
            yield from (*_sources(left, results), *_sources(right, results))
        case ast.UnaryOp(operand=operand):
            yield from _sources(operand, results)
        case ast.Call(func=ast.Name(id=name)):
            yield name
        case ast.Constant():
            pass
        case _:
            yield results.get(ast.unparse(value), "")


def _shown_names(text: ast.expr, value: ast.expr) -> Iterator[str]:
    match text, value:
        case ast.Constant(value=str(words)), ast.Attribute(attr="__name__" | "__qualname__"):
            yield words
        case ast.Constant(value=str(words)), ast.Call(func=ast.Name(id="repr" | "str")):
            yield words.partition("(")[0]
        case ast.Constant(value=str(words)), ast.JoinedStr():
            yield words.partition("(")[0]


def _is_call_of_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def of_program(tree: ast.Module) -> ast.Module:
    """The text with the program's names as the program has them: without aliases, `solution.`."""
    modules, aliases = set(), {}
    for node in walk(tree):
        match node:
            case ast.Import(names=names):
                modules |= {x.asname or x.name for x in names if x.name in PROGRAM_MODULES}
            case ast.ImportFrom(module=module, names=names) if module in PROGRAM_MODULES:
                aliases |= {x.asname or x.name: x.name for x in names}

    class Renaming(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return ast.copy_location(ast.Name(aliases.get(node.id, node.id), node.ctx), node)

        def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
            if isinstance(node.value, ast.Name) and node.value.id in modules:
                return ast.copy_location(ast.Name(node.attr, node.ctx), node)
            return self.generic_visit(node)

    return Renaming().visit(tree)


def judges(trees: list[ast.Module], free: set[str], known: set[str]) -> frozenset[str]:
    """Those of `known` that are the judge's own even where the program defines them.

    Args:
      trees: of the tests.
      free: names that only the program can give.
      known: names that the tests use and that are built in or of the prelude.

    Two names are mixed where they stand in one statement, with all that is in it, or where a
    variable does with both. Of known names that are mixed with each other alone, the most frequent
    is the one under test.
    """
    if not known:
        return frozenset()
    links: dict[str, set[str]] = {}
    counts: collections.Counter[str] = collections.Counter()
    for words in _together(trees):
        counts.update(words)
        for word in words:
            links.setdefault(word, set()).update(words)
    ours = {x for name in free for x in _reached(name, links, known)} & known
    for name in known - ours:
        rivals = _reached(name, links, set()) & known
        if name != max(sorted(rivals), key=lambda x: counts[x], default=name):
            ours.add(name)
    return frozenset(ours - _NO_HELPERS)


def _reached(name: str, links: dict[str, set[str]], ends: set[str]) -> set[str]:
    """The names that `name` is mixed with; one of `ends` leads no further."""
    reached: set[str] = set()
    pending = [name]
    while pending:
        if (word := pending.pop()) not in reached:
            reached.add(word)
            pending += () if word in ends else links.get(word, ())
    return reached


def _together(trees: list[ast.Module]) -> Iterator[set[str]]:
    """The names of each statement of a text, of a definition those of its whole body.

    A function gives away what any of its lines asks for, and a method is known by its name.
    """
    nodes = (node for tree in trees for node in walk(tree))
    defined = {node.name for node in nodes if isinstance(node, _DEFINITIONS)}
    for tree in trees:
        for statement in tree.body:
            yield {*_names(statement, defined)}


def _names(statement: ast.stmt, defined: set[str]) -> Iterator[str]:
    """Args: the statement; the names of the tests' own functions, classes and methods."""
    for node in walk(statement):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, _DEFINITIONS):
            yield node.name
        elif isinstance(node, ast.Attribute) and node.attr in defined:
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            yield node.name


def guarded(nodes: list[ast.AST]) -> tuple[tuple[int, int], ...]:
    """First and last lines of the `with` blocks whose body asserts something."""
    return tuple(
        (node.lineno, node.end_lineno or node.lineno)
        for node in nodes
        if isinstance(node, (ast.With, ast.AsyncWith)) and any(map(_asserts, node.body))
    )


def _asserts(body: ast.stmt) -> bool:
    for node in ast.walk(body):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", None) or getattr(node.func, "id", "")
            if name.startswith("assert") or name == "fail":
                return True
    return False
