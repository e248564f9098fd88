"""The division into public and private, split by split, on the real files."""

import ast
import functools
import json
import logging
import re
import subprocess
import sys

import pytest

from mucode_jax import benchmarks, sandbox
from mucode_jax.benchmarks import files, mbpp

FILES = {
    "mbpp": "mbpp.jsonl",
    "humaneval": "humaneval.jsonl",
    "humanevalpack": "humanevalpack_python.jsonl",
    "mbpp_plus": "mbpp_plus.jsonl",
    "humaneval_plus": "humaneval_plus.jsonl.gz",
    "code_contests": "code_contests_sample.jsonl",
}


@functools.cache
def load(data_dir, name, split, **options):
    return benchmarks.load(name, split, data=data_dir / FILES[name], **options)


@pytest.fixture(scope="module")
def pool():
    with sandbox.Pool(workers=1) as made:
        yield made


def by_id(benchmark):
    return {problem.task_id: problem for problem in benchmark.problems}


@pytest.mark.parametrize(
    ("split", "count", "first", "last", "shown", "with_private"),
    [
        ("prompt", 10, "1", "10", 1, 10),
        ("test", 500, "11", "510", 1, 500),
        ("validation", 90, "511", "600", 1, 90),
        ("train", 374, "601", "974", 3, 0),
    ],
)
def test_mbpp_is_split_by_task_id(data_dir, split, count, first, last, shown, with_private):
    benchmark = load(data_dir, "mbpp", split)
    ids = [problem.task_id for problem in benchmark.problems]
    assert (len(ids), ids[0], ids[-1]) == (count, first, last)
    assert {len(problem.public.statements) for problem in benchmark.problems} == {shown}
    assert {problem.split for problem in benchmark.problems} == {split}
    assert len(benchmark.private) == with_private


def test_mbpp_challenge_tests_run_unless_compat(data_dir):
    challenged = {"11", "16", "20", "23", "25", "26", "28", "42", "43", "44", "47"}
    ours, published = load(data_dir, "mbpp", "all"), load(data_dir, "mbpp", "all", compat=True)
    longer = {
        key
        for key, tests in ours.private.items()
        if len(tests.statements) > len(published.private[key].statements)
    }
    assert longer == challenged
    assert {len(tests.statements) for tests in published.private.values()} == {2}


def test_mbpp_setup_runs_after_the_solution_for_both_kinds_of_test(data_dir):
    train = load(data_dir, "mbpp", "train")
    problem = by_id(train)["927"]
    assert problem.public.setup.startswith("root = Node(1)")
    assert "root = Node(1)" in problem.prompt
    test = load(data_dir, "mbpp", "test")
    assert by_id(test)["367"].public.setup == test.private["367"].setup != ""
    assert sum(bool(p.public.setup) for p in (*train.problems, *test.problems)) == 2
    texts = [problem.public.setup, problem.prompt, *train.solutions.values()]
    assert not any("\r" in text for text in texts)


def test_mbpp_entry_points_are_the_functions_that_the_tests_call(data_dir):
    benchmark = load(data_dir, "mbpp", "all")
    for problem in benchmark.problems:
        call = re.compile(rf"\b{problem.entry_point} ?\(")
        assert all(call.search(test) for test in problem.public.statements)
    assert by_id(benchmark)["601"].entry_point == "max_chain_length"  # not the class Pair
    code = "def helper(x):\n    return x\ndef sum(a):\n    return helper(a)"
    assert mbpp.entry_point(code, ("assert set(sum(1)) == set(2)",)) == "sum"
    assert mbpp.entry_point("def f(:", ("assert f(1)",)) == ""


def test_prompts_show_the_public_tests_and_no_private_one(data_dir):
    benchmark = load(data_dir, "mbpp", "test")
    for problem in benchmark.problems:
        assert problem.public.statements[0].strip() in problem.prompt
        hidden = {test.strip() for test in benchmark.private[problem.task_id].statements}
        hidden -= {test.strip() for test in problem.public.statements}  # some come twice
        assert not any(test in problem.prompt for test in hidden)
        assert "```python" in problem.prompt


