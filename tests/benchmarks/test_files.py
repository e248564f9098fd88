"""Whatever is wrong with a benchmark file is said in one sentence with file and line."""

import gzip
import json

import pytest

from mucode_jax import benchmarks
from mucode_jax.benchmarks import files

GOOD = {
    "task_id": "a/1",
    "prompt": "Write a function twice(x).",
    "public_tests": ["assert twice(2) == 4"],
    "private_tests": ["assert twice(3) == 6"],
}
MBPP = {
    "task_id": 11,
    "text": "Double it.",
    "code": "def twice(x):\n    return 2 * x",
    "test_setup_code": "",
    "test_list": ["assert twice(2) == 4"],
    "challenge_test_list": [],
}


def write(path, *lines):
    texts = (line if isinstance(line, (bytes, str)) else json.dumps(line) for line in lines)
    data = b"\n".join(text.encode() if isinstance(text, str) else text for text in texts)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def load(path, name="jsonl", split="all"):
    return benchmarks.load(name, split, data=path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([GOOD, '{"task_id": '], "line 2: not JSON"),
        ([GOOD, "", "[1, 2]"], "line 3: must be a JSON object, not a list"),
        ([GOOD, b'{"task_id": "\xff"}'], "line 2: not UTF-8"),
        (["[" * 100_000], "line 1: not JSON that can be read"),
        (['{"task_id": ' + "1" * 5000 + "}"], "line 1: not JSON that can be read"),
        ([], "no problem in it"),
        ([GOOD, GOOD], r"line 2: id 'a/1' is there already \(.*line 1\)"),
        ([GOOD | {"public_tests": [], "private_tests": []}], "line 1: problem 'a/1' has no tests"),
        ([GOOD | {"private_tests": ["assert twice("]}], "line 1: test 1 of 1 does not parse"),
        (
            [GOOD | {"public_tests": ["assert twice(0) == 0", "twice(2) == 9"]}],
            "line 1: test 2 of 2 asserts nothing; write 'assert twice",
        ),
        ([GOOD | {"private_tests": ["print(1)"]}], "line 1: test 1 of 1 asserts nothing"),
        ([GOOD | {"setup": "x = ("}], "line 1: the setup of the tests does not parse"),
        ([GOOD | {"preamble": "x = ("}], "line 1: 'preamble' does not parse .'.' was never closed"),
        ([GOOD | {"public_tests": ["a\0b"]}], "line 1: test 1 of 1 does not parse"),
        ([GOOD | {"public_tests": "assert True"}], "line 1: 'public_tests' must be a list"),
        ([GOOD | {"public_tests": [3]}], "line 1: entry 1 of 'public_tests' must be text"),
        ([GOOD | {"prompt": None}], "line 1: field 'prompt' must be text, not null"),
        ([GOOD | {"prompt": " "}], "line 1: field 'prompt' is empty; it is to be"),
        ([GOOD | {"prompt": "\ud800"}], "line 1: field 'prompt' holds half of a surrogate pair"),
        ([GOOD | {"task_id": True}], "line 1: field 'task_id' must be text, not a bool"),
        ([GOOD | {"task_id": ""}], "line 1: field 'task_id' is empty"),
        ([{"task_id": "a"}], r"line 1: field 'prompt' is missing \(fields there: task_id\)"),
        (
            [GOOD | {"split": "train"}, GOOD | {"task_id": "b"}],
            "'b' does not; either all do or none",
        ),
    ],
)
def test_bad_lines_are_refused_with_file_and_line(tmp_path, lines, message):
    path = write(tmp_path / "problems.jsonl", *lines)
    with pytest.raises(ValueError, match=message) as error:
        load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_list": []}, "line 1: field 'test_list' is empty; there must be tests"),
        ({"test_list": ["assert ("]}, "line 1: test 1 of 1 does not parse"),
        ({"task_id": 975}, "line 1: task id '975' is not one of MBPP's 1 to 974"),
        ({"text": "\n"}, "line 1: field 'text' is empty; it is to be the problem's text"),
        ({"code": 5}, "line 1: field 'code' must be text, not a int"),
    ],
)
def test_bad_mbpp_records_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path / "mbpp.jsonl", MBPP | change), "mbpp")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": " "}, "line 1: field 'test' is empty; there must be tests"),
        ({"entry_point": "other"}, "line 1: the prompt has no 'def other', its entry point"),
        ({"test": "def check(candidate):"}, "line 1: test 1 of 1 does not parse"),
    ],
)
def test_bad_humaneval_records_are_refused(tmp_path, change, message):
    record = {
        "task_id": "HumanEval/0",
        "prompt": "def twice(x):\n",
        "canonical_solution": "    return 2 * x\n",
        "entry_point": "twice",
        "test": "def check(candidate):\n    assert candidate(2) == 4\n",
    }
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path / "humaneval.jsonl", record | change), "humaneval")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"public_tests": None, "private_tests": None}, "problem 'p' has no tests of any kind"),
        ({"public_tests": {"input": []}}, "'public_tests' must be"),
        ({"private_tests": {"input": [1], "output": ["2"]}}, "'private_tests.input' must be text"),
        ({"solutions": True}, "'solutions' must be"),
        ({"description": ""}, "line 1: field 'description' is empty"),
        (
            {"public_tests": {"input": ["1"], "output": []}},
            "columns of 'public_tests' are not of one length",
        ),
        ({"time_limit": 3}, "time_limit must be"),
        ({"time_limit": {"seconds": 0, "nanos": 0}}, "a time limit of 0.0 s"),
    ],
)
def test_bad_code_contests_records_are_refused(tmp_path, change, message):
    pairs = {"input": ["1"], "output": ["2"]}
    record = {"name": "p", "description": "x", "public_tests": pairs, "private_tests": pairs}
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path / "contests.jsonl", record | change), "code_contests")


