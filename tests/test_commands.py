"""`python -m mucode_jax COMMAND` and the console script: what they list, how they end."""

import importlib.metadata
import subprocess
import sys

import pytest

import mucode_jax
from mucode_jax import __main__ as commands


def run(*arguments, **options):
    command = [sys.executable, "-m", "mucode_jax", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",)])
def test_every_command_is_listed_with_what_it_does(arguments, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mucode", *arguments])
    assert commands.main() == 0
    lines = capsys.readouterr().out.splitlines()
    for name, about in commands.COMMANDS.items():
        assert [line.split(maxsplit=1) for line in lines].count([name, about]) == 1
    assert max(map(len, lines)) <= 100


def test_the_version_is_that_of_the_package(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mucode", "--version"])
    assert commands.main() == 0
    assert capsys.readouterr().out == f"mucode_jax {mucode_jax.__version__}\n"


@pytest.mark.parametrize("name", ["mian", "", "--verbose", "runtime", "__init__"])
def test_an_unknown_command_is_one_line_with_the_known_ones_and_status_2(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mucode", name, "--help"])
    assert commands.main() == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    assert f"unknown command {name!r}" in shown.err and "main, solve, grade" in shown.err


def test_the_console_script_is_the_same_command():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="mucode")
    assert script.load() is commands.main


@pytest.mark.parametrize("name", ["sandbox", "report", "grade"])
def test_a_command_gets_its_own_flags_and_ends_in_its_own_status(name):
    """Two of them are packages."""
    helped = run(name, "--help", stdout=subprocess.PIPE)
    assert helped.returncode == 0 and f"python -m mucode_jax.{name} " in helped.stdout
    assert helped.stdout.startswith(f"usage: python -m mucode_jax.{name} ") and not helped.stderr
    refused = run(name, "--nosuch", stdout=subprocess.PIPE)
    assert refused.returncode == 2 and not refused.stdout
    assert refused.stderr.startswith(f"python -m mucode_jax.{name}: error: ")


@pytest.mark.parametrize("arguments", [(), ("--version",), ("sandbox", "--help")])
def test_a_standard_output_that_takes_nothing_is_status_1(arguments):
    with open("/dev/full", "w") as full:
        done = run(*arguments, stdout=full)
    assert done.returncode == 1
    assert done.stderr == "cannot write to standard output: No space left on device\n"
