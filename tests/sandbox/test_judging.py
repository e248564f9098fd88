"""Verdicts and the text that the model is shown."""

from __future__ import annotations

import os
import pathlib
import time

import pytest

from mucode_jax.core.records import Tests
from mucode_jax.sandbox import Pool, feedback


@pytest.fixture(scope="module")
def bare():
    with Pool(workers=1, feedback="traceback") as pool:
        yield lambda code, *tests: pool.submit(code, Tests(tests)).result(timeout=300)


@pytest.mark.parametrize(
    ("code", "test", "summary"),
    [
        ("def f(x): return 3", "assert f([1,2])==4", "f([1, 2]) returned 3, expected 4"),
        ("def f(x): return 'a'", "assert f('b') == 'c'", "f('b') returned 'a', expected 'c'"),
        ("def f(x): return [2]", "assert sorted(f(1)) == [1]", None),
        ("def f(x): return 3", "assert 4 == f(1)", "f(1) returned 3, expected 4"),
        ("def f(x): return 3", "assert f(1) is None", "f(1) returned 3, expected None"),
        ("def f(x): return 3", "assert f(1) > 5", "f(1) returned 3, expected > 5"),
        ("def f(x): return 0", "assert f(1)", "f(1) returned 0, expected a true value"),
        ("def f(x): return 1", "assert not f(2)", "f(2) returned 1, expected a false value"),
        ("def f(a, b=1): return 1", "x = [2]\nassert f(x, b=3) == 2", None),
        (
            "def f(x): return x",
            "for i in range(3):\n    assert f(i) == 0",
            "f(1) returned 1, expected 0",
        ),
        (
            "def f(x): x.append(1); return x",
            "def check(c):\n    assert c([]) == []\ncheck(f)",
            "f([]) returned [1], expected []",
        ),
        ("class A: pass\ndef f(): return A()", "assert f() == 1", None),
    ],
)
def test_a_failed_comparison_says_what_was_returned_and_what_expected(run, code, test, summary):
    expected = {
        "assert sorted(f(1)) == [1]": "sorted(f(1)) returned [2], expected [1]",
        "x = [2]\nassert f(x, b=3) == 2": "f([2], b=3) returned 1, expected 2",
        "assert f() == 1": "f() returned <__main__.A object at 0x...>, expected 1",
    }.get(test, summary)
    outcome = run(code, test)
    assert (outcome.status, outcome.summary) == ("fail", expected)
    assert outcome.feedback.endswith(f"AssertionError: {expected}\n")


def test_feedback_is_the_traceback_of_the_programs_own_frames_below_the_failing_test(run):
    outcome = run(
        "def g(x):\n    return 1 // x\n\ndef f(x):\n    return g(x)\n", "assert f(0) == 1"
    )
    lines = [x for x in outcome.feedback.splitlines() if "^" not in x and "~" not in x]
    assert outcome.status == "error"
    assert lines == [
        "Traceback (most recent call last):",
        '  File "tests.py", line 1, in <module>',
        "    assert f(0) == 1",
        '  File "program.py", line 5, in f',
        "    return g(x)",
        '  File "program.py", line 2, in g',
        "    return 1 // x",
        "ZeroDivisionError: integer division or modulo by zero",
    ]
    assert outcome.summary == "ZeroDivisionError: integer division or modulo by zero"


def test_frames_of_libraries_are_left_out(run):
    outcome = run("import json\njson.loads('{')")
    assert outcome.feedback.count("File ") == 1
    assert "JSONDecodeError" in outcome.summary


def test_a_syntax_error_is_shown_as_python_shows_it(run):
    outcome = run("def f(x)\n    return 1\n", "assert f(1) == 1")
    assert outcome.feedback.startswith('  File "program.py", line 1\n    def f(x)\n')
    assert outcome.summary == "SyntaxError: expected ':'"


def test_bare_feedback_tells_no_value(bare):
    outcome = bare("def f(x): return 77", "assert f(1) == 2")
    assert outcome.feedback.endswith("    assert f(1) == 2\nAssertionError\n")
    assert "77" not in outcome.feedback + outcome.summary


def test_without_feedback_nothing_is_told():
    with Pool(workers=1, feedback="none") as pool:
        outcome = pool.submit("1/0", Tests()).result(timeout=300)
    assert (outcome.status, outcome.feedback, outcome.summary) == ("error", "", "")


def test_a_timeout_names_the_limit(run):
    outcome = run("while True: pass", timeout_s=0.5)
    assert (outcome.status, outcome.summary) == ("timeout", "timed out after 0.5 s")


