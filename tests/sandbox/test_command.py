"""`python -m mucode_jax.sandbox`."""

from __future__ import annotations

import gzip
import json

import pytest

from mucode_jax.benchmarks.files import read_jsonl
from mucode_jax.sandbox import __main__ as command

ROWS = [
    {"name": "right", "code": "def f(): return 1", "tests": ["assert f() == 1"]},
    {"name": "echo", "code": "print(input())", "stdin": "a", "stdout": "a\n"},
    {"name": "slow", "code": "while True: pass", "tests": [], "timeout_s": 0.3},
    {"name": "wrong", "code": "def f(): return 2", "tests": ["assert f() == 1"]},
]


def written(path, rows):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_outcomes_come_in_the_order_of_the_programs(tmp_path, suffix):
    programs = written(tmp_path / f"in{suffix}", ROWS)
    out = tmp_path / f"out{suffix}"
    assert command.main(["--programs", str(programs), "--out", str(out), "--workers", "2"]) == 0
    rows = [row.fields for row in read_jsonl(out)]
    assert [row["name"] for row in rows] == ["right", "echo", "slow", "wrong"]
    assert [row["status"] for row in rows] == ["pass", "pass", "timeout", "fail"]
    assert set(rows[0]) == {"name", "status", "seconds", "stdout", "stderr"}
    assert rows[1]["stdout"] == "a\n"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"name": "a"}, "field 'code' is missing"),
        ({"name": 1, "code": ""}, "field 'name' must be text, not a int"),
        ({"name": "a", "code": "", "tests": "x"}, "'tests' must be a list"),
        ({"name": "a", "code": "", "tests": ["assert f( == 1"]}, "test 1 of 1 does not parse"),
        ({"name": "a", "code": ""}, "give either 'tests' or both 'stdin' and 'stdout'"),
        ({"name": "a", "code": "", "tests": [], "stdin": ""}, "give either 'tests' or both"),
        ({"name": "a", "code": "", "stdin": "x"}, "field 'stdout' is missing"),
        ({"name": "a", "code": "", "tests": [], "timeout_s": -1}, "'timeout_s' must be"),
        ({"name": "a", "code": "\ud800", "tests": []}, "half of a surrogate pair"),
        ({"name": "a", "code": "", "stdin": "\ud800", "stdout": ""}, "half of a surrogate pair"),
        ([], "a JSON object"),
    ],
)
def test_a_bad_line_ends_in_one_sentence_and_status_2(tmp_path, capsys, row, said):
    programs = written(tmp_path / "in.jsonl", [ROWS[0], row])
    out = tmp_path / "out.jsonl"
    assert command.main(["--programs", str(programs), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "line 2" in error and said in error


def test_a_file_without_programs_is_refused(tmp_path, capsys):
    programs = written(tmp_path / "in.jsonl", [])
    assert command.main(["--programs", str(programs), "--out", str(tmp_path / "out")]) == 2
    assert "in.jsonl: no program in it" in capsys.readouterr().err


def test_a_missing_file_ends_in_one_sentence_and_status_2(tmp_path, capsys):
    flags = ["--programs", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "out")]
    assert command.main(flags) == 2
    assert "none.jsonl" in capsys.readouterr().err


def test_bad_flags_end_in_one_sentence_and_status_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        command.main(["--programs", "x", "--out", "y", "--workers", "0"])
    assert left.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_bytes_that_are_no_utf8_and_damaged_gzip_are_named(tmp_path, capsys):
    (tmp_path / "in.jsonl").write_bytes(b'{"name": "\xff"}\n')
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(b"{}")[:-4] + b"....")
    for name, said in (("in.jsonl", "line 1: not UTF-8"), ("in.jsonl.gz", "not a whole gzip file")):
        flags = ["--programs", str(tmp_path / name), "--out", str(tmp_path / "out")]
        assert command.main(flags) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
