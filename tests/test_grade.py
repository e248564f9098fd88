"""The grade command: order, what is kept, what is refused, and how much it holds at once."""

import concurrent.futures
import gzip
import json
import os
import pathlib
import pty
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from mucode_jax import benchmarks, grade
from mucode_jax.benchmarks.files import Row, read_jsonl
from mucode_jax.sandbox import Outcome

ROOT = pathlib.Path(__file__).resolve().parents[1]

PROBLEMS = [
    {
        "task_id": "twice",
        "prompt": "Write twice(x).",
        "public_tests": ["assert twice(2) == 4"],
        "private_tests": ["assert twice(0) == 0", "assert twice(-3) == -6"],
    },
    {
        "task_id": 7,
        "prompt": "Write seven().",
        "public_tests": ["assert seven() == 7"],
        "private_tests": [],
    },
]
RIGHT, SQUARE = "def twice(x):\n    return 2 * x", "def twice(x):\n    return x * x"
CANDIDATES = [
    {"task_id": "twice", "code": RIGHT, "note": {"kept": [1, None]}},
    {"task_id": "twice", "code": SQUARE},
    {"code": "def seven():\n    return 7", "task_id": 7},
    {"task_id": "twice", "code": "def twice(x):\n    return 1 / 0"},
    {"task_id": "twice", "code": "while True: pass"},
    {"task_id": "7", "code": ""},
]


def write(path, rows):
    text = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture
def problems(tmp_path):
    return write(tmp_path / "problems.jsonl", PROBLEMS)


def flags(problems, candidates, out, *more):
    paths = {"--data": problems, "--candidates": candidates, "--out": out}
    return ["--benchmark", "jsonl", *(str(x) for pair in paths.items() for x in pair), *more]


class FakePool:
    """Answers `status` for every program, in no order, and counts how many it held at once.

    Takes the place of the real pool where the subject is the command and not execution.
    """

    isolation = {"level": "none"}

    def __init__(self, status="pass"):
        self.status, self.most, self.held = status, 0, 0
        self.lock = threading.Lock()
        self.executor = concurrent.futures.ThreadPoolExecutor(8)

    def submit(self, program, tests):
        with self.lock:
            self.held += 1
            self.most = max(self.most, self.held)
        return self.executor.submit(self.run)

    def run(self):
        time.sleep(random.random() / 500)
        with self.lock:
            self.held -= 1
        return Outcome(self.status, summary="" if self.status == "pass" else "no worker")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.executor.shutdown()


def test_verdicts_come_in_the_order_of_the_candidates_with_all_they_brought(tmp_path, problems):
    candidates = write(tmp_path / "in.jsonl.gz", CANDIDATES)
    out = tmp_path / "out.jsonl.gz"
    assert grade.main(flags(problems, candidates, out, "--timeout", "2", "--workers", "2")) == 0
    rows = [row.fields for row in read_jsonl(out)]
    assert [{k: v for k, v in row.items() if k not in ("public", "private")} for row in rows] == (
        CANDIDATES
    )
    verdicts = [(row["public"], row["private"]) for row in rows]
    statuses = [tuple(side and side["status"] for side in pair) for pair in verdicts]
    assert statuses == [
        ("pass", "pass"),
        ("pass", "fail"),
        ("pass", None),
        ("error", "error"),
        ("timeout", "timeout"),
        ("error", None),
    ]
    assert all(
        side["passed"] == (side["status"] == "pass") == (side["feedback"] == "")
        for pair in verdicts
        for side in pair
        if side
    )
    assert "ZeroDivisionError" in rows[3]["public"]["feedback"]
    assert not list(tmp_path.glob("*.part"))


