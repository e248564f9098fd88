"""Values cross the border unchanged; what is not in the format is refused."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import json
import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from mucode_jax.sandbox import codec, recording
from mucode_jax.sandbox.objects import Objects
from mucode_jax.sandbox.refusals import BrokenTest

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**4400, max_value=10**4500),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.complex_numbers(allow_nan=False),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.datetimes(),
    st.dates(),
    st.times(),
    st.timedeltas(),
)
hashable = st.one_of(scalars, st.tuples(scalars, scalars), st.frozensets(scalars, max_size=3))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(hashable, inner, max_size=4),
        st.sets(hashable, max_size=4),
        st.lists(inner, max_size=4).map(collections.deque),
    ),
    max_leaves=12,
)
DAY = datetime.date(2020, 1, 1)


def there_and_back(value):
    return recording.decode(json.loads(json.dumps(recording.encode(value))))


@hypothesis.given(values)
@hypothesis.settings(max_examples=100, deadline=None)
def test_a_value_comes_back_equal_and_of_the_same_type(value):
    back = there_and_back(value)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("value", [-0.0, math.inf, -math.inf])
def test_a_special_float_keeps_its_sign(value):
    assert math.copysign(1, there_and_back(value)) == math.copysign(1, value)


def test_nan_stays_nan():
    assert math.isnan(there_and_back(math.nan))


@pytest.mark.parametrize("dtype", ["int8", "uint64", "float32", "bool", "complex64", "<U3"])
def test_an_array_keeps_shape_and_type(dtype):
    array = np.ones((2, 0, 3)).astype(dtype) if dtype != "<U3" else np.array([["a", "bcd"]])
    back = there_and_back(array)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(back, array)


def test_numpy_scalars_keep_their_types():
    values = [np.int64(3), np.float32(0.5), np.bool_(True)]
    assert [(x, type(x)) for x in there_and_back(values)] == [(x, type(x)) for x in values]


class LyingList(list):
    def __iter__(self):
        return iter([1, 2, 3])

    def __len__(self):
        return 3


class LyingInt(int):
    def __index__(self):
        return 7

    def __repr__(self):
        return "7"

    __format__ = __pos__ = None


class LyingStr(str):
    def __str__(self):
        return "lie"

    def __eq__(self, other):
        return True

    __hash__ = str.__hash__


@pytest.mark.parametrize(
    ("liar", "truth"),
    [(LyingList([9]), [[9]]), (LyingInt(5), 5), (LyingStr("true"), "true")],
)
def test_a_subclass_cannot_lie_about_its_contents(liar, truth):
    tag, _, _, contents = Objects(lambda *_: None).encode(liar)
    assert (tag, type(contents), contents) == ("object", type(truth), truth)


@pytest.mark.parametrize(
    "value",
    [
        collections.Counter("aab"),
        collections.OrderedDict([("b", 1), ("a", 2)]),
        {}.keys(),
        {1: 2}.items(),
        range(2, 9, 3),
        decimal.Decimal("1.10"),
        fractions.Fraction(1, 3),
        DAY,
    ],
)
def test_common_library_types_arrive_as_themselves(value):
    assert there_and_back(value) == value
    assert type(there_and_back(value)) is type(value)


def test_what_stands_twice_is_one_and_a_deep_nest_is_refused():
    cycle = []
    cycle.append(cycle)
    back = there_and_back(cycle)
    assert back[0] is back
    for _ in range(200):
        cycle = [cycle]
    with pytest.raises(BrokenTest, match="nested deeper"):
        recording.encode(cycle)


def test_what_derives_from_a_plain_type_is_recorded_by_the_judge_alone():
    assert there_and_back(collections.defaultdict(list, {1: [2]})) == {1: [2]}
    with pytest.raises(BrokenTest, match="LyingInt cannot be recorded"):
        recording.encode(LyingInt(5))


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        [1],
        ["list"],
        ["list", 3],
        ["set", [["list", []]]],
        ["dict", [1], []],
        ["int", "zz"],
        ["int", 5],
        ["array", "O", [1], "00"],
        ["array", "i8", [2], "00"],
        ["range", [0, 1, 0]],
        ["Fraction", 1, 0],
        ["Fraction", "1e9999999999"],
        ["Fraction", "1", 2],
        ["array", "i8", [2**50, 0], ""],
        ["date", [2020, 13, 1]],
        ["Decimal", "x"],
        ["Decimal", "1e999999999"],
        ["bytes", "zz"],
        [["list", []]],
    ],
)
def test_what_is_not_in_the_format_is_malformed(data):
    with pytest.raises(codec.Malformed):
        codec.decode(data, lambda tag: (_ for _ in ()).throw(codec.Malformed(tag)))


def test_a_range_that_would_take_for_ever_is_not_built():
    with pytest.raises(codec.Malformed):
        codec.decode(["range", [0, 10**15, 1]], lambda tag: (_ for _ in ()).throw(codec.Malformed))


@hypothesis.given(st.recursive(scalars.filter(lambda x: isinstance(x, (int, str))), st.lists))
@hypothesis.settings(max_examples=100, deadline=None)
def test_arbitrary_json_is_decoded_or_malformed(data):
    def refuse(tag):
        raise codec.Malformed(tag)

    try:
        codec.decode(data, refuse)
    except codec.Malformed:
        return


@pytest.mark.parametrize("data", [b"x" * (codec.MAX_BYTES + 1), b"[" * 4_000_001])
def test_a_text_that_would_take_too_much_memory_is_refused_unread(data):
    with pytest.raises(codec.Malformed, match="too large"):
        codec.check_bounds(data)
