"""Problems whose tests cannot run are left out before a run, counted, and bounded in number."""

from __future__ import annotations

import dataclasses
import json

import pytest

from mucode_jax import benchmarks
from mucode_jax.core.records import Benchmark, Problem, Tests
from mucode_jax.rollouts import broken_tests, grading
from mucode_jax.runtime.workdir import Workdir
from mucode_jax.sandbox import Pool

SOLUTION = "def f(x):\n    return x + 1\n"


@pytest.fixture(scope="module")
def pool():
    with Pool(workers=2) as made:
        yield made


def benchmark(*tests, solution=SOLUTION, name="jsonl", **fields):
    """A problem for each of the tests; its id is their number."""
    problems = [
        Problem(name, str(i), "train", "Write f(x).", Tests((test,), **fields), entry_point="f")
        for i, test in enumerate(tests)
    ]
    solutions = {p.task_id: solution for p in problems} if solution else {}
    return Benchmark(name, "train", tuple(problems), {}, solutions)


SOUND = "assert f(1) == 2"


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        (SOUND, ""),
        ("assert f(1) == 3", ""),  # the reference is wrong: the test runs
        ("while True: f(1)", ""),
        ("import nosuchpackage\n" + SOUND, "No module named 'nosuchpackage'"),
        ("a, b = f(1)", "the reference solution fails with TypeError"),
        ("assert f(undefined) == 1", "NameError: name 'undefined' is not defined"),
        ("if f(1) != 1:\n    raise ValueError('wrong')", ""),
    ],
)
def test_a_reference_shows_what_the_tests_do_wrong_by_themselves(pool, test, reason):
    given = benchmark(test, timeout_s=1.0)
    reasons, executions = broken_tests.find(pool, given)
    assert (reason in reasons["0"]) if reason else reasons == {}
    assert executions == 1


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        (SOUND, ""),
        ("x = [1]\nx += [2]\nassert f(x[0]) == 2\nassert f(1)[0] == 1", ""),
        ("import json\ndata = json.loads('{}')\nassert f(data) == 1", ""),
        ("import nosuchpackage\n" + SOUND, "No module named 'nosuchpackage'"),
        (SOUND + "\n1 / 0", "1 / 0: ZeroDivisionError"),
        (SOUND + "\nopen('/nonexistent')", "No such file or directory"),
        ("import unittest\nclass T(unittest.TestCase):\n    def test(self): f(1)", ""),
        ("import unittest\nclass T(unittest.TestCase):\n    def test(self): 1 / 0", "1 / 0: Zero"),
        ("assert f(1) == count\nassert g(2) == 3", ""),
    ],
)
def test_without_a_reference_a_stub_shows_what_fails_outside_of_the_program(pool, test, reason):
    reasons, _ = broken_tests.find(pool, benchmark(test, solution=""))
    assert (reason in reasons["0"]) if reason else reasons == {}


@pytest.mark.parametrize(
    ("setup", "preamble", "reason"),
    [
        ("data = [f(1)]", "BASE = 1\n", ""),
        ("import nosuchpackage", "", "the setup of the tests, line 1: no module 'nosuchpackage'"),
        ("data = open('/nonexistent')", "", "the setup of the tests fails: FileNotFoundError"),
        ("", "import nosuchpackage\n", "what stands before the program fails: ModuleNotFoundError"),
    ],
)
def test_what_stands_before_and_after_the_program_is_tried_too(pool, setup, preamble, reason):
    given = benchmark(SOUND, setup=setup)
    (problem,) = given.problems
    problem = dataclasses.replace(problem, preamble=preamble)
    reasons, _ = broken_tests.find(pool, dataclasses.replace(given, problems=(problem,)))
    assert reasons.get("0", "").startswith(reason) and bool(reasons) is bool(reason)


def test_private_tests_and_pairs_are_looked_at_too(pool):
    given = benchmark(SOUND, SOUND)
    given = dataclasses.replace(given, private={"1": Tests(("1 / 0",))})
    assert list(broken_tests.find(pool, given)[0]) == ["1"]
    pairs = dataclasses.replace(given.problems[0], public=Tests(stdio=(("1", "2"),)))
    assert broken_tests.find(pool, dataclasses.replace(given, problems=(pairs,))) == ({}, 0)


def test_what_cannot_run_is_left_out_and_counted_and_looked_at_once(pool, tmp_path):
    given = benchmark(SOUND, "import nosuchpackage\n" + SOUND, SOUND)
    held_out = benchmark(SOUND, name="mini")
    said = []
    for _ in range(2):
        with_stages = Workdir(tmp_path)
        left, untouched = broken_tests.leave_out(
            with_stages, pool, [given, held_out], most=0.5, say=said.append
        )
        with_stages.close()
        assert [problem.task_id for problem in left.problems] == ["0", "2"]
        assert untouched is held_out
    (stage,) = with_stages.stages
    assert stage.name.startswith("base/tests_jsonl_train_")
    assert stage.record["counts"] == {"executions": 3, "problems": 3, "left_out": 1}
    assert list(json.loads((stage.path / "broken.json").read_text())) == ["1"]
    assert said[0] == said[1] and said[0].startswith(
        "jsonl, train: the tests of 1 of 3 problems cannot run; they are left out (1); 1: test 1, "
        "line 1 fails with any program: import nosuchpackage: ModuleNotFoundError"
    )


def test_a_run_stops_above_the_stated_share_and_where_nothing_is_left(pool, tmp_path):
    given = benchmark(SOUND, "1 / 0", SOUND)
    for benchmarks_given, most in ((given, 0.3), (benchmark("1 / 0"), 0.99)):
        workdir = Workdir(tmp_path / str(most))
        with pytest.raises(
            ValueError, match="more than config.sandbox.broken_tests, .*1 / 0: Zero"
        ):
            broken_tests.leave_out(workdir, pool, [benchmarks_given], most=most, say=print)
        workdir.close()


def test_a_test_that_breaks_on_the_way_ends_no_run(pool):
    grader = grading.public_grader(pool)
    (problem,) = benchmark(SOUND + "\n1 / 0").problems
    grade = grader.grade(problem, SOLUTION)
    assert (grade.status, grade.passed) == ("infra", False)
    assert "1 / 0" in grade.summary and grade.feedback == f"{grade.summary}\n"


def test_humaneval_plus_32_is_broken_upstream(pool, data_dir):
    given = benchmarks.load("humaneval_plus", "test", data=data_dir / "humaneval_plus.jsonl.gz")
    few = [p for p in given.problems if p.task_id in ("HumanEval/31", "HumanEval/32")]
    reasons, _ = broken_tests.find(pool, dataclasses.replace(given, problems=tuple(few)))
    assert list(reasons) == ["HumanEval/32"]
    assert "the reference solution fails with TypeError" in reasons["HumanEval/32"]


def test_the_published_division_keeps_the_problems_that_it_makes_impossible(pool, data_dir):
    path = data_dir / "humanevalpack_python.jsonl"
    given = benchmarks.load("humanevalpack", "test", data=path, compat=True)
    few = [p for p in given.problems if p.task_id in ("Python/1", "Python/0")]
    reasons, _ = broken_tests.find(pool, dataclasses.replace(given, problems=tuple(few)))
    assert reasons == {}
