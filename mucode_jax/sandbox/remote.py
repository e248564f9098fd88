"""The judge's side of the conversation with one program.

A test runs in the judge. Where it uses what lives in the program's process (`standins`), one
operation is carried out there and its result comes back. What crosses, and in which form:

- values that cannot change: copies (`codec`); containers: the same on both sides (`mirror`);
- objects, classes and functions of the program: stand-ins here, `["object", number, ..]` once and
  `["object", number]` from then on, likewise `class` and `function`;
- functions, iterators and exception classes of the test: stand-ins there, `["test", number, ..]`;
- classes and functions of Python's library: by name (`library`); exceptions: copies that are the
  same on both sides (`errors`).

Every message ends with what changed since the last one: `[]`, or `[contents of containers, numbers
that are forgotten]`; the program adds the global names that it has bound anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import re
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from . import channel, codec, errors, library, standins
from .mirror import KINDS, Mirror
from .standins import ClassHandle, Handle, Unsendable, class_handle, is_theirs

_LIGHT_BYTES = 64 << 10
_MAX_TEXT = 20_000  # characters of what an exception says
_MAX_NAME = 200
_NOTHING = object()
_PLAIN_TYPES = {
    kind.__name__: kind for kind in (int, float, complex, str, bytes, tuple, frozenset)
} | {name: kind.base for name, kind in KINDS.items() if name not in ("ndarray", "array")}
_ODD = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError)
_METHODS = (types.MethodType, types.BuiltinMethodType)


class NeverStarted(Exception):
    """The process ended before it read the program: nobody's fault."""


class StoppedElsewhere(Exception):
    """StopIteration that is none of an iterator's: it must not end a loop of the judge's."""


StoppedElsewhere.__name__ = StoppedElsewhere.__qualname__ = "StopIteration"