def test_feedback_is_the_same_in_every_run(run):
    code = (
        "import random, tempfile\nclass A: pass\n"
        "def f(x):\n    raise ValueError(A(), {'b', 'a', x}, random.random(), tempfile.mkdtemp())\n"
    )
    first, second = run(code, "assert f('c')"), run(code, "assert f('c')")
    assert first.feedback == second.feedback
    assert "0x..." in first.feedback and "/tmp/tmp'" in first.feedback


def test_temporary_names_are_the_same_wherever_the_interpreter_lies():
    for scratch in ("/tmp", "/scratch"):  # `isolation.view`
        assert feedback.stable(f"{scratch}/tmppvo9hn04/a") == "/tmp/tmp/a"


def test_long_feedback_is_cut_in_the_middle(run):
    outcome = run("raise ValueError('a' * 50_000 + 'end')")
    assert len(outcome.feedback) <= feedback.MAX_TEXT
    assert "characters left out" in outcome.feedback and outcome.feedback.endswith("end\n")


@pytest.mark.parametrize(
    ("code", "tests"),
    [
        ("class S:\n    def __init__(s): s.a = []\n    def push(s, x): s.a.append(x)",
         ("s = S()", "s.push(4)", "assert s.a == [4]", "s.a = [5]", "assert s.a[0] == 5")),
        ("def g(h, x): return h(x) + 1", ("assert g(lambda v: v * 2, 4) == 9",)),
        ("def g(h, x): return h(x)", ("assert g(max, [1, 3]) == 3",)),
        ("def f(x): raise ValueError('no')",
         ("try:\n    f(1)\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'no'",)),
        ("def f(n):\n    for i in range(n): yield i", ("assert list(f(3)) == [0, 1, 2]",)),
        ("import re\ndef f(x): return re.match('a', x)", ("assert f('a')", "assert not f('b')")),
        ("def f(k): return lambda x: x + k", ("assert f(2)(3) == 5",)),
        ("class P:\n    def __init__(s, a): s.a = a\n    def __eq__(s, o): return s.a == o.a",
         ("assert P(1) == P(1)", "assert P(1) != P(2)", "assert isinstance(P(1), P)")),
        ("class P:\n    def __str__(s): return 'p'\n    def __len__(s): return 2",
         ("assert str(P()) == 'p'", "assert len(P()) == 2")),
        ("count = 0\ndef f():\n    global count\n    count += 1",
         ("assert count == 0", "f()", "assert count == 1")),
        ("count = 0\ndef f():\n    global count\n    del count",
         ("assert count == 0", "f()", "try:\n    count\nexcept NameError:\n    pass\n"
          "else:\n    assert False")),
        ("def sum(a, b): return a + b", ("assert sum(1, 2) == 3",)),
        ("def check(x): return x", ("def check(c):\n    assert c(1) == 1", "check(lambda x: x)")),
        ("def f(d, s, b):\n    d['k'] = 1; s.add(2); b[0] = 9",
         ("d, s, b = {}, set(), bytearray(b'a')\nf(d, s, b)\n"
          "assert (d, s, b) == ({'k': 1}, {2}, bytearray([9]))",)),
        ("import numpy as np\ndef f(a):\n    a += 1\n    return a.sum()",
         ("x = np.zeros((2, 2))\nassert f(x) == 4\nassert np.allclose(x, np.ones((2, 2)))",)),
        ("def f(): return np.array([1.5, 2])", ("assert np.allclose(f(), [1.5, 2])",)),
        ("def f():\n    n = globals()['n' + 'p']\n    return n.arange(3).tolist()",
         ("assert f() == [0, 1, 2]",)),
        ("from decimal import Decimal as D\ndef f(): return D('1.10'), 1 + 2j, b'x', range(3)",
         ("assert f() == (Decimal('1.10'), 1 + 2j, b'x', range(3))",)),
        ("import datetime as dt\ndef f(): return dt.date(2020, 1, 2), dt.timedelta(3)",
         ("assert f() == (datetime.date(2020, 1, 2), datetime.timedelta(3))",)),
        ("def f(): return {1: {2: [(), None, True, 1.5, -0.0, 'x', frozenset([1])]}}",
         ("assert f() == {1: {2: [(), None, True, 1.5, -0.0, 'x', frozenset([1])]}}",)),
        ("import sys\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)", ("assert f(985) == 985",)),
        ("class S(list):\n    def push(s, x): s.append(x)",
         ("s = S()", "s.push(4)", "assert s == [4] and s != [5]", "assert s[:1] == [4]")),
        ("P = collections.namedtuple('P', 'x y')\ndef f(p): return P(p.y, p.x)",
         ("assert P(1, 2).x == 1", "assert f(P(1, 2)) == P(2, 1)", "assert P(2, 1) == (2, 1)")),
        ("import enum\nclass C(enum.IntEnum):\n    A = 1\n    B = 2\ndef f(c): return C(c + 1)",
         ("assert C.A.name == 'A'", "assert f(C.A) == C.B", "assert C['B'] == 2")),
        ("class L(int):\n    def __eq__(s, o): return True", ("assert not L(3) == 4",)),
        ("def f(g): return sum(g)",
         ("assert f(iter([1, 2])) == 3", "assert f(x for x in [1, 2]) == 3")),
        ("class T:\n    def __enter__(s): return 1\n    def __exit__(s, *a): s.left = a",
         ("t = T()\nwith t as x:\n    assert x == 1", "assert t.left == (None, None, None)")),
        ("import functools\ndef deco(g):\n    @functools.wraps(g)\n"
         "    def h(*a): return g(*a) * 2\n    return h",
         ("@deco\ndef g(x: int) -> str:\n    'doc'\n    return x\nassert g(2) == 4",
          "assert (g.__name__, g.__doc__) == ('g', 'doc')",
          "assert g.__annotations__ == {'x': int, 'return': str}")),
        ("import inspect\ndef f(g): return str(inspect.signature(g))",
         ("assert f(lambda a, *b, c, **d: 0) == '(a, *b, c, **d)'",
          "assert f(lambda x, want=73519: x == want) == '(x, want=Ellipsis)'")),
        ("def f(g): return g(1) + g(2, k=3)",
         ("from unittest.mock import Mock, call\nm = Mock(return_value=5)\nassert f(m) == 10",
          "m.assert_called_with(2, k=3)\nassert m.mock_calls == [call(1), call(2, k=3)]")),
        ("def f(): 'doc'", ("assert (f.__doc__, f.__name__) == ('doc', 'f')",)),
    ],
)  # fmt: skip
def test_tests_that_are_programs_are_judged_outside(run, code, tests):
    if "Decimal" in tests[0]:
        tests = ("from decimal import Decimal", *tests)
    outcome = run(code, *tests)
    assert outcome.status == "pass", outcome


