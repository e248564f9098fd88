"""Test statements, made ready for the judge: compiled, both sides of every comparison kept.

A test is ordinary Python text. Which of its names are the program's is decided in `names`; but
`from solution import sum` names the program's `sum`, whatever else has that name.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import dataclasses
import functools
import symtable
import types
from collections.abc import Iterator
from typing import Any

from . import names, refusals
from .refusals import PROGRAM_MODULES, BrokenTest
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
    *(ast.BinOp, ast.Add, ast.Sub, ast.Div, ast.Import, ast.ImportFrom, ast.alias),
    *(ast.ClassDef, ast.With, ast.withitem, ast.If),
)
_LIGHT_MODULES = frozenset((*PROGRAM_MODULES, "math", "pytest", "unittest"))
_LIGHT_FUNCTIONS = frozenset(
    (
        *("abs", "sorted", "set", "frozenset", "list", "tuple", "dict", "len", "sum", "min", "max"),
        *("round", "isinstance", "float", "int", "str", "bool", "any", "all", "type", "Counter"),
    )
)
_LIGHT_METHODS = frozenset(
    (
        *("keys", "values", "items", "lower", "upper", "strip", "split", "count", "index", "get"),
        *("isclose", "allclose", "fabs", "tolist", "getsizeof", "sort", "append", "approx"),
        *("raises", "main", "assertEqual", "assertNotEqual", "assertTrue", "assertFalse"),
        *("assertIs", "assertIsNot", "assertIsNone", "assertIsNotNone", "assertIn", "assertNotIn"),
        *("assertGreater", "assertGreaterEqual", "assertLess", "assertLessEqual"),
        *("assertAlmostEqual", "assertIsInstance", "assertRaises", "assertListEqual"),
        *("assertTupleEqual", "assertDictEqual", "assertSetEqual", "setUp", "tearDown"),
    )
)
# Methods and functions that compare their first two arguments, and such as look at their first.
_COMPARING = {
    **dict.fromkeys(
        (
            *("assertEqual", "assertEquals", "assertAlmostEqual", "assertCountEqual"),
            *("assertListEqual", "assertTupleEqual", "assertDictEqual", "assertSetEqual"),
            *("assertSequenceEqual", "assertMultiLineEqual"),
            *("assert_equal", "assert_array_equal", "assert_allclose", "assert_almost_equal"),
        ),
        "==",
    ),
    **{"assertNotEqual": "!=", "assertIs": "is", "assertIsNot": "is not"},
    **{"assertIn": "in", "assertNotIn": "not in", "assertGreater": ">", "assertLess": "<"},
    **{"assertGreaterEqual": ">=", "assertLessEqual": "<="},
}
_LOOKING = {"assertTrue": "", "assertFalse": "not"}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What an assertion compares; without an operator ("") it is no comparison."""

    left: ast.expr
    operator: str
    right: ast.expr | None

    def is_on(self, line: int) -> bool:
        """Whether it stands on that line of the tests."""
        last = self.left if self.right is None else self.right
        return self.left.lineno <= line <= (last.end_lineno or last.lineno)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Test statements, ready.

    Attributes:
      pieces: the statements, compiled.
      starts: how many lines there are before each of them.
      lines: all their source lines; the line numbers of the pieces count in these.
      comparisons: by the number that the compiled assertion reports.
      wanted: what they want of the program.
      free: names that only the program can give.
      cases: for each statement, the names of what it defines that may be tests to be run: classes,
        functions that are named `test...` and that no test calls, and what nothing else is done
        with (`T = type("T", (unittest.TestCase,), ..)`).
      served: the tests import the program, or pytest.
      light: may be judged in the judge's own process.
    """

    pieces: tuple[types.CodeType, ...]
    starts: tuple[int, ...]
    lines: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    wanted: Wanted
    free: tuple[str, ...]
    cases: tuple[tuple[str, ...], ...]
    served: bool
    light: bool

    def place(self, line: int) -> tuple[int, int]:
        """(number of the statement, its line), both from 1, of a line of all of them."""
        number = max(i for i, start in enumerate(self.starts) if start < line)
        return number + 1, line - self.starts[number]


def prepare(statements: tuple[str, ...], prelude: frozenset[str]) -> Prepared:
    """Makes `statements` ready; raises BrokenTest where one is no Python, or cannot be run."""
    if sum(map(len, statements)) > _LIGHT_CHARACTERS:
        return _prepare_large(statements, prelude)
    return _prepare_small(statements, prelude)


@functools.lru_cache(4)  # one compiled large test takes tens of megabytes
def _prepare_large(statements: tuple[str, ...], prelude: frozenset[str]) -> Prepared:
    return _prepare(statements, prelude)


@functools.lru_cache(256)
def _prepare_small(statements: tuple[str, ...], prelude: frozenset[str]) -> Prepared:
    return _prepare(statements, prelude)


def parsed(statements: tuple[str, ...]) -> list[ast.Module]:
    """The trees of the statements, with line numbers of their own; raises BrokenTest."""
    trees = []
    for number, text in enumerate(statements, 1):
        with _numbered(number):
            trees.append(ast.parse(_plain(text), FILE))
    return trees


@contextlib.contextmanager
def _numbered(number: int) -> Iterator[None]:
    """What is wrong with the text of a test is told with its number, from 1."""
    try:
        yield
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise BrokenTest(f"test {number} is no Python: {error}") from None


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").removeprefix("\ufeff")


def _prepare(statements: tuple[str, ...], prelude: frozenset[str]) -> Prepared:
    lines: list[str] = []
    starts = []
    loads: set[str] = set()
    made: set[str] = set()
    asked: set[str] = set()  # names that are used before the tests import them from the program
    taken: set[str] = set()  # names that they have imported from it
    trees = parsed(statements)
    nodes_of = [refusals.walk(tree) for tree in trees]
    refusals.check(trees, nodes_of)
    nodes = [node for inside in nodes_of for node in inside]
    imported = {name for tree in trees for name in _imported(tree)}
    small = sum(map(len, statements)) <= _LIGHT_CHARACTERS
    for number, (text, tree) in enumerate(zip(map(_plain, statements), trees, strict=True), 1):
        loaded = set()
        taken |= set(_taken(tree))
        with _numbered(number):
            table = symtable.symtable(text, FILE, "exec")
        for scope in _scopes(table):
            for symbol in scope.get_symbols():
                at_top = scope is table
                if symbol.is_referenced() and (at_top or symbol.is_global()):
                    loaded.add(symbol.get_name())
                if at_top and (symbol.is_assigned() or symbol.is_imported()):
                    made.add(symbol.get_name())
        loads |= loaded
        asked |= loaded - taken
        ast.increment_lineno(tree, len(lines))
        starts.append(len(lines))
        lines += text.split("\n")
    own = prelude | frozenset(dir(builtins))
    # Where the program is imported, nothing but what is asked of it by name is the program's.
    served = bool(imported & set(PROGRAM_MODULES))
    known = set() if served else (loads - made) & own
    wanted = _wanted(statements, trees, nodes, asked - own, known, served=served)
    light = (small and _is_light(trees, made | (loads - own))) or not statements
    calls = {x.func.id for x in nodes if isinstance(x, ast.Call) and isinstance(x.func, ast.Name)}
    cases = tuple(tuple(_cases(tree.body, loads, calls)) for tree in trees)
    pieces, comparisons = [], []
    for number, tree in enumerate(trees, 1):
        _drop_star_imports(tree)
        _keep_comparisons(tree, comparisons)
        with _numbered(number):
            pieces.append(compile(tree, FILE, "exec", dont_inherit=True))
    return Prepared(
        pieces=tuple(pieces),
        starts=tuple(starts),
        lines=tuple(lines),
        comparisons=tuple(comparisons),
        wanted=wanted,
        free=tuple(sorted(loads - made - own)),
        cases=cases,
        served=served or "pytest" in imported,
        light=light,
    )


def _wanted(
    statements: tuple[str, ...],
    trees: list[ast.Module],
    nodes: list[ast.AST],
    free: set[str],
    known: set[str],
    *,
    served: bool,
) -> Wanted:
    named, words = nodes, free | known
    if served:
        named = [x for tree in parsed(statements) for x in refusals.walk(names.of_program(tree))]
        words = {x.id for x in named if isinstance(x, ast.Name)}
    return Wanted(
        names=tuple(sorted(free | known)),
        judges=names.judges(trees, free - _bound_first(trees), known),
        classes=names.classes(named, words),
        guarded=names.guarded(nodes),
        stops=any("StopIteration" in (getattr(x, "id", ""), getattr(x, "attr", "")) for x in nodes),
    )


def _scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _scopes(child)


def _imported(tree: ast.Module) -> Iterator[str]:
    """The modules that a text imports, wherever in it."""
    for node in _statements(tree.body):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _taken(tree: ast.Module) -> Iterator[str]:
    """The names that a text binds to what it imports from the program, outside of functions."""
    for node in _statements(tree.body, into_functions=False):
        if isinstance(node, ast.ImportFrom) and node.module in PROGRAM_MODULES:
            yield from (alias.asname or alias.name for alias in node.names)


def _bound_first(trees: list[ast.Module]) -> set[str]:
    """The names that the tests bind before any use of them: none of these is the program's."""
    used: set[str] = set()
    bound: set[str] = set()
    for statement in (x for tree in trees for x in _statements(tree.body, into_functions=False)):
        names_in = [x for x in header(statement) if isinstance(x, ast.Name)]
        stored = {x.id for x in names_in if isinstance(x.ctx, ast.Store)}
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                stored.add(name)
            case ast.ClassDef(name=name):
                stored.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                stored |= {(x.asname or x.name).partition(".")[0] for x in aliases}
            case ast.Try(handlers=handlers):
                stored |= {x.name for x in handlers if x.name}
        updates = isinstance(statement, ast.AugAssign)
        used |= {x.id for x in names_in if updates or isinstance(x.ctx, ast.Load)} - bound
        bound |= stored
    return bound - used


