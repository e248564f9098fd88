"""Values on their way between the judge and a program, as JSON of plain types.

Scalars stand for themselves; everything else is `[tag, ...]`. A subclass is read by the methods of
its base type, so that it cannot lie about its contents, and arrives as the base type. Nothing is
ever unpickled. What has no plain form (an object, a function, an iterator) travels as a number that
the other side may refer to, see `remote`.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import sys
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 100
MAX_BYTES = 16 << 20
_MAX_ITEMS = 4_000_000
_SHORT = 1_000
_MAX_EXPONENT = 10_000
_BIG = 1 << 63
_KEEP = frozenset({str, float, bool, type(None)})
_ARRAY_KINDS = "biufcSU"
_DATES = {
    datetime.datetime: ("year", "month", "day", "hour", "minute", "second", "microsecond"),
    datetime.date: ("year", "month", "day"),
    datetime.time: ("hour", "minute", "second", "microsecond"),
    datetime.timedelta: ("days", "seconds", "microseconds"),
}
_DATE_NAMES = {kind.__name__: kind for kind in _DATES}

Opaque = Callable[[Any], list]


class Malformed(ValueError):
    """What arrived is not in the format, or beyond its bounds."""


def encode(value: Any, opaque: Opaque, depth: int = 0) -> Any:
    """`value` as JSON-ready data.

    Args:
      value: anything.
      opaque: gives the `[tag, ...]` of a value that has no plain form.
      depth: how deep `value` lies in the whole.

    Raises:
      ValueError: nested deeper than `MAX_DEPTH`, cyclic values among them.
    """
    kind = type(value)
    if kind in _KEEP:
        return value
    if depth > MAX_DEPTH:
        raise ValueError(f"a value is nested deeper than {MAX_DEPTH} levels")
    if issubclass(kind, int):
        value = int.__pos__(value)
        return value if -_BIG < value < _BIG else ["int", f"{value:x}"]
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, float):
        return float.__pos__(value)

    def items(iterable: Any) -> list:
        return [x if type(x) in _KEEP else encode(x, opaque, depth + 1) for x in iterable]

    if issubclass(kind, list):
        return ["list", items(list.__iter__(value))]
    if issubclass(kind, tuple):
        return ["tuple", items(tuple.__iter__(value))]
    if issubclass(kind, dict):
        tag = _dict_tag(kind)
        return [tag, items(dict.keys(value)), items(dict.values(value))]
    if issubclass(kind, (set, frozenset)):
        base = set if issubclass(kind, set) else frozenset
        return [base.__name__, items(base.__iter__(value))]
    if issubclass(kind, collections.deque):
        return ["deque", items(collections.deque.__iter__(value))]
    return _encode_rare(value, kind, items, opaque, depth)


def _dict_tag(kind: type) -> str:
    if issubclass(kind, collections.OrderedDict):
        return "OrderedDict"
    return "Counter" if issubclass(kind, collections.Counter) else "dict"


def _encode_rare(value: Any, kind: type, items: Any, opaque: Opaque, depth: int) -> Any:
    if issubclass(kind, complex):
        plain = complex.__pos__(value)
        return ["complex", plain.real, plain.imag]
    if issubclass(kind, (bytes, bytearray)):
        base = bytes if issubclass(kind, bytes) else bytearray
        return [base.__name__, base.hex(value)]
    if kind is range:
        return ["range", items((value.start, value.stop, value.step))]
    if kind is slice:
        return ["slice", items((value.start, value.stop, value.step))]
    if kind is type({}.keys()):
        return ["keys", items(value)]
    if kind is type({}.values()):
        return ["values", items(value)]
    if kind is type({}.items()):
        return ["items", items(value)]
    if kind is decimal.Decimal:
        return ["Decimal", str(value)]
    if kind is fractions.Fraction:
        return ["Fraction", *items((value.numerator, value.denominator))]
    if kind in _DATES and getattr(value, "tzinfo", None) is None:
        return [kind.__name__, [getattr(value, name) for name in _DATES[kind]]]
    np = sys.modules.get("numpy")
    if np is None:
        return opaque(value)
    if kind is np.ndarray and value.dtype.kind in _ARRAY_KINDS:
        return ["array", value.dtype.str, list(value.shape), value.tobytes().hex()]
    if issubclass(kind, np.generic) and value.dtype.kind in _ARRAY_KINDS:
        plain = value.item()
        return encode(float(value) if type(plain) is kind else plain, opaque, depth + 1)
    return opaque(value)


def check_bounds(data: bytes) -> None:
    """Refuses JSON text that would take too much memory to read; raises Malformed."""
    if len(data) > MAX_BYTES or data.count(b",") + data.count(b"[") > _MAX_ITEMS:
        raise Malformed("a value is too large to be carried out of the sandbox")


def decode(data: Any, refer: Callable[[list], Any]) -> Any:
    """The inverse of `encode`, for data that nobody vouches for.

    Args:
      data: what `json.loads` gave.
      refer: gives the stand-in for a `[tag, ...]` that is not of a plain type, and builds a range
        that is long to go through; raises Malformed for one that it does not know.

    Raises:
      Malformed: not in the format.
    """
    if type(data) is not list:
        if type(data) is dict:
            raise Malformed("a bare JSON object")
        return data
    try:
        return _decode(data, refer)
    except Malformed:
        raise
    except (TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
        raise Malformed(f"{type(error).__name__}: {error}") from None


def _decode(data: list, refer: Callable[[list], Any]) -> Any:
    tag, *rest = data

    def items(parts: list) -> list:
        if type(parts) is not list:
            raise Malformed("a list is missing")
        return [x if type(x) is not list else decode(x, refer) for x in parts]

    match tag:
        case "list":
            return items(rest[0])
        case "tuple" | "set" | "frozenset" | "deque":
            return _COLLECTIONS[tag](items(rest[0]))
        case "dict" | "OrderedDict" | "Counter":
            return _COLLECTIONS[tag](zip(items(rest[0]), items(rest[1]), strict=True))
        case "int":
            return int(rest[0], 16)
        case "complex":
            return complex(float(rest[0]), float(rest[1]))
        case "bytes" | "bytearray":
            return _COLLECTIONS[tag].fromhex(rest[0])
        case "range":
            made = range(*items(rest[0]))
            return made if len(made) <= _SHORT else refer(data)
        case "slice":
            return slice(*items(rest[0]))
        case "keys":
            return dict.fromkeys(items(rest[0])).keys()
        case "values":
            return dict(enumerate(items(rest[0]))).values()
        case "items":
            return dict(items(rest[0])).items()
        case "Decimal":
            return _decimal(rest[0])
        case "Fraction":
            return _fraction(*items(rest))
        case "array":
            return _array(*rest)
    if tag in _DATE_NAMES:
        return _DATE_NAMES[tag](*items(rest[0]))
    return refer(data)


def is_mutable(value: Any) -> bool:
    """Whether a call may have changed `value` in place, as far as that can be carried back."""
    if isinstance(value, (list, dict, set, bytearray)):
        return True
    np = sys.modules.get("numpy")
    return np is not None and isinstance(value, np.ndarray)


_COLLECTIONS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(tuple, set, frozenset, collections.deque, dict, collections.OrderedDict),
        *(collections.Counter, bytes, bytearray),
    )
}
# A Counter of pairs would count the pairs.
_COLLECTIONS["Counter"] = lambda pairs: collections.Counter(dict(pairs))


def _decimal(text: str) -> decimal.Decimal:
    value = decimal.Decimal(text)
    # int(Decimal("1e999999999")) would take for ever.
    if value.is_finite() and abs(value.adjusted()) > _MAX_EXPONENT:
        raise Malformed("a decimal with too large an exponent")
    return value


def _fraction(above: int, below: int) -> fractions.Fraction:
    # Fraction("1e9999999999") would take for ever.
    if not (isinstance(above, int) and isinstance(below, int)):
        raise Malformed("a fraction of what are no integers")
    return fractions.Fraction(above, below)


def _array(dtype: str, shape: list[int], data: str) -> Any:
    import numpy as np  # not above: where no program has an array it is never loaded

    kind = np.dtype(dtype)
    if kind.kind not in _ARRAY_KINDS:
        raise Malformed(f"an array of {dtype}")
    # One side of 0 lets the others be of any length, at no cost but to who goes through them.
    if any(side > max(_SHORT, len(data)) for side in shape):
        raise Malformed("an array of nothing, too long to go through")
    return np.frombuffer(bytes.fromhex(data), kind).reshape(shape).copy()
