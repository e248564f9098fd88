"""Tests that fail by themselves are never a program's error, and no program makes them fail so."""

from __future__ import annotations

import pytest

from mucode_jax.core.records import ReferenceTests, Tests
from mucode_jax.sandbox import Pool

RIGHT = "def f(x): return x + 1\n"


@pytest.mark.parametrize(
    ("tests", "summary"),
    [
        (
            ("import nosuchpackage\nassert f(1) == 2",),
            "test 1, line 1 fails with any program: import nosuchpackage: ModuleNotFoundError: "
            "No module named 'nosuchpackage'",
        ),
        (("assert f(1) == 2", "x = 1\n1 / 0"), "test 2, line 2 fails with any program: 1 / 0: Z"),
        (("from collections import nosuch",), "test 1, line 1 fails with any program: from coll"),
        (("open('/nonexistent')",), "test 1, line 1 fails with any program: open('/nonexistent')"),
        (("assert f(1) == 1 / 0",), "ZeroDivisionError: division by zero"),
        (("assert f(x) == 2\nx = 1",), "NameError: name 'x' is not defined"),
        (("def g():\n    y = y + 1\ng()\nassert f(1) == 2",), "UnboundLocalError"),
        (("data = {'a': 1}\nassert f(data['b']) == 2",), "KeyError: 'b'"),
        (("import math\nassert f(math.nosuch) == 2",), "AttributeError: module 'math' has no attr"),
        (("assert f(int('one')) == 2",), "ValueError: invalid literal for int()"),
        (
            ("import unittest\nclass T(unittest.TestCase):\n    def setUp(self):\n"
             "        self.data = open('/nonexistent').read()\n"
             "    def test(self):\n        self.assertEqual(f(1), 2)\n",),
            "test 1, line 4 fails with any program: self.data = open('/nonexistent').read(): File",
        ),
        (("def test_a():\n    import nosuchpackage\n    assert f(1) == 2",), "line 2 fails with"),
        (("exec('1 / 0')\nassert f(1) == 2",), "ZeroDivisionError"),
    ],
)  # fmt: skip
def test_what_fails_outside_of_the_program_is_the_tests_fault(run, tests, summary):
    for code in (RIGHT, RIGHT + "def g(): pass\n"):
        outcome = run(code, *tests)
        assert (outcome.status, outcome.in_tests) == ("infra", True), outcome
        assert summary in outcome.summary


@pytest.mark.parametrize(
    ("code", "test"),
    [
        ("def f(x): return None", "assert f(1)[0] == 1"),
        ("def f(x): return None", "a, b = f(1)"),
        ("def f(x): return None", "for x in f(1):\n    assert x"),
        ("def f(x): return 0", "x = f(1)\nassert 10 / x == 5"),
        ("def f(x): return 'z'", "d = {'a': 1}\nassert d[f(1)] == 1"),
        ("def f(x): x.clear()", "d = {'a': 1}\nf(d)\nassert d['a'] == 1"),
        ("def f(x): return []", "def check(c):\n    assert c(1)[0] == 1\ncheck(f)"),
        ("def f(x): return None", "def last(x):\n    return x[-1]\nassert last(f(1)) == 1"),
        ("def f(x): return {}", "self_made = []\nself_made.append(f(1))\nassert self_made[0]['a']"),
        ("def f(x): return 1", "import json\nassert json.loads(f(1)) == 1"),
        ("def f(x): return 1", "assert sorted(f(1)) == [1]"),
        ("def g(x): return 1", "assert f(1) == 1"),
        ("def g(x): return 1", "from solution import f\nassert f(1) == 1"),
        ("def f(x): return None", "import numpy as np\nassert np.array(f(1)).shape[3] == 1"),
        ("def f(x): return 3", "import unittest\nclass T(unittest.TestCase):\n"
         "    def setUp(self):\n        self.x = f(1)\n"
         "    def test(self):\n        self.assertEqual(self.x[0], 1)\n"),
        ("def f(x): return 1", "if f(1) != 2:\n    raise ValueError('wrong')"),
        ("def f(x): raise ZeroDivisionError", "1 / f(1)"),
        ("import datetime\ndef f(x): return x", "assert f(1) == 1\ndatetime.now()"),
    ],
)  # fmt: skip
def test_what_may_come_of_the_programs_values_is_the_programs_error(run, code, test):
    outcome = run(code, test)
    assert outcome.status == "error", outcome


def test_a_test_that_fails_by_itself_is_not_tried_again(run, caplog):
    outcome = run(RIGHT, "1 / 0")
    assert outcome.status == "infra" and "attempt" not in caplog.text


@pytest.mark.parametrize(
    "test",
    [
        "from solution import f\nassert f(1) == 2",
        "from solution import f as g, BASE\nassert g(BASE) == 2",
        "import solution\nassert solution.f(solution.BASE) == 2",
        "import solution as s\ndef test_f():\n    assert s.f(1) == 2",
        "from solution import *\nassert f(1) == 2",
        "from __main__ import f\nassert f(1) == 2",
        "import unittest\nfrom solution import f\nclass T(unittest.TestCase):\n"
        "    def test(self):\n        self.assertEqual(f(1), 2)\n",
    ],
)
def test_a_test_may_import_the_program(run, test):
    right = "BASE = 1\n" + RIGHT
    assert run(right, test).status == "pass"
    assert run(right.replace("+ 1", "+ 2"), test).status == "fail"