def test_a_pipe_which_cannot_be_read_twice_is_refused(tmp_path, problems, capsys):
    os.mkfifo(tmp_path / "pipe")
    assert grade.main(flags(problems, tmp_path / "pipe", tmp_path / "out.jsonl")) == 2
    assert "can be read twice" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_humaneval_bodies_whole_functions_and_helpers_are_graded(tmp_path, data_dir):
    bodies = {
        row.task_id(): row.text("canonical_solution")
        for row in read_jsonl(data_dir / "humaneval.jsonl")
    }
    whole = "def decode_cyclic(s: str):\n    return encode_cyclic(encode_cyclic(s))"
    candidates = [
        {"task_id": "HumanEval/38", "code": bodies["HumanEval/38"]},
        {"task_id": "HumanEval/38", "code": whole},
        {"task_id": "HumanEval/0", "code": bodies["HumanEval/0"]},
        {"task_id": "HumanEval/0", "code": "    return True"},
        {"task_id": "HumanEval/53", "code": "def add(x: int, y: int):\n    return x - y"},
    ]
    out = tmp_path / "out.jsonl"
    argv = flags(data_dir / "humaneval.jsonl", write(tmp_path / "in.jsonl", candidates), out)
    assert grade.main(["--benchmark", "humaneval", *argv[2:]]) == 0
    passed = [
        (row.fields["public"]["passed"], row.fields["private"]["passed"]) for row in read_jsonl(out)
    ]
    right = (True, True)
    assert passed == [right, right, right, (False, False), (False, False)]


def test_standard_input_programs_are_graded(tmp_path, data_dir):
    source = data_dir / "code_contests_sample.jsonl"
    (problem,) = (p for p in benchmarks.load("code_contests", "all", data=source).problems[:1])
    answers = {given + "\n": expected for given, expected in problem.public.stdio}
    lookup = f"import sys\nprint({answers!r}.get(sys.stdin.read(), ''))"  # knows the public ones
    out = tmp_path / "out.jsonl"
    candidates = write(tmp_path / "in.jsonl", [{"task_id": problem.task_id, "code": lookup}])
    argv = flags(source, candidates, out)
    assert grade.main(["--benchmark", "code_contests", *argv[2:]]) == 0
    (row,) = read_jsonl(out)
    assert row.fields["public"]["status"] == "pass"
    assert row.fields["private"]["status"] == "fail"


def test_compat_divides_mbpp_as_published(tmp_path, data_dir):
    # Code that knows the answers of the listed tests alone fails the challenge tests, if they run.
    data = data_dir / "mbpp.jsonl"
    (row,) = (row for row in read_jsonl(data) if row.task_id() == "16")
    listed = [test.partition("(")[2].partition(")")[0] for test in row.texts("test_list")]
    code = (
        f"{row.text('code')}\nright = text_lowercase_underscore\n"
        f"def text_lowercase_underscore(text):\n"
        f"    return right(text) if text in [{', '.join(listed)}] else None\n"
    )
    candidates = write(tmp_path / "in.jsonl", [{"task_id": 16, "code": code}])
    out = tmp_path / "out.jsonl"
    verdicts = []
    for more in ([], ["--compat"]):
        argv = ["--benchmark", "mbpp", *flags(data, candidates, out)[2:], *more]
        assert grade.main(argv) == 0
        (graded,) = read_jsonl(out)
        verdicts.append((graded.fields["public"]["passed"], graded.fields["private"]["passed"]))
    assert verdicts == [(True, False), (True, True)]


