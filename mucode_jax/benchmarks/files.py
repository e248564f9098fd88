"""Reading benchmark files: one JSON object a line, plain or gzip, every error with file and line.

A record is handed on as `Row`, which knows where it came from, so that whatever is wrong with a
field can be said in one sentence: what, where, what would be right.
"""

from __future__ import annotations

import ast
import dataclasses
import gzip
import json
import pathlib
import warnings
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

from mucode_jax.core.records import Problem, Tests

Path = str | pathlib.Path


@dataclasses.dataclass(frozen=True)
class Entry:
    """One problem as a reader makes it of a record.

    Attributes:
      problem: the public side.
      private: its private tests, None where it has none.
      solution: a reference solution as a whole program, None where the record gives none.
      impossible: no program can pass the private tests (they do not parse; `compat` only).
    """

    problem: Problem
    private: Tests | None
    solution: str | None
    impossible: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """One record and where it stands; its methods raise ValueError that names both.

    Attributes:
      fields: the JSON object.
      where: "FILE, line N", or the hub's name and the record's number.
    """

    fields: dict[str, Any]
    where: str

    def has(self, name: str) -> bool:
        return self.fields.get(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        """A field that is text; `default` where it is absent or null, else it is required."""
        if default is not None and not self.has(name):
            return default
        return self._checked(self._get(name), f"field {name!r}")

    def words(self, name: str) -> str:
        """A required field that is text with something in it."""
        if not (text := self.text(name)).strip():
            raise ValueError(
                f"{self.where}: field {name!r} is empty; it is to be the problem's text"
            )
        return text

    def texts(self, name: str) -> tuple[str, ...]:
        """A required field that is a list of texts."""
        return tuple(
            self._checked(item, f"entry {i + 1} of {name!r}")
            for i, item in enumerate(self._list(self._get(name), name))
        )

    def flag(self, name: str) -> bool:
        """A field that is true or false; false where it is absent or null."""
        value = self.fields.get(name) or False
        if not isinstance(value, bool):
            raise ValueError(
                f"{self.where}: field {name!r} must be true or false, not {_kind(value)}"
            )
        return value

    def task_id(self, name: str = "task_id") -> str:
        """The id, text or whole number, as text."""
        value = self._get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        text = self._checked(value, f"field {name!r}")
        if not text.strip():
            raise ValueError(f"{self.where}: field {name!r} is empty; every problem needs an id")
        return text

    def table(self, name: str, *keys: str) -> tuple[tuple[Any, ...], ...]:
        """The rows of a field {"KEY": [..], "KEY": [..]}; () where it is absent or null.

        The last column must be text. A list of {"KEY": .., "KEY": ..} is the same table, which is
        how some versions of `datasets` hand it out.
        """
        if not self.has(name):
            return ()
        value = self.fields[name]
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            value = {key: [item.get(key) for item in value] for key in keys}
        if not isinstance(value, dict) or not set(keys) <= set(value):
            shape = ", ".join(f'"{key}": [..]' for key in keys)
            raise ValueError(f"{self.where}: field {name!r} must be {{{shape}}}")
        columns = [self._list(value[key], f"{name}.{key}") for key in keys]
        lengths = {len(column) for column in columns}
        if len(lengths) > 1:
            raise ValueError(f"{self.where}: the columns of {name!r} are not of one length")
        for item in columns[-1]:
            self._checked(item, f"an entry of '{name}.{keys[-1]}'")
        return tuple(zip(*columns, strict=True))

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        """A table of "input" and "output" texts; () where it is absent or null."""
        for given, _ in (rows := self.table(name, "input", "output")):
            self._checked(given, f"an entry of '{name}.input'")
        return rows

    def _get(self, name: str) -> Any:
        if name not in self.fields:
            there = ", ".join(map(str, self.fields)) or "none"
            raise ValueError(f"{self.where}: field {name!r} is missing (fields there: {there})")
        return self.fields[name]

    def _list(self, value: Any, name: str) -> Sequence[Any]:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{self.where}: {name!r} must be a list, not {_kind(value)}")
        return value

    def _checked(self, value: Any, what: str) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{self.where}: {what} must be text, not {_kind(value)}")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{self.where}: {what} holds half of a surrogate pair, which is no UTF-8 text"
            ) from None
        return value