def header(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a statement without those of the statements that it holds."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.stmt, ast.ExceptHandler, ast.match_case)):
            yield from header(child)


def _drop_star_imports(tree: ast.Module) -> None:
    """Takes `from solution import *` away: the program's names are found without it."""
    for i, node in enumerate(tree.body):
        match node:
            case ast.ImportFrom(module=name, level=0, names=[ast.alias(name="*")]):
                if name in PROGRAM_MODULES:
                    tree.body[i] = ast.copy_location(ast.Pass(), node)


def _cases(body: list[ast.stmt], loads: set[str], calls: set[str]) -> Iterator[str]:
    for node in _statements(body, into_functions=False):
        match node:
            case ast.ClassDef(name=name):
                yield name
            case ast.FunctionDef(name=name, args=args) if name.startswith("test"):
                takes = [*args.posonlyargs, *args.args, *args.kwonlyargs]
                if name not in (loads if takes else calls):
                    yield name
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call() | ast.Lambda()):
                if name not in loads:
                    yield name


def _is_light(trees: list[ast.Module], others: set[str]) -> bool:
    """Args: the tests; the functions that are the tests' own or the program's."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    parameters = {node.arg for node in nodes if isinstance(node, ast.arg)}
    functions = _LIGHT_FUNCTIONS | others | parameters
    for node in nodes:
        if not isinstance(node, _LIGHT_NODES):
            return False
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.decorator_list:
            return False
        if isinstance(node, ast.Import) and not {x.name for x in node.names} <= _LIGHT_MODULES:
            return False
        if isinstance(node, ast.ImportFrom) and node.module not in _LIGHT_MODULES:
            return False
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute) and called.attr not in _LIGHT_METHODS:
                return False
            if isinstance(called, ast.Name) and called.id not in functions:
                return False
    return True


def _statements(body: list[ast.stmt], *, into_functions: bool = True) -> Iterator[ast.stmt]:
    """All statements beneath `body`, without a look at their expressions."""
    for statement in body:
        yield statement
        if not into_functions and isinstance(
            statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        ):
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(statement, field, []), into_functions=into_functions)
        for branch in (*getattr(statement, "handlers", []), *getattr(statement, "cases", [])):
            yield from _statements(branch.body, into_functions=into_functions)


def _keep_comparisons(tree: ast.Module, comparisons: list[Comparison]) -> None:
    """Rewrites `assert a == b` to `assert keep(n, 0, a) == keep(n, 1, b)`, and calls to match."""
    for statement in _statements(tree.body):
        if isinstance(statement, ast.Assert):
            _keep_assertion(statement, comparisons)
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            _keep_call(statement.value, comparisons)


def _keep_assertion(statement: ast.Assert, comparisons: list[Comparison]) -> None:
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


def _keep_call(call: ast.Call, comparisons: list[Comparison]) -> None:
    name = getattr(call.func, "attr", None) or getattr(call.func, "id", None)
    number = len(comparisons)
    match call.args:
        case [ast.Starred(), *_] | [_, ast.Starred(), *_]:
            return
        case [left, right, *_] if name in _COMPARING:
            comparisons.append(Comparison(left, _COMPARING[name], right))
            call.args[:2] = [_kept(number, 0, left), _kept(number, 1, right)]
        case [left, *_] if name in _LOOKING:
            comparisons.append(Comparison(left, _LOOKING[name], None))
            call.args[0] = _kept(number, 0, left)


_NAME = ast.Name("x", ast.Load())


def _kept(number: int, side: int, value: ast.expr) -> ast.expr:
    arguments: list[Any] = [ast.Constant(number), ast.Constant(side), value]
    call = ast.Call(ast.Name(KEEP, ast.Load()), arguments, [])
    for node in (call, call.func, *arguments[:2]):
        ast.copy_location(node, value)
    return call
