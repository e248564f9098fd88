"""Tests in classes and functions: run, each a test of its own, or refused with their line."""

from __future__ import annotations

import pytest

RIGHT = "def task_func(a): return sorted(a)\ndef f(x): return x + 1\n"
WRONG = "def task_func(a): return a\ndef f(x): return x\n"


SORTS = """\
import unittest
class T(unittest.TestCase):
    def test(self):
        self.assertEqual(task_func([3, 1]), [1, 3])
"""
FEATURES = """\
import unittest

LOG = []

class Base(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        LOG.append("class")

    @classmethod
    def tearDownClass(cls):
        LOG.append("end")

    def setUp(self):
        self.given = [2, 1]
        self.addCleanup(LOG.append, "cleanup")

    def tearDown(self):
        LOG.append("down")

class TestSort(Base):
    def test_a(self):
        self.assertEqual(task_func(self.given), [1, 2])

    def test_b(self):
        for given in ([], [1], [1, 2]):
            with self.subTest(given=given):
                self.assertCountEqual(task_func(given), given)

    @unittest.skip("not now")
    def test_c(self):
        self.fail()

    @unittest.expectedFailure
    def test_d(self):
        self.assertEqual(task_func([1]), [2])

    def test_e(self):
        with self.assertRaises(TypeError) as caught:
            task_func(3)
        self.assertIn("iterable", str(caught.exception))
        with self.assertRaisesRegex(TypeError, "iter"):
            task_func(3)

    def test_f(self):
        self.assertEqual(LOG.count("class"), 1)
        self.assertEqual((LOG.count("down"), LOG.count("cleanup")), (4, 4))
        self.assertAlmostEqual(f(0.1), 1.1)
        self.assertIsInstance(task_func([]), list)
"""
PYTEST = """\
import pytest
from pytest import approx

@pytest.fixture
def pair():
    yield [2, 1]

@pytest.fixture(scope="module")
def shared(pair):
    return pair

class TestSort:
    def setup_method(self):
        self.limit = 3

    def test_a(self, pair):
        assert task_func(pair) == [1, 2]

    @pytest.mark.parametrize("given, wanted", [([2, 1], [1, 2]), pytest.param([], [])])
    @pytest.mark.parametrize("times", [1, 2])
    def test_b(self, given, wanted, times):
        assert task_func(given * times) == sorted(wanted * times)

    @pytest.mark.skip(reason="not now")
    def test_c(self):
        assert False

    @staticmethod
    def test_static():
        assert f(1) == 2

def test_d(shared, capsys):
    print("seen")
    assert capsys.readouterr().out == "seen\\n"
    assert f(0.1) == approx(1.1) and f(0.1) != approx(1.2)
    assert [f(0.1)] == approx([1.1]) and {"a": f(0.1)} == approx({"a": 1.1}, rel=1e-3)
    with pytest.raises(TypeError, match="iter") as info:
        task_func(3)
    assert "int" in str(info.value) and info.type.__name__ == "TypeError"

@pytest.mark.xfail
def test_e():
    assert f(1) == 5

def test_f():
    if f(1) != 2:
        pytest.fail("no")
    pytest.skip("enough")
"""


@pytest.mark.parametrize(
    "test",
    [
        SORTS,
        SORTS + "unittest.main()\n",
        SORTS + "if __name__ == '__main__':\n    unittest.main(argv=[''], exit=False)\n",
        SORTS + "import sys\nr = unittest.TextTestRunner().run(unittest.defaultTestLoader"
        ".loadTestsFromTestCase(T))\nsys.exit(not r.wasSuccessful())\n",
        "from unittest import *\n" + SORTS.replace("unittest.TestCase", "TestCase"),
        FEATURES,
        PYTEST,
        "LIMIT = 1\ndef test():\n    assert task_func([LIMIT, 0]) == [0, LIMIT]\n",
        "def test_a():\n    assert task_func([1, 0]) == [0, 1]\n\ntest_a()\n",
        "class TestA:\n    def test_a(self):\n        assert task_func([2, 1]) == [1, 2]\n",
        "import pytest\ndef test_a():\n    assert task_func([2, 1]) == [1, 2]\npytest.main()\n",
        "import unittest\nclass T(unittest.TestCase):\n    def runs(self): pass\n"
        "assert task_func([2, 1]) == [1, 2]\n",
        "if f(1) != 2:\n    raise SystemExit(1)\nraise SystemExit(0)\n",
        "class TestA:\n    def test_a(self):\n        assert task_func([1]) == [1]\n"
        "    class TestB:\n        def test_b(self):\n            assert f(1) == 2\n",
        "import unittest\nclass T(unittest.TestCase):\n    def runTest(self):\n"
        "        self.assertEqual(f(1), 2)\n",
        "def made(i):\n    def test():\n        assert f(i) == i + 1\n    return test\n"
        "test_a = made(1)\nassert task_func([1]) == [1]\n",
        "import unittest\nassert task_func([1]) == [1]\nT = type('T', (unittest.TestCase,), "
        "{'test_a': lambda self: self.assertEqual(f(1), 2)})\n",
    ],
)
def test_tests_in_classes_and_functions_are_run(run, test):
    assert run(RIGHT, test).status == "pass"
    assert run(WRONG, test).status == "fail"


