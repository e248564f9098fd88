"""EvalPlus's own release files: inputs, and a reference solution that says what is expected.

HumanEval+ v0.1.10 and MBPP+ v0.2.0 (github.com/evalplus, `*_release`) hold `base_input` and
`plus_input`, lists of arguments, with `canonical_solution` and `atol`. What is expected is what the
reference returns; it is run in the sandbox when a problem is first graded (`ReferenceTests`).

What counts as right is EvalPlus's rule (evalplus 0.3.1, `eval/__init__.py`, `unsafe_execute`): what
equals the reference's value; where `atol` is given, or the value is a float or a non-empty list or
tuple of floats (then `atol` is 1e-6), also what is of the same type and length and near it
(`numpy.allclose`, `rtol` 1e-7). Some problems have rules of their own (`eval/_special_oracle.py`).
Two things differ: what the program did to its arguments is not looked at where a rule needs them,
and a numpy float is a float. `contract` says which inputs are valid; upstream's evaluation does not
run it (63 inputs do not hold it), nor is it run here.
"""

from __future__ import annotations

import ast
import json
import math
from typing import Any

from mucode_jax.benchmarks.files import Row
from mucode_jax.core.records import EXPECTED, ReferenceTests

# The arguments `a` of MBPP+ as its functions take them, JSON having no tuples, sets and complex
# numbers (evalplus, `data/mbpp.py`, `mbpp_deserialize_inputs`): an expression, and task ids.
_ARGUMENTS = (
    (
        "[tuple(x) for x in a]",
        *(2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630),
        *(726, 740, 744, 809),
    ),
    (
        "[[tuple(y) for y in x] for x in a]",
        *(63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780),
    ),
    ("[[tuple(x) for x in a[0]], a[1]]", 75, 413, 444, 753),
    ("[a[0], tuple(a[1])]", 106, 750),
    ("[[set(x) if isinstance(x, list) and x else {} for x in a[0]]]", 115),
    ("[float(a[0]), complex(a[1])]", 124),
    ("[tuple(a[0]), a[1]]", 250, 405, 446, 617, 720, 763, 808),
    ("[complex(a[0])]", 252),
    ("[tuple(tuple(y) for y in x) for x in a]", 259, 401, 445),
    ("[tuple(tuple(x) if isinstance(x, list) else x for x in a[0])]", 278),
    ("[tuple(a[0]), a[1], a[2]]", 307),
    ("_deep(a)", 580, 615, 791),
    ("[{k: tuple(v) for k, v in a[0].items()}, *a[1:]]", 722),
)
_EXPRESSIONS = {number: expression for expression, *ids in _ARGUMENTS for number in ids}

# Rules of single problems: an expression that is true where the value `out` is accepted besides one
# that equals the reference's, `exp`; `a` are the arguments, `atol` the tolerance.
_ALSO_RIGHT = {
    "are_equivalent": "True",
    "sum_div": "out == 0",
    "surface_Area": "abs(out - _surface(*a)) <= atol",
    "digit_distance_nums": "out == _distance(*a)",
}
# Rules in place of equality.
_SETS = ("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly")
_SETS += ("larg_nnum", "intersection_array", "find_dissimilar", "Diff")
_TRUTHS = ("check_str", "text_match_three", "text_starta_endb")  # what is not None is as good
_RIGHT = {
    **dict.fromkeys(_SETS, "set(out) == set(exp)"),
    **dict.fromkeys(_TRUTHS, "exp == (out if isinstance(out, bool) else out is not None)"),
}
_ROOT = "find_zero"  # of HumanEval: any root will do

