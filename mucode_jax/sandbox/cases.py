"""Tests in classes and functions, run one at a time as unittest and pytest run them.

A text of tests is executed first; what it defines (`statements.Prepared.cases`) is run afterwards,
in the order of unittest or of the text. The first test that does not pass ends the run: what it
raised goes on to the judge. Skipped tests do not count as run.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import itertools
import types
import unittest
import unittest.case
from collections.abc import Callable, Iterator
from typing import Any

from . import pytest_words
from .refusals import BrokenTest

# Of what unittest says of two lists, the difference line by line may take for ever to be found.
unittest.case.difflib = types.SimpleNamespace(ndiff=lambda *_: ())  # type: ignore[attr-defined]
# What a text defines is run when it has ended, whether it asks for that or not.
unittest.main = lambda *_, **__: None  # type: ignore[assignment,misc]


def run(cases: tuple[str, ...], names: dict[str, Any], fatal: tuple[type, ...]) -> int:
    """Runs the tests among `cases`; how many were run.

    Args:
      cases: names of classes and functions.
      names: what they stand for, with the fixtures.
      fatal: exceptions that end the run, whatever a test expects.

    Raises:
      BaseException: what the first test raised that did not pass.
      BrokenTest: a test asks for what is not there.
    """
    session = _Session(names, fatal)
    count = 0
    with contextlib.ExitStack() as stack:
        session.begin(stack)
        for name in cases:
            value = names.get(name)
            if isinstance(value, type) and issubclass(value, unittest.TestCase):
                count += _run_test_case(value, fatal)
            elif isinstance(value, type) and name.startswith("Test"):
                count += session.run_class(value)
            elif name.startswith("test") and callable(value) and not isinstance(value, type):
                count += session.run_function(value, name)
    return count


class _Result(unittest.TestResult):
    """Keeps the first thing that went wrong.

    Attributes:
      problem: what was raised.
      left: the test was skipped.
    """

    def __init__(self, fatal: tuple[type, ...]):
        super().__init__()
        self._fatal = fatal
        self.problem: BaseException | None = None
        self.left = False

    def addError(self, test: Any, err: Any) -> None:
        if isinstance(err[1], self._fatal):
            raise err[1]
        self.problem = self.problem or err[1]

    addFailure = addError

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self.addError(subtest, err)

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        if isinstance(err[1], self._fatal):
            raise err[1]

    def addUnexpectedSuccess(self, test: Any) -> None:
        self.problem = AssertionError(f"{test.id()} passes, which it is not expected to")

    def addSkip(self, test: Any, reason: str) -> None:
        self.left = True


def _run_test_case(kind: type[unittest.TestCase], fatal: tuple[type, ...]) -> int:
    names = unittest.defaultTestLoader.getTestCaseNames(kind)
    if not names and hasattr(kind, "runTest"):
        names = ["runTest"]
    if getattr(kind, "__unittest_skip__", False) or not names:
        return 0
    count = 0
    with contextlib.ExitStack() as stack:
        stack.callback(kind.doClassCleanups)
        try:
            kind.setUpClass()
        except unittest.SkipTest:
            return 0
        stack.callback(kind.tearDownClass)
        for name in names:
            result = _Result(fatal)
            kind(name).run(result)
            if result.problem is not None:
                raise result.problem
            count += not result.left
    return count


class _Session:
    """The functions and classes of pytest's kind, with what they ask for."""

    def __init__(self, names: dict[str, Any], fatal: tuple[type, ...]):
        self._names = names
        self._fatal = fatal
        self._fixtures = _fixtures_of(names)
        self._kept: dict[str, Any] = {}  # of fixtures that are made once

    def begin(self, stack: contextlib.ExitStack) -> None:
        """Prepares what all tests share; `stack` undoes it."""
        self._stack = stack
        pairs = (("setUpModule", "tearDownModule"), ("setup_module", "teardown_module"))
        for before, after in pairs:
            _hooks(stack, self._names.get(before), self._names.get(after), None)

    def run_class(self, kind: type) -> int:
        """Runs the tests of a class that is none of unittest's."""
        tests = [name for name in _members(kind) if name.startswith("test")]
        tests = [name for name in tests if callable(getattr(kind, name))]
        if tests and "__init__" in vars(kind):
            raise BrokenTest(f"the class {kind.__name__} has an __init__: pytest does not run it")
        fixtures = {**self._fixtures, **_fixtures_of(dict(inspect.getmembers_static(kind)))}
        count = 0
        with contextlib.ExitStack() as stack:
            before, after = (
                getattr(kind, name, None) for name in ("setup_class", "teardown_class")
            )
            _hooks(stack, before, after, kind)
            for name in tests:
                around = ("setup_method", "teardown_method")
                count += self._run(
                    lambda name=name: getattr(kind(), name),
                    f"{kind.__name__}.{name}",
                    pytest_words.marks(vars(kind).get(name, getattr(kind, name)))
                    + pytest_words.marks(kind),
                    fixtures,
                    around,
                )
            for name, value in vars(kind).items():
                if isinstance(value, type) and name.startswith("Test"):
                    count += self.run_class(value)
        return count

    def run_function(self, function: Callable, name: str) -> int:
        """Runs a test function, once for each of its parameters."""
        hooks = ("setup_function", "teardown_function")
        return self._run(
            lambda: function, name, pytest_words.marks(function), self._fixtures, hooks
        )

    def _run(
        self,
        make: Callable[[], Callable],
        name: str,
        marks: list[pytest_words.Mark],
        fixtures: dict[str, pytest_words.Fixture],
        hooks: tuple[str, str],
    ) -> int:
        if _is_skipped(marks):
            return 0
        expected = any(mark.name == "xfail" for mark in marks)
        count = 0
        wanted = [f.name for f in fixtures.values() if f.autouse]
        wanted += itertools.chain(*(m.arguments for m in marks if m.name == "usefixtures"))
        for given, more in _parameters(marks):
            if _is_skipped(list(more)):
                continue
            function = make()
            owner = getattr(function, "__self__", None)
            hook = self._names.get if owner is None else functools.partial(_member, owner)
            try:
                with contextlib.ExitStack() as stack:
                    _hooks(stack, hook(hooks[0]), hook(hooks[1]), function)
                    for other in wanted:
                        self._value(other, fixtures, owner, stack)
                    asked = [x for x in _asked(function) if x not in given]
                    values = {x: self._value(x, fixtures, owner, stack) for x in asked}
                    function(**given, **values)
                    count += 1
            except (pytest_words.Skipped, unittest.SkipTest):
                continue
            except self._fatal:
                raise
            except BaseException:
                if not (expected or any(mark.name == "xfail" for mark in more)):
                    raise
        return count

    def _value(
        self,
        name: str,
        fixtures: dict[str, pytest_words.Fixture],
        owner: Any,
        stack: contextlib.ExitStack,
    ) -> Any:
        """What the fixture `name` gives; what it does afterwards is put on `stack`."""
        if name in self._kept:
            return self._kept[name]
        if name == "capsys":
            return stack.enter_context(_captured())
        if name not in fixtures:
            raise BrokenTest(f"a test asks for the fixture {name!r}, which is not served here")
        fixture = fixtures[name]
        function = fixture.function
        if "self" in inspect.signature(function).parameters:
            function = types.MethodType(function, owner)
        if fixture.scope != "function":
            stack = self._stack
        values = {x: self._value(x, fixtures, owner, stack) for x in _asked(function)}
        value = function(**values)
        if inspect.isgenerator(value):
            generator = value
            value = next(generator)
            stack.callback(next, generator, None)
        if fixture.scope != "function":
            self._kept[name] = value
        return value