def test_each_statement_has_tests_of_its_own(run):
    tests = (SORTS, SORTS.replace("task_func([3, 1]), [1, 3]", "f(2), 3"))
    half = "def task_func(a): return sorted(a)\ndef f(x): return x\n"
    assert run(RIGHT, *tests).status == "pass"
    outcome = run(half, *tests)
    assert (outcome.status, outcome.summary) == ("fail", "f(2) returned 2, expected 3")


def test_the_feedback_names_the_test_and_the_values(run):
    outcome = run(WRONG, FEATURES)
    assert outcome.summary == "task_func([2, 1]) returned [2, 1], expected [1, 2]"
    assert 'File "tests.py", line 23, in test_a\n' in outcome.feedback
    assert "self.assertEqual(task_func(self.given), [1, 2])" in outcome.feedback
    outcome = run("def task_func(a): return 1 // 0", FEATURES)
    assert (outcome.status, outcome.in_tests) == ("error", False)
    assert "in test_a\n" in outcome.feedback and 'File "program.py", line 1' in outcome.feedback


def test_values_are_those_of_the_assertion_that_failed(run):
    test = (
        SORTS + "        self.assertEqual(f(1), 2)\n        with self.assertRaises(ValueError):\n"
    )
    outcome = run(RIGHT, test + "            f(1)\n")
    assert outcome.status == "fail"
    assert outcome.feedback.endswith("AssertionError: ValueError not raised\n")
    outcome = run(
        RIGHT, "import pytest\ndef test_a():\n    with pytest.raises(ValueError):\n        f(1)"
    )
    assert outcome.feedback.endswith("Failed: DID NOT RAISE ValueError\n")


def test_what_a_program_prints_arrives_where_a_test_redirects_it(run):
    code = "import sys\ndef f(x):\n    print('got', x)\n    print('no', file=sys.stderr)\n"
    redirected = (
        "import contextlib, io\nfrom unittest.mock import patch\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n    f(1)\n"
        "assert out.getvalue() == 'got 1\\n'\n"
        "with patch('sys.stdout', new_callable=io.StringIO) as out:\n    f(2)\n    f(3)\n"
        "assert out.getvalue() == 'got 2\\ngot 3\\n'\n"
    )
    captured = (
        "def test_a(capsys):\n    f(1)\n    out, err = capsys.readouterr()\n"
        "    assert (out, err) == ('got 1\\n', 'no\\n')\n"
        "    assert capsys.readouterr().out == ''\n"
    )
    for test in (redirected, captured):
        outcome = run(code, test)
        assert outcome.status == "pass", outcome
        assert run("def f(x): pass", test).status == "fail"


REFUSED = [
    ("import doctest\ndoctest.testmod()\n", "line 1: doctests are not run"),
    ("x = 1\ndef test_a(tmp_path):\n    assert f(1) == 2\n", "line 2: test_a asks for the fixture"),
    ("class TestA:\n    def test_a(self, x):\n        assert f(x)\n", "line 2: test_a asks for"),
    ("import pytest\npytest.warns(UserWarning)\n", "line 2: pytest.warns is not served"),
    ("from pytest import MonkeyPatch\n", "line 1: pytest.MonkeyPatch is not served"),
    ("async def test_a():\n    assert f(1) == 2\n", "line 1: a test cannot be a coroutine"),
    (
        "import asyncio\nasync def g():\n    assert await f(1) == 2\nasyncio.run(g())",
        "line 3: a te",
    ),
    (
        "from unittest.mock import patch\n@patch('builtins.input', return_value='1')\n"
        "def test_a(i):\n    assert f(1) == 2\n",
        "line 2: a test cannot replace the program's builtins.input",
    ),
    ("from unittest import mock\nmock.patch.object(os, 'getcwd')\nimport os\n", "line 2: a test"),
    ("import io, sys\nsys.stdin = io.StringIO('1')\nassert f(1) == 2\n", "line 2: a test cannot"),
    ("import builtins\nbuiltins.input = lambda: 1\nassert f(1) == 2\n", "line 2: a test cannot"),
    (
        "import unittest\nclass T(unittest.IsolatedAsyncioTestCase):\n"
        "    async def test_a(self): pass\n",
        "line 3: a test cannot be a coroutine",
    ),
    (
        "from unittest.mock import Mock\nm = Mock()\nf(m)\nm.update.assert_called_once()\n",
        "line 4: a program can call a Mock of the test's, but finds no attribute 'update'",
    ),
    (
        "import unittest\nfrom unittest import mock\nclass T(unittest.TestCase):\n"
        "    def setUp(self):\n        self.m = mock.MagicMock()\n        self.m.size = 3\n"
        "    def test_a(self):\n        self.assertEqual(f(self.m), 3)\n",
        "line 6: a program can call a Mock",
    ),
    (
        "class TestA:\n    def __init__(self): pass\n    def test_a(self): f(1)\n",
        "TestA has an __init",
    ),
]