_HEAD = """\
import copy, json, math
import numpy as np
from solution import {name} as _function

def _deep(x):
    return tuple(map(_deep, x)) if isinstance(x, list) else x

_inputs = [{expression} for a in json.loads({inputs!r})]
"""
_RECORD = f"{EXPECTED} = [{{value}} for a in _inputs]\n"
_CHECK = """\

def _surface(edge, height):
    slant = math.sqrt((edge / 2) ** 2 + height**2)
    return round(edge**2 + 4 * (edge * slant) / 2)

def _distance(*numbers):
    texts = [str(x).zfill(max(len(str(y)) for y in numbers)) for x in numbers]
    return sum(abs(int(x) - int(y)) for x, y in zip(*texts))

def _floats(x):
    if isinstance(x, (list, tuple)):
        return bool(x) and all(isinstance(y, float) for y in x)
    if isinstance(x, np.ndarray):
        return x.dtype in (np.float32, np.float64)
    return isinstance(x, float)

def _right(out, exp, a, atol):
    equal = {equal}
    if atol == 0 and _floats(exp):
        atol = 1e-6
    if equal or atol == 0:
        return bool(equal)
    if type(out) is not type(exp) or (isinstance(exp, (list, tuple)) and len(out) != len(exp)):
        return False
    return bool(np.allclose(out, exp, rtol=1e-7, atol=atol))

def _check():
    for a, exp in zip(_inputs, {expected}, strict=True):
        out = _function(*copy.deepcopy(a))
        if not _right(out, exp, a, {atol}):
            assert out == exp
            assert False, "not what the reference returns"

_check()
"""
_CHECK_ROOT = """\

def _check():
    for a in _inputs:
        x = _function(*copy.deepcopy(a))
        assert abs(sum(c * math.pow(x, i) for i, c in enumerate(*a))) <= {atol}

_check()
"""


def is_release(row: Row) -> bool:
    """Whether a record is of the release files, and not of those in the form of the originals."""
    return "plus_input" in row.fields


def tests(row: Row, reference: str, *, expression: str = "a", timeout_s: float) -> ReferenceTests:
    """The base and plus tests of a record.

    Args:
      row: of a release file.
      reference: its solution as a whole program.
      expression: the arguments `a` of a call as the function takes them.
      timeout_s: for a program with all of them.

    Raises:
      ValueError: a field is missing or of another kind, or there are no plus tests.
    """
    name, atol = row.text("entry_point"), row.fields.get("atol")
    if not name.isidentifier():
        raise ValueError(f"{row.where}: 'entry_point' must be the name of a function, not {name!r}")
    if isinstance(atol, bool) or not isinstance(atol, (int, float)) or not 0 <= atol < math.inf:
        raise ValueError(f"{row.where}: 'atol' must be a number of at least 0, not {atol!r}")
    row.text("contract")
    inputs = [*_inputs(row, "base_input"), *_inputs(row, "plus_input")]
    call = f"_function(*copy.deepcopy(a)){' is not None' if name in _TRUTHS else ''}"
    head = _HEAD.format(name=name, expression=expression, inputs=json.dumps(inputs))
    record = _RECORD.format(value=call)
    if name == _ROOT:
        check, record = _CHECK_ROOT.format(atol=atol), f"{EXPECTED} = []\n"
    else:
        equal = _RIGHT.get(name, "out == exp")
        if name in _ALSO_RIGHT:
            equal += f" or {_ALSO_RIGHT[name]}"
        check = _CHECK.format(equal=equal, atol=atol, expected=EXPECTED)
    return ReferenceTests(
        statements=(head + check,),
        timeout_s=timeout_s,
        reference=reference,
        record=head + record,
    )


def _inputs(row: Row, field: str) -> list[list[Any]]:
    value = row.fields.get(field)
    if value == {}:  # so of Mbpp/793, which has none
        return []
    if not isinstance(value, list) or not all(isinstance(x, list) for x in value):
        raise ValueError(f"{row.where}: {field!r} must be a list of lists of arguments")
    return value


def mbpp_expression(task_id: str) -> str:
    """The arguments `a` of a call of that problem of MBPP+, as its function takes them."""
    return _EXPRESSIONS.get(int(task_id), "a")


def mbpp_parts(row: Row) -> tuple[str, str, str]:
    """(the problem in words, its first test, the imports of its tests) of a record of MBPP+.

    The prompt is a docstring with the test in its last lines.

    Raises:
      ValueError: it is not.
    """
    try:
        words = ast.get_docstring(ast.parse(row.text("prompt")), clean=False) or ""
        imports = [
            ast.unparse(node)
            for node in ast.parse(row.text("assertion")).body
            if isinstance(node, (ast.Import, ast.ImportFrom))
        ]
    except SyntaxError:
        words, imports = "", []
    before, sign, test = words.partition("\nassert ")
    if not sign:
        raise ValueError(f"{row.where}: 'prompt' must be a docstring that ends in an assert")
    return before.strip(), f"assert {test}".strip(), "\n".join(imports)
