"""Every command shows examples and its exit statuses; nothing speaks when it is imported."""

import importlib
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import mucode_jax.__main__

ROOT = pathlib.Path(mucode_jax.__file__).parent
README = (ROOT.parent / "README.md").read_text(encoding="utf-8")
# What stands at the top of the repository.
TOP = {".ci", ".gitignore", "BENCHMARKS.md", "CHANGELOG.md", "LICENSE", "README.md"} | {
    *("configs", "findings", "launch", "mucode_jax", "pyproject.toml", "setup.py", "tests")
}
COMMANDS = tuple(mucode_jax.__main__.COMMANDS)


def module(command):
    package = (ROOT / command).is_dir()
    return importlib.import_module(f"mucode_jax.{command}" + (".__main__" if package else ""))


def test_the_readme_names_every_command():
    found = {path for path in ROOT.rglob("*.py") if 'if __name__ == "__main__"' in path.read_text()}
    names = {(p.parent if p.name == "__main__.py" else p).stem for p in found}
    names -= {"worker", "mucode_jax"}
    assert names == set(COMMANDS)
    for name in names:
        assert re.search(rf"^\| `{name}\b", README, re.M), name


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_and_the_exit_statuses(command, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--help"])
    try:
        status = module(command).main(["x", "--help"] if command in ("main", "aot") else ["--help"])
    except SystemExit as stopped:
        status = stopped.code
    shown = capsys.readouterr().out
    assert status == 0
    assert f"\n    python -m mucode_jax.{command} " in shown
    assert re.search(r"Exit\s+status: 0", shown)


def test_importing_says_nothing():
    names = [
        ".".join(["mucode_jax", *p.relative_to(ROOT).with_suffix("").parts]).removesuffix(
            ".__init__"
        )
        for p in sorted(ROOT.rglob("*.py"))
        if p.name not in ("__main__.py", "worker.py")
    ]
    code = f"import importlib\nfor name in {names!r}: importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_changelog_keeps_its_form():
    lines = (ROOT.parent / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    versions = [line for line in lines if line.startswith("## ")]
    assert versions[0] == "## [Unreleased]"
    assert all(re.fullmatch(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", v) for v in versions[1:])
    kinds = {line for line in lines if line.startswith("### ")}
    known = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert kinds <= {f"### {kind}" for kind in known}
    assert re.fullmatch(r"\d+\.\d+\.\d+", mucode_jax.__version__)


def test_git_tracks_nothing_stray():
    """No empty file but those that make packages, nothing at the top that has no place there."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT.parent, capture_output=True)
    if listed.returncode:
        pytest.skip(f"no git checkout: {listed.stderr.decode().strip()}")
    files = [pathlib.Path(name) for name in listed.stdout.decode().split("\0") if name]
    assert {file.parts[0] for file in files} <= TOP
    present = [file for file in files if (ROOT.parent / file).is_file()]  # not removed since
    empty = [file for file in present if (ROOT.parent / file).stat().st_size == 0]
    assert [file for file in empty if file.name != "__init__.py"] == []