@pytest.mark.parametrize(("test", "reason"), REFUSED)
def test_what_cannot_be_run_is_refused_with_its_line_before_anything_runs(run, test, reason):
    outcome = run("print('ran')\n" + RIGHT, "assert f(1) == 2", test)
    assert outcome.status == "infra" and outcome.in_tests
    assert reason in outcome.summary
    if "line" in reason:
        assert outcome.summary.startswith("test 2, ") and outcome.stdout == ""


@pytest.mark.parametrize(
    "test",
    [
        "import unittest\nclass T(unittest.TestCase):\n    def check(self): assert f(1) == 2\n",
        "import unittest\n@unittest.skip('')\nclass T(unittest.TestCase):\n    def test(self): 0\n",
        "def check(candidate):\n    assert candidate(1) == 2\n",
        "for x in []:\n    assert f(x) == 2\n",
        "import pytest\n@pytest.mark.parametrize('x', [])\ndef test_a(x):\n    assert f(x) == 2\n",
        "raise SystemExit(0)\nassert f(1) == 2\n",
        "",
        "'''\n>>> f(1)\n2\n'''\n",
    ],
)
def test_a_text_that_runs_nothing_never_passes(run, test):
    outcome = run(RIGHT, test)
    assert outcome.status == "infra" and "run nothing" in outcome.summary


@pytest.mark.parametrize(
    "code",
    [
        "import os\ndef task_func(a): os._exit(0)",
        "def task_func(a): raise SystemExit(0)",
        "def task_func(a): raise KeyboardInterrupt",
        "import unittest\ndef task_func(a): raise unittest.SkipTest('not today')",
        "class Skipped(BaseException): pass\ndef task_func(a): raise Skipped('no')",
        "class All(list):\n    def __eq__(s, o): return True\ndef task_func(a): return All([2])",
        "class All:\n    def __eq__(s, o): return True\n    __hash__ = None\n"
        "def task_func(a): return All()",
        "import os\ndef task_func(a):\n    os.close(3)\n    while True: pass",
        "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\n"
        "unittest.TestCase.run = lambda *a: None\ndef task_func(a): return a",
    ],
)
@pytest.mark.parametrize(
    "test",
    [
        SORTS,
        "import pytest\ndef test_a():\n    assert task_func([3, 1]) == [1, 3]\n",
        "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n"
        "        with self.assertRaises(LookupError):\n            task_func([3, 1])\n",
        "try:\n    task_func([3, 1])\nexcept LookupError:\n    pass\nelse:\n    assert False\n",
    ],
)
def test_no_program_forges_a_pass(run, code, test):
    assert run(code, test, timeout_s=2.0).status in ("fail", "error", "timeout")


@pytest.mark.parametrize(
    "test",
    [
        "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n"
        "        with self.assertRaises(Exception):\n            f(1)\n"
        "    @unittest.expectedFailure\n    def test_b(self): f(2)\n",
        "import pytest\ndef test_a():\n    with pytest.raises(BaseException):\n        f(1)\n",
        "try:\n    f(1)\nexcept Exception:\n    pass\n",
        "import contextlib\nwith contextlib.suppress(Exception):\n    f(1)\n",
    ],
)
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import os\ndef f(x): os._exit(0)", "error"),
        ("import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGSEGV)", "crash"),
        ("def f(x):\n    while True: pass", "timeout"),
    ],
)
def test_a_test_that_expects_any_exception_does_not_catch_the_programs_end(run, code, status, test):
    assert run(code, test, timeout_s=1.0).status == status


def test_a_difference_between_long_lists_is_no_timeout(run):
    test = SORTS.replace("[3, 1]), [1, 3]", "list(range(3000))), list(range(3000))[::-1]")
    assert run(RIGHT, test, timeout_s=5.0).status == "fail"


@pytest.mark.parametrize(
    ("test", "status"),
    [
        ("def test_f():\n    assert f(1) == 3\ntests = [test_f]\n", "fail"),
        ("def test_f():\n    assert f(1) == 2\nfor t in [test_f]:\n    t()\n", "pass"),
        ("def test(c):\n    assert c(1) == 2\ndef run(t, c):\n    t(c)\nrun(test, f)\n", "pass"),
        ("class B(A): pass\n", "infra"),
    ],
)
def test_what_is_named_and_not_called_is_run_and_no_class_is_derived(run, test, status):
    code = "class A: pass\ndef f(x): return x + 1\n"
    assert run(code, test).status == status
