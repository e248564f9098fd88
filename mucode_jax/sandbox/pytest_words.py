"""The words of pytest that tests may use; `import pytest` in a test gives this module.

So a verdict does not depend on whether pytest is installed, or which. What each word means is said
by pytest's own documentation (8.x); what is not in `WORDS` is refused beforehand (`refusals`).
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import standins

WORDS = frozenset(
    (
        *("raises", "approx", "fixture", "mark", "param", "fail", "skip", "xfail", "importorskip"),
        *("main", "exit"),
    )
)
FIXTURES = frozenset({"capsys"})  # those that a test need not define
_RELATIVE, _ABSOLUTE = 1e-6, 1e-12


class Failed(BaseException):
    """`fail` was called, or `raises` met nothing. No Exception, as in pytest."""


class Skipped(BaseException):
    """`skip` was called; `xfail` too, whose failure is expected."""


def fail(reason: str = "", pytrace: bool = True) -> None:
    """Fails the test."""
    raise Failed(reason)


def skip(reason: str = "", *, allow_module_level: bool = False) -> None:
    """Leaves the test."""
    raise Skipped(reason)


def xfail(reason: str = "") -> None:
    """Leaves the test, which is expected to fail from here on."""
    raise Skipped(reason)


def importorskip(name: str, minversion: str | None = None, reason: str | None = None) -> Any:
    """The module, or leaves the test where it is not there."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise Skipped(f"no module {name}") from None


def main(*_: object, **__: object) -> int:
    """Nothing: what a text defines is run when the text has ended."""
    return 0


def exit(reason: str = "", returncode: int | None = None) -> None:
    """Ends the text."""
    raise SystemExit(returncode or 0)


class Info:
    """What `with raises(..) as info` gives: `value`, `type`, and `match`."""

    value: Any = None

    @property
    def type(self) -> type:
        return type(self.value)

    def match(self, pattern: str | re.Pattern) -> bool:
        """Fails the test unless the message has the pattern in it."""
        if not re.search(pattern, str(self.value)):
            raise AssertionError(f"{str(self.value)!r} does not match {pattern!r}")
        return True


class _Raises:
    def __init__(self, expected: Any, match: str | re.Pattern | None):
        self._expected, self._match = expected, match
        self._info = Info()

    def __enter__(self) -> Info:
        return self._info

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if kind is None:
            kinds = self._expected if isinstance(self._expected, tuple) else (self._expected,)
            raise Failed("DID NOT RAISE " + " or ".join(x.__name__ for x in kinds))
        if not isinstance(error, self._expected):
            return False
        self._info.value = error
        if self._match is not None:
            self._info.match(self._match)
        return True


def raises(
    expected: Any, *arguments: Any, match: str | re.Pattern | None = None, **named: Any
) -> Any:
    """A block in which `expected` must be raised; or calls a function that must raise it."""
    context = _Raises(expected, match)
    if not arguments:
        return context
    with context as info:
        arguments[0](*arguments[1:], **named)
    return info


class approx:
    """A number, or a container of numbers, that what is near it equals."""

    __array_ufunc__ = None
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expected: Any, rel: Any = None, abs: Any = None, nan_ok: bool = False):
        self.expected, self.rel, self.abs, self.nan_ok = expected, rel, abs, nan_ok

    def __eq__(self, actual: object) -> bool:
        return self._is_near(actual, self.expected)

    def __repr__(self) -> str:
        return f"approx({self.expected!r})"

    def _is_near(self, actual: Any, expected: Any) -> bool:
        if isinstance(expected, np.ndarray) or isinstance(actual, np.ndarray):
            if np.shape(actual) != np.shape(expected) and np.ndim(expected):
                return False
            pairs = np.broadcast(np.asarray(actual, object), np.asarray(expected, object))
            return all(self._is_near(a, e) for a, e in pairs)
        if isinstance(expected, Mapping):
            if not isinstance(actual, Mapping) or actual.keys() != expected.keys():
                return False
            return all(self._is_near(actual[key], value) for key, value in expected.items())
        if isinstance(expected, Sequence) and not isinstance(expected, (str, bytes)):
            if not hasattr(actual, "__len__") or len(actual) != len(expected):
                return False
            return all(map(self._is_near, actual, expected))
        return self._is_near_number(actual, expected)

    def _is_near_number(self, actual: Any, expected: Any) -> bool:
        if isinstance(expected, bool) is not isinstance(actual, bool):
            return False
        if actual == expected:
            return True
        if standins.is_object(actual):  # its operators are the program's, and would be told
            plain = standins.class_handle(type(actual)).plain
            if plain not in (int, float, complex):
                return False
            actual = plain.__pos__(actual)
        try:
            if math.isnan(abs(expected)):
                return self.nan_ok and math.isnan(abs(actual))
            if math.isinf(abs(expected)):
                return False
            return bool(abs(expected - actual) <= self._tolerance(expected))
        except TypeError:  # no numbers
            return False

    def _tolerance(self, expected: Any) -> Any:
        absolute = _ABSOLUTE if self.abs is None else self.abs
        if self.rel is None and self.abs is not None:
            return absolute
        return max((_RELATIVE if self.rel is None else self.rel) * abs(expected), absolute)


@dataclasses.dataclass
class Fixture:
    """A function whose result tests ask for by naming a parameter like it."""

    function: Callable
    name: str
    scope: str
    autouse: bool


def fixture(
    function: Callable | None = None,
    *,
    scope: str = "function",
    name: str | None = None,
    autouse: bool = False,
) -> Any:
    """Makes a fixture of a function."""

    def made(function: Callable) -> Fixture:
        return Fixture(function, name or function.__name__, scope, autouse)

    return made if function is None else made(function)


@dataclasses.dataclass(frozen=True)
class Mark:
    """A mark on a test function or class, kept in its `pytestmark`."""

    name: str
    arguments: tuple = ()
    named: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        plain = len(arguments) == 1 and not named
        if plain and (callable(arguments[0]) and hasattr(arguments[0], "__name__")):
            target = arguments[0]
            target.pytestmark = [*marks(target), self]
            return target
        return Mark(self.name, arguments, named)


class _Marks:
    def __getattr__(self, name: str) -> Mark:
        if name.startswith("_"):
            raise AttributeError(name)
        return Mark(name)


mark = _Marks()


def marks(target: Any) -> list[Mark]:
    """The marks of a function or class itself, the nearest to it first."""
    found = getattr(target, "pytestmark", [])
    return list(found) if isinstance(found, (list, tuple)) else [found]


@dataclasses.dataclass(frozen=True)
class Values:
    """What `param` gives: the values of one run of a test."""

    values: tuple
    marks: tuple[Mark, ...]


def param(*values: Any, marks: Any = (), id: str | None = None) -> Values:
    """The values of one run of a parametrized test, with marks of its own."""
    return Values(values, tuple(marks) if isinstance(marks, (list, tuple)) else (marks,))
