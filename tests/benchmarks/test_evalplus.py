"""EvalPlus's release files: all of their inputs are run, against the reference, by its rule."""

from __future__ import annotations

import json

import pytest

from mucode_jax import benchmarks
from mucode_jax.core.records import Tests
from mucode_jax.sandbox import Pool

HUMAN = {
    "task_id": "HumanEval/900",
    "prompt": 'def half(x):\n    """Half of it.\n    >>> half(2)\n    1.0\n    """\n',
    "canonical_solution": "    return x / 2\n",
    "entry_point": "half",
    "contract": "    assert isinstance(x, (int, float))\n",
    "base_input": [[2], [5]],
    "plus_input": [[0], [1e300], [7]],
    "atol": 0,
}
MBPP = {
    "task_id": "Mbpp/2",
    "prompt": '"""\nWrite a function to count them.\nassert count((1, 2), ()) == 2\n"""\n',
    "canonical_solution": "\ndef count(a, b):\n    return len(a + b)\n",
    "entry_point": "count",
    "contract": "\n",
    "assertion": "\nimport math\n\nassert count((1, 2), ()) == 2\n",
    "base_input": [[[1, 2], []]],
    "plus_input": [[[1], [2, 3]]],
    "atol": 0,
}


@pytest.fixture(scope="module")
def pool():
    with Pool(workers=2) as made:
        yield made


def load(tmp_path, name, *rows):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return benchmarks.load(name, "all", data=path)


def statuses(tmp_path, pool, row, *codes, name=None):
    name = name or ("mbpp_plus" if row["task_id"].startswith("Mbpp") else "humaneval_plus")
    benchmark = load(tmp_path, name, row)
    (problem,) = benchmark.problems
    tests = benchmark.private[problem.task_id]
    programs = [problem.program(code) for code in (benchmark.solutions[problem.task_id], *codes)]
    return [pool.submit(program, tests).result(timeout=120).status for program in programs]


def test_the_release_form_has_the_same_problem_with_its_plus_tests(tmp_path):
    human = load(tmp_path, "humaneval_plus", HUMAN)
    (problem,) = human.problems
    assert problem.public.statements == ("assert half(2) == 1.0",)
    assert problem.program("    return 1") == HUMAN["prompt"] + "    return 1"
    assert human.private[problem.task_id].timeout_s == 60.0
    mbpp = load(tmp_path, "mbpp_plus", MBPP)
    (problem,) = mbpp.problems
    assert (problem.task_id, problem.split, problem.entry_point) == ("2", "prompt", "count")
    assert problem.public == Tests(
        ("assert count((1, 2), ()) == 2",), setup="import math", timeout_s=60.0
    )
    assert "\n\nWrite a function to count them.\n\n" in problem.prompt


@pytest.mark.parametrize(
    ("row", "right", "wrong"),
    [
        (HUMAN, "def half(x): return 0.5 * x * (1 + 1e-8)", "def half(x): return 0.5 * x + 1e-3"),
        (HUMAN, "def half(x): return x / 2", "def half(x): return x // 2"),  # on a plus input
        (MBPP, "def count(a, b): return len(a) + len(b)", "def count(a, b): return 2"),
        (MBPP, "def count(a, b): return len(tuple.__add__(a, b))", "def count(a, b): return 2.5"),
        (
            HUMAN | {"canonical_solution": "    return [x / 2] * 2\n"},
            "def half(x): return [x / 2 + 1e-9] * 2",
            "def half(x): return (x / 2 + 1e-9,) * 2",
        ),
        (
            HUMAN | {"canonical_solution": "    return []\n"},
            "def half(x): return []",
            "def half(x): return [0.0]",
        ),
        (
            HUMAN | {"canonical_solution": "    return int(x)\n", "atol": 2},
            "def half(x): return int(x) + 1",
            "def half(x): return x + 0.5",
        ),
        (
            HUMAN
            | {
                "entry_point": "find_zero",
                "prompt": "def find_zero(xs):\n",
                "canonical_solution": "    return -2.0 if xs == [2, 1] else -((-xs[0]) ** 0.5)\n",
                "base_input": [[[2, 1]], [[-4, 0, 1, 0]]],
                "plus_input": [[[-9, 0, 1, 0]]],
                "atol": 0.0001,
            },
            "def find_zero(xs): return -2.0 if xs == [2, 1] else (-xs[0]) ** 0.5",
            "def find_zero(xs):\n    xs[:] = [0]\n    return 0.0",
        ),
        (
            MBPP | {"entry_point": "Diff", "canonical_solution": "def Diff(a, b): return [1, 2]"},
            "def Diff(a, b): return [2, 1, 1]",
            "def Diff(a, b): return [2]",
        ),
        (
            MBPP
            | {
                "entry_point": "check_str",
                "canonical_solution": "import re\ndef check_str(a, b): return re.match('', 'a')",
            },
            "def check_str(a, b): return True",
            "def check_str(a, b): return None",
        ),
        (
            MBPP
            | {"entry_point": "sum_div", "canonical_solution": "def sum_div(a, b): return len(a)"},
            "def sum_div(a, b): return 0",
            "def sum_div(a, b): return 3",
        ),
    ],
)
def test_what_counts_as_right_is_evalpluss_rule(tmp_path, pool, row, right, wrong):
    assert statuses(tmp_path, pool, row, right, wrong) == ["pass", "pass", "fail"]