class _Captured:
    """What `capsys` gives."""

    def __init__(self, out: io.StringIO, err: io.StringIO):
        self._streams = out, err

    def readouterr(self) -> tuple[str, str]:
        """What was written since the last time."""
        texts = []
        for stream in self._streams:
            texts.append(stream.getvalue())
            stream.seek(0)
            stream.truncate()
        return _Outputs(*texts)


class _Outputs(tuple):
    out = property(lambda self: self[0])
    err = property(lambda self: self[1])

    def __new__(cls, *texts: str) -> _Outputs:
        return super().__new__(cls, texts)


@contextlib.contextmanager
def _captured() -> Iterator[_Captured]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield _Captured(out, err)


def _member(owner: Any, name: str) -> Any:
    return getattr(owner, name, None)


def _fixtures_of(names: dict[str, Any]) -> dict[str, pytest_words.Fixture]:
    values = (x for x in names.values() if type(x) is pytest_words.Fixture)
    return {fixture.name: fixture for fixture in values}


def _members(kind: type) -> Iterator[str]:
    """The names in a class and its bases, in the order in which they stand in the text."""
    seen = {}
    for base in reversed(kind.__mro__[:-1]):
        seen.update(dict.fromkeys(vars(base)))
    return iter(seen)


def _asked(function: Callable) -> list[str]:
    """The parameters without a default."""
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]


def _hooks(stack: contextlib.ExitStack, before: Any, after: Any, about: Any) -> None:
    """Calls `before` now and `after` in the end, with what they are about where they ask for it."""
    for hook, call in ((before, lambda f: f()), (after, stack.callback)):
        if callable(hook):
            takes = bool(_asked(hook))
            call(lambda hook=hook, takes=takes: hook(about) if takes else hook())


def _is_skipped(marks: list[pytest_words.Mark]) -> bool:
    for mark in marks:
        if mark.name == "skipif" and any(isinstance(x, str) for x in mark.arguments):
            raise BrokenTest("a condition of skipif that is text is not served here")
        if mark.name == "skip" or (mark.name == "skipif" and any(mark.arguments)):
            return True
    return False


def _parameters(
    marks: list[pytest_words.Mark],
) -> Iterator[tuple[dict[str, Any], tuple[pytest_words.Mark, ...]]]:
    """(arguments, marks) of each run of a test: one without arguments where it is run once."""
    axes = []
    for mark in marks:
        if mark.name != "parametrize":
            continue
        if mark.named.get("indirect"):
            raise BrokenTest("parameters that go through a fixture (indirect) are not served here")
        bound = inspect.signature(lambda argnames, argvalues, **_: 0).bind(
            *mark.arguments, **mark.named
        )
        names, rows = bound.arguments["argnames"], bound.arguments["argvalues"]
        if isinstance(names, str):
            names = [name.strip() for name in names.split(",") if name.strip()]
        axes.append([_row(list(names), row) for row in rows])
    for rows in itertools.product(*axes):  # the mark that stands first changes fastest
        given = {name: value for values, _ in rows for name, value in values.items()}
        yield given, tuple(mark for _, more in rows for mark in more)


def _row(names: list[str], row: Any) -> tuple[dict[str, Any], tuple[pytest_words.Mark, ...]]:
    more: tuple[pytest_words.Mark, ...] = ()
    if isinstance(row, pytest_words.Values):
        more, row = row.marks, row.values if len(names) > 1 else row.values[0]
    values = [row] if len(names) == 1 else list(row)
    if len(values) != len(names):
        raise BrokenTest(f"a test takes {', '.join(names)}, but is given {len(values)} values")
    return dict(zip(names, values, strict=True)), more
