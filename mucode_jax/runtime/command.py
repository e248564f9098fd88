"""What every command of the package shares: its flags' parser, the line that says what failed, and
output files that appear when they are whole.

Exit statuses: 0 done, 1 what was asked failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import os
import pathlib
import stat
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import IO, NoReturn, TextIO

from mucode_jax.runtime import interruption

_PACKAGE = pathlib.Path(__file__).parents[1]


class Parser(argparse.ArgumentParser):
    """Shows a module's docstring as its help, and says in one line what is wrong with the flags."""

    def __init__(self, name: str, about: str, statuses: str) -> None:
        """
        Args:
          name: of the module, after `mucode_jax.`.
          about: what it does, with examples: the module's docstring.
          statuses: what the exit status means.
        """
        super().__init__(
            prog=f"python -m mucode_jax.{name}",
            description=about,
            epilog=f"Exit status: {statuses}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")

    def print_help(self, file: object = None) -> NoReturn:
        self.exit(show(self.format_help().rstrip()))

    def add_isolation(self, levels: Sequence[str]) -> None:
        """The flag of every command that runs programs; `levels` are the sandbox's."""
        self.add_argument(
            "--isolation",
            choices=levels,
            default="landlock",
            help="the weakest level accepted (%(default)s)",
        )


def positive(text: str) -> int:
    """A whole number from 1, for `type=`."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def workers(text: str) -> int:
    """A number of processes, for `type=`."""
    value = positive(text)
    if value > 1024:
        raise ValueError
    return value


def seconds(text: str) -> float:
    """A number of seconds above 0, a day at most, for `type=`."""
    value = float(text)
    if not 0 < value <= 86400:
        raise ValueError
    return value


positive.__name__ = "number from 1"  # argparse names the type in its message
workers.__name__ = "number from 1 to 1024"
seconds.__name__ = "number of seconds up to 86400"


def fail(name: str, message: str, status: int) -> int:
    """Says in one line why the command ends; returns the exit status."""
    print(f"python -m mucode_jax.{name}: error: {' '.join(message.split())}", file=sys.stderr)
    return status


def cache() -> pathlib.Path:
    """This package's folder below the user's cache, which need not be there yet.

    Raises:
      ValueError: the user has no home.
    """
    try:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    except RuntimeError as error:
        raise ValueError("this user has no home for a cache; set XDG_CACHE_HOME") from error
    return pathlib.Path(home) / "mucode_jax"


def is_ours(error: BaseException) -> bool:
    """Whether it was raised in this package, in words for people, and not in a library."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return _PACKAGE in pathlib.Path(last.filename).parents


def spell_all() -> None:
    """Characters that standard output has no code for are written as escapes from here on."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


class Unheard(OSError):
    """Standard output takes nothing (a full disk, a closed pipe)."""


def show(text: str) -> int:
    """Prints a command's result; returns the exit status: 0, or 1 where it was not taken."""
    spell_all()
    try:
        print(text, flush=True)
    except OSError as error:
        return unheard(error)
    return 0


def unheard(error: OSError) -> int:
    """Says that standard output takes nothing, see `Unheard`; returns 1."""
    with open(os.devnull, "w") as nowhere:  # or it would be tried again, and fail, at the exit
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    print(f"cannot write to standard output: {error.strerror}", file=sys.stderr)
    return 1


@contextlib.contextmanager
def writing(
    path: str | os.PathLike[str], *, of: Sequence[str | os.PathLike[str]]
) -> Iterator[TextIO]:
    """A text file that appears under its name when it is whole; gzip where the name ends in .gz.

    What is no ordinary file (a pipe, a terminal) is written as it comes. `of` are the files that it
    is made of.

    Raises:
      ValueError: the file cannot be made, or is one of those that it is made of.
      OSError: it could not be written to its end (a full disk).
    """
    target = pathlib.Path(path)
    try:
        ordinary = not target.exists() or stat.S_ISREG(target.stat().st_mode)
        name = target.with_name(f".{target.name}.{os.getpid()}.part") if ordinary else target
        if ordinary and target.exists() and any(map(target.samefile, of)):
            raise ValueError("it is what is read; give another name")
        raw = open(name, "wb")  # noqa: SIM115 (closed by the stack below)
    except (OSError, ValueError) as error:  # ValueError: no name, or a null byte in it
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path}: cannot be written ({reason})") from error
    try:
        if ordinary:
            interruption.unfinished.add(name)
        with contextlib.ExitStack() as stack:
            binary: IO[bytes] | gzip.GzipFile = stack.enter_context(raw)
            if target.suffix == ".gz":
                binary = stack.enter_context(
                    gzip.GzipFile(target.stem, "wb", compresslevel=6, fileobj=raw, mtime=0)
                )
            text = stack.enter_context(io.TextIOWrapper(binary, "utf-8", newline="\n"))
            yield text
            text.flush()
        if ordinary:
            os.replace(name, target)
    except BaseException:
        if ordinary:
            name.unlink(missing_ok=True)
        raise
    finally:
        interruption.unfinished.discard(name)