@pytest.mark.parametrize(
    ("lines", "more", "message"),
    [
        ([CANDIDATES[0], "{\n"], [], "line 2: not JSON"),
        ([{"task_id": "twice"}], [], "line 1: field 'code' must be there and be text"),
        ([{"task_id": "twice", "code": 3}], [], "line 1: field 'code' must be there"),
        ([{"task_id": "other", "code": ""}], [], "line 1: task_id 'other' is not in the benchmark"),
        ([{"code": ""}], [], "line 1: field 'task_id' is missing"),
        ([], [], "no candidates in it"),
        ([CANDIDATES[0]], ["--split", "dev"], None),  # no record names a split: all are graded
        ([CANDIDATES[0]], ["--out", "{tmp}/none/out.jsonl"], "out.jsonl: cannot be written"),
        ([CANDIDATES[0]], ["--data", "{tmp}/none.jsonl"], "none.jsonl: cannot be read"),
        ([CANDIDATES[0]], ["--candidates", "{tmp}/none.jsonl"], "none.jsonl: cannot be read"),
    ],
)
def test_bad_input_ends_in_one_line_and_exit_status_2(
    tmp_path, problems, capsys, monkeypatch, lines, more, message
):
    monkeypatch.setattr(grade, "Pool", lambda **_: FakePool())
    out = tmp_path / "out.jsonl"
    argv = flags(problems, write(tmp_path / "in.jsonl", lines), out)
    status = grade.main([*argv, *(text.format(tmp=tmp_path) for text in more)])
    error = capsys.readouterr().err
    if message is None:
        assert status == 0
        return
    assert status == 2
    assert message in error and error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    "more",
    [
        ["--timeout", "0"],
        ["--timeout", "nan"],
        ["--timeout", "soon"],
        ["--workers", "0"],
        ["--isolation", "none"],
        ["--benchmark", "apps"],
        ["--unknown"],
    ],
)
def test_bad_flags_end_in_one_line_and_exit_status_2(problems, tmp_path, capsys, more):
    with pytest.raises(SystemExit) as leaving:
        grade.main(flags(problems, tmp_path / "in.jsonl", tmp_path / "out.jsonl", *more))
    assert leaving.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_infrastructure_fault_is_reported_and_ends_in_exit_status_1(
    tmp_path, problems, capsys, monkeypatch
):
    monkeypatch.setattr(grade, "Pool", lambda **_: FakePool("infra"))
    out = tmp_path / "out.jsonl"
    candidates = write(tmp_path / "in.jsonl", CANDIDATES[:2])
    assert grade.main(flags(problems, candidates, out)) == 1
    verdicts = [row.fields["public"] for row in read_jsonl(out)]
    assert verdicts == [{"passed": False, "status": "infra", "feedback": "no worker"}] * 2
    error = capsys.readouterr().err
    assert "in.jsonl, line 2: could not be graded (no worker)" in error
    assert "2 not to be graded (infra)" in error


BROKEN = [
    {
        "task_id": "broken",
        "prompt": "Write f(x).",
        "public_tests": ["assert f(1) == 2"],
        "private_tests": ["x = 3\nassert f(x) == 4\n1 / 0"],
    },
    {
        "task_id": "unpacks",
        "prompt": "Write f(x).",
        "public_tests": ["a, b = f(1)\nassert a == b"],
        "private_tests": [],
        "solution": "def f(x):\n    return x + 1",
    },
    {
        "task_id": "sound",
        "prompt": "Write f(x).",
        "public_tests": ["a, b = f(1)\nassert a == b"],
        "private_tests": [],
        "solution": "def f(x):\n    return x, x",
    },
]


def test_a_test_that_fails_by_itself_is_infra_with_its_line_and_exit_status_1(tmp_path, capsys):
    data = write(tmp_path / "problems.jsonl", BROKEN)
    code = "def f(x):\n    return x + 1"
    candidates = [{"task_id": problem["task_id"], "code": code} for problem in BROKEN]
    out = tmp_path / "out.jsonl"
    assert grade.main(flags(data, write(tmp_path / "in.jsonl", candidates), out)) == 1
    first, second, third = (row.fields for row in read_jsonl(out))
    assert (first["public"]["status"], first["private"]["status"]) == ("pass", "infra")
    line = "test 1, line 3 fails with any program: 1 / 0: ZeroDivisionError: division by zero"
    assert first["private"]["feedback"] == line
    # Only the reference tells that these tests are wrong, and the next ones are not.
    assert second["public"]["status"] == "infra"
    assert "the reference solution fails with TypeError" in second["public"]["feedback"]
    assert third["public"]["status"] == "error"
    error = capsys.readouterr().err
    assert f"in.jsonl, line 1: could not be graded ({line})" in error
    assert "3 graded, 0 pass all their tests, 2 not to be graded (infra)" in error


