"""The names that a program and its tests find without importing them.

numpy doubles what a fork costs, and few programs use it. So there are two fork servers: one that
has numpy, for the programs whose text names it, and one that imports it when `np` is first used.
"""

from __future__ import annotations

import importlib
import re
import types

TEXT = """\
import math
import re
import copy
import datetime
import itertools
import collections
import heapq
import functools
import hashlib
import numpy
import numpy as np
import string
import typing
from typing import *
from collections import *
import os
import sys
"""

# Imported beforehand because programs often do, so that each of them need not.
_OFTEN_IMPORTED = (
    *("bisect", "cmath", "decimal", "fractions", "inspect", "io", "json", "linecache", "operator"),
    *("queue", "random", "statistics", "threading", "time", "traceback", "encodings.idna"),
)
_USES_NUMPY = re.compile(r"\bnp\b|numpy|scipy|pandas|sklearn")
_LARGE = 100_000


class _Later(types.ModuleType):
    """Stands for numpy until an attribute of it is asked for."""

    def __getattr__(self, name: str) -> object:
        first = "shape" not in self.__dict__
        module = importlib.import_module("numpy")
        if first:
            module.random.seed(0)
            self.__dict__.update(module.__dict__)
        return getattr(module, name)


def load(*, numpy: bool) -> dict[str, object]:
    """A fresh namespace with the names of the prelude; imports what programs often use.

    Args:
      numpy: import numpy now (its random numbers begin at seed 0), not when it is first used.
    """
    for name in _OFTEN_IMPORTED:
        __import__(name)
    names: dict[str, object] = {"__name__": "__main__"}
    if numpy:
        exec(TEXT, names)
        importlib.import_module("numpy.random").seed(0)
        return names
    exec("".join(line for line in TEXT.splitlines(True) if "numpy" not in line), names)
    return {**names, "numpy": _Later("numpy"), "np": _Later("numpy")}


def uses_numpy(*texts: str) -> bool:
    """Whether a program of these texts is better run where numpy is; true for very long ones."""
    return any(len(text) > _LARGE or _USES_NUMPY.search(text) for text in texts)