def test_testless_prompts_give_the_signature_and_no_test(data_dir):
    problems = by_id(load(data_dir, "mbpp", "train", testless=True))
    assert all("assert" not in problem.prompt for problem in problems.values())
    assert "class Pair:\n    def __init__(self, a, b):\ndef max_chain_length(arr, n):" in (
        problems["601"].prompt
    )
    assert len(problems["601"].public.statements) == 3  # they run all the same
    pack = by_id(load(data_dir, "humanevalpack", "test", testless=True))["Python/0"]
    assert "def check" not in pack.prompt
    assert "def has_close_elements" in pack.prompt


def test_mbpp_plus_reports_the_test_ids_on_their_own(data_dir):
    plus = load(data_dir, "mbpp_plus", "all")
    counts = {split: sum(p.split == split for p in plus.problems) for split in mbpp.SPLITS}
    assert counts == {"prompt": 7, "test": 224, "validation": 39, "train": 108}
    assert {len(problem.public.statements) for problem in plus.problems} == {1}
    assert {len(tests.statements) for tests in plus.private.values()} == {1}
    assert by_id(plus)["82"].public.setup == "import math"
    assert all(problem.public.timeout_s == 60 for problem in plus.problems)


def test_humaneval_calls_check_and_keeps_helpers_for_whole_functions(data_dir):
    benchmark = load(data_dir, "humaneval", "test")
    assert len(benchmark.problems) == len(benchmark.private) == 164
    for problem in benchmark.problems:
        program = benchmark.private[problem.task_id].statements[0]
        assert program.endswith(f"check({problem.entry_point})\n")
    problem = by_id(benchmark)["HumanEval/38"]
    body = "    return s"
    assert problem.program(body) == problem.stub + body
    whole = "def decode_cyclic(s):\n    return s"
    assert problem.program(whole).endswith(whole)
    assert "def encode_cyclic" in problem.program(whole)


def test_references_run_as_whole_programs_and_as_bodies(data_dir):
    benchmark = load(data_dir, "humaneval", "test")
    with open(data_dir / FILES["humaneval"], encoding="utf-8") as file:
        bodies = {row["task_id"]: row["canonical_solution"] for row in map(json.loads, file)}
    for problem in benchmark.problems:
        for code in (bodies[problem.task_id], benchmark.solutions[problem.task_id]):
            program = ast.parse(problem.program(code))
            names = [node.name for node in program.body if isinstance(node, ast.FunctionDef)]
            assert names[-1] == problem.entry_point


@pytest.mark.parametrize(
    ("name", "task", "cheat"),
    [
        (name, task, cheat)
        for task, cheat in (
            ("38", "def encode_cyclic(s): return s\ndef decode_cyclic(s): return s"),
            ("50", "def encode_shift(s): return s\ndef decode_shift(s): return s"),
            ("32", "def poly(xs, x): return 0\ndef find_zero(xs): return 7"),
        )
        for name in ("humaneval", "humanevalpack")
    ],
)
def test_a_program_cannot_bring_the_helper_that_its_test_calls(data_dir, pool, name, task, cheat):
    benchmark = load(data_dir, name, "test")
    prefix = {"humaneval": "HumanEval", "humanevalpack": "Python"}[name]
    problem = by_id(benchmark)[f"{prefix}/{task}"]
    for code in (benchmark.solutions[problem.task_id], problem.program(cheat)):
        status = "fail" if cheat in code else "pass"
        sides = [benchmark.private[problem.task_id], problem.public]
        for tests in sides[: 1 + (name == "humanevalpack" and task == "32")]:
            assert pool.submit(code, tests).result(timeout=300).status == status
    assert "def check" not in problem.prompt or name == "humanevalpack"
    published = load(data_dir, name, "test", compat=True)
    assert problem.preamble not in published.private[problem.task_id].statements[0]


