"""Exceptions of Python's own classes, on their way between the judge and a program.

`["exception", number, class, args, names and values of its attributes, fields, cause, context,
whether that is suppressed]`: what arrives is an exception of the same class with the same
contents, and the same object when it comes back (see `mirror`). An exception of a class that the
program defines is an object of the program's, see `standins`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from .codec import Malformed

_MAX_CHAIN = 5
_MAX_TEXTS = 10
# By the exception's id: an exception of the program's, with the text that came with it.
_texts: dict[int, tuple[BaseException, dict[str, str]]] = {}
_LIBRARY = BaseException.__dict__
# What an exception keeps beside its args, by class.
_FIELDS: dict[type, tuple[str, ...]] = {
    OSError: ("filename", "filename2"),
    ImportError: ("name", "path"),
    NameError: ("name",),
    AttributeError: ("name",),
    SyntaxError: ("msg", "filename", "lineno", "offset", "text"),
}


def arguments(error: BaseException) -> tuple:
    """Its `args`, whatever its class makes of that name."""
    return _LIBRARY["args"].__get__(error)


def own_attributes(error: BaseException) -> dict[str, Any]:
    """Its `__dict__`, whatever its class makes of that name."""
    return _LIBRARY["__dict__"].__get__(error)


def keep_text(error: BaseException, text: dict[str, str]) -> None:
    """Keeps what the program's process says of an exception that it raised, of the last ones."""
    _texts.pop(id(error), None)
    _texts[id(error)] = error, text
    if len(_texts) > _MAX_TEXTS:
        del _texts[next(iter(_texts))]


def forget_texts() -> None:
    """Another program begins."""
    _texts.clear()


def text_of(error: BaseException) -> dict[str, str] | None:
    """What the program's process said of an exception that it raised; None of another one's."""
    known = _texts.get(id(error))
    return known[1] if known else None


def _fields(kind: type) -> Iterator[str]:
    for base, names in _FIELDS.items():
        if issubclass(kind, base):
            yield from names


def parts(error: BaseException, encode: Callable[[Any], Any], depth: int) -> list:
    """The contents of an exception as JSON, without its class.

    Args:
      error: of a class of the library.
      encode: of what is in it.
      depth: how deep it lies in the whole; of a long chain of causes the first are told.
    """
    own = own_attributes(error)
    chain = [error.__cause__, error.__context__] if depth < _MAX_CHAIN else [None, None]
    if chain[0] is chain[1]:
        chain[1] = None
    values = [getattr(error, name) for name in _fields(type(error))]
    members = (arguments(error), own, own.values(), values)
    suppressed = error.__suppress_context__ is True
    return [*([encode(x) for x in part] for part in members), *map(encode, chain), suppressed]


def made(kind: type, parts: list, decoded: Callable[[Any], list]) -> BaseException:
    """An exception with its arguments, still without the rest; raises what odd contents make raise.

    Args:
      kind: its class, of the library or of the test.
      parts: what `parts` gave.
      decoded: of a list of what is in it.
    """
    if not issubclass(kind, BaseException):
        raise Malformed("an exception that is none")
    error = kind.__new__(kind, *decoded(parts[0]))
    if kind.__module__ == "builtins":
        with contextlib.suppress(Exception):  # such arguments were put in later
            error.__init__(*error.args)  # type: ignore[misc]  # fills what C keeps of them
    return error


def complete(error: BaseException, parts: list, decoded: Callable[[Any], list]) -> None:
    """Puts the rest of its contents in."""
    _, names, values, fields, *chain, suppressed = parts
    own = dict(zip(map(str, names), decoded(values), strict=True))
    own_attributes(error).update(own)
    for name, value in zip(_fields(type(error)), decoded(fields), strict=True):
        setattr(error, name, value)
    cause, context = decoded(chain)
    if cause is not None:
        error.__cause__ = cause
    if context is not None:
        error.__context__ = context
    error.__suppress_context__ = suppressed is True
