"""Further inputs for the programs of a problem, made of the inputs in its public tests.

The tests' own calls with plain values (`f([3, 1], "a")`) are varied by type: a number within the
range of the one that it replaces and of its sign, text out of the same characters, a list out of
its own items. Where a problem reads standard input, its numbers and words are varied in the same
way. No expected value is made: what a program should return is not known here.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mucode_jax.core import keys
from mucode_jax.core.records import Problem

_ATTEMPTS = 8  # per input that is wanted: variants repeat, or are the tests' own
_LONGEST = 2000  # characters of a call or a standard input that is varied
_WORD = re.compile(r"(-?\d+\.\d+|-?\d+|[A-Za-z]+)")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Further inputs of one problem; at most one of the two is not empty.

    Attributes:
      calls: expressions, each a call of the function that the tests call.
      stdin: texts for standard input.
    """

    calls: tuple[str, ...] = ()
    stdin: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.calls) + len(self.stdin)


@dataclasses.dataclass(frozen=True)
class _Call:
    """A call in a test, with the values of its arguments."""

    function: str
    arguments: tuple[Any, ...]
    names: tuple[str, ...]  # of the last of the arguments, those that are passed by name

    def __str__(self) -> str:
        count = len(self.arguments) - len(self.names)
        parts = [_text(value) for value in self.arguments[:count]]
        named = zip(self.names, self.arguments[count:], strict=True)
        return f"{self.function}({', '.join([*parts, *(f'{k}={_text(v)}' for k, v in named)])})"


def _text(value: Any) -> str:
    """`repr`, with sets in order: theirs is another in every process."""
    match value:
        case set() if value:
            return f"{{{', '.join(sorted(map(_text, value)))}}}"
        case list():
            return f"[{', '.join(map(_text, value))}]"
        case tuple() if len(value) > 1:
            return f"({', '.join(map(_text, value))})"
        case dict():
            return f"{{{', '.join(f'{_text(k)}: {_text(v)}' for k, v in value.items())}}}"
    return repr(value)


def further(problem: Problem, count: int) -> Inputs:
    """At most `count` inputs that are not those of the public tests; the same at every call.

    There are fewer where the tests' values have fewer variants, and none where no test calls a
    function with plain values or gives standard input (classes, tests that only load a program).
    """
    random = keys.rng("further inputs", problem.benchmark, problem.task_id)
    stdin = [given for given, _ in problem.public.stdio if len(given) <= _LONGEST]
    if stdin:
        variants = (_varied_stdin(stdin[i], random) for i in _picked(stdin, count, random))
        return Inputs(stdin=_new(variants, stdin, count))
    calls = list(_calls(problem))
    if not calls:
        return Inputs()
    variants = (
        str(_varied_call(calls[i], random, attempt))
        for attempt, i in enumerate(_picked(calls, count, random))
    )
    return Inputs(calls=_new(variants, list(map(str, calls)), count))


def _picked(examples: Sequence[Any], count: int, random: np.random.Generator) -> Iterator[int]:
    for _ in range(_ATTEMPTS * count):
        yield int(random.integers(len(examples)))


def _new(variants: Iterator[str], known: Sequence[str], count: int) -> tuple[str, ...]:
    """The first `count` variants that are neither known nor there twice."""
    taken: dict[str, None] = {}
    for variant in variants:
        if len(taken) == count:
            break
        if variant not in known:
            taken[variant] = None
    return tuple(taken)


def _calls(problem: Problem) -> Iterator[_Call]:
    """The calls of the problem's function whose arguments are all written out."""
    name = problem.entry_point
    for statement in problem.public.statements:
        try:
            tree = ast.parse(statement.removeprefix("\ufeff"))
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if not name and not hasattr(builtins, node.func.id):
                name = node.func.id
            call = _plain(node, name) if node.func.id == name else None
            if call is not None and call.arguments and len(str(call)) <= _LONGEST:
                yield call