def test_an_empty_list_is_not_close_to_any_float(data_dir, pool, tmp_path):
    with open(data_dir / FILES["mbpp_plus"], encoding="utf-8") as file:
        line = next(line for line in file if '"task_id": 82,' in line)
    (tmp_path / "one.jsonl").write_text(line)
    benchmark = benchmarks.load("mbpp_plus", "all", data=tmp_path / "one.jsonl")
    tests, right = benchmark.private["82"], benchmark.solutions["82"]
    wrong = "def volume_sphere(*a): return []"
    statuses = [pool.submit(code, tests).result(timeout=300).status for code in (right, wrong)]
    assert statuses == ["pass", "fail"]


@pytest.mark.parametrize(("name", "count"), [("mbpp_plus", 375), ("humaneval_plus", 163)])
def test_every_test_that_says_close_asks_for_the_shape(data_dir, name, count):
    path = data_dir / FILES[name]
    texts = [row.text("test") for row in files.read_jsonl(path)]
    shaped = "assert np.shape(out) == np.shape(exp) and np.allclose(out, exp, rtol="
    assert sum(shaped in files.with_shapes(text) for text in texts) == count
    assert sum("allclose" in text for text in texts) == count


def test_humanevalpack_shows_the_whole_example_test(data_dir, caplog):
    benchmark = load(data_dir, "humanevalpack", "test")
    problems = by_id(benchmark)
    empty = {key for key, problem in problems.items() if not problem.public.statements}
    assert empty == {f"Python/{i}" for i in (38, 41, 50, 83, 84, 160)}
    first = problems["Python/0"].public.statements[0]
    assert first.count("assert") == 2 and first in problems["Python/0"].prompt
    # Its example_test begins with lines of a function body.
    assert problems["Python/119"].public.statements[0].startswith("def check(match_parens):")
    assert not caplog.records


def test_compat_makes_exactly_25_humanevalpack_problems_impossible_and_says_so(data_dir, caplog):
    with caplog.at_level(logging.WARNING):
        benchmark = load.__wrapped__(data_dir, "humanevalpack", "test", compat=True)
    programs = {key: tests.statements[0] for key, tests in benchmark.private.items()}
    broken = [key for key, text in programs.items() if text.startswith("raise SyntaxError(")]
    for key in broken:
        with pytest.raises(SyntaxError):
            exec(programs[key], {})
    assert len(broken) == 25
    assert "makes 25 of 164 problems impossible" in caplog.text
    assert all(key in caplog.text for key in broken)
    problem = by_id(benchmark)["Python/0"]
    second = "assert has_close_elements([1.0, 2.8, 3.0, 4.0, 5.0, 2.0], 0.3) == True"
    assert problem.public.statements == (second,)
    private = benchmark.private["Python/0"].statements[0]
    assert private.count(second) == 0 and private.count("def check(") == 2


def test_code_contests_pairs_are_as_they_come(data_dir):
    benchmark = load(data_dir, "code_contests", "train")
    assert len(benchmark.problems) == len(benchmark.private) == 100
    for problem in benchmark.problems:
        private = benchmark.private[problem.task_id].stdio
        assert len(problem.public.stdio) + len(private) <= 10
    shown = benchmark.problems[0].prompt
    hidden = load(data_dir, "code_contests", "train", testless=True).problems[0].prompt
    assert "\nExamples\n" in shown and "\nExamples\n" not in hidden
    assert "\nNote\n" in hidden


