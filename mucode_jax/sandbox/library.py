"""What both sides have: classes and a few functions of Python's library travel as their names.

`["library", module, qualified name]`. Given as a value, a class is the receiver's own only where
making an instance of it does no more than that (`is_plain`); of the others an object of the
program's may be an instance, or its class derive from them.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

from .codec import Malformed

_PLAIN_MODULES = frozenset(
    (
        *("builtins", "collections", "collections.abc", "datetime", "decimal", "fractions", "abc"),
        *("array", "pathlib", "uuid", "zoneinfo", "numbers", "enum", "typing"),
    )
)
_OTHER_MODULES = frozenset(
    (
        *("types", "re", "json.decoder", "json.encoder", "queue", "_queue", "threading", "struct"),
        *("asyncio.exceptions", "random", "statistics", "zlib", "binascii", "csv", "_csv", "copy"),
        *("configparser", "contextlib", "dataclasses", "functools", "itertools", "io", "_io"),
        *("numpy", "numpy.linalg", "weakref", "concurrent.futures._base", "subprocess", "socket"),
        *("string", "graphlib", "inspect", "calendar", "ipaddress", "argparse", "zipfile"),
    )
)
_CLASS_MODULES = _PLAIN_MODULES | _OTHER_MODULES
# Functions that a program may have imported under a name that tests find without importing it.
_FUNCTION_MODULES = frozenset({"math", "copy"})
_MARKS = ("_FIELD", "_FIELD_CLASSVAR", "_FIELD_INITVAR", "MISSING")  # in the fields of data classes
_of_type = type.__dict__
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)
# Classes such as that of generators say that they are built in, and are found here alone.
_UNNAMED = {getattr(types, name): name for name in types.__all__ if name.endswith("Type")}


def module_of(kind: type) -> Any:
    """The name of a class's module, read by `type`'s own method."""
    return _of_type["__module__"].__get__(kind)


def _found(module: str, name: str) -> Any:
    value: Any = sys.modules.get(module)
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def name_of(value: Any) -> list | None:
    """The JSON of what is known by its name on both sides; None of anything else."""
    if isinstance(value, type) and value in _UNNAMED:
        module, name = "types", _UNNAMED[value]
    elif isinstance(value, type):
        module, name = module_of(value), _of_type["__qualname__"].__get__(value)
        if type(module) is not str or module not in _CLASS_MODULES:
            return None
    elif type(value) in _FUNCTIONS:
        module, name = value.__module__, value.__name__
        if module not in _FUNCTION_MODULES:
            return None
    else:
        return _mark_name(value)
    return ["library", module, name] if _found(module, name) is value else None


def _mark_name(value: Any) -> list | None:
    module = sys.modules.get("dataclasses")
    for name in _MARKS if module else ():
        if getattr(module, name) is value:
            return ["library", "dataclasses", name]
    return None


def named(module: Any, name: Any) -> Any:
    """What has that name here; raises Malformed for what `name_of` would not have named so."""
    if type(module) is not str or type(name) is not str:
        raise Malformed("a name that is no text")
    if module in _CLASS_MODULES | _FUNCTION_MODULES:
        importlib.import_module(module)
        value = _found(module, name)
        if name_of(value) == ["library", module, name]:
            return value
    raise Malformed("a name that the library has not")


def is_plain(kind: type) -> bool:
    """Whether calling this class of the library does no more than make an instance."""
    if module_of(kind) == "numpy":
        np = importlib.import_module("numpy")
        return issubclass(kind, (np.generic, np.ndarray))
    return module_of(kind) in _PLAIN_MODULES or issubclass(kind, BaseException)