def test_what_is_imported_of_the_program_is_its_own_and_nothing_else_is(run):
    shadow = "def sum(a, b): return a + b\ndef sorted(x): return [1, 2]\n"
    assert run(shadow, "from solution import sum\nassert sum(1, 2) == 3").status == "pass"
    test = "from solution import sum\nassert sorted([3, sum(1, 0)]) == [1, 2]"
    assert run(shadow, test).status == "fail"


REFERENCE = "def f(x): return [x, {x}, (1, x)]\n"
RECORD = "from solution import f\n_expected = [f(x) for x in range(3)]\n"
AGAINST = "from solution import f\nfor x in range(3):\n    assert f(x) == _expected[x]\n"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (REFERENCE, "pass"),
        ("_expected = [1, 2, 3]\ndef f(x): return _expected[x]", "fail"),
        ("def f(x): return 1 // 0", "error"),
    ],
)
def test_a_program_is_held_against_what_a_reference_returns(code, status):
    tests = ReferenceTests((AGAINST,), reference=REFERENCE, record=RECORD)
    with Pool(workers=1) as pool:
        for _ in range(2):
            assert pool.submit(code, tests).result(timeout=120).status == status


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("def f(x): return 1 // 0", "ZeroDivisionError"),
        ("def f(x):\n    while True: pass", "timed out after 2.5 s"),
        ("def f(x): return lambda: 1", "cannot be recorded"),
    ],
)
def test_a_reference_that_gives_nothing_is_the_tests_fault(reference, reason):
    tests = ReferenceTests((AGAINST,), reference=reference, record=RECORD, timeout_s=0.5)
    with Pool(workers=1) as pool:
        outcome = pool.submit(REFERENCE, tests).result(timeout=120)
    assert (outcome.status, outcome.in_tests) == ("infra", True)
    assert outcome.summary.startswith("the reference solution gives no expected values: ")
    assert reason in outcome.summary


def test_feedback_that_is_switched_off_does_not_hide_what_is_wrong_with_a_test():
    with Pool(workers=1, feedback="none") as pool:
        outcome = pool.submit(RIGHT, Tests(("1 / 0",))).result(timeout=120)
    assert outcome.status == "infra" and "1 / 0" in outcome.summary


def test_a_main_guard_is_not_run_where_functions_are_asked_for_and_is_for_standard_input(run):
    code = RIGHT + "if __name__ == '__main__':\n    print(f(int(input())))\nelse:\n    ELSE = 1\n"
    assert run(code, "assert f(1) == 2", "assert ELSE == 1").status == "pass"
    assert run(code.replace("__name__ == '__main__'", "'__main__' == __name__"), "f(1)").status == (
        "pass"
    )
    assert run(code, stdio=(("1", "2"),)).status == "pass"
    named = "class A: pass\ndef f(x): return repr(A), __name__"
    assert run(named, "assert f(1) == (\"<class '__main__.A'>\", '__main__')").status == "pass"


@pytest.mark.parametrize(
    ("code", "tests"),
    [
        ("class g:\n    __enter__ = lambda s: s\n    __exit__ = lambda *_: False\n",
         ("with g():\n    1 / 0",)),
        ("def g(f): return f()", ("assert g(lambda: 1 / 0) is None",)),
        ("def g(f): return f", ("@g\ndef h(): return 1 / 0\nassert h() is None",)),
        ("class g(Exception): pass", ("try:\n    1 / 0\nexcept g:\n    pass",)),
        ("def g(x): return x", ("k = g\nassert isinstance(3, k)",)),
    ],
)  # fmt: skip
def test_what_the_program_could_have_caught_is_not_the_tests_fault(run, code, tests):
    assert run(code, *tests).status == "error"


@pytest.mark.parametrize(
    ("code", "test", "status"),
    [
        ("def sum(x): return 3", "from solution import sum\nassert sum([1]) == 3", "pass"),
        ("def sum(x): return 3", "import solution\nassert solution.sum([1]) == 3", "pass"),
        ("def sum(x): return 3", "import solution\nassert sum([1]) == 3", "fail"),
        ("def sum(x): return 3", "from solution import g\nassert sum([1]) == 1", "error"),
        ("n = 0\ndef f():\n    global n\n    n += 1",
         "from solution import f, n\nf()\nassert n == 0\nimport solution\nassert solution.n == 1",
         "pass"),
        ("class P:\n    def __init__(s, x): s.x = x\n    def __add__(s, y): return s.x + y",
         "import solution as s\nq = s.P(1)\nassert q.x == 1\nassert q + 2 == 3", "pass"),
        ("class P:\n    def __init__(s, x): s.x = x\n    def __add__(s, y): return s.x + y",
         "from solution import P as Q\nq = Q(1)\nassert q.x == 1\nassert q + 2 == 3", "pass"),
    ],
)  # fmt: skip
def test_what_is_imported_is_the_programs(run, code, test, status):
    assert run(code, test).status == status