def test_code_contests_limits_solutions_and_omissions(tmp_path, caplog):
    pairs = {"input": ["1"], "output": ["2"]}
    record = {
        "name": "p",
        "description": "Double it.",
        "public_tests": pairs,
        "private_tests": {"input": [], "output": []},
        "generated_tests": {"input": ["3\n\n"], "output": ["6"]},
        "solutions": {"language": [2, 3], "solution": ["int main(){}", "print(2 * int(input()))"]},
        "time_limit": {"seconds": 2, "nanos": 500_000_000},
    }
    records = [
        record,
        record | {"name": "without", "public_tests": {"input": [], "output": []}},
        record | {"name": "file", "input_file": "input.txt"},
        record
        | {"name": "free", "time_limit": None, "public_tests": [{"input": "1", "output": "2"}]},
    ]
    path = tmp_path / "contests.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    benchmark = benchmarks.load("code_contests", "test", data=path)
    assert [problem.task_id for problem in benchmark.problems] == ["p", "free"]
    assert "2 problems left out" in caplog.text
    assert [problem.public.timeout_s for problem in benchmark.problems] == [2.5, 10.0]
    assert benchmark.private["p"].stdio == (("3\n\n", "6"),)  # the empty line may be read
    assert benchmark.solutions["p"] == "print(2 * int(input()))"
    compat = benchmarks.load("code_contests", "test", data=path, compat=True)
    assert [problem.public.timeout_s for problem in compat.problems] == [2.5, 1.0]


def test_problems_of_ones_own_have_the_split_they_name(tmp_path):
    def record(task_id, **fields):
        tests = {"public_tests": ["assert f(1) == k"], "private_tests": []}
        return {"task_id": task_id, "prompt": "Write f.", **tests, **fields}

    path = tmp_path / "own.jsonl"
    rows = [
        record(1, split="train", setup="k = 1"),
        record("two", split="test", solution="f = abs"),
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    train = benchmarks.load("jsonl", "train", data=path)
    assert [problem.task_id for problem in train.problems] == ["1"]
    assert train.problems[0].public.setup == "k = 1"
    assert "k = 1\nassert f(1) == k" in train.problems[0].prompt
    assert train.private == {}
    assert benchmarks.load("jsonl", "all", data=path).solutions == {"two": "f = abs"}
    path.write_text(json.dumps(record("a")))
    for split in ("train", "test"):  # no record names a split: the file is the split
        (problem,) = benchmarks.load("jsonl", split, data=path).problems
        assert problem.split == split


def test_a_prompt_of_ones_own_form_is_sent_as_it_is_with_feedback_to_match(tmp_path):
    path = tmp_path / "own.jsonl"
    record = {"task_id": 1, "prompt": "f: twice x", "verbatim": True, "feedback": "{summary}"}
    record |= {"public_tests": ["assert f(1) == 2"], "private_tests": []}
    path.write_text(json.dumps(record))
    (problem,) = benchmarks.load("jsonl", "all", data=path).problems
    assert (problem.prompt, problem.feedback) == ("f: twice x", "{summary}")
    path.write_text(json.dumps(record | {"verbatim": "yes"}))
    with pytest.raises(
        ValueError, match="line 1: field 'verbatim' must be true or false, not text"
    ):
        benchmarks.load("jsonl", "all", data=path)


def test_feedback_that_shows_nothing_is_refused(tmp_path):
    record = {"task_id": 1, "prompt": "f: twice x", "feedback": "Try again, {feed_back}."}
    record |= {"public_tests": ["assert f(1) == 2"], "private_tests": []}
    (tmp_path / "own.jsonl").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="line 1: 'feedback' has no place for {feedback} or {summ"):
        benchmarks.load("jsonl", "all", data=tmp_path / "own.jsonl")


def test_size_takes_the_first_problems(data_dir):
    assert list(by_id(load(data_dir, "mbpp", "test", size=3, seed=5))) == ["11", "12", "13"]


def test_reading_a_benchmark_imports_no_jax(data_dir):
    script = (
        "import sys; from mucode_jax import benchmarks; "
        f"benchmarks.load('mbpp', 'test', data={str(data_dir / 'mbpp.jsonl')!r}); "
        "assert not {'jax', 'transformers', 'datasets', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