@dataclasses.dataclass(frozen=True)
class Call:
    """A call that was made: the function's name, its arguments as sent, and its result."""

    name: str
    arguments: list
    named: dict[str, Any]
    result: Any


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the tests want of the program.

    Attributes:
      names: those that may be its own.
      judges: of these, those that are the judge's own whatever the program makes of them, but for
        a class or function of the library of that very name.
      classes: of these, those that the tests use as classes.
      guarded: first and last lines of `with` blocks whose body asserts something.
      stops: the tests deal with StopIteration by name.
    """

    names: tuple[str, ...]
    judges: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    guarded: tuple[tuple[int, int], ...] = ()
    stops: bool = False


@dataclasses.dataclass
class _Object:
    """A stand-in that was handed out: it may be gone before the program knows."""

    standin: Callable[[], Any]
    kind: type
    name: str
    contents: Any


class Link:
    """The conversation with one program.

    Attributes:
      last: the most recent call that returned.
      fault: what ended the conversation, if it has ended: no verdict can be a pass then.
      given: the names that the program has bound, with what they are bound to now.
      fresh, gone: see `standins.Ask`.
    """

    def __init__(self, guarded: channel.Guarded, before_heavy: Callable[[], None]):
        """Args: the connection; what to do before a large value is looked at."""
        self.last: Call | None = None
        self.fault: BaseException | None = None
        self.given: dict[str, Any] = {}
        self.fresh: set[int] = set()
        self.gone: list[int] = []
        self._guarded = guarded
        self._before_heavy = before_heavy
        self._wanted = Wanted(())
        self._namespace: dict[str, Any] = {}
        self._bound: dict[str, Any] = {}
        self._mirror = Mirror(1)
        self._objects: dict[int, _Object] = {}
        self._classes: dict[int, type] = {}
        self._lent: dict[int, Any] = {}
        self._lent_numbers: dict[Any, int] = {}
        self._decoding = 0

    # The program's life.

    def load(self, program: str, setup: str, wanted: Wanted, namespace: dict[str, Any]) -> None:
        """Runs the program; `namespace` has its names from then on, as they are at any time.

        Raises:
          BaseException: what the program raised.
        """
        self._wanted, self._namespace = wanted, namespace
        self._bound = {name: namespace.get(name, _NOTHING) for name in wanted.names}
        self._start({"program": program, "setup": setup, "names": wanted.names})
        self._answer("loaded")
        for name in wanted.classes:
            self._show(name, namespace.get(name))

    def value_of(self, name: str) -> Any:
        """What the program's global `name` is now; raises its NameError."""
        value = self.do("global", (name,), {})
        self._show(name, value)
        return value

    def _show(self, name: str, value: Any) -> None:
        if name in self._wanted.classes and type(value) is standins.StandInType:
            class_handle(value).shown = True

    def run_whole(self, program: str, setup: str) -> None:
        """Runs the program to the end of its process; raises Gone then, or what it raised."""
        self._start({"program": program, "setup": setup, "names": []})
        self._answer("ended")

    def _start(self, job: dict[str, Any]) -> None:
        errors.forget_texts()
        with contextlib.suppress(channel.Gone):  # whether it began, the next line tells
            self._guarded.send(job)
        try:
            self._answer("ready")
        except channel.Gone:
            raise NeverStarted from None

    def protects(self, line: int) -> bool:
        """See `standins.Ask`."""
        return any(first <= line <= last for first, last in self._wanted.guarded)

    # One operation.

    def do(self, operation: str, arguments: tuple, named: dict[str, Any]) -> Any:
        """Carries out one operation inside; raises what it raised."""
        if self.fault is not None:
            raise self.fault
        try:
            sent = [_told(x) if is_theirs(x) else self._encode(x) for x in arguments]
            sent_named = {key: self._encode(x) for key, x in named.items()}
            self._send(["do", operation, sent, sent_named])
            result = self._answer("value")
        except (channel.Gone, channel.Late, codec.Malformed, Unsendable) as fault:
            self.fault = fault
            raise
        except (StopIteration, StopAsyncIteration) as error:
            if operation in ("__next__", "__anext__") or self._wanted.stops:
                raise
            raise _elsewhere(error) from None
        if operation == "__call__":
            self.last = Call(_name_of_called(arguments[0]), sent[1:], sent_named, result)
        return result

    def _send(self, message: list) -> None:
        self._guarded.send([*message, self._changes()])
        self._mirror.new.clear()

    def _changes(self) -> list:
        """What changed here since the last message."""
        if self._decoding:  # an object's hash is asked for amid an answer
            return []
        changed, forgotten = self._mirror.changes(self._items)
        for number in forgotten:
            self._objects.pop(number, None)
        while self.gone:
            number = self.gone.pop()
            if number in self._objects and self._objects[number].standin() is None:
                del self._objects[number]
                forgotten.append(number)
        return [changed, forgotten] if changed or forgotten else []

    def _answer(self, expected: str) -> Any:
        while True:
            message, size = self._guarded.receive()
            if size > _LIGHT_BYTES:
                self._before_heavy()
            self.fresh = set()
            match message:
                case [str(kind)] if kind == expected and kind in ("ready", "ended"):
                    return None
                case ["raised", dict(texts), error, changes]:
                    raise self._raised(texts, error, changes)
                case ["value", data, changes] if expected == "value":
                    (result,) = self._decode_all([data], changes)
                    return result
                case ["loaded", changes] if expected == "loaded":
                    self._decode_all([], changes)
                    return None
                case ["callback", number, str(action), list(sent), dict(named), changes]:
                    if expected == "value":
                        self._call_back(number, action, sent, named, changes)
                        continue
            raise codec.Malformed("an answer that was not asked for")

    def _raised(self, texts: dict[str, Any], data: Any, changes: Any) -> BaseException:
        """The program's exception, with the text that came with it."""
        (error,) = self._decode_all([data], changes)
        if not isinstance(error, BaseException):
            raise codec.Malformed("what was raised is no exception")
        if not self._mirror.is_ours(error):
            errors.keep_text(error, {key: _text(texts.get(key)) for key in ("text", "last")})
        return error

    def _call_back(
        self, number: Any, action: str, sent: list, named: dict[str, Any], changes: Any
    ) -> None:
        self._before_heavy()  # the program chose the arguments
        if number not in self._lent or action not in _ACTIONS:
            raise codec.Malformed("a callback that does not exist")
        arguments = self._decode_all([*sent, *named.values()], changes)
        positional, by_name = (
            arguments[: len(sent)],
            zip(named, arguments[len(sent) :], strict=True),
        )
        try:
            result = _ACTIONS[action](self._lent[number], *positional, **dict(by_name))
        except (channel.Gone, channel.Late, codec.Malformed, Unsendable):
            raise
        except (Exception, SystemExit, GeneratorExit) as error:
            reply = ["throw", self._encode(error)]
        else:
            reply = ["return", self._encode(result)]
        self._send(reply)

    # Values on their way in.

    def _encode(self, value: Any, depth: int = 0) -> Any:
        try:
            return codec.encode(value, self._other, depth)
        except ValueError as error:
            raise Unsendable(f"a test passes what cannot leave the judge: {error}") from None

    def _items(self, values: Any) -> list:
        return codec.items(values, self._other, 0)

    def _other(self, value: Any, depth: int) -> list:
        if is_theirs(value) and standins.number_of(value):
            return _told(value)
        shared = self._mirror.encode(value, lambda x: codec.items(x, self._other, depth))
        if shared is not None:
            return shared
        if (key := _identity(value)) in self._lent_numbers:
            return ["test", self._lent_numbers[key]]
        if (name := _importable(value)) is not None:
            return name
        if isinstance(value, BaseException):
            return self._encode_error(value, depth)
        if isinstance(value, re.Pattern):
            return ["pattern", self._encode(value.pattern), value.flags]
        return self._lend(key, value)

    def _encode_error(self, error: BaseException, depth: int) -> list:
        number = self._mirror.add(error)
        kind = self._encode(type(error), depth + 1)
        # What an assertion says is what the test expects.
        plain = AssertionError() if isinstance(error, AssertionError) else error
        parts = errors.parts(plain, lambda x: self._encode(x, depth + 1), sys.maxsize)
        return ["exception", number, kind, *parts]

    def _lend(self, key: Any, value: Any) -> list:
        if isinstance(value, type) and issubclass(value, BaseException):
            base = next(x for x in value.__mro__ if library.name_of(x))
            what = ["exception", value.__name__, library.name_of(base)]
        elif callable(value):
            what = ["function", str(getattr(value, "__name__", type(value).__name__))]
        elif isinstance(value, Iterator):
            what = ["generator" if isinstance(value, types.GeneratorType) else "iterator"]
        elif type(value) is object:
            what = ["sentinel"]
        else:
            raise Unsendable(
                f"a test passes a {type(value).__name__} to the program, which cannot leave the "
                "judge; build it in the test's setup, which runs with the program"
            )
        number = self._mirror.number()
        self._lent[number] = value
        self._lent_numbers[key] = number
        return ["test", number, *what]

    # Values on their way out: nobody vouches for them.

    def _decode_all(self, data: list, changes: Any) -> list:
        """All of `data`; then what changed is changed here. Raises Malformed."""
        self._decoding += 1
        try:
            values = codec.decoded_items(data, self._refer)
            match changes:
                case []:
                    pass
                case [list(changed), list(forgotten), dict(names)]:
                    self._mirror.apply(changed, forgotten, self._decoded)
                    for name, value in names.items():
                        self._bind(name, value)
                case _:
                    raise codec.Malformed("changes")
        except _ODD as error:
            if isinstance(error, codec.Malformed) or errors.text_of(error) is not None:
                raise
            raise codec.Malformed(f"{type(error).__name__}: {error}") from None
        finally:
            self._decoding -= 1
        return values

    def _decoded(self, data: Any) -> list:
        return codec.decoded_items(data, self._refer)

    def _bind(self, name: str, data: Any) -> None:
        """The program's global `name` is now this; nothing where `data` is no list of one."""
        if name not in self._bound:
            raise codec.Malformed("a name that was not asked for")
        value = self._decoded(data)[0] if data else _NOTHING
        if name in self._wanted.judges and not _is_library(data, name):
            return
        if self._namespace.get(name, _NOTHING) is not self._bound[name]:
            return  # a test has bound it to something of its own
        self._bound[name] = self.given[name] = value
        if value is _NOTHING:
            self._namespace.pop(name, None)
        else:
            self._namespace[name] = value

    def _refer(self, data: list) -> Any:
        match data:
            case [str(tag), _, *_] if tag in KINDS:
                return self._mirror.decode(data, self._decoded)
            case ["at", number]:
                value = self._mirror.held(number)
                return self._known_object(number) if is_theirs(value) else value
            case ["object", number]:
                return self._known_object(number)
            case ["object", number, kind, contents]:
                return self._object(number, self._class(kind), contents)
            case ["class", *_]:
                kind = self._class(data)
                class_handle(kind).shown = False
                return kind
            case ["function", number, str(kind), str(name)]:
                handle = Handle(self, number, _name(name))
                return self._new_object(number, standins.FUNCTIONS[kind], handle, None)
            case ["test", number]:
                return self._lent[number]
            case ["library", module, name]:
                value = library.named(module, name)
                if not isinstance(value, type) or library.is_plain(value):
                    return value
            case ["exception", number, kind, *parts]:
                return self._exception(number, self._decoded([kind])[0], parts)
            case ["range", list(parts)]:
                self._before_heavy()
                return range(*self._decoded(parts))
        raise codec.Malformed(f"unknown tag {str(data[:1])[:50]}")

    def _exception(self, number: Any, kind: Any, parts: list) -> BaseException:
        if not isinstance(kind, type) or is_theirs(kind):
            raise codec.Malformed("an exception of no class")
        error = errors.made(kind, parts, self._decoded)
        self._mirror.receive(number, error)
        errors.complete(error, parts, self._decoded)
        return error

    def _object(self, number: Any, kind: type, data: Any) -> Any:
        plain = class_handle(kind).plain
        mutable = KINDS.get(plain.__name__) if plain else None
        contents = None if mutable else self._decoded([data])[0]
        made = self._new_object(number, kind, Handle(self, number), contents)
        if mutable:
            self._mirror.receive(number, made, mutable)
            self._mirror.apply([[number, *data]], [], self._decoded)
        return made

    def _new_object(self, number: Any, kind: type, handle: Handle, contents: Any) -> Any:
        if not self._mirror.is_theirs(number) or number in self._objects:
            raise codec.Malformed("a number that is taken")
        made = standins.make_object(kind, handle, contents)
        self.fresh.add(number)
        try:
            standin: Callable[[], Any] = weakref.ref(made)
        except TypeError:  # of a type that has none: it lives until nobody else holds it
            self._mirror.receive(number, made)
            return made
        self._objects[number] = _Object(standin, kind, handle.name, contents)
        return made

    def _known_object(self, number: Any) -> Any:
        known = self._objects.get(number)
        if known is None:
            value = self._mirror.held(number)
        elif (value := known.standin()) is None:  # it has gone, and the program does not know yet
            value = standins.make_object(
                known.kind, Handle(self, number, known.name), known.contents
            )
            known.standin = weakref.ref(value)
        handle = standins.handle_of(value)
        if handle.standing is standins.MADE:
            handle.standing = standins.GIVEN
        return value

    def _class(self, data: Any) -> type:
        """The stand-in class that is meant, in whatever sense."""
        match data:
            case ["class", number]:
                return self._classes[number]
            case [
                "class",
                number,
                name,
                qualname,
                module,
                line,
                plain,
                specials,
                asks,
                library_name,
            ]:
                pass
            case _:
                raise codec.Malformed("a class is missing")
        if not self._mirror.is_theirs(number) or number in self._classes:
            raise codec.Malformed("a number that is taken")
        ancestors = [self._ancestor(x) for x in line]
        known = library_name and self._ancestor(library_name)
        base = _PLAIN_TYPES[plain] if plain else None
        handle = ClassHandle(self, number, known, base, frozenset(asks), self._wanted.stops)
        words = map(_name, (name, qualname, module))
        origins = {x: self._ancestor(y) if type(y) is list else y for x, y in specials.items()}
        made = standins.make_class(handle, *words, ancestors, origins)
        self._classes[number] = made
        return made

    def _ancestor(self, data: Any) -> type:
        match data:
            case ["library", module, name]:
                kind = library.named(module, name)
                if isinstance(kind, type):
                    return kind
        return self._class(data)


