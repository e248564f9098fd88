"""Hostile programs: a shared suite where it is present, and a dozen of our own always."""

from __future__ import annotations

import concurrent.futures
import os
import queue
import secrets

import pytest

from mucode_jax.sandbox import make_runner, probe, server

from . import attacks

RUNNERS = 6  # most cases only wait for their limit
# Cases that the level cannot promise, with the reason.
EXCEPTIONS: dict[str, dict[str, str]] = {"namespaces": {}, "landlock": {}}

CALLS_F = ["assert f(3) == 10", "assert f(0) == 1"]
IN_CLASS = """\
import unittest
class TestF(unittest.TestCase):
    def test_f(self):
        self.assertEqual(f(3), 10)
"""
RIGHT = "def f(x):\n    return 3 * x + 1\n"


def case(code, tests=CALLS_F, expect=("!pass",), timeout_s=3.0, **more):
    return {"code": code, "tests": list(tests), "expect": expect, "timeout_s": timeout_s, **more}


OWN = {
    "an_operand_is_not_sent_to_a_forged_number": case(
        "class N:\n    def __sub__(self, o): return 0.0\n    def __abs__(self): return 0.0\n"
        "    __rsub__ = __lt__ = __le__ = __sub__\ndef f(x): return N()\n",
        ["assert abs(f(3) - 10) < 1e-6"],
    ),
    "a_function_named_like_a_helper_of_the_test_is_not_called": case(
        "def abs(x): return 0\ndef sorted(x): return [1, 2, 3]\ndef g(n): return []\n",
        ["assert sorted(g(3)) == [1, 2, 3]", "assert abs(len(g(3)) - 3) < 1e-6"],
    ),
    "a_forged_reply_is_no_pass": case(
        "import os, json, struct\n"
        'loaded = ["loaded", [[], [], {"f": [["function", 100, "function", "f"]]}]]\n'
        'for m in (loaded, ["value", 10, []], ["ended"]):\n'
        "    b = json.dumps(m).encode()\n    os.write(3, struct.pack('!I', len(b)) + b)\n"
    ),
    "ending_itself_in_a_call_ends_no_text_of_tests": case("import sys\ndef f(x): sys.exit(0)\n"),
    "an_own_exit_ends_no_text_of_tests": case(
        "class Exit(SystemExit): code = 0\ndef f(x): raise Exit(0)\n"
    ),
    "an_own_skip_skips_nothing_in_a_class": case(
        "import unittest\ndef f(x): raise unittest.SkipTest\n", [IN_CLASS]
    ),
    "an_own_skip_skips_nothing_in_a_function": case(
        "import unittest\nclass Skipped(unittest.SkipTest): pass\ndef f(x): raise Skipped\n",
        ["def test_f():\n    assert f(3) == 10"],
    ),
    "a_helper_is_not_called_on_what_a_function_of_the_test_gives": case(
        "def abs(x): return 0\ndef f(x): return 99\n",
        ["def got(): return f(3)", "assert abs(got() - 10) < 1e-6"],
    ),
    "a_helper_is_not_called_on_what_a_fixture_gives": case(
        "def abs(x): return 0\ndef f(x): return 99\n",
        [
            "import pytest\n@pytest.fixture\ndef value(): return f(3)\n",
            "def test(value):\n    assert abs(value - 10) < 1e-6",
        ],
    ),
    "a_helper_is_not_called_on_a_parameter": case(
        "def abs(x): return 0\ndef f(x): return 99\n",
        [
            "import pytest\n@pytest.mark.parametrize('value', [f(3)])\n"
            "def test(value):\n    assert abs(value - 10) < 1e-6"
        ],
    ),
    "a_helper_is_not_called_in_a_method_of_the_test": case(
        "def abs(x): return 0\ndef f(x): return 99\n",
        [
            "class Near:\n    def near(self, a, b): return abs(a - b) < 1e-6\n",
            "assert Near().near(f(3), 10)",
        ],
    ),
    "a_helper_is_not_called_in_a_test_case": case(
        "def abs(x): return 0\ndef f(x): return 99\n",
        [
            "import unittest\nclass TestF(unittest.TestCase):\n"
            "    def check(self, got, wanted): self.assertTrue(abs(got - wanted) < 1e-6)\n"
            "    def test_f(self): self.check(f(3), 10)\n"
        ],
    ),
    "a_helper_is_not_called_on_what_a_branch_has_set": case(
        "def all(x): return True\ndef f(x): return 99\n",
        ["right = False\nif f(3) == 10:\n    right = True", "assert all([right])"],
    ),
    "a_helper_is_not_called_on_a_long_list": case(
        "def sorted(x): return [10] * 150\ndef f(x): return 99\n",
        [f"got = [{', '.join(['f(3)'] * 150)}]", "assert sorted(got) == [10] * 150"],
    ),
    "a_number_that_is_nearly_right_does_not_learn_which": case(
        "told = []\nclass N:\n    def __rsub__(self, o):\n        told.append(o)\n"
        "        return self\n    __abs__ = lambda s: s\n    __le__ = lambda s, o: True\n"
        "class M(float):\n    __rsub__ = N.__rsub__\n"
        "turns = []\ndef f(x):\n    turns.append(x)\n"
        "    return told[0] if told else N() if len(turns) < 2 else M(5)\n",
        [
            "import pytest",
            "assert any(f(3) == pytest.approx(10) for _ in range(4))",
        ],
    ),
    "a_reply_of_two_gigabytes_is_not_read": case(
        "import os, struct\nos.write(3, struct.pack('!I', 2**31) + b'x' * 4096)\n"
    ),
    "colliding_keys_do_not_hang_the_judge": case(
        "def f(x):\n    return {i * (2**61 - 1): 0 for i in range(60_000)}\n", expect=("!pass",)
    ),
    "an_endless_iterator_ends_at_the_limit": case(
        "import itertools\ndef f(x): return itertools.count()\n", ["assert list(f(1)) == [1]"]
    ),
    "a_value_that_contains_itself_is_a_value": case(
        "a = []\na.append(a)\ndef f(x): return a\n", expect=("fail",)
    ),
    "asking_for_a_signal_on_input_is_refused": case(
        "import fcntl, os, signal\nr, w = os.pipe()\n"
        "try:\n    fcntl.fcntl(r, fcntl.F_SETOWN, os.getppid())\n    bad = True\n"
        "except OSError:\n    bad = False\n"
        "def f(x): return None if bad else 3 * x + 1\n",
        expect=("pass",),
    ),
    "limits_cannot_be_raised": case(
        "import resource\nbad = False\n"
        "for k in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE):\n"
        "    try:\n        resource.setrlimit(k, (resource.RLIM_INFINITY,) * 2)\n"
        "        bad = True\n    except (OSError, ValueError):\n        pass\n"
        "def f(x): return None if bad else 3 * x + 1\n",
        expect=("pass",),
    ),
    "a_lock_that_outlives_the_process_is_refused": case(
        "import fcntl, struct\ntry:\n"
        "    fcntl.fcntl(1, 37, struct.pack('hhqqi4x', 1, 0, 0, 1, 0))\n    bad = True\n"
        "except OSError:\n    bad = False\n"
        "def f(x): return None if bad else 3 * x + 1\n",
        expect=("pass",),
    ),
    "the_workers_command_line_is_not_told": case(
        "import sys\ndef f(x): return 3 * x + 1 if sys.orig_argv == ['program.py'] else None\n",
        expect=("pass",),
    ),
    "a_memory_file_is_refused": case(
        "import os\ntry:\n    os.memfd_create('x')\n    bad = True\n"
        "except OSError:\n    bad = False\n"
        "def f(x): return None if bad else 3 * x + 1\n",
        expect=("pass",),
    ),
    "expected_values_are_not_in_the_memory_of_the_process": case(
        "import gc, re\ndef f(x):\n    for held in gc.get_objects():\n"
        "        if isinstance(held, dict):\n            held = list(held.values())\n"
        "        if isinstance(held, (list, tuple, set)):\n            for text in list(held):\n"
        "                if isinstance(text, bytes):\n"
        "                    text = text.decode('latin-1')\n"
        "                if isinstance(text, str) and re.search('7351[9]', text):\n"
        "                    return 73520 - 1\n",
        ["assert f(1) == 73519"],
        expect=("fail",),
    ),
    "its_own_package_is_not_readable": case(
        "import os, sys\nbad = []\nfor p in sys.path:\n"
        "    d = os.path.join(p, 'mucode_jax')\n    try:\n        bad += os.listdir(d)\n"
        "    except OSError:\n        pass\n"
        "def f(x): return 3 * x + 1 if not bad else bad\n",
        expect=("pass",),
    ),
    "a_scratch_folder_that_resists_is_cleared": case(
        "import os, tempfile\ntry:\n    d = tempfile.gettempdir()\n"
        "    for _ in range(40):\n        d += '/' + 'x' * 200\n"
        "        os.mkdir(d)\n        os.chdir(d)\n        d = '.'\n    os.chmod('.', 0)\n"
        "except OSError:\n    pass\n" + RIGHT,
        expect=("pass", "error"),
        then={
            "code": "import os, tempfile\n"
            "try:\n    left = os.listdir(tempfile.gettempdir())\n"
            "except OSError:\n    left = []\n"
            "def f(x): return None if left else 3 * x + 1\n",
            "tests": CALLS_F,
            "expect": ["pass"],
        },
    ),
    "a_feedback_full_of_control_text_is_only_text": case(
        'raise ValueError("\\ud800\\0" * 10_000)\n', expect=("error",)
    ),
    "replaced_streams_do_no_harm": case(
        "import sys\nsys.stdout = sys.stderr = None\n" + RIGHT, expect=("pass",)
    ),
    "an_exception_that_cannot_be_described_is_an_error": case(
        "class E(Exception):\n    def __str__(self): raise E\n    __repr__ = __str__\n"
        "def f(x): raise E\n",
        expect=("error",),
    ),
}


