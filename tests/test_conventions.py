"""What all commands, modules, scripts and documents keep to."""

import importlib
import os
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


def test_the_readmes_way_through_the_code_is_there():
    section = README.split("## Reading the code")[1].split("\n## ")[0]
    files, paper = (part.splitlines()[1:] for part in section.split("\n\n")[1:3])
    rooms = set()
    for row in files[1:]:
        _, places, about, _ = row.split("|")
        first, *others = re.findall(r"`(.+?)`", places)
        folder = ROOT.parent / first if first.endswith("/") else (ROOT.parent / first).parent
        named = re.findall(r"`(\w+\.py)`", about)
        inside = [name for name in others if not (ROOT.parent / name).is_dir()]
        for path in (ROOT.parent / first, *(folder / name for name in (*named, *inside))):
            assert path.exists(), row
            rooms.add(path.relative_to(ROOT.parent).as_posix().split("/")[:2][-1])
    held = {p.name for p in ROOT.iterdir() if (p / "__init__.py").exists()}
    assert held | {f"{name}.py" for name in COMMANDS if (ROOT / f"{name}.py").exists()} <= rooms
    for row in paper[1:]:
        for name in re.findall(r"`(.+?)`", row):
            importing = f"mucode_jax.{name}"
            module, _, attribute = importing.rpartition(".")
            try:
                importlib.import_module(importing)
            except ModuleNotFoundError:
                assert hasattr(importlib.import_module(module), attribute), row


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


SCRIPTS = sorted(
    path.relative_to(ROOT.parent).as_posix()
    for pattern in ("launch/*.sh", "launch/*.sbatch", "findings/*.sh", ".ci/run")
    for path in ROOT.parent.glob(pattern)
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_shell_scripts_pass_shellcheck(name):
    installed = pathlib.Path(sys.executable).parent  # need not be on the PATH
    command = shutil.which("shellcheck", path=f"{installed}:{os.environ['PATH']}")
    if command is None:
        pytest.skip("needs shellcheck (extra `test`)")
    done = subprocess.run([command, ROOT.parent / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name.startswith("findings/")])
def test_a_finding_names_its_versions_and_cleans_up(name):
    path = ROOT.parent / name
    lines = path.read_text(encoding="utf-8").splitlines()
    assert os.access(path, os.X_OK) and lines[0] == "#!/usr/bin/env bash"
    text = "\n".join(lines)
    pinned = re.findall(r"([a-z][\w-]*)==([\d.]+)", text)
    assert pinned and all(f"{package} {version}" in lines[1] for package, version in pinned)
    assert all("==" in word for word in re.search(r"pip\" install -q (.+)", text)[1].split())
    assert "=$(mktemp -d)" in text and "trap 'rm -rf " in text and "set -euo pipefail" in text
    assert "# Output:" in lines and "mucode" not in text


def test_the_folder_of_findings_holds_nothing_else():
    held = {path.name for path in (ROOT.parent / "findings").iterdir()}
    assert {name for name in held if not name.endswith(".sh")} == {"README.md"} and len(held) > 1


def test_git_tracks_nothing_empty_and_nothing_stray():
    """A test that writes into the folder it runs in would leave something here."""
    if not (ROOT.parent / ".git").exists():
        pytest.skip("not a clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT.parent, capture_output=True)
    files = [pathlib.Path(name) for name in listed.stdout.decode().split("\0") if name]
    folders = {"configs", "findings", "launch", "mucode_jax", "tests", ".ci"}
    documents = {"README.md", "BENCHMARKS.md", "CHANGELOG.md", "LICENSE"}
    assert {path.parts[0] for path in files} - folders - documents == {
        *("setup.py", "pyproject.toml", ".gitignore")
    }
    present = [path for path in files if (ROOT.parent / path).is_file()]
    empty = [path for path in present if not (ROOT.parent / path).stat().st_size]
    assert not [path for path in empty if path.name != "__init__.py"]