def was_called_back(error: BaseException) -> bool:
    """Whether `error` was raised by something of the test's that the program used."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is Link._call_back.__code__:
            return True
        trace = trace.tb_next
    return False


_ACTIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, *arguments, **named: function(*arguments, **named),
    "next": next,
    "send": lambda generator, value: generator.send(value),
    "throw": lambda generator, error: generator.throw(error),
    "close": lambda generator: generator.close(),
}


def _told(value: Any) -> list:
    """The JSON of what a stand-in stands for."""
    return ["object", standins.number_of(value)]


def _name_of_called(value: Any) -> str:
    if standins.is_object(value) and standins.handle_of(value).name:
        return standins.handle_of(value).name
    kind = type(value) if standins.is_object(value) else value
    return type.__getattribute__(kind, "__name__")


def _elsewhere(error: BaseException) -> Exception:
    substitute = StoppedElsewhere(*errors.arguments(error))
    errors.own_attributes(substitute).update(errors.own_attributes(error))
    if text := errors.text_of(error):
        errors.keep_text(substitute, text)
    return substitute


def _name(text: str) -> str:
    return _text(text)[:_MAX_NAME].replace("\0", "")


def _text(value: object) -> str:
    """What the other side calls a text, bounded and in UTF-8."""
    if type(value) is not str:
        return ""
    return value[:_MAX_TEXT].encode("utf-8", "replace").decode()


def _is_library(data: Any, name: str) -> bool:
    match data:
        case [["library", str(), str(own)]]:
            return own == name
    return False


def _identity(value: Any) -> Any:
    """What is the same for the same thing; a method is made anew whenever it is named."""
    if type(value) in _METHODS and value.__self__ is not None:
        return id(value.__self__), value.__name__
    return id(value)


def _importable(value: Any) -> list | None:
    """The JSON of a class or function of the library, which the program has as well."""
    if isinstance(value, type) and (name := library.name_of(value)):
        return name
    owner = getattr(value, "__objclass__", value)  # of a method such as `str.upper`
    module, name = getattr(owner, "__module__", None), getattr(value, "__qualname__", None)
    if type(module) is not str or type(name) is not str or not callable(value):
        return None
    if module.partition(".")[0] not in sys.stdlib_module_names | {"numpy"}:
        return None
    found: Any = sys.modules.get(module) or importlib.import_module("builtins")
    for part in name.split("."):
        found = getattr(found, part, None)
    return ["import", module, name] if found is value else None
