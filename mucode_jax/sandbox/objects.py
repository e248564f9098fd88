"""The program's side of what crosses: its objects get numbers, the test's get stand-ins here.

Runs in the untrusted process. What is sent of an object is its number, its class, and where that
derives from a plain type its contents; of a class its name, its line of descent and which special
methods it has; everything else the judge asks for, see `standins`. A function of the test is a
function here that has the judge call it; an iterator of the test asks the judge for each item.
"""

from __future__ import annotations

import importlib
import re
import types
from collections.abc import Callable, Iterable
from typing import Any

from . import codec, errors, library
from .mirror import KINDS, Mirror

COPIES: dict[type, Callable[[Any], Any]] = {
    int: int.__pos__,
    float: float.__pos__,
    complex: complex.__pos__,
    str: str.__str__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    tuple: lambda value: tuple(tuple.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
}
_CONTAINERS = {kind.base: kind for name, kind in KINDS.items() if name not in ("ndarray", "array")}
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)
_of_type = type.__dict__
# Special attributes of classes that are no methods of what they make.
_NOT_ASKED = frozenset(
    (
        *("__module__", "__doc__", "__dict__", "__weakref__", "__init__", "__new__", "__slots__"),
        *("__qualname__", "__annotations__", "__init_subclass__", "__class_getitem__"),
    )
)


class _Iterator:
    """An iterator of the test."""

    def __init__(self, ask: Callable[..., Any]):
        self._ask = ask

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self._ask("next")


class _Generator(_Iterator):
    """A generator of the test."""

    def send(self, value: Any) -> Any:
        return self._ask("send", value)

    def throw(self, error: Any, *_: Any) -> Any:
        return self._ask("throw", error)

    def close(self) -> None:
        self._ask("close")


class Objects:
    """What crosses, on the program's side."""

    def __init__(self, call_back: Callable[[int, str, tuple, dict], Any]):
        """Args: has the judge do something with number .. of the test's."""
        self._call_back = call_back
        self._mirror = Mirror(2)
        self._objects: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}  # by the object's id
        self._test: dict[int, Any] = {}
        self._test_numbers: dict[int, int] = {}  # by the id of the stand-in

    # Out.

    def encode(self, value: Any, depth: int = 0) -> Any:
        """`value` as JSON; raises ValueError where it is nested too deep."""
        return codec.encode(value, self._other, depth)

    def encode_name(self, value: Any) -> list:
        """What a global name is bound to: a list of its JSON; of a container too deep a number."""
        name = library.name_of(value)
        if name is not None and (not isinstance(value, type) or library.is_plain(value)):
            return [name]
        try:
            return [self.encode(value)]
        except ValueError:
            self.unwritten()
            return [self._described(value, type(value), 0)]

    def _items(self, values: Iterable) -> list:
        return codec.items(values, self._other, 0)

    def _other(self, value: Any, depth: int) -> list:
        shared = self._mirror.encode(value, lambda x: codec.items(x, self._other, depth))
        if shared is not None:
            return shared
        kind = type(value)
        is_class = issubclass(kind, type)
        if is_class and (name := library.name_of(value)) is not None and library.is_plain(value):
            return name
        if id(value) in self._numbers:
            return ["class" if is_class else "object", self._numbers[id(value)]]
        if id(value) in self._test_numbers:
            return ["test", self._test_numbers[id(value)]]
        if is_class:
            return self._class(value)
        if kind in _FUNCTIONS:
            name = getattr(value, "__name__", "")
            number = self._register(value)
            return ["function", number, kind.__name__, name if type(name) is str else ""]
        if issubclass(kind, BaseException):
            if (name := self._library_class(kind)) is not None:
                return self._error(value, name, depth)
        elif (name := library.name_of(value)) is not None:
            return name
        return self._described(value, kind, depth)

    def _library_class(self, kind: type) -> list | None:
        """The JSON of an exception's class, where it is not the program's own."""
        if id(kind) in self._test_numbers:
            return ["test", self._test_numbers[id(kind)]]
        return library.name_of(kind)

    def _error(self, error: BaseException, name: list, depth: int) -> list:
        number = self._mirror.add(error)
        parts = errors.parts(error, lambda x: self.encode(x, depth + 1), depth)
        return ["exception", number, name, *parts]

    def _register(self, value: Any) -> int:
        number = self._mirror.number()
        self._objects[number] = value
        self._numbers[id(value)] = number
        return number

    def _described(self, value: Any, kind: type, depth: int) -> list:
        data = self._class(kind)
        number = self._register(value)
        contents = None
        base = _plain_base(kind)
        if base in COPIES:
            contents = self.encode(COPIES[base](value), depth + 1)
        elif base is not None and kind is not base:
            self._mirror.follow(number, value, _CONTAINERS[base], kept=True)
            contents = _CONTAINERS[base].parts(
                value, lambda x: codec.items(x, self._other, depth + 1)
            )
        elif issubclass(kind, BaseException):
            contents = self.encode(errors.arguments(value), depth + 1)
        return ["object", number, data, contents]

    def _class(self, kind: type) -> list:
        if id(kind) in self._numbers:
            return ["class", self._numbers[id(kind)]]
        line = _of_type["__mro__"].__get__(kind)
        ancestors = [library.name_of(x) or self._class(x) for x in line[1:-1]]
        base = _plain_base(kind)
        return [
            *("class", self._register(kind)),
            *(_of_type[f"__{x}__"].__get__(kind) for x in ("name", "qualname", "module")),
            *(ancestors, base.__name__ if base and base is not kind else None),
            *(_specials(line), _special_names(type(kind)), library.name_of(kind)),
        ]

    # What changed since the last message, here and there.

    def changes(self) -> tuple[list, list[int]]:
        """See `mirror.Mirror.changes`."""
        return self._mirror.changes(self._items)

    def written(self) -> None:
        """The message is on its way."""
        self._mirror.new.clear()

    def unwritten(self) -> None:
        """The message will not be sent: what was new in it has no number."""
        for number in self._mirror.new:
            self._forget(number)
        self._mirror.new.clear()

    def apply(self, changes: list) -> None:
        """Makes here what the judge says has changed there."""
        if changes:
            changed, forgotten = changes
            self._mirror.apply(changed, (), self.decoded)
            for number in forgotten:
                self._forget(number)

    def _forget(self, number: int) -> None:
        self._mirror.forget(number)
        if number in self._objects:
            del self._numbers[id(self._objects.pop(number))]

    # In.

    def decoded(self, data: list) -> list:
        """The values of a list of JSON."""
        return codec.decoded_items(data, self._refer)

    def _refer(self, data: list) -> Any:
        if data[0] == "object":
            return self._objects[data[1]]
        if data[0] in KINDS:
            return self._mirror.decode(data, self.decoded)
        match data:
            case ["at", number]:
                return self._mirror.held(number)
            case ["test", number]:
                return self._test[number]
            case ["test", number, *what]:
                return self._of_test(number, *what)
            case ["library", module, name]:
                return library.named(module, name)
            case ["import", module, name]:
                return _imported(module, name)
            case ["pattern", pattern, flags]:
                return re.compile(*self.decoded([pattern]), flags)
            case ["exception", number, kind, *parts]:
                error = errors.made(*self.decoded([kind]), parts, self.decoded)
                self._mirror.receive(number, error)
                errors.complete(error, parts, self.decoded)
                return error
            case ["range", parts]:
                return range(*self.decoded(parts))
        raise codec.Malformed(f"unknown tag {data[0]}")

    def _of_test(self, number: int, what: str, *details: Any) -> Any:
        def ask(action: str, *arguments: Any, **named: Any) -> Any:
            return self._call_back(number, action, arguments, named)

        made: Any
        match what:
            case "function":
                made = _function(ask, *details)
            case "iterator":
                made = _Iterator(ask)
            case "generator":
                made = _Generator(ask)
            case "sentinel":
                made = object()
            case "exception":
                name, base = details
                made = type(name, (*self.decoded([base]),), {"__module__": "__main__"})
        self._test[number] = made
        self._test_numbers[id(made)] = number
        return made


