"""The judge's stand-ins for the objects and classes of the program.

A stand-in holds a number and asks the program's process when it is used: each special method that
the object's class has is a question (`Ask.do`), and so is every attribute. Its class stands for the
program's class, in the same line of descent, so that `isinstance`, `except` and `type(x) is C`
need no question. Where a class derives from a plain type (a named tuple, an `IntEnum`, a `class
Stack(list)`) the stand-in is itself of that type and has the same contents.

What is asked with a plain value of the test's beside it is decided here. A test that expects a
number writes `abs(f(3) - 10) < 1e-6`; an object that the program gives in its place must not learn
the 10, nor say what becomes of it. So:

- A comparison (`==`, `<` ...) of an object with anything that is not the program's is never asked.
  The object counts as what its class derives from, or as unequal.
- An arithmetic operator, and `in`, are asked of an object that the test itself `MADE`: by calling a
  class that its text uses as a class, or by operators on such objects alone that gave a new one of
  the same class. It is no longer that once the program has given it back.
- Any other object, `GIVEN` by the program, answers an arithmetic operator only with an object,
  which is `TOLD` then: that one is good for nothing but comparisons with the program's objects,
  attributes that no plain value has, and a text that names its class. `in` goes through its items
  here.
- What the test passes to a call, an index, or an assignment is an argument, and goes in.
"""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import fractions
import types
from collections.abc import Callable
from typing import Any, Protocol

GIVEN, MADE, TOLD = "given", "made", "told"
HANDLE = " handle"  # no attribute of a program's has such a name
_CLASS = " class"
_LINE = " line"
_OF_EXCEPTIONS = ("__traceback__", "__cause__", "__context__", "__suppress_context__")
# numpy asks everything for these: to compute in its place, or for an address in memory.
_PROTOCOLS = "__array"
_OF_CLASSES = ("__name__", "__qualname__", "__module__", "__flags__")
_PLAIN_WORDS = frozenset(dir(builtins)) | {
    "array",
    "deque",
    "Decimal",
    "Fraction",
    "datetime",
    "nan",
}
_PLAIN_TYPES: tuple[type, ...] = (
    *(int, float, complex, bool, str, bytes, bytearray, list, tuple, dict, set, frozenset, range),
    *(collections.deque, collections.OrderedDict, collections.Counter, collections.defaultdict),
    *(datetime.date, datetime.datetime, datetime.time, datetime.timedelta, types.GeneratorType),
    *(decimal.Decimal, fractions.Fraction, types.FunctionType, type(None)),
)


class Unsendable(TypeError):
    """A test wants of the program's process what cannot cross the border: the test's fault."""


class Ask(Protocol):
    """The conversation with the program, see `remote.Link`."""

    fresh: set[int]  # numbers of the objects that the last answer brought
    gone: list[int]  # numbers of stand-ins that are no more

    def do(self, operation: str, arguments: tuple, named: dict[str, Any]) -> Any:
        """Has the program's process carry out an operation."""

    def protects(self, line: int) -> bool:
        """Whether that line of the tests stands in a `with` whose body asserts something."""


class Handle:
    """What a stand-in knows: how to ask, its number, the name of a function, its standing."""

    __slots__ = ("link", "number", "name", "standing")

    def __init__(self, link: Ask, number: int, name: str = ""):
        self.link, self.number, self.name, self.standing = link, number, name, GIVEN


class ClassHandle:
    """What a stand-in class knows.

    Attributes:
      link: how to ask; None for the classes of functions, which are the same in every program.
      number: the class's own.
      library: the class of the library that it stands for, None for one of the program's.
      plain: the plain type that it derives from, if any.
      made_by: whose `__new__` makes a stand-in: the plain type, an exception class, or `object`.
      asks: the special methods of its metaclass.
      stops: an exception of it may end a loop of the judge's as StopIteration does.
      shown: the tests use it as a class, so that calling it makes an object (see above).
    """

    __slots__ = ("link", "number", "library", "plain", "made_by", "asks", "stops", "shown")

    def __init__(
        self,
        link: Ask | None,
        number: int,
        library: type | None,
        plain: type | None,
        asks: frozenset[str] = frozenset(),
        stops: bool = False,
    ):
        self.link, self.number, self.library, self.plain = link, number, library, plain
        self.made_by: type = plain or object
        self.asks, self.stops, self.shown = asks, stops, False


def handle_of(value: Any) -> Handle:
    """The handle of a stand-in for an object."""
    return object.__getattribute__(value, "__dict__")[HANDLE]


