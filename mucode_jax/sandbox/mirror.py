"""Containers that both sides hold: lists, dicts, sets, deques, byte arrays and arrays.

What can be changed in place is the same object to both sides, as it would be in one process. When
it first crosses it travels whole, `[tag, number, its contents]`, and each side keeps it under that
number; from then on it is `["at", number]`. Only one side runs at a time, so that it suffices if
whoever hands over says what it changed since: `changes`, which the other side `apply`s before it
goes on. A container that one side holds no more is forgotten by both.

The judge's numbers are odd and the program's are even. What derives from such a type (`class
Stack(list)`) is an object, see `standins`; its contents are kept alike in the same way (`follow`).
"""

from __future__ import annotations

import array
import collections
import dataclasses
import operator
import sys
from collections.abc import Callable, Iterable
from typing import Any

from .codec import ARRAY_KINDS, Malformed

Items = Callable[[Iterable], list]  # all of these, encoded
Decoded = Callable[[Any], list]  # the inverse
_SHORT = 1_000
_maxlen: Any = collections.deque.__dict__["maxlen"]  # of the type itself: a subclass may hide it
_factory: Any = collections.defaultdict.__dict__["default_factory"]


@dataclasses.dataclass(frozen=True)
class Kind:
    """How one type of container crosses.

    Attributes:
      base: the type.
      parts: (container, items) -> its contents as JSON.
      fill: (container, parts, decoded): makes them its contents.
      copy: its contents as they are now, to be compared with later.
      same: whether its contents are still what `copy` gave.
    """

    base: type
    parts: Callable[[Any, Items], list]
    fill: Callable[[Any, list, Decoded], None]
    copy: Callable[[Any], Any]
    same: Callable[[Any, Any], bool]

    def empty(self, parts: list, decoded: Decoded) -> Any:
        """A container of this kind for these contents, still without them."""
        if self.base is collections.deque:
            return collections.deque(maxlen=parts[1])
        if self.base is array.array:
            return array.array(parts[1])
        return self.base()


def _identical(ours: Iterable, before: Iterable) -> bool:
    return all(map(operator.is_, ours, before))


def _sequence(base: Any) -> Kind:
    def parts(value: Any, items: Items) -> list:
        limit = [_maxlen.__get__(value)] if base is collections.deque else []
        return [items(base.__iter__(value)), *limit]

    def fill(value: Any, parts: list, decoded: Decoded) -> None:
        members = decoded(parts[0])
        base.clear(value)
        base.extend(value, members)

    def same(value: Any, before: list) -> bool:
        return base.__len__(value) == len(before) and _identical(base.__iter__(value), before)

    return Kind(base, parts, fill, lambda value: list(base.__iter__(value)), same)


def _set() -> Kind:
    def fill(value: Any, parts: list, decoded: Decoded) -> None:
        members = decoded(parts[0])
        set.clear(value)
        set.update(value, members)

    def same(value: Any, before: list) -> bool:
        return set.__len__(value) == len(before) and {*map(id, before)} == {
            *map(id, set.__iter__(value))
        }

    return Kind(
        set,
        lambda value, items: [items(set.__iter__(value))],
        fill,
        lambda value: list(set.__iter__(value)),
        same,
    )


def _mapping(base: Any) -> Kind:
    with_factory = base is collections.defaultdict

    def parts(value: Any, items: Items) -> list:
        factory = items([_factory.__get__(value)]) if with_factory else []
        return [items(base.keys(value)), items(base.values(value)), *factory]

    def fill(value: Any, parts: list, decoded: Decoded) -> None:
        keys, values = decoded(parts[0]), decoded(parts[1])
        if with_factory:
            _factory.__set__(value, *decoded(parts[2:3]))
        base.clear(value)
        for key, member in zip(keys, values, strict=True):
            base.__setitem__(value, key, member)

    def copy(value: Any) -> tuple:
        return list(base.keys(value)), list(base.values(value))

    def same(value: Any, before: tuple) -> bool:
        keys, values = before
        return (
            base.__len__(value) == len(keys)
            and _identical(base.keys(value), keys)
            and _identical(base.values(value), values)
        )

    return Kind(base, parts, fill, copy, same)


