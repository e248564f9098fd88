"""Asserts read off the examples of a docstring.

Three ways of writing an example are understood, `f(2, 3)` being a call of the tested function with
literals for arguments:

    >>> f(2, 3)          f(2, 3) == 5                     f(2, 3) returns 5
    5                    (also =, =>, ==>, ->, ➞)         (also: should return)

What is not wholly literal, or is followed by more than a full stop or a remark, is not an example
that can be checked, and is passed over.
"""

from __future__ import annotations

import ast
import re

from mucode_jax.benchmarks.files import parse

_SEPARATOR = re.compile(r"[ \t]*(?:#[ \t]*)?(?:==>|=>|==|=|->|➞|→|(?:should )?returns?\b)[ \t]*")
_END = re.compile(r"\.?[ \t]*(?:#.*|\(.*\))?$")
_WORDS = {"true": "True", "false": "False", "none": "None", "null": "None"}
_LONGEST = 2000  # characters; an example is never longer

# Examples of HumanEval (47, 116, 130, 148) that its own reference solutions and tests contradict.
CONTRADICTED = frozenset(
    {
        "assert median([-10, 4, 6, 1000, 10, 20]) == 15.0",
        "assert sort_array([1, 5, 2, 3, 4]) == [1, 2, 3, 4, 5]",
        "assert sort_array([-2, -3, -4, -5, -6]) == [-6, -5, -4, -3, -2]",
        "assert tri(1) == 3",
        "assert tri(4) == 3",
        "assert bf('Earth', 'Mercury') == 'Venus'",
    }
)


def _call(text: str, name: str) -> tuple[str, int] | None:
    """The call with literal arguments that `text` begins with, normalised, and its length."""
    for end in re.finditer(r"\)", text[:_LONGEST]):
        source = text[: end.end()]
        try:
            node = parse(source, "eval").body
        except SyntaxError:
            continue  # not yet the closing parenthesis of the call
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            return None
        if node.func.id != name or node.keywords:
            return None
        try:
            for argument in node.args:
                ast.literal_eval(argument)
        except (ValueError, TypeError, SyntaxError, RecursionError):
            return None
        return ast.unparse(node), end.end()
    return None


def _literal(text: str) -> str | None:
    """`text` as a literal, normalised; None where it is none."""
    text = text.strip()
    text = _WORDS.get(text, text)
    try:
        node = parse(text, "eval").body
        ast.literal_eval(node)
    except (SyntaxError, ValueError, TypeError, RecursionError):
        return None
    return ast.unparse(node)


def _leading_literal(line: str) -> str | None:
    """The literal that `line` begins with, if nothing but a full stop or a remark follows."""
    for end in range(len(line), 0, -1):
        if _END.fullmatch(line[end:]) and (value := _literal(line[:end])) is not None:
            return value
    return None


def _printed(rest: str) -> str | None:
    """The value that the lines after a `>>>` line show."""
    lines = []
    for line in rest.splitlines():
        if not line.strip() or line.strip().startswith((">>>", '"""', "'''")):
            break
        lines.append(line.strip())
    whole = _literal("\n".join(lines)) if lines else None
    return whole if whole is not None or not lines else _leading_literal(lines[0])


def docstring_asserts(text: str, name: str) -> tuple[str, ...]:
    """`assert f(..) == ..` statements for the examples of `name` in `text`, without repetition.

    Args:
      text: a docstring as it stands in the source (escapes not yet replaced), or text around it.
      name: the function that the examples call.
    """
    found = {}
    for match in re.finditer(rf"(?<![\w.(]){re.escape(name)}\(", text):
        call = _call(text[match.start() :], name)
        if call is None:
            continue
        source, length = call
        line, _, rest = text[match.start() + length :].partition("\n")
        before = text[: match.start()].rpartition("\n")[2].strip()
        if separator := _SEPARATOR.match(line):
            value = _leading_literal(line[separator.end() :])
        elif before == ">>>" and not line.strip():
            value = _printed(rest)
        else:
            value = None
        if value is not None:
            found[f"assert {source} == {value}"] = None
    return tuple(statement for statement in found if statement not in CONTRADICTED)
