"""Values that cannot change, on their way between the judge and a program, as JSON.

None, booleans, numbers, texts stand for themselves; every other value is `[tag, ...]`. What crosses
here is copied: tuples, bytes, ranges, dates, decimals, paths, numpy's scalars and their like, of
exactly these types. Whatever else a value is or has in it (a list, an object, a function) is left
to `other` and `refer`: see `mirror` and `standins`. Nothing is ever unpickled, and a value is read
by the methods of its own type, never by a program's.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

MAX_DEPTH = 100
MAX_BYTES = 16 << 20
_MAX_ITEMS = 4_000_000
_SHORT = 1_000
_MAX_EXPONENT = 10_000
_BIG = 1 << 63
_KEEP = frozenset({str, float, bool, type(None)})
ARRAY_KINDS = "biufcSUmM"
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")

Other = Callable[[Any, int], list]  # (a value, how deep it lies) -> what stands for it
Refer = Callable[[list], Any]


class Malformed(ValueError):
    """What arrived is not in the format, or beyond its bounds."""


def encode(value: Any, other: Other, depth: int = 0) -> Any:
    """`value` as JSON-ready data.

    Args:
      value: anything.
      other: gives the `[tag, ...]` of a value that is not dealt with here.
      depth: how deep `value` lies in the whole.

    Raises:
      ValueError: nested deeper than `MAX_DEPTH`.
    """
    kind = type(value)
    if kind in _KEEP:
        return value
    if kind is int:
        return value if -_BIG < value < _BIG else ["int", f"{value:x}"]
    if depth > MAX_DEPTH:
        raise ValueError(f"a value is nested deeper than {MAX_DEPTH} levels")
    if kind is tuple:
        return ["tuple", items(value, other, depth)]
    if kind in _ENCODERS:
        data = _ENCODERS[kind](value, other, depth)
    else:
        data = _encode_rare(value, kind)
    return data or other(value, depth)


def items(values: Iterable, other: Other, depth: int) -> list:
    """All of `values`, encoded, as parts of a value at `depth`."""
    return [x if type(x) in _KEEP else encode(x, other, depth + 1) for x in values]


def _encode_datetime(value: datetime.datetime, other: Other, depth: int) -> list | None:
    zone = encode(value.tzinfo, lambda x, _: [], depth)
    parts = value.timetuple()[:6]
    return None if zone == [] else ["datetime", [*parts, value.microsecond], zone, value.fold]


def _encode_time(value: datetime.time, other: Other, depth: int) -> list | None:
    zone = encode(value.tzinfo, lambda x, _: [], depth)
    parts = [value.hour, value.minute, value.second, value.microsecond]
    return None if zone == [] else ["time", parts, zone, value.fold]


def _interval(value: datetime.timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _encode_timezone(value: datetime.timezone, other: Other, depth: int) -> list:
    name = value.tzname(None)
    offset = value.utcoffset(None)
    own = name != datetime.timezone(offset).tzname(None)
    return ["timezone", _interval(offset), name if own else None]


def _of_three(tag: str) -> Callable:
    return lambda x, other, depth: [tag, items((x.start, x.stop, x.step), other, depth)]


def _of_all(tag: str) -> Callable:
    return lambda x, other, depth: [tag, items(x, other, depth)]


_ENCODERS: dict[type, Callable[[Any, Other, int], list | None]] = {
    frozenset: _of_all("frozenset"),
    complex: lambda x, other, depth: ["complex", x.real, x.imag],
    bytes: lambda x, other, depth: ["bytes", x.hex()],
    range: _of_three("range"),
    slice: _of_three("slice"),
    type({}.keys()): _of_all("keys"),
    type({}.values()): _of_all("values"),
    type({}.items()): _of_all("items"),
    types.MappingProxyType: lambda x, other, depth: [
        *("mappingproxy", items(x.keys(), other, depth), items(x.values(), other, depth))
    ],
    type(...): lambda x, other, depth: ["Ellipsis"],
    type(NotImplemented): lambda x, other, depth: ["NotImplemented"],
    decimal.Decimal: lambda x, other, depth: ["Decimal", str(x)],
    fractions.Fraction: lambda x, other, depth: [
        *("Fraction", encode(x.numerator, other), encode(x.denominator, other))
    ],
    datetime.datetime: _encode_datetime,
    datetime.date: lambda x, other, depth: ["date", [x.year, x.month, x.day]],
    datetime.time: _encode_time,
    datetime.timedelta: lambda x, other, depth: ["timedelta", _interval(x)],
    datetime.timezone: _encode_timezone,
}


def _encode_rare(value: Any, kind: type) -> list | None:
    """Of a type whose module is loaded only where a program or a test uses it."""
    np = sys.modules.get("numpy")
    if np is not None and issubclass(kind, np.generic):
        if value.dtype.kind not in ARRAY_KINDS or kind is not value.dtype.type:
            return None
        return ["scalar", value.dtype.str, value.tobytes().hex()]
    if kind.__name__ in _PATHS and kind is getattr(sys.modules["pathlib"], kind.__name__, None):
        return ["path", kind.__name__, str(value)]
    if kind is getattr(sys.modules.get("uuid"), "UUID", None):
        return ["UUID", f"{value.int:x}"]
    if kind is getattr(sys.modules.get("zoneinfo"), "ZoneInfo", None) and value.key:
        return ["ZoneInfo", value.key]
    return None


def check_bounds(data: bytes) -> None:
    """Refuses JSON text that would take too much memory to read; raises Malformed."""
    if len(data) > MAX_BYTES or data.count(b",") + data.count(b"[") > _MAX_ITEMS:
        raise Malformed("a value is too large to be carried out of the sandbox")


def decode(data: Any, refer: Refer) -> Any:
    """The inverse of `encode`, for data that nobody vouches for.

    Args:
      data: what `json.loads` gave.
      refer: gives what a `[tag, ...]` stands for that is not known here, and builds a range that
        is long to go through; raises Malformed for one that it does not know.

    Raises:
      Malformed: not in the format.
    """
    if type(data) is not list:
        if type(data) is dict:
            raise Malformed("a bare JSON object")
        return data
    try:
        decoder = _DECODERS.get(data[0])
        return refer(data) if decoder is None else decoder(refer, *data[1:])
    except Malformed:
        raise
    except (TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
        raise Malformed(f"{type(error).__name__}: {error}") from None


def decoded_items(parts: Any, refer: Refer) -> list:
    """The inverse of `items`."""
    if type(parts) is not list:
        raise Malformed("a list is missing")
    return [x if type(x) is not list else decode(x, refer) for x in parts]


def _decode_range(refer: Refer, parts: Any) -> Any:
    made = range(*decoded_items(parts, refer))
    return made if len(made) <= _SHORT else refer(["range", parts])


def _decode_datetime(kind: Any) -> Callable[..., Any]:
    def decoder(refer: Refer, parts: Any, zone: Any, fold: Any) -> Any:
        return kind(*decoded_items(parts, refer), tzinfo=decode(zone, refer), fold=fold)

    return decoder


def _decode_timezone(refer: Refer, offset: Any, name: Any) -> datetime.timezone:
    interval = datetime.timedelta(*decoded_items(offset, refer))
    return datetime.timezone(interval) if name is None else datetime.timezone(interval, name)


def _decode_mapping(refer: Refer, keys: Any, values: Any) -> types.MappingProxyType:
    pairs = zip(decoded_items(keys, refer), decoded_items(values, refer), strict=True)
    return types.MappingProxyType(dict(pairs))


def _made_of_all(make: Callable[[list], Any]) -> Callable[..., Any]:
    return lambda refer, parts: make(decoded_items(parts, refer))


def _made_of_each(make: Callable[..., Any]) -> Callable[..., Any]:
    return lambda refer, parts: make(*decoded_items(parts, refer))


def _made_of_words(make: Callable[..., Any]) -> Callable[..., Any]:
    return lambda refer, *words: make(*words)


def _decimal(text: str) -> decimal.Decimal:
    value = decimal.Decimal(text)
    # int(Decimal("1e999999999")) would take for ever.
    if value.is_finite() and abs(value.adjusted()) > _MAX_EXPONENT:
        raise Malformed("a decimal with too large an exponent")
    return value


def _fraction(refer: Refer, *parts: Any) -> fractions.Fraction:
    above, below = decoded_items(list(parts), refer)
    # Fraction("1e9999999999") would take for ever.
    if not (isinstance(above, int) and isinstance(below, int)):
        raise Malformed("a fraction of what are no integers")
    return fractions.Fraction(above, below)


def _scalar(dtype: str, data: str) -> Any:
    import numpy as np  # not above: where no program has one it is never loaded

    kind = np.dtype(dtype)
    if kind.kind not in ARRAY_KINDS:
        raise Malformed(f"a scalar of {dtype}")
    if not kind.itemsize:  # an empty text
        return kind.type()
    (value,) = np.frombuffer(bytes.fromhex(data), kind)
    return value


def _path(kind: str, text: str) -> Any:
    import pathlib

    if kind not in _PATHS or type(text) is not str:
        raise Malformed("a path of no kind")
    return getattr(pathlib, kind)(text)


def _uuid(digits: str) -> Any:
    import uuid

    return uuid.UUID(int=int(digits, 16))


def _zone(key: str) -> Any:
    import zoneinfo

    return zoneinfo.ZoneInfo(key)


_DECODERS: dict[str, Callable[..., Any]] = {
    "int": lambda refer, digits: int(digits, 16),
    "complex": lambda refer, real, imaginary: complex(float(real), float(imaginary)),
    "bytes": lambda refer, digits: bytes.fromhex(digits),
    "tuple": _made_of_all(tuple),
    "frozenset": _made_of_all(frozenset),
    "keys": _made_of_all(lambda keys: dict.fromkeys(keys).keys()),
    "values": _made_of_all(lambda values: dict(enumerate(values)).values()),
    "items": _made_of_all(lambda pairs: dict(pairs).items()),
    "range": _decode_range,
    "slice": _made_of_each(slice),
    "mappingproxy": _decode_mapping,
    "Ellipsis": lambda refer: ...,
    "NotImplemented": lambda refer: NotImplemented,
    "Decimal": _made_of_words(_decimal),
    "Fraction": _fraction,
    "date": _made_of_each(datetime.date),
    "timedelta": _made_of_each(datetime.timedelta),
    "datetime": _decode_datetime(datetime.datetime),
    "time": _decode_datetime(datetime.time),
    "timezone": _decode_timezone,
    "scalar": _made_of_words(_scalar),
    "path": _made_of_words(_path),
    "UUID": _made_of_words(_uuid),
    "ZoneInfo": _made_of_words(_zone),
}