def _function(ask: Callable[..., Any], name: str) -> Callable[..., Any]:
    def function(*arguments: Any, **named: Any) -> Any:
        return ask("call", *arguments, **named)

    function.__name__ = function.__qualname__ = name
    function.__module__ = "__main__"
    return function


def _imported(module: str, name: str) -> Any:
    value: Any = importlib.import_module(module)
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _plain_base(kind: type) -> type | None:
    """The plain type that a class derives from."""
    for base in _of_type["__mro__"].__get__(kind):
        if base in COPIES or base in _CONTAINERS:
            return base
    return None


def _is_native(kind: type) -> bool:
    """Whether the judge's stand-in has this class's methods by itself."""
    if kind is object or kind in COPIES or kind in _CONTAINERS:
        return True
    return issubclass(kind, BaseException) and library.name_of(kind) is not None


def _specials(line: tuple[type, ...]) -> dict[str, Any]:
    """The special methods that a stand-in has to ask for, see `standins.make_class`."""
    first: dict[str, Any] = {}
    for kind in line:
        own = _of_type["__dict__"].__get__(kind)
        native = _is_native(kind) and kind is not line[0]
        origin = None if native else library.name_of(kind) or True
        for name in own:
            if name[:2] == "__" == name[-2:] and name not in _NOT_ASKED:
                first.setdefault(name, origin if native or own[name] is not None else False)
    return {name: origin for name, origin in first.items() if origin is not None}


def _special_names(meta: type) -> list[str]:
    """The special methods of a class's class that are not `type`'s."""
    names: dict[str, None] = {}
    for kind in _of_type["__mro__"].__get__(meta):
        if kind is type:
            break
        names |= {x: None for x in _of_type["__dict__"].__get__(kind) if x[:2] == "__" == x[-2:]}
    return list(names)
