"""What runs in the untrusted process: the program, then one operation on its names at a time.

Nothing here is trusted by the other side, and nothing of the tests but the arguments of calls ever
arrives here. The judge sends

    {"program", "setup", "names", "stdio"}      once
    ["do", operation, arguments, named]         again and again

and is answered `["ready"]`, then `["loaded", values]`, `["value", result, changed arguments]`, or
`["raised", description]`. While a call lasts, a function of the test that was among its arguments
is called with `["callback", number, arguments]`, answered `["return", value]` or `["throw", text]`.
"""

from __future__ import annotations

import ast
import atexit
import builtins
import gc
import linecache
import operator
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from . import channel, codec

FILE = "program.py"
_SETUP_FILE = "setup.py"
_MAX_TEXT = 20_000
_READY = channel.pack(["ready"])

_OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, *arguments, **named: function(*arguments, **named),
    "getattr": getattr,
    "setattr": setattr,
    "isinstance": isinstance,
    "plain": lambda value: value,
    "iter": iter,
    "next": next,
    "len": len,
    "str": str,
    "repr": repr,
    "format": format,
    "hash": hash,
    "int": int,
    "float": float,
    **{
        name: getattr(operator, name)
        for name in (
            *("eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "floordiv"),
            *("mod", "pow", "matmul", "and_", "or_", "xor", "neg", "pos", "abs", "invert"),
            *("getitem", "setitem", "delitem"),
        )
    },
}


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as text, with the frames of the program alone."""
    kind = type(error)
    bases = [base.__name__ for base in kind.__mro__ if base.__module__ == "builtins"]
    try:
        whole = traceback.TracebackException(kind, error, error.__traceback__)
        _keep_own_frames(whole)
        framed = whole.stack or whole.__cause__ or whole.__context__
        text = "".join(whole.format() if framed else whole.format_exception_only())[-_MAX_TEXT:]
        last = "".join(whole.format_exception_only()).strip()[-_MAX_TEXT:]
    except BaseException:  # an exception whose own methods raise, or no memory left
        text = last = kind.__name__
    try:
        message = str(error)[:_MAX_TEXT]
    except BaseException:
        message = ""
    return {
        **{"kind": kind.__name__, "bases": bases, "message": message},
        **{"text": text, "last": last},
    }


def _keep_own_frames(shown: traceback.TracebackException) -> None:
    pending: list[traceback.TracebackException | None] = [shown]
    while pending:
        if (one := pending.pop()) is not None:
            own = [frame for frame in one.stack if frame.filename in (FILE, _SETUP_FILE)]
            one.stack = traceback.StackSummary.from_list(own)
            pending += [one.__cause__, one.__context__]


def _unguarded(program: str) -> ast.Module:
    """The program without what it does as a script only: its functions are what is asked for."""
    tree = ast.parse(program, FILE)
    for node in tree.body:
        if isinstance(node, ast.If):
            match node.test:
                case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]):
                    sides = {getattr(left, "id", None), getattr(right, "id", None)}
                    values = {getattr(left, "value", None), getattr(right, "value", None)}
                    if "__name__" in sides and "__main__" in values:
                        node.test = ast.copy_location(ast.Constant(False), node.test)
    return tree


def _remember_source(name: str, source: str) -> None:
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)


class _Session:
    """The program's side of the conversation."""

    def __init__(self, connection: int, namespace: dict[str, Any], prelude: dict[str, Any]):
        self._connection = connection
        self._namespace = namespace
        self._prelude = prelude
        self._objects: list[Any] = []

    def run(self) -> None:
        """Loads the program, then serves the judge until it hangs up."""
        job = channel.read(self._connection)
        try:
            self._load(job["program"], job["setup"], guarded=False)
        except BaseException as error:
            self._send(["raised", describe(error)])
            return
        self._send(["loaded", [self._name(name) for name in job["names"]]])
        self._serve()

    def _load(self, program: str, setup: str, *, guarded: bool) -> None:
        """Runs both; of the program with `guarded` what stands under a main guard too."""
        program = program.removeprefix("\ufeff")
        _remember_source(FILE, program)
        self._namespace["__file__"] = FILE
        source = program if guarded or "__main__" not in program else _unguarded(program)
        exec(compile(source, FILE, "exec", dont_inherit=True), self._namespace)
        if setup:
            _remember_source(_SETUP_FILE, setup)
            exec(compile(setup, _SETUP_FILE, "exec", dont_inherit=True), self._namespace)

    def _name(self, name: str) -> Any:
        """What the program made of a global name: ["is", value], or None where it made nothing."""
        if name not in self._namespace:
            return None
        value = self._namespace[name]
        if name in self._prelude and self._prelude[name] is value:
            return None
        try:
            return ["is", codec.encode(value, self._opaque)]
        except ValueError:
            return ["is", self._opaque(value)]

    def _opaque(self, value: Any) -> list:
        """A value that stays here: its number, and what the judge may know without asking."""
        self._objects.append(value)
        try:
            truth = bool(value)
        except Exception:
            truth = True
        name = getattr(value, "__name__", None)
        if not (callable(value) and isinstance(name, str)):
            name = ""
        return ["object", len(self._objects) - 1, type(value).__name__, name, truth]

    def _refer(self, data: list) -> Any:
        match data:
            case ["ours", number]:
                return self._objects[number]
            case ["builtin", name]:
                return getattr(builtins, name)
            case ["theirs", number]:
                return lambda *arguments: self._call_back(number, arguments)
            case ["iterator", values]:
                return iter(codec.decode(values, self._refer))
            case ["range", parts]:
                return range(*(codec.decode(x, self._refer) for x in parts))
        raise codec.Malformed(f"unknown tag {data[:1]}")

    def _send(self, message: list) -> None:
        _flush(sys.stdout, sys.stderr)
        data = channel.pack(message)
        if len(data) > codec.MAX_BYTES:
            error = ValueError("a value is too large to be carried out of the sandbox")
            data = channel.pack(["raised", describe(error)])
        channel.write(self._connection, data)

    def _serve(self, *, calling_back: bool = False) -> Any:
        """Answers operations; with `calling_back`, until the callback's result arrives."""
        while True:
            try:
                message = channel.read(self._connection)
            except channel.Gone:
                os._exit(0)
            if calling_back and message[0] == "return":
                return codec.decode(message[1], self._refer)
            if calling_back and message[0] == "throw":
                raise RuntimeError(message[1])
            _, operation, arguments, named = message
            self._send(self._do(operation, arguments, named))

    def _do(self, operation: str, sent: list, sent_named: dict[str, Any]) -> list:
        try:
            if operation == "name":
                return ["value", self._name(sent[0]), {}]
            arguments = [codec.decode(x, self._refer) for x in sent]
            named = {key: codec.decode(x, self._refer) for key, x in sent_named.items()}
            result = _OPERATIONS[operation](*arguments, **named)
            opaque = _is_of_own_class(arguments[0], result)
            changed = {}
            before = {**dict(enumerate(sent)), **sent_named}
            for place, value in {**dict(enumerate(arguments)), **named}.items():
                if codec.is_mutable(value):
                    after = codec.encode(value, self._opaque)
                    if after != before[place]:
                        changed[place] = after
            encoded = self._opaque(result) if opaque else codec.encode(result, self._opaque)
            return ["value", encoded, changed]
        except BaseException as error:
            return ["raised", describe(error)]

    def _call_back(self, number: int, arguments: tuple) -> Any:
        shipped = [codec.encode(x, self._opaque) for x in arguments]
        self._send(["callback", number, shipped])
        return self._serve(calling_back=True)


