"""What every command of the package shares: its flags' parser and the line that says what failed.

Exit statuses: 0 done, 1 what was asked failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn


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


def positive(text: str) -> int:
    """A whole number from 1, for `type=`."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


positive.__name__ = "number from 1"  # argparse names the type in its message


def fail(name: str, message: str, status: int) -> int:
    """Says in one line why the command ends; returns the exit status."""
    print(f"python -m mucode_jax.{name}: error: {' '.join(message.split())}", file=sys.stderr)
    return status
