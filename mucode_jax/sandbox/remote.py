"""The judge's stand-ins for what lives in the untrusted process.

A test runs in the judge. Where it names something that the program defines it meets a `Remote`,
whose calls, attributes and items are carried out inside and whose results come back as plain
values. An equality that the program defines is asked only where both sides are the program's own.
A `Remote` equals a plain value only where its class derives from a plain type, and then by the
methods of that type, here.
"""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import itertools
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import channel, codec

_LIGHT_BYTES = 64 << 10
_MAX_TEXT = 20_000  # characters of what an exception says
_MAX_ITEMS = 100_000  # of an iterator of the test's


class Unsendable(TypeError):
    """A test passes a value to the program that cannot cross the border: the test's fault."""


class NeverStarted(Exception):
    """The process ended before it read the program: nobody's fault."""


@dataclasses.dataclass(frozen=True)
class Call:
    """A call that was made: the function's name, its arguments as sent, and its result."""

    name: str
    arguments: list
    named: dict[str, Any]
    result: Any


class Link:
    """The conversation with one program.

    Attributes:
      last: the most recent call that returned.
    """

    def __init__(self, guarded: channel.Guarded, before_heavy: Callable[[], None]):
        """Args: the connection; what to do before a large value is looked at."""
        self.last: Call | None = None
        self._guarded = guarded
        self._before_heavy = before_heavy
        self._functions: list[Callable] = []

    def load(self, program: str, setup: str, names: list[str]) -> dict[str, Any]:
        """Runs the program; the values of those of `names` that it defines.

        Raises:
          Exception: what the program raised, see `rebuilt`.
        """
        self._start({"program": program, "setup": setup, "names": names})
        values = self._answer("loaded")
        if type(values) is not list or len(values) != len(names):
            raise codec.Malformed("values of names")
        pairs = zip(names, values, strict=True)
        return {name: self._decode(value[1]) for name, value in pairs if value}

    def run_whole(self, program: str, setup: str) -> None:
        """Runs the program to the end of its process; raises Gone then, or what it raised."""
        self._start({"program": program, "setup": setup, "names": []})
        self._answer("ended")

    def _start(self, job: dict[str, Any]) -> None:
        with contextlib.suppress(channel.Gone):  # whether it began, the next line tells
            self._guarded.send(job)
        try:
            self._answer("ready")
        except channel.Gone:
            raise NeverStarted from None

    def value_of(self, name: str) -> Any:
        """What the program's global `name` is now."""
        self._guarded.send(["do", "name", [name], {}])
        answer = self._answer("value")
        if not answer:
            raise NameError(f"name {name!r} is not defined")
        return self._decode(answer[1])

    def do(self, operation: str, arguments: tuple, named: dict[str, Any]) -> Any:
        """Carries out one operation inside; in-place changes come back into `arguments`."""
        sent = [codec.encode(x, self._opaque) for x in arguments]
        sent_named = {key: codec.encode(x, self._opaque) for key, x in named.items()}
        self._guarded.send(["do", operation, sent, sent_named])
        result = self._decode(self._answer("value", arguments, named))
        if operation == "call":
            self.last = Call(arguments[0]._name, sent[1:], sent_named, result)
        return result

    def _answer(
        self, expected: str, arguments: tuple = (), named: Any = types.MappingProxyType({})
    ):
        while True:
            message, size = self._guarded.receive()
            if size > _LIGHT_BYTES:
                self._before_heavy()
            match message:
                case ["raised", dict(description)]:
                    raise rebuilt(description)
                case ["callback", int(number), list(sent)] if expected == "value":
                    self._call_back(number, sent)
                case ["value", result, dict(changed)] if expected == "value":
                    self._take_back(changed, arguments, named)
                    return result
                case [str(kind)] if kind == expected and kind in ("ready", "ended"):
                    return None
                case ["loaded", values] if expected == "loaded":
                    return values
                case _:
                    raise codec.Malformed("an answer that was not asked for")

    def _call_back(self, number: int, sent: list) -> None:
        if not 0 <= number < len(self._functions):
            raise codec.Malformed("a callback that does not exist")
        self._before_heavy()  # the program chose the arguments
        try:
            result = self._functions[number](*(self._decode(x) for x in sent))
            reply = ["return", codec.encode(result, self._opaque)]
        except (channel.Gone, channel.Late, codec.Malformed, Unsendable):
            raise
        except Exception as error:
            reply = ["throw", f"{type(error).__name__}: {error}"]
        self._guarded.send(reply)

    def _take_back(self, changed: dict[str, Any], arguments: tuple, named: Any) -> None:
        for place, data in changed.items():
            after = self._decode(data)
            mine = named[place] if place in named else arguments[_index(place, len(arguments))]
            if isinstance(mine, (list, bytearray)) and isinstance(after, type(mine)):
                mine[:] = after
            elif isinstance(mine, (dict, set)) and isinstance(after, (dict, set)):
                mine.clear()
                mine.update(after)
            elif isinstance(mine, np.ndarray) and isinstance(after, np.ndarray):
                np.copyto(mine, after, casting="unsafe")

    def _decode(self, data: Any) -> Any:
        return codec.decode(data, self._refer)

    def _refer(self, data: list) -> Any:
        match data:
            case ["object", int(number), str(kind), str(name), bool(truth)]:
                return Remote(self, number, kind[:200], name[:200], truth)
            case ["range", list(parts)]:
                self._before_heavy()
                return range(*map(self._decode, parts))
        raise codec.Malformed(f"unknown tag {str(data[:1])[:50]}")

    def _opaque(self, value: Any) -> list:
        if type(value) is Remote:
            return ["ours", value._number]
        name = getattr(value, "__name__", None)
        if callable(value):
            if isinstance(name, str) and getattr(builtins, name, None) is value:
                return ["builtin", name]
            self._functions.append(value)
            return ["theirs", len(self._functions) - 1]
        if isinstance(value, Iterator):
            items = list(itertools.islice(value, _MAX_ITEMS + 1))
            if len(items) <= _MAX_ITEMS:
                return ["iterator", codec.encode(items, self._opaque)]
        raise Unsendable(
            f"a test passes a {type(value).__name__} to the program, which cannot leave the judge; "
            "build it in the test's setup, which runs with the program"
        )


