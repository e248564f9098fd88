"""Stand-ins that show the loops' own logic: a scripted engine, a pool that judges by text."""

from __future__ import annotations

import dataclasses
import subprocess
from concurrent.futures import Future

import numpy as np
import pytest

from mucode_jax.core.code_block import extract_code
from mucode_jax.core.records import Grade, Problem, Rollout, Tests, Turn
from mucode_jax.sampling.engine import Completion

EOT = 1  # the fake chat's end-of-turn id; bytes are offset by 2


class FakeChat:
    """Bytes as ids; a message is wrapped in marks, so that prompts can be read back."""

    eot_ids = (EOT,)

    def _ids(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32) + 2

    def first(self, prompt: str) -> np.ndarray:
        return self._ids(f"<user>{prompt}<assistant>")

    def next_within(self, template: str, parts: dict[str, str], limit: int) -> np.ndarray:
        for name, part in parts.items():
            template = template.replace("{" + name + "}", part)
        return self._ids(f"<user>{template}<assistant>")[:limit]

    def completion(self, text: str) -> np.ndarray:
        return np.append(self._ids(text), EOT).astype(np.int32)

    def text(self, ids: np.ndarray) -> str:
        return bytes((i - 2) for i in np.asarray(ids).tolist() if i != EOT).decode()

    def code(self, text: str) -> str:
        return extract_code(text)


class FakeEngine:
    """Answers each sample with `script(request, sample)`; finishes in an order of its own."""

    def __init__(self, script, order: int = 0) -> None:
        self._script = script
        self._queue: list[Completion] = []
        self._random = np.random.default_rng(order)
        self.requests = []
        self.kept: set = set()

    @property
    def pending(self) -> int:
        return len(self._queue)

    def submit(self, request) -> None:
        self.requests.append(request)
        for sample in range(len(request.keys)):
            ids = FakeChat().completion(self._script(request, sample))
            logprobs = np.zeros(len(ids), np.float32)
            self._queue.append(Completion(request.id, sample, ids, logprobs, False))
            if request.keep:
                self.kept.add((request.id, sample))

    def step(self) -> list[Completion]:
        if not self._queue:
            return []
        return [self._queue.pop(int(self._random.integers(len(self._queue))))]

    def release(self, handle) -> None:
        self.kept.remove(handle)


@dataclasses.dataclass(frozen=True)
class FakeOutcome:
    status: str
    feedback: str = ""
    summary: str = ""


class FakePool:
    """A program passes when every statement occurs in its text."""

    def __init__(self) -> None:
        self.programs: list[tuple[str, Tests]] = []

    def submit(self, program: str, tests: Tests) -> Future:
        self.programs.append((program, tests))
        missing = [s for s in tests.statements if s not in program]
        future: Future = Future()
        if program == "infra":
            future.set_result(FakeOutcome("infra", "", "no file descriptors"))
        elif missing:
            future.set_result(FakeOutcome("fail", f"lacks {missing[0]}", f"lacks {missing[0]}"))
        else:
            future.set_result(FakeOutcome("pass"))
        return future


def problem(task_id: str, statement: str = "ok") -> Problem:
    return Problem("fake", task_id, "train", f"do {task_id}", Tests((statement,)))


def turn(code: str, *, prompt: str = "p", passed: bool = False) -> Turn:
    chat = FakeChat()
    ids = chat.completion(code)
    grade = Grade("pass") if passed else Grade("fail", "wrong", "wrong")
    return Turn(chat._ids(prompt), ids, np.zeros(len(ids), np.float32), False, code, grade)


def rollout(task_id: str, index: int, *turns: Turn) -> Rollout:
    return Rollout("fake", task_id, index, turns)


def mounted(path, size):
    """A file system of its own at `path`, of `size` KiB."""
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", path], capture_output=True
    )
    if done.returncode:
        pytest.skip("a small file system can be mounted by root only")
    return path