def _plain(node: ast.Call, name: str) -> _Call | None:
    """A call with the values of its arguments; None where one is no literal."""
    try:
        values = [ast.literal_eval(x) for x in (*node.args, *(k.value for k in node.keywords))]
    except (ValueError, TypeError, MemoryError, RecursionError):
        return None
    names = tuple(keyword.arg for keyword in node.keywords)
    return None if None in names else _Call(name, tuple(values), names)  # type: ignore[arg-type]


def _varied_call(call: _Call, random: np.random.Generator, attempt: int) -> _Call:
    """A variant: by turns of all arguments or of one, and with lengths kept or changed.

    What arguments have to do with each other (a list and its length, two lists as long) holds in
    some of the variants so.
    """
    keep, single = attempt % 2 == 0, attempt // 2 % 2 == 0
    only = int(random.integers(len(call.arguments))) if single else None
    arguments = [
        varied(value, random, keep_length=keep) if only in (None, i) else value
        for i, value in enumerate(call.arguments)
    ]
    return dataclasses.replace(call, arguments=tuple(arguments))


def _varied_stdin(text: str, random: np.random.Generator) -> str:
    """Numbers and words varied; of several lines the first stays: it mostly says what follows."""
    first, newline, rest = text.partition("\n")
    if not rest.strip():
        first, newline, rest = "", "", text
    parts = _WORD.split(rest)
    for i in range(1, len(parts), 2):  # what the pattern matched
        value: Any = parts[i]
        if not value.isalpha():
            value = float(value) if "." in value else int(value)
        parts[i] = str(varied(value, random, keep_length=True))
    return first + newline + "".join(parts)


def varied(value: Any, random: np.random.Generator, *, keep_length: bool) -> Any:
    """Another value of the same type, or the same one where its type has no variants here.

    Args:
      value: a number, text, None, bytes, or a list, tuple, set or dict of such.
      random: what is drawn from.
      keep_length: texts, lists and their kind stay as long as they are, and dicts keep their keys;
        what is inside them always does.
    """
    match value:
        case bool():
            return bool(random.integers(2))
        case int() if value.bit_length() < 62:
            most = max(abs(value), 10)
            return int(random.integers(-most if value < 0 else 0, most, endpoint=True))
        case float() if math.isfinite(value):
            most = max(abs(value), 10.0)
            return round(random.uniform(-most if value < 0 else 0.0, most), 2)
        case str() if " " in value.strip():  # words stay words
            return " ".join(varied(value.split(" "), random, keep_length=keep_length))
        case str():
            return "".join(value[i] for i in _places(value, random, keep_length))
        case dict() if keep_length:
            return {k: varied(v, random, keep_length=True) for k, v in value.items()}
        case dict():
            pairs = list(value.items())
            new = [pairs[i] for i in _places(pairs, random, keep_length)]
            return {_near(k, random): _near(v, random) for k, v in new}
        case list() | tuple() | set():
            items = sorted(value, key=repr) if isinstance(value, set) else list(value)
            mixed = len(set(map(type, items))) > 1  # a record: each item has its own meaning
            places = range(len(items)) if mixed else _places(items, random, keep_length)
            new = [_near(items[i], random) for i in places]
            return type(value)(sorted(new) if _is_sorted(items) else new)
    return value


def _near(item: Any, random: np.random.Generator) -> Any:
    """An item of a list: as it is, or varied; it stays as long, so that pairs stay pairs."""
    return varied(item, random, keep_length=True) if random.random() < 0.5 else item


def _places(values: Sequence[Any], random: np.random.Generator, keep_length: bool) -> list[int]:
    """Which of the values are taken, with replacement: as many, or up to two fewer or more."""
    length = len(values)
    if length and not keep_length:
        length = max(1, length + int(random.integers(-2, 2, endpoint=True)))
    return random.integers(len(values), size=length).tolist() if length else []


def _is_sorted(items: Sequence[Any]) -> bool:
    """Whether a program may rely on their order: it stays sorted then."""
    try:
        return len(items) > 2 and all(a <= b for a, b in zip(items, items[1:], strict=False))
    except TypeError:
        return False
