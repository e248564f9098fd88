"""What runs in the untrusted process: the program, then one operation on its objects at a time.

Nothing here is trusted by the other side, and nothing of the tests but what they pass to the
program ever arrives here. The judge sends

    {"program", "setup", "names", "stdio"}               once
    ["do", operation, arguments, named, changes]         again and again

and is answered `["ready"]`, then `["loaded", changes]`, `["value", result, changes]`, or
`["raised", texts, exception, changes]`. While an operation lasts, something of the test's that was
handed to the program is used with `["callback", number, action, arguments, named, changes]`,
answered `["return", value, changes]` or `["throw", exception, changes]`. Values are told in
`objects`, changes in `mirror`; ours have a third part, the global names that were bound anew.
"""

from __future__ import annotations

import ast
import atexit
import copy
import gc
import linecache
import math
import operator
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from . import channel, codec, library
from .objects import Objects

FILE = "program.py"
_SETUP_FILE = "setup.py"
_MAX_TEXT = 20_000
_READY = channel.pack(["ready"])
_UNBOUND = object()

_ARITHMETIC = {
    **{x: getattr(operator, x) for x in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")},
    **{x: getattr(operator, x) for x in ("matmul", "lshift", "rshift", "xor")},
    **{"and": operator.and_, "or": operator.or_, "divmod": divmod, "pow": pow},
}


def _swapped(operation: Callable[..., Any]) -> Callable[..., Any]:
    return lambda right, left: operation(left, right)


def _special(name: str) -> Callable[..., Any]:
    return lambda value, *arguments: getattr(type(value), name)(value, *arguments)


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "__call__": lambda function, *arguments, **named: function(*arguments, **named),
    **{x.__name__: x for x in (getattr, setattr, delattr, isinstance, issubclass, dir)},
    **{x.__name__: x for x in (copy.copy, copy.deepcopy)},
    **{
        f"__{x.__name__}__": x
        for x in (
            *(bool, len, hash, int, float, complex, str, repr, bytes, iter, next, reversed, abs),
            *(round, format, math.trunc, math.floor, math.ceil, os.fspath),
            *(operator.index, operator.length_hint, operator.neg, operator.pos, operator.invert),
            *(operator.getitem, operator.setitem, operator.delitem, operator.contains),
            *(operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge),
        )
    },
    **{f"__{x}__": operation for x, operation in _ARITHMETIC.items()},
    **{f"__r{x}__": _swapped(operation) for x, operation in _ARITHMETIC.items()},
    **{f"__i{x}__": getattr(operator, f"i{x}") for x in _ARITHMETIC if x != "divmod"},
    **{x: _special(x) for x in ("__missing__", "__enter__", "__exit__")},
}


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as text, with the frames of the program alone."""
    kind = type(error)
    try:
        whole = traceback.TracebackException(kind, error, error.__traceback__)
        _keep_own_frames(whole)
        framed = whole.stack or whole.__cause__ or whole.__context__
        text = "".join(whole.format() if framed else whole.format_exception_only())[-_MAX_TEXT:]
        whole.__notes__ = None
        last = "".join(whole.format_exception_only()).strip()[-_MAX_TEXT:]
    except BaseException:  # an exception whose own methods raise, or no memory left
        text = last = kind.__name__
    return {"text": text, "last": last}


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


class Session:
    """The program's side of the conversation; made before there is a program, for all of them."""

    def __init__(self, connection: int, namespace: dict[str, Any], prelude: dict[str, Any]):
        """Args: the file descriptor; the namespace of `__main__`; what it holds at first."""
        self._connection = connection
        self._namespace = namespace
        self._prelude = prelude
        self._objects = Objects(self._call_back)
        self._names: dict[str, Any] = {}  # what the judge knows of the global names it asked for
        self._turn = threading.RLock()

    def begin(self) -> None:
        """Says so before the program is read, so that no program can say that it never began."""
        channel.write(self._connection, _READY)

    def run(self) -> None:
        """Loads the program, then serves the judge until it hangs up."""
        job = channel.read(self._connection)
        self._names = dict.fromkeys(job["names"], _UNBOUND)
        try:
            self._load(job["program"], job["setup"], guarded=False)
            message = ["loaded", self._changes()]
        except BaseException as error:
            self._send(self._raised(error))
            return
        self._send(message)
        self._serve()

    def run_whole(self) -> int:
        """Runs a whole program; its exit status."""
        job = channel.read(self._connection)
        try:
            self._load(job["program"], job["setup"], guarded=True)
        except SystemExit as error:
            return _exit_status(error.code)
        except BaseException as error:
            self._send(self._raised(error))
            return 1
        return 0

    def end(self) -> None:
        """What the interpreter does at its end."""
        # It waits for threads, runs the exit handlers, flushes.
        threading._shutdown()
        atexit._run_exitfuncs()
        _flush(sys.stdout, sys.stderr)
        # Then objects go: files are closed, `__del__` is called. The last first, so that it finds
        # what it needs; what was there before the program goes with the process.
        names = [name for name in self._namespace if name not in self._prelude]
        for name in reversed(names):
            self._namespace.pop(name, None)
        gc.collect()
        _flush(sys.__stdout__, sys.__stderr__)
        self._send(["ended"])

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

    def _changes(self) -> list:
        """What the judge does not know yet."""
        names = {}
        for name, before in self._names.items():
            value = self._namespace.get(name, _UNBOUND)
            if value is not before and self._prelude.get(name, _UNBOUND) is not value:
                names[name] = [] if value is _UNBOUND else self._objects.encode_name(value)
                self._names[name] = value
        changed, forgotten = self._objects.changes()
        return [changed, forgotten, names] if changed or forgotten or names else []

    def _raised(self, error: BaseException) -> list:
        """The message that `error` was raised."""
        self._objects.unwritten()
        texts = describe(error)
        try:
            return ["raised", texts, self._objects.encode(error), self._changes()]
        except ValueError:  # its arguments are nested too deep
            self._objects.unwritten()
            base = next(x for x in type(error).__mro__ if library.name_of(x) and x is not object)
            substitute = base.__new__(base, texts["last"])
            return ["raised", texts, self._objects.encode(substitute), []]

    def _send(self, message: list) -> None:
        _flush(sys.stdout, sys.stderr)
        data = channel.pack(message)
        if len(data) > codec.MAX_BYTES:
            error = ValueError("a value is too large to be carried out of the sandbox")
            data = channel.pack(self._raised(error))
        self._objects.written()
        channel.write(self._connection, data)

    def _serve(self, *, calling_back: bool = False) -> Any:
        """Answers operations; with `calling_back`, until the callback's result arrives."""
        while True:
            try:
                message = channel.read(self._connection)
            except channel.Gone:
                os._exit(0)
            if calling_back and message[0] != "do":
                return self._result(*message)
            self._send(self._do(*message[1:]))

    def _result(self, what: str, data: Any, changes: list) -> Any:
        """What the judge gave back from a callback."""
        (value,) = self._objects.decoded([data])
        self._objects.apply(changes)
        if what == "throw":
            raise value
        return value

    def _do(self, operation: str, sent: list, sent_named: dict[str, Any], changes: list) -> list:
        try:
            arguments = self._objects.decoded(sent)
            named = dict(
                zip(sent_named, self._objects.decoded([*sent_named.values()]), strict=True)
            )
            self._objects.apply(changes)
            if operation == "global":
                return ["value", self._global(*arguments), self._changes()]
            result = _OPERATIONS[operation](*arguments, **named)
            del arguments, named  # what only they hold is forgotten
            encoded = self._objects.encode(result)
            del result
            return ["value", encoded, self._changes()]
        except BaseException as error:
            return self._raised(error)

    def _global(self, name: str) -> Any:
        """What the program has made of a global name; raises NameError."""
        value = self._namespace.get(name, _UNBOUND)
        if value is _UNBOUND or self._prelude.get(name, _UNBOUND) is value:
            raise NameError(f"name {name!r} is not defined")
        return self._objects.encode_name(value)[0]

    def _call_back(self, number: int, action: str, arguments: tuple, named: dict) -> Any:
        with self._turn:
            sent = [self._objects.encode(x) for x in arguments]
            sent_named = {key: self._objects.encode(x) for key, x in named.items()}
            self._send(["callback", number, action, sent, sent_named, self._changes()])
            return self._serve(calling_back=True)


def run(session: Session, *, stdio: bool) -> NoReturn:
    """Runs the program that arrives; ends the process.

    Args:
      session: made beforehand.
      stdio: the program is a whole one that reads standard input; its process ends as it would.
    """
    # As deep as a program may go when it is run alone: what stands below it here comes on top.
    below, frame = 4, sys._getframe()
    while frame := frame.f_back:
        below += 1
    sys.setrecursionlimit(sys.getrecursionlimit() + below)
    session.begin()
    if not stdio:
        session.run()
        os._exit(0)
    status = session.run_whole()
    session.end()
    os._exit(status)


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