OWN = """\
class Counter:
    def __init__(self): self.n = 0
    def inc(self): self.n += 1
    def __len__(self): return self.n
def sum(a, b): return a + b
def pow(a, b):
    if b < 0: raise ValueError("negative")
    return a * b
def other(x): return x
"""
CASE = "import unittest\nclass TestIt(unittest.TestCase):\n    def test_it(self):\n        "


@pytest.mark.parametrize(
    "tests",
    [
        ("assert other(1) == 1", "c = Counter()\nc.inc()\nassert c.n == 1"),
        ("c = Counter()", "c.inc()", "assert c.n == 1", "assert other(1) == 1"),
        ("for n in range(2):\n    c = Counter()\n    c.inc()\n    assert c.n == 1",),
        ("result = sum(10, 15)\nassert result == 25", "assert other(1) == 1"),
        ("want = 25", "got = sum(10, 15)", "assert got == want"),
        (CASE + "c = Counter()\n        c.inc()\n        self.assertEqual(c.n, 1)",),
        (CASE + "self.assertEqual(sum(10, 15), 25)",),
        ("import pytest\nwith pytest.raises(AttributeError):\n    Counter().gone",),
        ("c = Counter()\nc.inc()\nassert len(c) == 1\nc.inc()\nassert len(c) == 2",),
        ("try:\n    pow(2, -1)\nexcept ValueError as e:\n    assert str(e) == 'negative'",),
    ],
)
def test_a_name_that_is_built_in_or_of_the_prelude_is_the_programs_where_it_is_tested(run, tests):
    outcome = run(OWN, *tests)
    assert outcome.status == "pass", outcome


def test_setup_runs_with_the_program_and_after_it(run):
    code = "class Node:\n    def __init__(s, v): s.v, s.n = v, None\ndef f(r): return r.v + r.n.v\n"
    setup = "root = Node(1)\nroot.n = Node(2)\n"
    assert run(code, "assert f(root) == 3", setup=setup).status == "pass"
    assert run(code, "assert f(root) == 4", setup=setup).status == "fail"


def test_an_object_of_the_tests_own_class_is_the_tests_fault(run):
    outcome = run("def f(x): return x", "class A: pass", "assert f(A()) is None")
    assert outcome.status == "infra" and "setup" in outcome.summary


