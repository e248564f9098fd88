"""The sandbox and plain Python give the same verdicts, but for what the README lists."""

from __future__ import annotations

import collections
import pathlib
import random
import re

import pytest

from mucode_jax import sandbox
from mucode_jax.core.records import Tests

from . import differential

PAIRS = 300
# By the number of the difference in the README: program, tests, plain Python's verdict, ours.
DIFFERENCES = {
    1: (
        "class N:\n    def __eq__(s, o): return True\n    __lt__ = __eq__\ndef f(): return N()\n",
        ("assert f() == 3",),
        ("pass", "fail"),
    ),
    2: (
        "class N:\n    def __sub__(s, o): return 0.0\ndef f(): return N()\n",
        ("assert f() - 3 == 0",),
        ("pass", "TypeError"),
    ),
    3: (
        "class N:\n    def __contains__(s, o): return True\n    def __iter__(s): return iter([1])\n"
        "def f(): return N()\n",
        ("assert 3 in f()",),
        ("pass", "fail"),
    ),
    4: (
        "def f(x): return x\n",
        ("class A: pass", "assert f(A()) is not None"),
        ("pass", "infra"),
    ),
    5: (
        "import re\ndef f(): return re.compile('a')\n",
        ("import re", "assert f() == re.compile('a')"),
        ("pass", "fail"),
    ),
    6: (
        "async def f(): return 1\n",
        ("import asyncio", "assert asyncio.run(f()) == 1"),
        ("pass", "StopIteration"),
    ),
    7: (
        "def f(path):\n    with open(path) as file: return file.read()\n",
        (
            "import os, tempfile",
            "with tempfile.TemporaryDirectory() as folder:\n"
            "    path = os.path.join(folder, 'x')\n"
            "    with open(path, 'w') as file: file.write('text')\n"
            "    assert f(path) == 'text'",
        ),
        ("pass", "FileNotFoundError"),
    ),
    8: (
        "def sorted(x): return [1]\ndef f(): return [2, 1]\n",
        ("assert sorted(f()) == [1]",),
        ("pass", "fail"),
    ),
    9: (
        "def f():\n    x = []\n    for _ in range(200): x = [x]\n    return x\n",
        ("x = f()", "while x: x = x[0]", "assert x == []"),
        ("pass", "ValueError"),
    ),
    10: (
        "class A:\n    pass\n",
        ("import pickle", "assert type(pickle.loads(pickle.dumps(A()))) is A"),
        ("pass", "PicklingError"),
    ),
}


@pytest.fixture(scope="module")
def pool():
    with sandbox.Pool(workers=2) as pool:
        yield pool


@pytest.mark.slow
def test_verdicts_are_those_of_plain_python(pool):
    chance = random.Random(1)
    pairs = differential.drawn([chance.getrandbits(48) for _ in range(PAIRS)])
    features = collections.Counter(x for pair in pairs for x in pair.features)
    passes = sum(pair.verdict == "pass" for pair in pairs)
    assert min(features.values()) >= 0.05 * PAIRS, features
    assert 0.3 * PAIRS <= passes <= 0.7 * PAIRS
    wrong = differential.compared(pool, pairs)
    assert not [x for x in wrong if not x.documented]
    assert len(wrong) <= 0.005 * PAIRS, [x.kind for x in wrong]


@pytest.mark.parametrize("number", DIFFERENCES)
def test_a_difference_that_the_readme_lists(pool, number):
    program, tests, verdicts = DIFFERENCES[number]
    pair = differential.Pair(0, program, tests, ())
    outcome = pool.submit(program, Tests(tests)).result()
    assert (differential.judged([pair])[0], differential.reason(outcome)) == verdicts, outcome


def test_the_readme_lists_these_differences_and_no_more():
    text = pathlib.Path(sandbox.__file__).with_name("README.md").read_text(encoding="utf-8")
    section = text.split("### Where it differs from one process\n")[1].split("\n#")[0]
    assert list(map(int, re.findall(r"^(\d+)\. ", section, re.M))) == list(DIFFERENCES)
