"""Values that a reference solution gave, as JSON that stands on its own.

Plain types alone: of an object that derives from one, its contents; of a `defaultdict`, a dict.
"""

from __future__ import annotations

import collections
from typing import Any

from . import codec, objects, standins
from .mirror import KINDS, Mirror
from .refusals import BrokenTest


def encode(value: Any) -> Any:
    """`value` as JSON; raises BrokenTest where it is no plain data."""
    mirror = Mirror(1)

    def other(value: Any, depth: int) -> Any:
        def items(values: Any) -> list:
            return codec.items(values, other, depth)

        if type(value) is collections.defaultdict:
            return codec.encode(dict(value), other, depth)
        if (shared := mirror.encode(value, items)) is not None:
            return shared
        plain = standins.class_handle(type(value)).plain if standins.is_object(value) else None
        if plain in objects.COPIES:
            return codec.encode(objects.COPIES[plain](value), other, depth)
        if plain is None:
            raise BrokenTest(f"a {type(value).__name__} cannot be recorded")
        if plain is collections.defaultdict:
            plain = dict
        return [plain.__name__, mirror.number(), *KINDS[plain.__name__].parts(value, items)]

    try:
        return codec.encode(value, other)
    except BrokenTest:
        raise
    except ValueError as error:
        raise BrokenTest(f"a value cannot be recorded: {error}") from None


def decode(data: Any) -> Any:
    """The inverse of `encode`; raises `codec.Malformed`."""
    mirror = Mirror(2)

    def refer(data: list) -> Any:
        match data:
            case ["range", parts]:
                return range(*decoded(parts))
            case ["at", number]:
                return mirror.held(number)
            case [str(tag), _, *_] if tag in KINDS:
                return mirror.decode(data, decoded)
        raise codec.Malformed(f"unknown tag {str(data[:1])[:50]}")

    def decoded(parts: Any) -> list:
        return codec.decoded_items(parts, refer)

    return decoded([data])[0]
