"""Test statements, made ready for the judge: compiled, both sides of every comparison kept.

A test is ordinary Python text. Which of its names are the program's is decided in `names`.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import functools
import symtable
import types
from collections.abc import Iterator
from typing import Any

from . import names
from .remote import Wanted

FILE = "tests.py"
KEEP = " keep"  # no program text can use this name
_LIGHT_CHARACTERS = 20_000

# What a test may consist of to be judged in the judge's own process. Everything that could be made
# to last by a clever value, or that leaves a trace, is judged in a process of its own.
_LIGHT_NODES = (
    *(ast.Module, ast.Expr, ast.Assert, ast.Name, ast.Load, ast.Store, ast.Constant, ast.Call),
    *(ast.keyword, ast.Starred, ast.Attribute, ast.Subscript, ast.Slice, ast.Assign),
    *(ast.Compare, ast.cmpop, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.unaryop),
    *(ast.List, ast.Tuple, ast.Set, ast.Dict, ast.FunctionDef, ast.arguments, ast.arg, ast.Pass),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Div),
)
_LIGHT_FUNCTIONS = frozenset(
    (
        *("abs", "sorted", "set", "frozenset", "list", "tuple", "dict", "len", "sum", "min", "max"),
        *("round", "isinstance", "float", "int", "str", "bool", "any", "all", "type", "Counter"),
    )
)
_LIGHT_METHODS = frozenset(
    (
        *("keys", "values", "items", "lower", "upper", "strip", "split", "count", "index", "get"),
        *("isclose", "allclose", "fabs", "tolist", "getsizeof", "sort", "append"),
    )
)


class BrokenTest(ValueError):
    """The test text itself is at fault."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What an assertion compares; without an operator ("") it is no comparison."""

    left: ast.expr
    operator: str
    right: ast.expr | None


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Test statements, ready.

    Attributes:
      pieces: the statements, compiled.
      lines: all their source lines; the line numbers of the pieces count in these.
      comparisons: by the number that the compiled assertion reports.
      wanted: what they want of the program.
      light: may be judged in the judge's own process.
    """

    pieces: tuple[types.CodeType, ...]
    lines: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    wanted: Wanted
    light: bool


def prepare(statements: tuple[str, ...], prelude: frozenset[str]) -> Prepared:
    """Makes `statements` ready; raises BrokenTest where one is no Python."""
    if sum(map(len, statements)) > _LIGHT_CHARACTERS:
        return _prepare_large(statements, prelude)
    return _prepare_small(statements, prelude)


@functools.lru_cache(4)  # one compiled large test takes tens of megabytes
def _prepare_large(statements: tuple[str, ...], prelude: frozenset[str]) -> Prepared:
    return _prepare(statements, prelude)


@functools.lru_cache(256)
def _prepare_small(statements: tuple[str, ...], prelude: frozenset[str]) -> Prepared:
    return _prepare(statements, prelude)


def _prepare(statements: tuple[str, ...], prelude: frozenset[str]) -> Prepared:
    texts = [text.replace("\r\n", "\n").removeprefix("\ufeff") for text in statements]
    lines: list[str] = []
    pieces, parsed, trees, comparisons = [], [], [], []
    loads: set[str] = set()
    made: set[str] = set()
    for number, text in enumerate(texts, 1):
        try:
            tree = ast.parse(text, FILE)
            table = symtable.symtable(text, FILE, "exec")
            for scope in _scopes(table):
                for symbol in scope.get_symbols():
                    at_top = scope is table
                    if symbol.is_referenced() and (at_top or symbol.is_global()):
                        loads.add(symbol.get_name())
                    if at_top and (symbol.is_assigned() or symbol.is_imported()):
                        made.add(symbol.get_name())
            light_parts = list(ast.walk(tree)) if len(text) <= _LIGHT_CHARACTERS else []
            parsed.append(ast.parse(text, FILE))
            ast.increment_lineno(parsed[-1], len(lines))
            _keep_comparisons(tree, comparisons)
            ast.increment_lineno(tree, len(lines))
            pieces.append(compile(tree, FILE, "exec", dont_inherit=True))
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            raise BrokenTest(f"test {number} is no Python: {error}") from None
        trees.append(light_parts)
        lines += text.split("\n")
    own = prelude | frozenset(dir(builtins))
    nodes = [node for parts in trees for node in parts]
    whole = all(trees) or not texts
    return Prepared(
        pieces=tuple(pieces),
        lines=tuple(lines),
        comparisons=tuple(comparisons),
        wanted=_wanted(parsed, loads - own, (loads - made) & own),
        light=whole and _is_light(nodes, made | (loads - own)),
    )


def _wanted(trees: list[ast.Module], free: set[str], known: set[str]) -> Wanted:
    return Wanted(
        names=tuple(sorted(free | known)),
        judges=names.judges(trees, free, known),
        classes=names.classes(trees, free | known),
        guarded=names.guarded(trees),
        stops=any(names.mentions(tree, "StopIteration") for tree in trees),
    )


def _scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _scopes(child)


def _is_light(nodes: list[ast.AST], others: set[str]) -> bool:
    """Args: all nodes of the tests; the functions that are the tests' own or the program's."""
    parameters = {node.arg for node in nodes if isinstance(node, ast.arg)}
    functions = _LIGHT_FUNCTIONS | others | parameters
    for node in nodes:
        if not isinstance(node, _LIGHT_NODES):
            return False
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            return False
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute) and called.attr not in _LIGHT_METHODS:
                return False
            if isinstance(called, ast.Name) and called.id not in functions:
                return False
    return True


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements beneath `body`, without a look at their expressions."""
    for statement in body:
        yield statement
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(statement, field, []))
        for branch in (*getattr(statement, "handlers", []), *getattr(statement, "cases", [])):
            yield from _statements(branch.body)


def _keep_comparisons(tree: ast.Module, comparisons: list[Comparison]) -> None:
    """Rewrites `assert a == b` to `assert keep(n, 0, a) == keep(n, 1, b)`."""
    for statement in _statements(tree.body):
        if not isinstance(statement, ast.Assert):
            continue
        number, test = len(comparisons), statement.test
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            right = test.comparators[0]
            sign = ast.unparse(ast.Compare(_NAME, test.ops, [_NAME]))[2:-2]
            comparisons.append(Comparison(test.left, sign, right))
            test.left = _kept(number, 0, test.left)
            test.comparators = [_kept(number, 1, right)]
        elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            comparisons.append(Comparison(test.operand, "not", None))
            test.operand = _kept(number, 0, test.operand)
        else:
            comparisons.append(Comparison(test, "", None))
            statement.test = _kept(number, 0, test)


_NAME = ast.Name("x", ast.Load())


def _kept(number: int, side: int, value: ast.expr) -> ast.expr:
    arguments: list[Any] = [ast.Constant(number), ast.Constant(side), value]
    call = ast.Call(ast.Name(KEEP, ast.Load()), arguments, [])
    for node in (call, call.func, *arguments[:2]):
        ast.copy_location(node, value)
    return call