def test_a_text_around_the_program_that_fails_is_no_candidates_fault(tmp_path):
    task = {"prompt": "p", "public_tests": ["assert f(1) == 2"], "private_tests": []}
    solution = "def f(x):\n    return x + 1"
    problems = [
        {"task_id": "before", "preamble": "import nosuchmodule", **task},
        {"task_id": "after", "setup": "f.scale = 1 / 0", "solution": solution, **task},
    ]
    data = write(tmp_path / "problems.jsonl", problems)
    rows = [{"task_id": name, "code": solution} for name in ("before", "after")]
    out = tmp_path / "out.jsonl"
    assert grade.main(flags(data, write(tmp_path / "in.jsonl", rows), out)) == 1
    first, second = (row.fields["public"] for row in read_jsonl(out))
    assert (first["status"], second["status"]) == ("infra", "infra")
    assert first["feedback"].startswith("what stands before the program fails: ModuleNotFound")
    assert second["feedback"].startswith("the setup of the tests fails: ZeroDivisionError")


def test_tests_in_classes_decide(tmp_path):
    test = "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n"
    test += "        self.assertEqual(f(1), 2)\n"
    problem = BROKEN[0] | {"public_tests": [test], "private_tests": []}
    data = write(tmp_path / "problems.jsonl", [problem])
    codes = ["def f(x):\n    return 2", "def f(x):\n    return 3"]
    rows = [{"task_id": "broken", "code": code} for code in codes]
    out = tmp_path / "out.jsonl"
    assert grade.main(flags(data, write(tmp_path / "in.jsonl", rows), out)) == 0
    assert [row.fields["public"]["status"] for row in read_jsonl(out)] == ["pass", "fail"]


def test_text_before_the_program_is_there_for_its_annotations(tmp_path):
    node = "class ListNode:\n    def __init__(self, val=0, next=None):\n"
    node += "        self.val, self.next = val, next"
    problem = {
        **{"task_id": 1, "prompt": "The value of a node.", "preamble": node},
        **{"public_tests": ["assert value(ListNode(3)) == 3"], "private_tests": []},
    }
    data = write(tmp_path / "problems.jsonl", [problem])
    code = "from typing import Optional\ndef value(node: Optional[ListNode]) -> int:\n"
    rows = [{"task_id": 1, "code": code + f"    return node.{name}"} for name in ("val", "next")]
    out = tmp_path / "out.jsonl"
    assert grade.main(flags(data, write(tmp_path / "in.jsonl", rows), out)) == 0
    assert [row.fields["public"]["status"] for row in read_jsonl(out)] == ["pass", "fail"]
    (problem,) = benchmarks.load("jsonl", "all", data=data).problems
    assert "come before your code:\n\nclass ListNode:" in problem.prompt


def test_ctrl_c_ends_it_with_one_line_and_status_130(tmp_path, problems):
    slow = {"task_id": "twice", "code": "import time\ntime.sleep(0.5)\n" + RIGHT}
    candidates = write(tmp_path / "in.jsonl", [slow] * 200)
    out = tmp_path / "out.jsonl"
    chance = random.Random(0)
    for _ in range(4):
        command = [sys.executable, "-m", "mucode_jax.grade", *flags(problems, candidates, out)]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr.readline().startswith("isolation: ")
            time.sleep(chance.random() * 1.5)
            process.send_signal(signal.SIGINT)
            said = process.stderr.read()
        assert process.returncode == 130
        lines = [line for line in said.splitlines() if "candidates (" not in line]
        assert len(lines) == 1 and "error: interrupted after" in lines[0], said
        assert not out.exists() and not list(tmp_path.glob("*.part"))