def test_an_iterator_without_end_is_asked_for_what_is_used(run):
    code = "def f(g): return next(g) + next(g)"
    assert (
        run(code, "c = itertools.count()\nassert f(c) == 1\nassert next(c) == 2").status == "pass"
    )
    assert run(code, "assert f(itertools.count()) == 0").status == "fail"


def test_a_program_without_tests_passes_by_loading(run):
    assert run("x = 1").status == "pass"
    assert run("import sys\nsys.exit(0)").status == "error"


def test_tests_of_half_a_megabyte_are_judged(run):
    inputs = ", ".join(f"[{i}]" for i in range(60_000))
    results = ", ".join(str(i + 1) for i in range(60_000))
    test = (
        f"inputs = [{inputs}]\nresults = [{results}]\n"
        "for i, e in zip(inputs[::600], results[::600]):\n    assert f(*i) == e\n"
    )
    assert len(test) > 500_000
    assert run("def f(x): return x + 1", test, timeout_s=60).status == "pass"
    wrong = run("def f(x): return x + (x < 9_000)", test, timeout_s=60)
    assert (wrong.status, wrong.summary) == ("fail", "f(9000) returned 9000, expected 9001")


def test_compiling_the_tests_is_not_at_the_programs_expense(run):
    test = f"x = {list(range(60_000))}\nassert f(1) == 2"
    assert run("def f(x): return 2", test, timeout_s=0.15).status == "pass"


def test_answers_that_are_always_ready_do_not_outrun_the_limit(run):
    code = """\
import json, os, struct, threading
def message(*m):
    b = json.dumps(m).encode()
    return struct.pack("!I", len(b)) + b
def read():
    while True: os.read(3, 65536)
def f(x):
    threading.Thread(target=read, daemon=True).start()
    specials = {"__iter__": True, "__next__": True}
    kind = ["class", 100, "G", "G", "__main__", [], None, specials, [], None]
    os.write(3, message("value", ["object", 102, kind, None], []))
    os.write(3, message("value", ["object", 102], []))
    while True: os.write(3, message("value", 0, []) * 2000)
"""
    assert run(code, "assert sum(f(1)) == 3", timeout_s=0.5).status == "timeout"


def test_a_large_value_passes(run):
    code = "def f(n): return list(range(n))"
    assert run(code, "assert f(200_000) == list(range(200_000))", timeout_s=60).status == "pass"


@pytest.mark.parametrize(
    ("code", "test", "status"),
    [
        ("def f(n): return list(range(n))", "assert len(f(20_000)) == 20_000", "pass"),
        ("def f(n): return list(range(n))", "assert f(20_000) == 1", "fail"),
        ("def f(n): return 'a' * n", "assert f(15 << 20).strip('a') == ''", "pass"),
        ("def f(n): return 'a' * n", "assert f(17 << 20) == ''", "error"),
        ("def f(n): return range(n)", "assert f(10**12) == range(10**12)", "pass"),
        ("def f(n): return range(n)", "assert sum(f(3000)) == 4498500", "pass"),
    ],
)
def test_a_large_value_may_meet_a_light_test(run, code, test, status):
    assert run(code, test).status == status


@pytest.mark.parametrize(
    ("code", "test"),
    [
        ("def f(x): return 'a' * 100_000", "assert f(1) == 'b'"),
        # numpy asks for the length, and clears whatever that raises
        (
            "class L:\n    def __len__(s): raise ValueError('\\0' * 20_000)\n"
            "    def __getitem__(s, i): raise IndexError\ndef f(x): return L()",
            "assert np.allclose(f(1), [1.0])",
        ),
    ],
)
def test_judging_apart_leaves_neither_descriptors_nor_processes(code, test):
    with Pool(workers=1) as pool:

        def state():
            assert pool.submit(code, Tests((test,))).result().status in ("fail", "error")
            (pid,) = [worker.process.pid for worker in pool._workers]
            children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
            return len(os.listdir(f"/proc/{pid}/fd")), children

        assert len({state() for _ in range(3)}) == 1


FORGED = """\
import json, os, struct, time
def send(*m):
    b = json.dumps(m).encode()
    os.write(3, struct.pack("!I", len(b)) + b)
    time.sleep(99)
"""


@pytest.mark.parametrize(
    ("code", "test", "status"),
    [
        (
            "send('loaded', [[], [], {'f': [['Fraction', '1e9999999999']]}])",
            "assert f == 2",
            "error",
        ),
        ("def f(x): return np.empty((2**50, 0))", "assert sum(f(1)) == 3", "error"),
        ("def f(g): return g(10**9)", "assert f(math.factorial) == 120", "timeout"),
        ("def f(x): return [range(10**6)] * 1500", "assert np.allclose(f(1), [1])", "timeout"),
        # Nobody has thought of this one: the alarm ends the judge, the next judges in a fork.
        ("def f(x): return -(10**10) if x else 7", "assert round(f(0), f(1)) == 3", "timeout"),
    ],
)
def test_no_value_hangs_the_judge(run, code, test, status):
    began = time.monotonic()
    assert run(FORGED + code, test, timeout_s=0.3).status == status
    assert time.monotonic() - began < 40