def class_handle(kind: type) -> ClassHandle:
    """The handle of a stand-in class."""
    return type.__getattribute__(kind, _CLASS)


def is_object(value: Any) -> bool:
    """Whether `value` is a stand-in for an object of the program's."""
    return type(type(value)) is StandInType


def is_theirs(value: Any) -> bool:
    """Whether `value` is a stand-in for anything of the program's."""
    return type(type(value)) is StandInType or type(value) is StandInType


def is_callable(value: Any) -> bool:
    """Whether `value` stands for a function or class: whoever calls it asks the program."""
    if type(value) is StandInType:
        return True
    return is_object(value) and type(value) in FUNCTIONS.values()


def number_of(value: Any) -> int:
    """The number under which the program knows what this stands for."""
    return handle_of(value).number if is_object(value) else class_handle(value).number


def _refusal(value: Any) -> TypeError:
    name = type.__getattribute__(type(value), "__name__")
    return TypeError(f"the program's {name!r} object is no plain value, which this wants")


def _ask(value: Any, operation: str, *arguments: Any) -> Any:
    """The answer to what has no operand of the test's in it, but for arguments."""
    handle = handle_of(value)
    if handle.standing is TOLD:
        raise _refusal(value)
    return handle.link.do(operation, (value, *arguments), {})


def _operator(value: Any, operation: str, *operands: Any) -> Any:
    """The answer to an arithmetic operator, by the rule above."""
    link = handle_of(value).link
    standings = {handle_of(x).standing for x in (value, *operands) if is_object(x)}
    result = link.do(operation, (value, *operands), {})
    if standings == {MADE}:
        if result is value or (
            type(result) is type(value) and handle_of(result).number in link.fresh
        ):
            handle_of(result).standing = MADE
    elif TOLD in standings or not all(map(is_theirs, operands)):
        if not is_object(result):
            raise _refusal(value)
        handle_of(result).standing = TOLD
    return result


def _comparison(operation: str, library: Any = None) -> Callable[[Any, Any], Any]:
    """Args: the method; the function of the library (`Mapping.__eq__`) that it is in the class."""

    def method(self: Any, other: Any) -> Any:
        if is_theirs(other):
            return handle_of(self).link.do(operation, (self, other), {})
        if library is not None:  # it reads both sides, and compares here
            return library(self, other)
        plain = class_handle(type(self)).plain
        return getattr(plain, operation)(self, other) if plain else NotImplemented

    return method


def _arithmetic(operation: str) -> Callable[..., Any]:
    return lambda self, *operands: _operator(self, operation, *operands)


def _text(operation: str) -> Callable[..., Any]:
    def method(self: Any, *form: Any) -> Any:
        handle = handle_of(self)
        text = handle.link.do(operation, (self, *form), {})
        name = type(self).__name__
        if handle.standing is TOLD and (name in _PLAIN_WORDS or name not in text):
            raise _refusal(self)
        return text

    return method


def _unary(operation: str) -> Callable[..., Any]:
    return lambda self, *arguments: _ask(self, operation, *arguments)


def _contains(self: Any, member: Any) -> bool:
    if is_theirs(member) or handle_of(self).standing is MADE:
        return _ask(self, "__contains__", member)
    return any(member is x or member == x for x in self)


def _exit(self: Any, kind: Any, error: Any, trace: Any) -> Any:
    """Leaves a `with`; the program cannot swallow a failed assertion, nor have one left out."""
    swallows = _ask(self, "__exit__", kind, error, None)
    if error is None:
        return swallows
    if isinstance(error, AssertionError) or not isinstance(error, Exception):
        return False
    return swallows and not handle_of(self).link.protects(trace.tb_lineno)


def _call(self: Any, *arguments: Any, **named: Any) -> Any:
    handle = handle_of(self)
    if handle.standing is TOLD:
        raise _refusal(self)
    return handle.link.do("__call__", (self, *arguments), named)


_BINARY = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "divmod"),
    *("lshift", "rshift", "and", "or", "xor"),
)
_UNARY = (
    *("bool", "len", "hash", "int", "float", "complex", "index", "bytes", "fspath"),
    *("length_hint", "iter", "next", "reversed", "trunc", "floor", "ceil"),
    *("getitem", "setitem", "delitem", "missing", "enter"),
)
_COMPARISONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
FORWARDED: dict[str, Callable] = {
    **{f"__{x}__": _unary(f"__{x}__") for x in _UNARY},
    **{f"__{x}__": _arithmetic(f"__{x}__") for x in ("neg", "pos", "abs", "invert", "round")},
    **{
        f"__{prefix}{x}__": _arithmetic(f"__{prefix}{x}__")
        for x in _BINARY
        for prefix in ("", "r", "i")
    },
    **{x: _comparison(x) for x in _COMPARISONS},
    **{f"__{x}__": _text(f"__{x}__") for x in ("str", "repr", "format")},
    **{"__contains__": _contains, "__exit__": _exit, "__call__": _call},
}