def _index(place: str, count: int) -> int:
    if not (place.isascii() and place.isdigit() and len(place) < 9 and int(place) < count):
        raise codec.Malformed("a change to an argument that was not there")
    return int(place)


def rebuilt(description: dict[str, Any]) -> Exception:
    """The program's exception as one of the same built-in class; the texts are in `.remote`."""
    kind, bases = description.get("kind"), description.get("bases")
    if type(kind) is not str or type(bases) is not list:
        raise codec.Malformed("an exception without a kind")
    kind = _text(kind)[:200].replace("\0", "")
    texts = {key: _text(description.get(key)) for key in ("message", "text", "last")}
    base: type[Exception] = Exception
    for name in bases:
        found = getattr(builtins, name, None) if type(name) is str else None
        if isinstance(found, type) and issubclass(found, Exception):
            base = found
            break
    body = {
        "__init__": lambda self, *arguments: None,
        "__str__": lambda self: texts["message"],
        "__module__": "builtins",
    }
    if issubclass(base, BaseExceptionGroup):
        base = Exception
    error = type(kind, (base,), body)(texts["message"])
    error.remote = {"kind": kind, **texts}
    return error


def _text(value: object) -> str:
    """What the other side calls a text, bounded and in UTF-8."""
    if type(value) is not str:
        return ""
    return value[:_MAX_TEXT].encode("utf-8", "replace").decode()


