"""One case of an attack suite against a runner: fill in, run, look at what must still hold.

The suite's format is described in its own README; a case is a dict of its manifest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import secrets
import socket
import threading
import time
from typing import Any

from mucode_jax.sandbox.pool import Runner

CONTROL = ("def f(x):\n    return 3 * x + 1\n", ["assert f(3) == 10", "assert f(0) == 1"])
# Grace beyond a program's limit; the limit itself is longer on a busy machine, see `starvation`.
GRACE_S = 60.0
MOST_OUTPUT = 2 << 20


def load(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """name -> case."""
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return {case["name"]: case for case in map(json.loads, lines)}


def source(case: dict[str, Any]) -> str:
    """The program's text."""
    if "code" in case:
        return case["code"]
    build = case["build"]
    return build["head"] + build["unit"] * build["count"] + build["tail"]


class Surroundings:
    """A folder with data and listeners that a program must neither change nor reach.

    Attributes:
      mark: a word that names this case alone.
      secret: a word that must not come out.
    """

    def __init__(self, folder: pathlib.Path, stack: contextlib.ExitStack):
        """Args: an empty folder; what closes the listeners."""
        self.mark = "mk" + secrets.token_hex(4)
        self.secret = "secret-" + secrets.token_hex(16)
        self.home = folder / "home"
        self.kept = folder / "kept"
        (self.kept / "sub").mkdir(parents=True)
        self.home.mkdir()
        (self.kept / "data.txt").write_text("precious")
        (self.kept / "sub" / "more.txt").write_text("more")
        (self.kept / "secret.txt").write_text(self.secret)
        (self.home / f"{self.mark}_secret.txt").write_text(self.secret)
        self.reached: list[str] = []
        tcp = self._listen(stack, socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
        udp = self._listen(stack, socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
        self._listen(stack, socket.AF_UNIX, socket.SOCK_STREAM, f"\0{self.mark}abs")
        self._words = {
            "{{CANARY_DIR}}": str(self.kept),
            "{{HOME}}": str(self.home),
            "{{MARK}}": self.mark,
            "{{PORT}}": str(tcp.getsockname()[1]),
            "{{UDP}}": str(udp.getsockname()[1]),
        }
        self._before = self._state()

    def _listen(self, stack: contextlib.ExitStack, family: int, kind: int, name: Any):
        end = stack.enter_context(socket.socket(family, kind))
        end.bind(name)
        if kind == socket.SOCK_STREAM:
            end.listen(16)
        end.settimeout(0.2)
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(end, kind, over))
        thread.start()
        stack.callback(thread.join)
        stack.callback(over.set)
        return end

    def _watch(self, end: socket.socket, kind: int, over: threading.Event) -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                if kind == socket.SOCK_DGRAM:
                    end.recvfrom(10)
                else:
                    end.accept()[0].close()
                self.reached.append(str(end.family))

    def fill(self, text: str) -> str:
        """`text` with its placeholders filled in."""
        for placeholder, word in self._words.items():
            text = text.replace(placeholder, word)
        return text

    def _state(self) -> list[tuple]:
        found = []
        for folder, folders, names in os.walk(self.kept):
            folders.sort()
            found.append((folder, oct(os.lstat(folder).st_mode)))
            for name in sorted(names):
                path = pathlib.Path(folder, name)
                seen = path.lstat()
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                found.append((str(path), oct(seen.st_mode), seen.st_mtime, seen.st_nlink, digest))
        return found

    def changes(self) -> list[str]:
        """What the program did to its surroundings, one sentence each."""
        wrong = []
        if self._state() != self._before:
            wrong.append("the folder with data has changed")
        if self.reached:
            wrong.append(f"a listener was reached: {self.reached}")
        if self.mark in processes():
            wrong.append("a process of the program still runs")
        for folder in {os.getcwd(), str(self.home), "/tmp", "/var/tmp", "/dev/shm"}:
            with contextlib.suppress(OSError):
                left = [x for x in os.listdir(folder) if self.mark in x and "_secret" not in x]
                if left:
                    wrong.append(f"left in {folder}: {left}")
        return wrong


def processes() -> list[str]:
    """The names of all processes that are not dead."""
    names = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    names.append((entry / "comm").read_text().strip())
    return names


def faults(case: dict[str, Any], runner: Runner, folder: pathlib.Path) -> list[str]:
    """Why `runner` did not survive `case`: nothing where it did."""
    with contextlib.ExitStack() as stack:
        around = Surroundings(folder, stack)
        began = time.monotonic()
        tests = [around.fill(test) for test in case["tests"]]
        result = runner.run(around.fill(source(case)), tests, case["timeout_s"])
        took = time.monotonic() - began
        wrong = []
        verdict, text = result["verdict"], result["stdout"] + result["stderr"]
        accepted = case["expect"]
        not_pass = "!pass" in accepted and verdict in ("fail", "error", "timeout", "oom", "crash")
        if not (verdict in accepted or "any" in accepted or not_pass):
            wrong.append(f"verdict {verdict}, expected {accepted}; {text[-300:]}")
        if took > case["timeout_s"] + GRACE_S:
            wrong.append(f"took {took:.1f} s")
        if around.secret in text:
            wrong.append("the secret came out")
        if len(text) > MOST_OUTPUT:
            wrong.append(f"{len(text)} characters of output were kept")
        wrong += [f"stderr lacks {x!r}" for x in case.get("stderr_has", []) if x not in text]
        if "then" in case:
            then = case["then"]
            second = runner.run(around.fill(then["code"]), then["tests"], case["timeout_s"])
            if second["verdict"] not in then["expect"]:
                wrong.append(f"the next program got {second['verdict']}")
        control = runner.run(*CONTROL, 10.0)
        if control["verdict"] != "pass":
            wrong.append(f"a right program got {control} afterwards")
        return wrong + around.changes()