@pytest.mark.parametrize(
    ("number", "given", "condition"),
    [
        (2, [[1], [2]], "(a, b) == ((1,), (2,))"),
        (63, [[[1, 2]], [[3]]], "(a, b) == ([(1, 2)], [(3,)])"),
        (75, [[[1, 2]], 3], "(a, b) == ([(1, 2)], 3)"),
        (106, [[1], [2]], "(a, b) == ([1], (2,))"),
        (115, [[[1, 1], [], {}]], "a == [{1}, {}, {}]"),
        (124, ["0.5", "1j"], "(a, b) == (0.5, 1j)"),
        (250, [[1], 2], "(a, b) == ((1,), 2)"),
        (252, ["(1+2j)"], "a == 1 + 2j"),
        (259, [[[1], [2]], [[3]]], "(a, b) == (((1,), (2,)), ((3,),))"),
        (278, [[1, [2], 3]], "a == (1, (2,), 3)"),
        (307, [[1], 2, 3], "(a, b) == ((1,), 2)"),
        (580, [[1, [2, [3]]]], "a == (1, (2, (3,)))"),
        (722, [{"x": [1, 2]}, 3], "(a, b) == ({'x': (1, 2)}, 3)"),
        (3, [[1], 2], "(a, b) == ([1], 2)"),
    ],
)
def test_arguments_of_mbpp_are_what_json_cannot_say(tmp_path, pool, number, given, condition):
    code = f"def count(a, b=None, c=None): return {condition}\n"
    row = MBPP | {"task_id": f"Mbpp/{number}", "canonical_solution": "def count(*a): return True\n"}
    row |= {"base_input": [given], "plus_input": {}}
    assert statuses(tmp_path, pool, row, code) == ["pass", "pass"]


def test_a_program_cannot_bring_the_expected_values(tmp_path, pool):
    code = "_expected = [0] * 9\n_inputs = []\ndef half(x): return 0"
    assert statuses(tmp_path, pool, HUMAN, code)[1] == "fail"


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        (
            "humaneval_plus",
            {k: v for k, v in HUMAN.items() if k != "plus_input"}
            | {"test": "def check(candidate):\n    assert candidate(2) == 1.0\n"},
            "there are no plus tests in it, neither a field 'plus_input' nor inputs in 'test'; is",
        ),
        (
            "mbpp_plus",
            {"task_id": 2, "prompt": "x", "code": "def f(): 0", "test_imports": []}
            | {"test_list": ["assert f() == 1"], "test": "assert f() == 1"},
            "line 1: there are no plus tests in it: no inputs in 'test'",
        ),
        ("humaneval_plus", HUMAN | {"atol": "0"}, "line 1: 'atol' must be a number of at least 0"),
        ("humaneval_plus", HUMAN | {"plus_input": 3}, "'plus_input' must be a list of lists"),
        ("humaneval_plus", HUMAN | {"contract": None}, "field 'contract' must be text, not null"),
        (
            "mbpp_plus",
            MBPP | {"prompt": "x"},
            "'prompt' must be a docstring that ends in an assert",
        ),
        ("mbpp_plus", MBPP | {"task_id": "Mbpp/x"}, "task id 'x' is not one of MBPP's 1 to 974"),
    ],
)
def test_a_file_without_plus_tests_is_refused(tmp_path, name, row, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, name, row)


def test_humanevals_own_file_is_no_humaneval_plus(data_dir):
    with pytest.raises(ValueError, match="line 1: there are no plus tests in it"):
        benchmarks.load("humaneval_plus", "test", data=data_dir / "humaneval.jsonl")