def _kind(value: Any) -> str:
    names = {"NoneType": "null", "dict": "an object", "list": "a list", "str": "text"}
    return names.get(type(value).__name__, f"a {type(value).__name__}")


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, line) of a file, which is unpacked where its name ends in .gz.

    Raises:
      ValueError: no such file, not readable, or damaged gzip.
    """
    path = pathlib.Path(path)
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                yield number, line
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}, after line {number}: not a whole gzip file ({error})") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error


def parse_line(path: Path, number: int, line: bytes) -> Row:
    """One line of a JSONL file. Raises ValueError with file and line number."""
    where = f"{path}, line {number}"
    if line.startswith(b"\x1f\x8b") and number == 1:
        raise ValueError(f"{where}: this is gzip; its name must end in .gz")
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 (byte {error.start + 1} of the line)") from None
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error.msg}, column {error.colno})") from None
    except (RecursionError, ValueError) as error:  # too deep; a number of thousands of digits
        raise ValueError(f"{where}: not JSON that can be read ({error})") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: must be a JSON object, not {_kind(fields)}")
    return Row(fields, where)


def read_jsonl(path: Path) -> Iterator[Row]:
    """The records of a .jsonl or .jsonl.gz file, one at a time; blank lines are passed over.

    Raises:
      ValueError: the file cannot be read, or a line is not a JSON object in UTF-8.
    """
    for number, line in read_lines(path):
        if line.strip():
            yield parse_line(path, number, line)


def parse(text: str, mode: str = "exec") -> ast.AST:
    """The syntax tree of `text`. Raises SyntaxError alone."""
    return cast(ast.AST, _compiled(text, mode, ast.PyCF_ONLY_AST))


def _compiled(text: str, mode: str, flags: int = 0) -> object:
    """As `compile`, without a word about odd escapes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compile(text, "<test>", mode, flags, dont_inherit=True)
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes; nested too deep
        raise SyntaxError(str(error) or type(error).__name__) from None


def syntax_error(text: str) -> str:
    """Why `text` is no Python program ("invalid syntax, line 3"); "" where it is one.

    What parses may be none yet: a `return` outside of a function, for one.
    """
    try:
        _compiled(text, "exec")
    except SyntaxError as error:
        return f"{error.msg}, line {error.lineno}" if error.lineno else str(error.msg)
    return ""


def with_shapes(test: str) -> str:
    """A test program of EvalPlus in which a value of another shape is not close.

    numpy compares what it can stretch: `np.allclose([], 3.5)` is true.
    """
    close = "np.allclose(out, exp,"
    return test.replace(f"assert {close}", f"assert np.shape(out) == np.shape(exp) and {close}")


def python_tests(
    row: Row, statements: Sequence[str], *, setup: str = "", timeout_s: float = 10.0
) -> Tests:
    """Tests made of Python text, each of which must parse. Raises ValueError where one does not."""
    for i, text in enumerate((setup, *statements)):
        if error := syntax_error(text):
            what = f"test {i} of {len(statements)}" if i else "the setup of the tests"
            raise ValueError(f"{row.where}: {what} does not parse ({error})")
    return Tests(statements=tuple(statements), setup=setup, timeout_s=timeout_s)


def refuse_idle(row: Row, tests: Tests) -> None:
    """Raises ValueError where a test passes whatever the program computes (`f(2) == 4`).

    Classes, and functions that are named `test...`, may be tests: the sandbox runs those that are,
    and says so where it finds none.
    """
    texts = (tests.setup, *tests.statements)
    trees = [cast(ast.Module, parse(text)) for text in texts]
    functions = {name for tree in trees for node in ast.walk(tree) for name in _binds(node)}
    for i, tree in enumerate(trees[1:], start=1):
        idle = list(filter(_does_nothing, tree.body))
        others = [node for node in tree.body if node not in idle]
        named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        harmless = (ast.Assign, ast.Import, ast.ImportFrom)
        if (
            (idle or not others)
            and all(isinstance(node, harmless) for node in others)
            and not named & functions
        ):
            match idle[-1:]:
                case [ast.Expr(value=ast.Compare() | ast.BoolOp() | ast.UnaryOp() as value)]:
                    wanted = ast.unparse(value)
                case _:
                    wanted = ".."
            raise ValueError(
                f"{row.where}: test {i} of {len(tests.statements)} asserts nothing; "
                f"write 'assert {wanted}'"
            )
    bodies = [node for tree in trees[1:] for node in tree.body]
    if tests.statements and all(map(_only_defines, bodies)):
        raise ValueError(f"{row.where}: the tests define functions and call none; write asserts")


def _binds(node: ast.AST) -> Sequence[str]:
    """The names by which tests call what they define or import; it may assert, wherever called."""
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return (name,)
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [(alias.asname or alias.name).partition(".")[0] for alias in names]
        case ast.Assign(value=ast.Lambda(), targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
    return ()


def _only_defines(node: ast.stmt) -> bool:
    """Whether a statement defines or imports, and is no test that the sandbox runs."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return not name.startswith("test")
    return isinstance(node, (ast.Import, ast.ImportFrom))


def _does_nothing(node: ast.stmt) -> bool:
    """Whether a statement passes whatever the program computes."""
    match node:
        case ast.Expr(value=value):
            return _is_idle(value)
        case ast.Pass() | ast.Assert(test=ast.Tuple(elts=[_, *_])):  # a tuple is true
            return True
        case ast.Assert(test=ast.Constant(value=value)):
            return bool(value)
    return False


def _is_idle(value: ast.expr) -> bool:
    """Whether nothing comes of an expression that stands alone; any call but `print` may assert."""
    match value:
        case ast.Compare() | ast.Constant():
            return True
        case ast.Call(func=ast.Name(id="print")):
            return True
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _is_idle(operand)
        case ast.BoolOp(values=values):
            return all(map(_is_idle, values))
    return False
