"""Untrusted programs in, verdicts that cannot be forged out; see README.md in this folder."""

from .isolation import LEVELS, IsolationError
from .pool import Outcome, Pool, make_runner, probe

__all__ = ["LEVELS", "IsolationError", "Outcome", "Pool", "make_runner", "probe"]