def test_a_file_that_is_not_there_or_damaged_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.jsonl: cannot be read"):
        load(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="cannot be read"):
        load(tmp_path)
    whole = gzip.compress(json.dumps(GOOD).encode() * 50)
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole gzip file"):
        load(cut)
    plain = tmp_path / "plain.jsonl.gz"
    plain.write_text(json.dumps(GOOD))
    with pytest.raises(ValueError, match="not a whole gzip file"):
        load(plain)
    unnamed = tmp_path / "packed.jsonl"
    unnamed.write_bytes(whole)
    with pytest.raises(ValueError, match=r"this is gzip; its name must end in \.gz"):
        load(unnamed)


def test_gzip_blank_lines_a_byte_order_mark_and_carriage_returns_are_read(tmp_path):
    path = write(tmp_path / "a.jsonl.gz", "\ufeff" + json.dumps(GOOD) + "\r", "", "  ")
    assert [problem.task_id for problem in load(path).problems] == ["a/1"]


def test_unknown_names_splits_and_sizes_say_what_there_is(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD | {"split": "train"})
    with pytest.raises(ValueError, match="unknown benchmark 'apps'; one of mini, mbpp"):
        benchmarks.load("apps", "test")
    with pytest.raises(ValueError, match="mbpp has no split 'dev'; one of prompt, train"):
        benchmarks.load("mbpp", "dev", data=path)
    with pytest.raises(ValueError, match=r"no problem of split 'test' \(there: train\)"):
        load(path, split="test")
    with pytest.raises(ValueError, match="2 problems asked for, 1 there"):
        benchmarks.load("jsonl", "train", data=path, size=2)
    with pytest.raises(ValueError, match="at least 1"):
        benchmarks.load("jsonl", "train", data=path, size=0)
    with pytest.raises(ValueError, match="read from a file"):
        benchmarks.load("jsonl", "train")
    with pytest.raises(ValueError, match="'mini' is generated"):
        benchmarks.load("mini", "train", data=path)


def test_a_syntax_error_is_told_and_odd_escapes_are_not():
    assert files.syntax_error("x = '\\d'\nassert x is 'a'") == ""
    assert files.syntax_error("x = 1\ny = (") == "'(' was never closed, line 2"
    assert files.syntax_error("(" * 5000) != ""


IDLE = [
    "f(2) == 4",
    "f(2) == 4 and not f(3) == 5",
    "print(f(2))",
    "import math\nx = f(2)\nx == 4",
    "",
    "# assert f(2) == 4",
    "pass",
    "assert (f(2), 4)",
    "assert 'f(2) == 4'",
]
MAY_ASSERT = [
    "assert f(2) == 4",
    "f(2)",
    "x = f(2)",
    "check(f)",
    "check(f) is None",
    "numpy.testing.assert_equal(f(2), 4)",
    "helper(f) == 4",
    "f(2) == 4 or fail()",
    "for x in range(3): f(x) == x",
    "if f(2) != 4: raise ValueError",
    "f(2) == 4\nassert f(3) == 6",
    "assert False",
    "assert ()",
]


def idle(text):
    setup = "import numpy\nhelper = lambda f: check(f)"
    check = "def check(f):\n    assert f(2) == 4"
    row = files.Row({}, "here")
    try:
        files.refuse_idle(row, files.python_tests(row, [check, text], setup=setup))
    except ValueError as error:
        return "here: test 2 of 2 asserts nothing" in str(error)
    return False


def test_only_a_test_that_certainly_asserts_nothing_is_refused():
    assert [text for text in IDLE if not idle(text)] == []
    assert [text for text in MAY_ASSERT if idle(text)] == []


def test_functions_that_nothing_calls_are_no_tests():
    uncalled = ["import math", "def check_f():\n    assert f(2) == 4"]
    row = files.Row({}, "here")
    with pytest.raises(ValueError, match="here: the tests define functions and call none"):
        files.refuse_idle(row, files.python_tests(row, uncalled))
    files.refuse_idle(row, files.python_tests(row, [*uncalled, "check_f()"]))
    for run in ("def test_f():\n    assert f(2) == 4", "import unittest\nclass T: pass"):
        files.refuse_idle(row, files.python_tests(row, [run]))


@pytest.mark.parametrize("text", ["return f(2)", "await f(2)", "yield", "break", "nonlocal x"])
def test_what_parses_and_is_no_program_is_no_test(text):
    with pytest.raises(ValueError, match="here: test 1 of 1 does not parse"):
        files.python_tests(files.Row({}, "here"), [text])
