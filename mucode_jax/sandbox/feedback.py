"""The text that the model is shown: as Python would print it, bounded, the same in every run."""

from __future__ import annotations

import ast
import re
import reprlib
import traceback
from typing import Any

from . import channel, codec, mirror, remote, standins, statements

MODES = ("values", "traceback", "none")
MAX_TEXT = 2_000
MAX_SUMMARY = 400
_MAX_VALUE = 150
_MAX_LINE = 200
_HEADER = "Traceback (most recent call last):\n"
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
_TEMPORARY = re.compile(r"/(?:tmp|scratch)/tmp[a-z0-9_]{8}")

_shorten = reprlib.Repr()
_shorten.maxlevel = 20
for _kind in ("tuple", "list", "array", "dict", "set", "frozenset", "deque"):
    setattr(_shorten, f"max{_kind}", 100)
_shorten.maxstring = _shorten.maxother = _shorten.maxlong = 200


def middle_cut(text: str, limit: int) -> str:
    """`text`, its middle left out where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    mark = f"... ({len(text) - limit} characters left out) ..."
    head = (limit - len(mark)) // 2
    return f"{text[:head]}{mark}{text[len(text) - (limit - len(mark) - head) :]}"


def stable(text: str) -> str:
    """`text` without what differs from run to run (addresses, names of temporary files), in UTF-8.

    Half of a surrogate pair, which no tokenizer takes, becomes a question mark.
    """
    text = text.encode("utf-8", "replace").decode()
    return _TEMPORARY.sub("/tmp/tmp", _ADDRESS.sub("at 0x...", text))


def shown(value: Any, limit: int = _MAX_VALUE) -> str:
    """`repr(value)`, bounded in time and length."""
    try:
        text = _shorten.repr(value) if _is_bulky(value) else repr(value)
    except ValueError:  # an integer of more digits than Python converts
        text = f"<an integer of {value.bit_length()} bits>" if type(value) is int else "<a value>"
    except (channel.Gone, channel.Late, codec.Malformed):
        raise
    except Exception:
        text = f"<{type(value).__name__} object>"
    return middle_cut(stable(text), limit)


def _is_bulky(value: Any) -> bool:
    return hasattr(type(value), "__len__") and not standins.is_theirs(value) and len(value) > 100


def comparison(
    kept: dict[int, Any], compared: statements.Comparison, last: remote.Call | None
) -> str:
    """One line on a failed assertion: "f([1, 2]) returned 3, expected 4".

    Args:
      kept: the values of the two sides, 0 left and 1 right.
      compared: the assertion.
      last: the last call of the program's.
    """
    if 0 not in kept:
        return ""
    left, right = compared.left, compared.right
    got, wanted = kept[0], kept.get(1)
    if right is not None and not _calls(left) and _calls(right) and compared.operator == "==":
        left, right, got, wanted = right, left, wanted, got
    what = _call_text(left, got, last)
    value = shown(got)
    match compared.operator:
        case "==" | "is":
            return f"{what} returned {value}, expected {shown(wanted)}"
        case "":
            return f"{what} returned {value}, expected a true value"
        case "not":
            return f"{what} returned {value}, expected a false value"
        case sign:
            return f"{what} returned {value}, expected {sign} {shown(wanted)}"


def _calls(node: ast.expr) -> bool:
    return any(isinstance(part, ast.Call) for part in ast.walk(node))


def _call_text(node: ast.expr, got: Any, last: remote.Call | None) -> str:
    """The call as written, or with its real arguments where a variable stands for it."""
    literal = isinstance(node, ast.Call) and not any(
        isinstance(part, ast.Name) for x in (*node.args, *node.keywords) for part in ast.walk(x)
    )
    if last is not None and last.result is got and not (literal and _names(node, last.name)):
        parts = [_argument(x) for x in last.arguments]
        parts += [f"{key}={_argument(x)}" for key, x in last.named.items()]
        return middle_cut(f"{last.name}({', '.join(parts)})", _MAX_LINE)
    return middle_cut(stable(ast.unparse(node)), _MAX_LINE)


def _names(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _argument(data: Any) -> str:
    """What was passed, by its JSON: the value itself may have changed."""
    lent = mirror.Mirror(2)

    def refer(data: list) -> Any:
        if data[0] == "range":
            return range(*data[1])
        return lent.decode(data, decoded) if data[0] in mirror.KINDS else ...

    def decoded(data: Any) -> list:
        return codec.decoded_items(data, refer)

    try:
        return shown(codec.decode(data, refer))
    except codec.Malformed:
        return "..."


def test_frames(error: BaseException, lines: tuple[str, ...]) -> str:
    """The traceback lines of `error` that lie in the tests."""
    text = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == statements.FILE and frame.lineno:
            source = lines[frame.lineno - 1].strip() if frame.lineno <= len(lines) else ""
            text += f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}\n'
            text += f"    {middle_cut(source, _MAX_LINE)}\n"
    return text


def joined(frames: str, program_text: str) -> str:
    """A traceback of the program with the frames of the test put before its own."""
    if not frames:
        return program_text
    before, header, after = program_text.rpartition(_HEADER)
    return f"{before}{header or _HEADER}{frames}{after}"


def whole(frames: str, last_line: str) -> str:
    """A traceback that lies in the tests alone."""
    return f"{_HEADER}{frames}{last_line}\n"


def composed(mode: str, status: str, text: str, summary: str, values: str) -> tuple[str, str]:
    """(feedback, summary) as the model is to see them.

    Args:
      mode: "values", "traceback" (what Python alone would print) or "none".
      status: of the outcome.
      text: the traceback, "" where there is none.
      summary: one line.
      values: what was returned and what expected, one line or, after a zero byte, its own summary.
    """
    if status == "pass" or (mode == "none" and status != "infra"):
        return "", ""
    long, _, short = values.partition("\0")
    if mode == "values" and values:
        summary = short or long
        if short:
            text = f"{text}\n{long}"
        elif text.endswith("\nAssertionError\n"):
            text = f"{text[:-1]}: {long}\n"
        else:
            text = f"{text}{long}\n"
    text = stable(text or f"{summary}\n")
    return middle_cut(text, MAX_TEXT), middle_cut(stable(summary), MAX_SUMMARY)