def run(
    connection: int, namespace: dict[str, Any], prelude: dict[str, Any], *, stdio: bool
) -> NoReturn:
    """Runs the program that arrives on `connection` in `namespace`; ends the process.

    Args:
      connection: file descriptor of the connection to the judge.
      namespace: that of `__main__`, with the prelude.
      prelude: what `namespace` holds now (a copy made here would touch every value's page).
      stdio: the program is a whole one that reads standard input; its process ends as it would.
    """
    # As deep as a program may go when it is run alone: what stands below it here comes on top.
    below, frame = 4, sys._getframe()
    while frame := frame.f_back:
        below += 1
    sys.setrecursionlimit(sys.getrecursionlimit() + below)
    # Said before the program is read, so that no program can say that it never began.
    channel.write(connection, _READY)
    session = _Session(connection, namespace, prelude)
    if not stdio:
        session.run()
        os._exit(0)
    job = channel.read(connection)
    status = 0
    try:
        session._load(job["program"], job["setup"], guarded=True)
    except SystemExit as error:
        status = _exit_status(error.code)
    except BaseException as error:
        status = 1
        session._send(["raised", describe(error)])
    # What the interpreter does at its end: waits for threads, runs the exit handlers, flushes.
    threading._shutdown()
    atexit._run_exitfuncs()
    _flush(sys.stdout, sys.stderr)
    # Then objects go: files are closed, `__del__` is called. The last first, so that it finds what
    # it needs; what was there before the program goes with the process.
    for name in reversed([name for name in namespace if name not in prelude]):
        namespace.pop(name, None)
    gc.collect()
    _flush(sys.__stdout__, sys.__stderr__)
    session._send(["ended"])
    os._exit(status)


def _is_of_own_class(giver: Any, value: Any) -> bool:
    """Whether a class of the program's gave this instance of itself, as by a call.

    It stays here though it may have a plain form (`class Stack(list)`): a test made it, and means
    to use its methods.
    """
    return isinstance(giver, type) and giver.__module__ == "__main__" and isinstance(value, giver)


def _flush(*streams: Any) -> None:
    for stream in streams:
        try:
            stream.flush()
        except Exception:
            continue  # the program closed or replaced it


def _exit_status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1