@pytest.fixture(scope="module")
def reasons():
    return probe()


@pytest.fixture(scope="module", params=["namespaces", "landlock"])
def runners(request, reasons):
    """(level, a queue of runners at exactly that level)."""
    if reasons[request.param]:
        pytest.skip(f"no {request.param} here: {reasons[request.param]}")
    os.environ["SANDBOX_CANARY_SECRET"] = "secret-" + secrets.token_hex(16)
    made = [make_runner(isolation=request.param, exact=True) for _ in range(RUNNERS)]
    free: queue.Queue = queue.Queue()
    for runner in made:
        free.put(runner)
    yield request.param, free
    for runner in made:
        runner.close()
    del os.environ["SANDBOX_CANARY_SECRET"]


def all_faults(cases, runners, folder):
    level, free = runners

    def one(name):
        runner = free.get()
        try:
            place = folder / name
            place.mkdir()
            found = attacks.faults(cases[name], runner, place)
            return [f"{name}: {fault}" for fault in found]
        finally:
            free.put(runner)

    with concurrent.futures.ThreadPoolExecutor(RUNNERS) as threads:
        names = [name for name in cases if name not in EXCEPTIONS[level]]
        return [fault for found in threads.map(one, names) for fault in found]


def test_our_own_hostile_programs_achieve_nothing(runners, tmp_path):
    assert all_faults(OWN, runners, tmp_path) == []


@pytest.mark.slow
def test_every_case_of_the_attack_suite_is_survived(runners, attacks_dir, tmp_path):
    secret = os.environ["SANDBOX_CANARY_SECRET"]
    cases = attacks.load(attacks_dir)
    assert len(cases) >= 119
    assert all_faults(cases, runners, tmp_path) == []
    assert secret  # of the environment; each case looks for its own as well


def test_a_scratch_folder_that_a_program_closed_is_opened_again(tmp_path):
    (tmp_path / "left").mkdir()
    for mode in (0o555, 0):
        tmp_path.chmod(mode)
        assert server._empty(str(tmp_path))
        assert tmp_path.stat().st_mode & 0o7777 == 0o1777
        assert list(tmp_path.iterdir()) == []


def test_the_environment_is_empty(runners):
    _, free = runners
    runner = free.get()
    try:
        code = "import os\nprint(dict(os.environ))\ntry:\n"
        code += "    print(open('/proc/self/environ').read())\nexcept OSError:\n    pass\n"
        result = runner.run(code, [], 5.0)
    finally:
        free.put(runner)
    assert result["verdict"] == "pass"
    assert os.environ["SANDBOX_CANARY_SECRET"] not in result["stdout"]
    assert "SANDBOX" not in result["stdout"]