def _bytearray() -> Kind:
    def fill(value: Any, parts: list, decoded: Decoded) -> None:
        bytearray.__setitem__(value, slice(None), bytes.fromhex(parts[0]))

    return Kind(
        bytearray,
        lambda value, items: [bytearray.hex(value)],
        fill,
        lambda value: bytearray.__getitem__(value, slice(None)),
        lambda value, before: bytearray.__eq__(value, before),
    )


def _array() -> Kind:
    def fill(value: Any, parts: list, decoded: Decoded) -> None:
        del value[:]
        value.frombytes(bytes.fromhex(parts[0]))

    return Kind(
        array.array,
        lambda value, items: [value.tobytes().hex(), value.typecode],
        fill,
        array.array.tobytes,
        lambda value, before: value.tobytes() == before,
    )


@dataclasses.dataclass(frozen=True)
class _Ndarray(Kind):
    """numpy's arrays, of numbers, texts, dates or objects."""

    def empty(self, parts: list, decoded: Decoded) -> Any:
        import numpy as np  # where no program has an array it is never loaded

        data, dtype, shape = parts
        kind = np.dtype(dtype)
        if kind.kind not in ARRAY_KINDS + "O":
            raise Malformed(f"an array of {dtype}")
        # One side of 0 lets the others be of any length, at no cost but to who goes through them.
        if any(side > max(_SHORT, len(data)) for side in shape):
            raise Malformed("an array of nothing, too long to go through")
        return np.empty(shape, kind)


def _ndarray() -> Kind:
    def parts(value: Any, items: Items) -> list:
        objects = value.dtype.kind == "O"
        data = items(value.flat) if objects else value.tobytes().hex()
        return [data, value.dtype.str, list(value.shape)]

    def fill(value: Any, parts: list, decoded: Decoded) -> None:
        import numpy as np

        data, dtype, shape = parts
        if value.dtype.str != dtype or list(value.shape) != shape:
            raise Malformed("an array that is another one")
        if value.dtype.kind == "O":
            for place, member in enumerate(decoded(data)):
                value.flat[place] = member
        elif value.size:
            value[...] = np.frombuffer(bytes.fromhex(data), value.dtype).reshape(shape)

    def copy(value: Any) -> Any:
        return list(value.flat) if value.dtype.kind == "O" else value.tobytes()

    def same(value: Any, before: Any) -> bool:
        if value.dtype.kind == "O":
            return _identical(value.flat, before)
        return value.tobytes() == before

    return _Ndarray(object, parts, fill, copy, same)


KINDS: dict[str, Kind] = {
    kind.base.__name__: kind
    for kind in (
        *(_sequence(list), _sequence(collections.deque), _set(), _bytearray(), _array()),
        *map(_mapping, (dict, collections.OrderedDict, collections.Counter)),
        _mapping(collections.defaultdict),
    )
}
_BY_TYPE = {kind.base: kind for kind in KINDS.values()}
KINDS["ndarray"] = _ndarray()
# An exception is changed by nobody, but it is the same object to both sides as well.
_FIXED = Kind(BaseException, lambda *_: [], lambda *_: None, lambda _: None, lambda *_: True)


def kind_of(value: Any) -> tuple[str, Kind] | None:
    """The kind of a container of exactly such a type, and its tag."""
    kind = _BY_TYPE.get(type(value))
    if kind is not None:
        return kind.base.__name__, kind
    np = sys.modules.get("numpy")
    if np is not None and type(value) is np.ndarray and value.dtype.kind in ARRAY_KINDS + "O":
        return "ndarray", KINDS["ndarray"]
    return None


def _holders(held: dict[int, Any], number: int) -> int:
    container = held[number]
    return sys.getrefcount(container)


_NOBODY_ELSE = _holders({0: []}, 0)