def test_what_is_in_flight_is_bounded_and_the_order_is_kept(monkeypatch, problems):
    monkeypatch.setattr(grade, "MAX_PENDING", 20)
    benchmark = benchmarks.load("jsonl", "all", data=problems)
    pool = FakePool()
    taken = 0

    def rows():
        nonlocal taken
        for taken in range(1, 501):
            yield Row({"task_id": "twice", "code": "", "n": taken}, "")

    seen = []
    for row, _, _ in grade.grade(pool, benchmark, rows()):
        seen.append(row.fields["n"])
        assert taken - len(seen) < 20
    assert seen == list(range(1, 501))
    assert pool.most <= 40  # two programs a candidate


def test_long_programs_are_bounded_by_their_size(monkeypatch, problems):
    monkeypatch.setattr(grade, "MAX_PENDING_SIZE", 1000)
    benchmark = benchmarks.load("jsonl", "all", data=problems)
    rows = (Row({"task_id": "twice", "code": "#" * 400}, "") for _ in range(50))
    pool = FakePool()
    assert sum(1 for _ in grade.grade(pool, benchmark, rows)) == 50
    assert pool.most <= 6


def test_a_result_that_cannot_be_written_leaves_no_part_behind(tmp_path):
    target = tmp_path / "out.jsonl"
    target.write_text("before")
    with pytest.raises(OSError, match="full"), grade.writing(str(target), of=[]) as out:
        out.write("half of it")
        raise OSError("disk full")
    assert target.read_text() == "before"
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_a_result_is_not_written_over_what_it_is_made_of(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("candidates")
    (tmp_path / "link.jsonl").symlink_to(source)
    for name in ("in.jsonl", "link.jsonl"):
        with (
            pytest.raises(ValueError, match=f"{name}: cannot be written .it is what is read"),
            grade.writing(tmp_path / name, of=[source]),
        ):
            pass
    assert source.read_text() == "candidates" and len(os.listdir(tmp_path)) == 2


def test_the_command_runs_as_a_module_and_speaks_in_plain_lines(tmp_path, problems):
    candidates = write(tmp_path / "in.jsonl", CANDIDATES[:3])
    out = tmp_path / "out.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "mucode_jax.grade", *flags(problems, candidates, out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "isolation: " in done.stderr
    assert "3 graded, 2 pass all their tests; written to" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_terminal_sees_a_bar(tmp_path, problems):
    script = (
        "import sys; from mucode_jax import grade; from tests.test_grade import FakePool\n"
        "grade.Pool = lambda **_: FakePool()\n"
        "sys.exit(grade.main(sys.argv[1:]))"
    )
    candidates = write(tmp_path / "in.jsonl", CANDIDATES)
    main, terminal = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", script, *flags(problems, candidates, tmp_path / "out.jsonl")],
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm"},
        stderr=terminal,
    )
    os.close(terminal)
    seen = os.read(main, 1 << 16).decode()
    os.close(main)
    assert done.returncode == 0, seen
    assert "grading" in seen and "6/6" in seen


def test_surrogates_in_code_are_an_answer_like_any_other(tmp_path, problems):
    candidates = write(tmp_path / "in.jsonl", [{"task_id": 7, "code": "x = '\ud800'"}])
    out = tmp_path / "out.jsonl"
    assert grade.main(flags(problems, candidates, out)) == 0
    (row,) = read_jsonl(out)
    assert row.fields["code"] == "x = '\ud800'"
    assert row.fields["public"]["status"] == "error"


def test_reference_solutions_of_a_sample_pass_and_buggy_ones_fail(data_dir):
    script = ROOT / "tests" / "bench" / "references.py"
    done = subprocess.run(
        [sys.executable, str(script), "--data", str(data_dir), "--sample", "6"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("pass in") == 7
