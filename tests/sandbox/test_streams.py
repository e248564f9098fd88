"""Standard streams are those of every Python, the same at every level of isolation."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mucode_jax.core.records import Tests
from mucode_jax.sandbox import Pool, isolation, probe

SHOWN = """\
import sys
for name in ("stdin", "stdout", "stderr"):
    stream = getattr(sys, name)
    for of in (stream, stream.buffer, stream.buffer.raw):
        words = ("mode", "name", "encoding", "errors", "newlines", "line_buffering")
        words += ("write_through", "closefd", "closed")
        found = [getattr(of, word, None) for word in words]
        methods = ("fileno", "isatty", "readable", "writable")
        print(type(of).__name__, found, [getattr(of, x)() for x in methods])
    print(repr(stream), stream is getattr(sys, "__" + name + "__"))
print(ascii(sys.stdin.read()))
"""
GIVEN = "1 2\r\n3\r4\n"
BY_NAME = """\
import io, os, pathlib, sys
for name in ("/dev/stdin", "/dev/fd/0", "/dev/stdout", "/dev/fd/1", "/dev/stderr"):
    assert os.path.exists(name), name
with open("/dev/stdin") as file:
    assert file.readline() == "1 2\\n" and file.name == "/dev/stdin"
os.lseek(0, 0, 0)
assert pathlib.Path("/dev/fd/0").read_text() == "1 2\\n3\\n"
os.lseek(0, 0, 0)
assert io.open("/dev/stdin", "rb").read() == b"1 2\\n3\\n"
os.lseek(0, 0, 0)
assert os.read(os.open("/dev/stdin", os.O_RDONLY), 4) == b"1 2\\n"
print("a", flush=True)
open("/dev/stdout", "w").write("b\\n")
open(pathlib.Path("/dev/fd/1"), "w").write("c\\n")
print("d")
open("/dev/null").close()
"""


@pytest.fixture(scope="module")
def reasons():
    return probe()


@pytest.fixture(scope="module", params=isolation.LEVELS)
def run(request, reasons):
    if reasons[request.param]:
        pytest.skip(f"no {request.param} here: {reasons[request.param]}")
    with Pool(workers=1, isolation=request.param, exact=True) as pool:
        yield lambda code, **tests: pool.submit(code, Tests(**tests)).result(timeout=300)


def test_streams_have_what_they_have_in_python_itself(run, tmp_path):
    (tmp_path / "in").write_bytes(GIVEN.encode())
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    with open(tmp_path / "in") as given:
        plain = subprocess.run(
            [sys.executable, "-c", SHOWN],
            stdin=given,
            capture_output=True,
            text=True,
            env=kept | {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"},
        )
    assert plain.stderr == ""
    assert run(SHOWN, stdio=((GIVEN, plain.stdout),)).stdout == plain.stdout


def test_the_first_lines_of_fast_input_templates_run(run):
    code = "import sys\nprint(sys.stdin.mode, sys.stdin.name, sys.stdout.mode)\n"
    outcome = run(code, stdio=(("", "r <stdin> w\n"),))
    assert outcome.status == "pass", outcome
    code = """\
import os, sys
from io import BytesIO, IOBase
class FastIO(IOBase):
    def __init__(self, file):
        self.handle = file.fileno()
        self.writable = "x" in file.mode or "r" not in file.mode
        self.kept = BytesIO()
    def read(self):
        return os.read(self.handle, max(os.fstat(self.handle).st_size, 8192))
print(sum(map(int, FastIO(sys.stdin).read().split())), FastIO(sys.stdout).writable)
"""
    assert run(code, stdio=(("1 2\n", "3 True"),)).status == "pass"


def test_streams_are_found_by_name(run):
    outcome = run(BY_NAME, stdio=(("1 2\n3\n", "a\nb\nc\nd\n"),))
    assert outcome.status == "pass", outcome


def test_bytes_that_are_no_utf8_pass_through(run):
    outcome = run("print(ascii(input()))", stdio=(("\udcff", "'\\udcff'"),))
    assert outcome.status == "pass", outcome


def test_standard_modules_can_be_imported(run):
    names = "sqlite3 json csv xml.dom.minidom ctypes decimal zipfile tempfile unittest"
    names += " asyncio http.client email.mime.text difflib zoneinfo numpy"
    code = f"for name in {names.split()}:\n    __import__(name)\n"
    outcome = run(code)
    assert outcome.status == "pass", outcome
