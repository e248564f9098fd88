"""Ctrl-C, to the whole process group: one line, status 130, and nothing is left."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests.test_export import finished_run

ROOT = pathlib.Path(__file__).resolve().parents[1]

# A command in which something takes a minute: `slow` is called where it begins.
SCRIPT = """\
import runpy, sys, time

class Finder:
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            slow()

def slow(*_, **__):
    print("begun", flush=True)
    {wait}

sys.argv = {argv!r}
sys.meta_path.insert(0, Finder)
{patch}
runpy.run_module("mucode_jax." + sys.argv[0], run_name="__main__", alter_sys=True)
"""
COMPUTES = (
    "import jax; jax.block_until_ready(jax.jit(lambda x: jax.lax.while_loop("
    "lambda v: v[0, 0] > 0, lambda v: v @ v, x))(jax.numpy.ones((64, 64))))"
)


def interrupted(argv, *, module="", patch="", wait="time.sleep(60)"):
    """A command gets SIGINT a second after `slow` was called, with all the processes it started."""
    script = SCRIPT.format(module=module, wait=wait, argv=list(map(str, argv)), patch=patch)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        line = ""
        while line != "begun\n":
            line = process.stdout.readline()
            assert line, process.stderr.read()
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        sent = time.monotonic()
        _, said = process.communicate()
    assert (said, process.returncode) == ("mucode_jax: interrupted\n", 130)
    assert time.monotonic() - sent < 30
    until = time.monotonic() + 10
    while left := members(process.pid):
        assert time.monotonic() < until, left
        time.sleep(0.1)


def members(session):
    """The command lines of a session's processes."""
    lines = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                lines.append((process / "cmdline").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return lines


@pytest.mark.parametrize(
    ("command", "module"), [("solve", "jax"), ("score", "jax"), ("export", "numpy"), ("aot", "jax")]
)
def test_while_the_command_starts(command, module):
    interrupted([command], module=module)


@pytest.fixture
def problem(tmp_path):
    (tmp_path / "problem.json").write_text('{"prompt": "f: 1", "tests": ["assert f() == 1"]}')
    return tmp_path / "problem.json"


@pytest.mark.parametrize("wait", ["time.sleep(60)", COMPUTES])
def test_while_a_search_is_under_way(wait, problem):
    patch = "from mucode_jax.rollouts import search; search.best_of_n = slow"
    argv = ["solve", problem, "--verifier", "none", "--n", "1"]
    interrupted(argv, patch=patch, wait=wait)


def test_while_texts_are_scored(tmp_path):
    pairs, out = tmp_path / "pairs.jsonl", tmp_path / "folder" / "out.jsonl"
    out.parent.mkdir()
    pairs.write_text(json.dumps({"prompt": "f: 1", "completion": "def f(): return 1"}))
    patch = "from mucode_jax.rollouts import scorer; scorer.Scorer.__call__ = slow"
    argv = ["score", "--verifier", "mini", "--pairs", pairs, "--out", out]
    interrupted(argv, patch=patch, wait=COMPUTES)
    assert not list(out.parent.iterdir())


def test_while_a_model_is_copied(tmp_path):
    run, out = finished_run(tmp_path / "run"), tmp_path / "folder" / "out"
    out.parent.mkdir()
    patch = "import pathlib; pathlib.Path.write_text = slow"
    argv = ["export", "--workdir", run, "--what", "generator", "--out", out]
    interrupted(argv, patch=patch)
    assert not list(out.parent.iterdir())