class StandIn:
    """An object of the program's."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return class_handle(type(self)).library or type(self)
        if name in ("__copy__", "__deepcopy__") or _forwards(type(self), name):
            return object.__getattribute__(self, name)
        if name in _OF_EXCEPTIONS and isinstance(self, BaseException):
            own = object.__getattribute__(self, name)
            if own or name == "__traceback__":  # it was raised here
                return own
        if name == "with_traceback" and isinstance(self, BaseException):
            return types.MethodType(BaseException.with_traceback, self)
        if name.startswith(_PROTOCOLS):
            raise AttributeError(name)
        handle = handle_of(self)
        if handle.standing is TOLD and any(hasattr(kind, name) for kind in _plain_types()):
            raise _refusal(self)
        return handle.link.do("getattr", (self, name), {})

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OF_EXCEPTIONS and isinstance(self, BaseException):
            object.__setattr__(self, name, value)
        else:
            handle_of(self).link.do("setattr", (self, name, value), {})

    def __delattr__(self, name: str) -> None:
        handle_of(self).link.do("delattr", (self, name), {})

    def __dir__(self) -> Any:
        return handle_of(self).link.do("dir", (self,), {})

    def __copy__(self) -> Any:
        return handle_of(self).link.do("copy", (self,), {})

    def __deepcopy__(self, memo: Any) -> Any:
        return handle_of(self).link.do("deepcopy", (self,), {})

    def __init_subclass__(cls) -> None:
        """Does nothing: what the library's classes would do here is done in the program."""

    def __del__(self) -> None:
        handle = handle_of(self)
        handle.link.gone.append(handle.number)


def _forwards(kind: type, name: str) -> bool:
    """Whether stand-ins of this class have that special method: then it is that one."""
    if name not in FORWARDED:
        return False
    line = type.__getattribute__(kind, "__mro__")
    return any(name in type.__dict__["__dict__"].__get__(x) for x in line[:-1])


def _plain_types() -> tuple[type, ...]:
    import numpy as np

    return (*_PLAIN_TYPES, np.ndarray, np.float64)


class StandInType(type):
    """A class of the program's; its own attributes are asked as well."""

    def __new__(cls, name: str, *_: Any, **__: Any) -> Any:
        raise Unsendable(
            f"a test derives the class {name} from one of the program's; "
            "define it in the test's setup, which runs with the program"
        )

    def mro(cls) -> list[type]:
        """The line of descent as in the program; `StandIn` comes after its own classes."""
        line = type.__dict__["__dict__"].__get__(cls).get(_LINE)
        return super().mro() if line is None else [cls, *line]

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        handle = class_handle(cls)
        link = _link(cls)
        result = link.do("__call__", (cls, *arguments), named)
        if handle.shown and type(result) is cls and handle_of(result).number in link.fresh:
            handle_of(result).standing = MADE
        return result

    def __getattribute__(cls, name: str) -> Any:
        if name == "__class__":
            return type
        if name in _OF_CLASSES or name == "__copy__" or class_handle(cls).link is None:
            return type.__getattribute__(cls, name)
        if _forwards(cls, name):
            return type.__getattribute__(cls, name)
        if name.startswith(_PROTOCOLS):
            raise AttributeError(name)
        return _link(cls).do("getattr", (cls, name), {})

    def __setattr__(cls, name: str, value: Any) -> None:
        _link(cls).do("setattr", (cls, name, value), {})

    def __delattr__(cls, name: str) -> None:
        _link(cls).do("delattr", (cls, name), {})

    def __instancecheck__(cls, value: Any) -> bool:
        if is_theirs(value) and "__instancecheck__" in class_handle(cls).asks:
            return _link(cls).do("isinstance", (value, cls), {}) is True
        known = class_handle(cls).library
        return type.__instancecheck__(cls, value) or (
            known is not None and isinstance(value, known)
        )

    def __subclasscheck__(cls, other: Any) -> bool:
        if type(other) is StandInType and "__subclasscheck__" in class_handle(cls).asks:
            return _link(cls).do("issubclass", (other, cls), {}) is True
        known = class_handle(cls).library
        return type.__subclasscheck__(cls, other) or (
            known is not None and issubclass(other, known)
        )

    def __bool__(cls) -> bool:
        if class_handle(cls).asks & {"__bool__", "__len__"}:
            return _link(cls).do("__bool__", (cls,), {})
        return True

    def __repr__(cls) -> str:
        if "__repr__" in class_handle(cls).asks:
            return _link(cls).do("__repr__", (cls,), {})
        return type.__repr__(cls)

    def __contains__(cls, member: Any) -> bool:
        if is_theirs(member):
            return _link(cls).do("__contains__", (cls, member), {})
        return any(member is x or member == x for x in cls)

    def __dir__(cls) -> Any:
        return _link(cls).do("dir", (cls,), {})


