"""The wheel: what it holds, and that it works where there is no clone."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

from mucode_jax import __main__ as commands
from mucode_jax import __version__
from mucode_jax.runtime import config_file

ROOT = pathlib.Path(__file__).resolve().parents[1]
OF_ONES_OWN = """
from configs import base


def get_config():
    raise ValueError(f"the base is {base.__file__}, the seed {base.get_config().seed}")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: setuptools leaves a folder beside the sources and reads it next time."""
    pytest.importorskip("build", reason="needs build (extra `check`)")
    home = tmp_path_factory.mktemp("wheel")
    for name in ("mucode_jax", "configs"):
        shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, home)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(home)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (home / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory):
    """Runs a command of the unpacked wheel, outside any clone."""
    home, elsewhere = (tmp_path_factory.mktemp(name) for name in ("unpacked", "elsewhere"))
    zipfile.ZipFile(wheel).extractall(home)

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=elsewhere,
            env=os.environ | {"PYTHONPATH": str(home), "HOME": str(elsewhere)},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout, done.stderr

    run.home = home
    return run


def test_the_wheel_holds_what_the_package_reads_and_nothing_at_the_top_beside_it(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {path for path in (ROOT / "mucode_jax").rglob("*") if path.is_file()}
    read = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if "__pycache__" not in path.parts and path.suffix != ".md"
    }
    configs = {f"mucode_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    assert {"mucode_jax/configs/base.py", "mucode_jax/models/mini/model.safetensors"} <= names
    assert (read | configs) - names == set()
    top = {name.partition("/")[0] for name in names}
    assert top == {"mucode_jax", f"mucode_jax-{__version__}.dist-info"}


def test_the_wheel_brings_the_console_script(wheel):
    with zipfile.ZipFile(wheel) as file:
        (entries,) = (name for name in file.namelist() if name.endswith("/entry_points.txt"))
        assert "mucode = mucode_jax.__main__:main" in file.read(entries).decode().splitlines()


def test_outside_a_clone_the_commands_are_listed(run):
    assert run("mucode_jax") == (0, commands.usage() + "\n", "")
    assert run("mucode_jax", "--version") == (0, f"mucode_jax {__version__}\n", "")


@pytest.mark.parametrize("command", ["main", "aot"])
def test_outside_a_clone_a_config_is_found_by_its_name(run, command, tmp_path):
    flag = {"main": f"--workdir={tmp_path}/run", "aot": "--topology=v5e:2x2"}[command]
    status, out, error = run(f"mucode_jax.{command}", "--config", "quickstart:nosuch", flag)
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert f"{run.home}/mucode_jax/configs/quickstart.py" in error
    assert "quickstart has no variant 'nosuch'; it has :tiny and :compat" in error


def test_outside_a_clone_an_unknown_name_is_told_with_the_known_ones(run):
    status, _, error = run("mucode_jax.main", "--config", "quikstart", "--workdir", "run")
    assert status == 2 and f"(by name there are: {', '.join(config_file.names())})" in error


def test_outside_a_clone_a_config_of_ones_own_imports_the_shipped_ones(run, tmp_path):
    (tmp_path / "mine.py").write_text(OF_ONES_OWN)
    config = str(tmp_path / "mine.py")
    status, out, error = run("mucode_jax.main", "--config", config, "--workdir", "run")
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert f"the base is {run.home}/mucode_jax/configs/base.py, the seed 0" in error
