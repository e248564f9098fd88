"""`share_folder`: a test and its program share the private temporary folder, for files only."""

from __future__ import annotations

import pytest

from mucode_jax.core.records import Tests
from mucode_jax.sandbox import Pool, probe

CODE = """\
import os, sqlite3
def write(name, text):
    with open(name, "w") as file:
        file.write(text)
def read(name): return open(name).read()
def tables(name):
    return [x for x, in sqlite3.connect(name).execute("select name from sqlite_master")]
def remove(name): os.remove(name)
"""
TEST = """\
import os, sqlite3, tempfile
assert os.listdir() == []
write("a.txt", "program")
assert open("a.txt").read() == "program"
with open("b.txt", "w") as file:
    file.write("test")
assert read("b.txt") == "test"
os.makedirs("folder/inner")
write("folder/inner/c.txt", "x")
assert os.path.getsize("folder/inner/c.txt") == 1
path = os.path.join(tempfile.gettempdir(), "d.db")
with sqlite3.connect("d.db") as connection:
    connection.execute("create table t(x)")
assert tables(path) == ["t"] == tables(os.path.abspath("d.db"))
remove("b.txt")
assert sorted(os.listdir()) == ["a.txt", "d.db", "folder"]
"""


@pytest.fixture(scope="module")
def run():
    if reason := probe()["namespaces"]:
        pytest.skip(f"no namespaces here: {reason}")
    with Pool(workers=1, share_folder=True) as pool:
        yield lambda code, *tests: pool.submit(code, Tests(tests)).result(timeout=300)


def test_both_see_the_files_that_either_writes_and_the_next_program_none(run, caplog):
    for _ in range(3):
        outcome = run(CODE, TEST)
        assert outcome.status == "pass", outcome
    assert caplog.text == ""  # the folder was emptied, no worker had to be replaced


def test_by_default_they_share_nothing():
    with Pool(workers=1) as pool:
        test = "write('a.txt', '1')\nassert not os.path.exists('a.txt')\n"
        assert pool.submit(CODE, Tests((test,))).result(timeout=120).status in ("pass", "error")
        test = "write('a.txt', '1')\nassert open('a.txt').read() == '1'"
        outcome = pool.submit(CODE, Tests((test,))).result(timeout=120)
    assert outcome.status in ("infra", "error")  # at `landlock` nothing can be written


def test_a_link_leads_nowhere_but_to_what_the_program_sees(run, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    code = f"import os\ndef link(name): os.symlink({str(secret)!r}, name)\n"
    test = "link('a.txt')\ntry:\n    text = open('a.txt').read()\nexcept OSError:\n    text = ''\n"
    assert run(code, test + "assert text == ''").status == "pass"
    write = "link('a.txt')\ntry:\n    open('a.txt', 'w').write('x')\nexcept OSError:\n    pass\n"
    assert run(code, write + "assert True").status == "pass"
    assert secret.read_text() == "secret"


@pytest.mark.parametrize(
    "test",
    [
        "import pickle\nwrite('a', '')\nassert pickle.load(open('a', 'rb')) == 1",
        "import subprocess, sys\nwrite('a.py', '')\nsubprocess.run([sys.executable, 'a.py'])",
        "write('a.py', '')\nexec(open('a.py').read())\nassert read('a.py') == ''",
        "import numpy as np\nassert np.load('a.npy', allow_pickle=True) == write('a', '')",
        "import os\nwrite('a.sh', '')\nos.system('sh a.sh')",
    ],
)
def test_a_test_that_would_run_what_is_in_a_file_is_refused(run, test):
    outcome = run(CODE, test)
    assert outcome.status == "infra" and "share_folder" in outcome.summary
    assert "line " in outcome.summary


def test_a_file_that_is_not_there_may_be_the_programs_fault(run):
    outcome = run("def write(name): pass", "write('a.txt')\nassert open('a.txt').read() == ''")
    assert outcome.status == "error"
    outcome = run("def write(name): pass", "data = open('a.txt').read()\nassert write(data)")
    assert outcome.status == "infra"