class Mirror:
    """The containers that one side shares with the other.

    Attributes:
      new: numbers that were given in the message that is being written.
    """

    def __init__(self, first: int):
        """Args: the first number that this side gives; the others follow in twos."""
        self._next = first
        self._held: dict[int, Any] = {}
        self._kinds: dict[int, Kind] = {}
        self._before: dict[int, Any] = {}  # contents as they were at the last exchange
        self._numbers: dict[int, int] = {}  # by the container's id
        self._kept: dict[int, bool] = {}  # the other side says when these are forgotten
        self.new: list[int] = []

    def number(self) -> int:
        """A number for something else that this side shares."""
        self._next += 2
        self.new.append(self._next - 2)
        return self._next - 2

    def is_theirs(self, number: Any) -> bool:
        """Whether the other side may give this number to something now."""
        return type(number) is int and number % 2 != self._next % 2 and number not in self._held

    def is_ours(self, value: Any) -> bool:
        """Whether `value` is shared, and by this side first."""
        number = self._numbers.get(id(value))
        return number is not None and number % 2 == self._next % 2

    def held(self, number: int) -> Any:
        """What is shared under that number; raises KeyError."""
        return self._held[number]

    def encode(self, value: Any, items: Items) -> list | None:
        """The JSON of a container; None where `value` is none."""
        number = self._numbers.get(id(value))
        if number is not None:
            return ["at", number]
        found = kind_of(value)
        if found is None:
            return None
        tag, kind = found
        number = self.add(value, kind)
        parts = kind.parts(value, items)
        self._before[number] = kind.copy(value)
        return [tag, number, *parts]

    def add(self, value: Any, kind: Kind = _FIXED) -> int:
        """Shares `value` under a number that is new, and given back."""
        number = self.number()
        self._hold(number, value, kind)
        return number

    def receive(self, number: Any, value: Any, kind: Kind = _FIXED) -> None:
        """Shares `value` under the number that the other side gave it; raises Malformed."""
        if not self.is_theirs(number):
            raise Malformed("a number that is taken")
        self._hold(number, value, kind)

    def follow(self, number: int, value: Any, kind: Kind, *, kept: bool) -> None:
        """Keeps the contents of object `number` alike; with `kept` until `forget` is called."""
        self._hold(number, value, kind)
        if kept:
            self._kept[number] = True

    def _hold(self, number: int, value: Any, kind: Kind) -> None:
        self._held[number] = value
        self._kinds[number] = kind
        self._before[number] = kind.copy(value)
        self._numbers[id(value)] = number

    def forget(self, number: int) -> None:
        """Shares it no more."""
        if number in self._held:
            self._numbers.pop(id(self._held.pop(number)), None)
            del self._kinds[number], self._before[number]
            self._kept.pop(number, None)

    def decode(self, data: list, decoded: Decoded) -> Any:
        """What such JSON stands for; raises Malformed, and what odd data makes Python raise."""
        tag, number, *parts = data
        kind = KINDS[tag]
        made = kind.empty(parts, decoded)
        self.receive(number, made, kind)
        kind.fill(made, parts, decoded)
        self._before[number] = kind.copy(made)
        return made

    def changes(self, items: Items) -> tuple[list, list[int]]:
        """([number, contents] of all that changed since the last exchange, numbers to forget)."""
        changed: list = []
        forgotten: list[int] = []
        for number in list(self._held):
            if number not in self._held:
                continue
            idle = number not in self._kept and _holders(self._held, number) <= _NOBODY_ELSE
            value, kind = self._held[number], self._kinds[number]
            if not kind.same(value, self._before[number]):
                changed.append([number, *kind.parts(value, items)])
                self._before[number] = kind.copy(value)
            del value  # it would hold what is in it
            if idle:
                forgotten.append(number)
                self.forget(number)
        return changed, forgotten

    def apply(self, changed: list, forgotten: Iterable[int], decoded: Decoded) -> None:
        """Makes the other side's changes here; raises as `decode`."""
        for number, *parts in changed:
            value, kind = self._held[number], self._kinds[number]
            kind.fill(value, parts, decoded)
            self._before[number] = kind.copy(value)
            del value
        for number in forgotten:
            self.forget(number)