def _of_class(operation: str) -> Callable[..., Any]:
    return lambda cls, *arguments: _link(cls).do(operation, (cls, *arguments), {})


for _name in ("__iter__", "__len__", "__getitem__", "__reversed__"):
    setattr(StandInType, _name, _of_class(_name))


def _link(cls: type) -> Ask:
    link = class_handle(cls).link
    if link is None:
        raise TypeError(f"cannot create {cls.__name__!r} instances")
    return link


def make_class(
    handle: ClassHandle, name: str, qualname: str, module: str, line: list[type], specials: Any
) -> type:
    """A class that stands for one of the program's.

    Args:
      handle: what it knows.
      name, qualname, module: as the program's class has them.
      line: its line of descent without itself and `object`; of stand-in classes, and of classes of
        the library.
      specials: the special methods that it has and `object` and the plain type have not; name ->
        the class of the library that it is from, True for a class of the program's, False where
        the method is None.

    Raises:
      TypeError: there can be no such class.
    """
    ours = [kind for kind in line if type(kind) is StandInType]
    solid = handle.plain or next((x for x in line if _is_exception(x)), None)
    if solid in (StopIteration, StopAsyncIteration) and not handle.stops:
        solid, line = Exception, [x for x in line if x is not solid]
    handle.made_by = solid or object
    rest = [kind for kind in line if type(kind) is not StandInType]
    if solid is not None:
        rest += [kind for kind in solid.__mro__[:-1] if kind not in rest]
    namespace: dict[str, Any] = {
        **{"__module__": module, "__qualname__": qualname, _CLASS: handle},
        **{x: _special(x, of) for x, of in specials.items() if x in FORWARDED},
    }
    namespace.setdefault("__hash__", (solid or object).__hash__)
    bases = (StandIn,) if solid is None else (StandIn, solid)
    try:
        namespace[_LINE] = [*ours, StandIn, *rest, object]
        return type.__new__(StandInType, name, bases, namespace)
    except TypeError:  # one of the library's is made otherwise in memory: it is left out
        namespace[_LINE] = [*ours, StandIn, *(solid.__mro__[:-1] if solid else ()), object]
        return type.__new__(StandInType, name, bases, namespace)


def _special(name: str, origin: type | bool) -> Any:
    if origin is False:
        return None
    function = getattr(origin, name, None) if isinstance(origin, type) else None
    if name in _COMPARISONS and isinstance(function, types.FunctionType):
        return _comparison(name, function)
    return FORWARDED[name]


def _is_exception(kind: type) -> bool:
    return type(kind) is not StandInType and issubclass(kind, BaseException)


def _function_class(kind: type) -> type:
    handle = ClassHandle(None, 0, kind, None)
    specials = dict.fromkeys(("__call__", "__repr__"), True)
    if kind is not types.FunctionType:
        specials |= {"__eq__": True, "__hash__": True}
    return make_class(handle, kind.__name__, kind.__name__, "builtins", [], specials)


# Functions are the most frequent objects: nothing is said of their classes.
FUNCTIONS = {
    kind.__name__: _function_class(kind)
    for kind in (types.FunctionType, types.BuiltinFunctionType, types.MethodType)
}


def make_object(kind: type, handle: Handle, contents: Any) -> Any:
    """A stand-in of class `kind`.

    Args:
      kind: the stand-in class.
      handle: what it knows.
      contents: what makes it the same as a plain value: the value of an immutable type, the
        arguments of an exception; otherwise None.
    """
    base = class_handle(kind).made_by
    if contents is None:
        made = base.__new__(kind)
    elif issubclass(base, BaseException):
        made = base.__new__(kind, *contents)
    else:
        made = base.__new__(kind, contents)
    object.__getattribute__(made, "__dict__")[HANDLE] = handle
    return made
