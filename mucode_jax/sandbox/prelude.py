"""The names that a program and its tests find without importing them."""

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
OFTEN_IMPORTED = (
    *("bisect", "cmath", "decimal", "fractions", "inspect", "io", "json", "linecache", "operator"),
    *(
        "queue",
        "random",
        "statistics",
        "threading",
        "time",
        "traceback",
        "encodings.idna",
        "numpy.random",
    ),
)


def load() -> dict[str, object]:
    """A fresh namespace with the names of the prelude; imports what programs often use."""
    for name in OFTEN_IMPORTED:
        __import__(name)
    names: dict[str, object] = {"__name__": "__main__"}
    exec(TEXT, names)
    return names