class Remote:
    """Something that lives in the untrusted process; see the module's text."""

    __slots__ = ("_link", "_number", "_kind", "_name", "_truth")
    _link: Link
    _number: int
    _kind: str
    _name: str
    _truth: bool

    def __init__(self, link: Link, number: int, kind: str, name: str, truth: bool):
        for slot, value in zip(self.__slots__, (link, number, kind, name, truth), strict=True):
            object.__setattr__(self, slot, value)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._link.do("call", (self, *arguments), named)

    def __getattr__(self, name: str) -> Any:
        # Protocols such as __array__ are asked of everything by numpy and copy: they are not there.
        if name.startswith("__"):
            raise AttributeError(f"{self._kind!r} object has no attribute {name!r}")
        found = self._link.do("getattr", (self, name), {})
        if type(found) is Remote and self._kind != "type":
            object.__setattr__(found, "_name", found._name or name)
        return found

    @property
    def __name__(self) -> Any:
        return self._link.do("getattr", (self, "__name__"), {})

    @property
    def __doc__(self) -> Any:
        return self._link.do("getattr", (self, "__doc__"), {})

    def __setattr__(self, name: str, value: Any) -> None:
        self._link.do("setattr", (self, name, value), {})

    def __iter__(self) -> Any:
        iterator = self._link.do("iter", (self,), {})
        if type(iterator) is not Remote:
            yield from iterator
            return
        while True:
            try:
                yield iterator._link.do("next", (iterator,), {})
            except StopIteration:
                return

    def __next__(self) -> Any:
        return self._link.do("next", (self,), {})

    def __instancecheck__(self, value: Any) -> bool:
        return type(value) is Remote and self._link.do("isinstance", (value, self), {}) is True

    def __bool__(self) -> bool:
        return self._truth

    def __enter__(self) -> Any:
        return self._link.do("getattr", (self, "__enter__"), {})()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:  # an exception of the test's cannot go inside
            self._link.do("getattr", (self, "__exit__"), {})(None, None, None)

    def __hash__(self) -> int:
        return hash((Remote, self._number))

    def __str__(self) -> str:
        return _of_type(str, self._link.do("str", (self,), {}))

    def __repr__(self) -> str:
        return f"<{self._kind} {self._name}>" if self._name else f"<{self._kind} object>"

    def __len__(self) -> int:
        return _of_type(int, self._link.do("len", (self,), {}))

    def __int__(self) -> int:
        return _of_type(int, self._link.do("int", (self,), {}))

    def __float__(self) -> float:
        return _of_type(float, self._link.do("float", (self,), {}))

    def __getitem__(self, key: Any) -> Any:
        return self._link.do("getitem", (self, key), {})

    def __setitem__(self, key: Any, value: Any) -> None:
        self._link.do("setitem", (self, key, value), {})

    def __delitem__(self, key: Any) -> None:
        self._link.do("delitem", (self, key), {})

    def __eq__(self, other: object) -> Any:
        if type(other) is not Remote:
            # What derives from a plain type is compared as such, here.
            plain = self._link.do("plain", (self,), {})
            return type(plain) is not Remote and plain == other
        return self._number == other._number or self._link.do("eq", (self, other), {})

    def __ne__(self, other: object) -> Any:
        if type(other) is not Remote:
            return not self == other
        return self._number != other._number and self._link.do("ne", (self, other), {})


def _of_type(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"the program returned {type(value).__name__}, not {kind.__name__}")
    return value


def _between_two(name: str) -> Callable[[Remote, Any], Any]:
    def method(self: Remote, other: Any) -> Any:
        # A plain operand may be what the test expects, and must not go inside.
        if type(other) is not Remote:
            return NotImplemented
        return self._link.do(name, (self, other), {})

    return method


def _of_one(name: str) -> Callable[[Remote], Any]:
    return lambda self: self._link.do(name, (self,), {})


for _name in ("lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(Remote, f"__{_name}__", _between_two(_name))
for _name in ("matmul", "and_", "or_", "xor"):
    setattr(Remote, f"__{_name.strip('_')}__", _between_two(_name))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(Remote, f"__{_name}__", _of_one(_name))