@pytest.mark.parametrize(
    ("code", "test", "status"),
    [
        ("def f(x): return 10**5000", "assert f(1) == 2, f(1)", "fail"),
        ("def f(x): return 10**5000", "assert {1: 2}[f(1)] == 2", "error"),
        ("class f:\n    def __init__(s, x): 0\n    __str__ = 0", "assert f(1) == 2, f(1)", "fail"),
    ],
)
def test_a_message_that_cannot_be_written_is_left_out(run, code, test, status):
    outcome = run(code, test)
    assert outcome.status == status
    assert outcome.feedback.startswith("Traceback (most recent call last):\n")


def test_half_of_a_surrogate_pair_does_not_reach_the_feedback(run):
    outcome = run("def f(x): raise ValueError('\\ud83d')", "assert f(1) == 2")
    assert outcome.summary == "ValueError: ?"
    assert outcome.feedback.endswith("\nValueError: ?\n") and outcome.stderr.isascii()


def test_an_exception_whose_class_has_no_proper_name_is_an_error(run):
    code = "class M(type):\n    __name__ = property(lambda c: '\\ud800')\n"
    code += "class E(Exception, metaclass=M): pass\nraise E\n"
    assert run(code).status == "error"
    assert run(code, stdio=(("1", "2"),)).status == "error"


def test_of_a_forged_exception_no_more_is_kept_than_of_a_real_one(run):
    forged = """
error = ["exception", 100, ["library", "builtins", "ValueError"], [], [], [], [], None, None, False]
send("raised", dict(text="x" * 15_000_000, last="y"), error, [])
"""
    outcome = run(FORGED.replace("time.sleep(99)", "os._exit(0)") + forged, "assert f(1) == 2")
    assert outcome.status == "error" and len(outcome.stderr) == 20_000


SUM = "print(sum(map(int, input().split())))"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("print(sum(map(int, input().split())))", "pass"),
        ("import sys\nprint(sum(map(int, sys.stdin.read().split())), '\\n\\n')", "pass"),
        ("a, b = map(int, open(0).read().split())\nprint(a + b)\nexit()", "pass"),
        ("import os\nos.write(1, b'3')\nos._exit(0)", "fail"),
        ("print(3 if input() == '1 2' else 9)\nraise SystemExit(1)", "error"),
        ("print(3)", "fail"),
        ("input()\nprint(input())", "error"),
        ("import threading\ndef g():\n    print(sum(map(int, input().split())))\n"
         "threading.Thread(target=g).start()", "pass"),
        ("import atexit, io\no = io.StringIO()\natexit.register(lambda: print(o.getvalue()))\n"
         "o.write(str(sum(map(int, input().split()))))", "pass"),
        ("while True: pass", "timeout"),
        (f"import io, sys\no = sys.stdout\nsys.stdout = io.StringIO()\n{SUM}\n"
         "o.write(sys.stdout.getvalue())", "pass"),
        ("w = open(1, 'w', closefd=False)\nw.write(str(sum(map(int, input().split()))))", "pass"),
        (f"n = 'later'\nclass A:\n    def __del__(s):\n        assert n\n        {SUM}\na = A()",
         "pass"),
    ],
)  # fmt: skip
def test_programs_on_standard_input_run_once_for_each_pair(run, code, status):
    pairs = (("1 2", "3"), ("4 5\n", "9 \n"))
    outcome = run(code, stdio=pairs, timeout_s=0.5 if status == "timeout" else 20.0)
    assert outcome.status == status, outcome


def test_a_wrong_output_shows_input_output_and_expectation(run):
    outcome = run("print(input())", stdio=(("a", "a"), ("b", "c")))
    assert outcome.summary == "for input 'b' it printed 'b', expected 'c'"
    assert "Input:\nb\n\nExpected output:\nc\n\nPrinted output:\nb\n" in outcome.feedback


@pytest.mark.parametrize(
    ("text", "limit", "length"), [("abc", 3, 3), ("a" * 1000, 100, 100), ("", 10, 0)]
)
def test_a_cut_text_has_the_length_asked_for(text, limit, length):
    assert len(feedback.middle_cut(text, limit)) == length
