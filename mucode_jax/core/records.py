"""The records that travel between the rooms: frozen, made of text and numpy arrays only.

Everything a run stores or passes on is one of these. Nothing here imports jax, and nothing here can
hold the outcome of a private test: a `Problem` carries its public tests alone, a `Turn` the outcome
of those. Private tests live in `Benchmark.private`, which only labelling and evaluation receive.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

STATUSES = ("pass", "fail", "error", "timeout", "oom", "crash", "infra")


@dataclasses.dataclass(frozen=True)
class Tests:
    """Tests of one program; with none at all, the program passes by loading without an error.

    Attributes:
      statements: Python test statements (an `assert` line, or a whole test program), run one after
        the other in the namespace that the program leaves behind.
      setup: Python text run after the program and before the first statement.
      stdio: (standard input, expected standard output) pairs, one process each; excludes
        `statements`.
      timeout_s: wall-clock limit for the program with its tests, in seconds (for `stdio`: a pair).
    """

    __test__ = False  # pytest: not a test class

    statements: tuple[str, ...] = ()
    setup: str = ""
    stdio: tuple[tuple[str, str], ...] = ()
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if self.statements and self.stdio:
            raise ValueError("tests are either statements or standard-input pairs, not both")


EXPECTED = "_expected"  # what `ReferenceTests` call the reference's values


@dataclasses.dataclass(frozen=True)
class ReferenceTests(Tests):
    """Tests that hold a program against what a reference solution returns.

    Attributes:
      reference: the solution, a whole program.
      record: a Python text, run as a test of the reference before the first program is tested; it
        gives the name `EXPECTED` to the values, which the statements find under that name.
    """

    __test__ = False

    reference: str = ""
    record: str = ""


@dataclasses.dataclass(frozen=True)
class Problem:
    """What the generator may know of a problem: its text and its public tests.

    Attributes:
      benchmark, task_id, split: where it comes from; (benchmark, task_id) is unique.
      prompt: the first user message, complete.
      public: the tests whose outcome becomes feedback.
      entry_point: the function that the tests call, "" where there is none.
      preamble: text put before a whole program (imports and helpers the tests rely on).
      stub: text put before a completion that is only a function body.
      feedback: template of the user message after a failed turn, with `{feedback}` (the whole
        text) or `{summary}` (one line).
    """

    benchmark: str
    task_id: str
    split: str
    prompt: str
    public: Tests
    entry_point: str = ""
    preamble: str = ""
    stub: str = ""
    feedback: str = "{feedback}"

    def program(self, code: str) -> str:
        """The text that is executed for `code`: a whole program, or a body where it is indented."""
        first = next((line for line in code.splitlines() if line.strip()), "")
        if self.stub and first[:1] in (" ", "\t"):
            return self.stub + code
        return self.preamble + code


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A set of problems with what is kept from the generator.

    Attributes:
      name, split: as asked for.
      problems: the public side.
      private: task_id -> private tests; a problem without an entry has none.
      solutions: task_id -> a reference solution, where the benchmark gives one.
    """

    name: str
    split: str
    problems: tuple[Problem, ...]
    private: Mapping[str, Tests]
    solutions: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Grade:
    """What executing one program against one set of tests said.

    Attributes:
      status: one of `STATUSES`.
      feedback: the text for the model; "" where it passed.
      summary: the same in one line ("f([1, 2]) returned 3, expected 4"); "" where it passed.
    """

    status: str
    feedback: str = ""
    summary: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"unknown status {self.status!r}; one of {', '.join(STATUSES)}")

    @property
    def passed(self) -> bool:
        return self.status == "pass"


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn of a rollout, with the token ids that were really read and sampled.

    Attributes:
      prompt_ids: int32 [P]; the ids that this turn added before the completion (turn 0: the whole
        first prompt; later: the feedback message), generation prompt included.
      completion_ids: int32 [C]; the sampled ids. The last is an end-of-turn id: the sampled one, or
        where `truncated` the one that closes the turn in its place.
      logprobs: float32 [C]; natural log-probability of each id under the distribution it was drawn
        from (temperature applied); 0 for an id that was not drawn.
      truncated: the completion met its token limit.
      code: the code extracted from the completion.
      grade: outcome of the public tests.
    """

    prompt_ids: np.ndarray
    completion_ids: np.ndarray
    logprobs: np.ndarray
    truncated: bool
    code: str
    grade: Grade


@dataclasses.dataclass(frozen=True)
class Rollout:
    """One multi-turn attempt at one problem.

    Attributes:
      benchmark, task_id: the problem.
      index: which of the problem's rollouts.
      turns: in order; all but the last failed the public tests, unless it goes on after a pass.
    """

    benchmark: str
    task_id: str
    index: int
    turns: tuple[Turn, ...]

    @property
    def passed(self) -> bool:
        """Whether the final turn passed the public tests."""
        return self.turns[-1].grade.passed

    def state(self, turn: int) -> np.ndarray:
        """int32 [S]: the conversation that the completion of `turn` was sampled from."""
        parts = [self.turns[0].prompt_ids]
        for before, after in zip(self.turns[:turn], self.turns[1 : turn + 1], strict=True):
            parts += [before.completion_ids, after.prompt_ids]
        return np.concatenate(parts).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class SFTExample:
    """One row of fine-tuning: a conversation of stored ids, of which some are to be learned.

    Attributes:
      task_id: the problem it belongs to.
      ids: int32 [n].
      weights: float32 [n]; the loss weight of predicting ids[i] from ids[:i]; 0 = not supervised.
    """

    task_id: str
    ids: np.ndarray
    weights: np.ndarray


@dataclasses.dataclass(frozen=True)
class VerifierExample:
    """One labelled completion.

    Attributes:
      task_id: the problem it belongs to.
      ids: int32 [n]; the first prompt and one completion, as stored.
      correct: passes the public and the private tests.
    """

    task_id: str
    ids: np.ndarray
    correct: bool


def encode(record: Any) -> dict[str, Any]:
    """A record as JSON-ready values; arrays become {"dtype", "data"} with little-endian base64."""

    def value(x: Any) -> Any:
        if dataclasses.is_dataclass(x):
            return {f.name: value(getattr(x, f.name)) for f in dataclasses.fields(x)}
        if isinstance(x, np.ndarray):
            little = np.ascontiguousarray(x, x.dtype.newbyteorder("<"))
            return {"dtype": x.dtype.name, "data": base64.b64encode(little.tobytes()).decode()}
        if isinstance(x, (tuple, list)):
            return [value(item) for item in x]
        return x

    return value(record)


def _array(x: Mapping[str, str]) -> np.ndarray:
    little = np.dtype(x["dtype"]).newbyteorder("<")
    return np.frombuffer(base64.b64decode(x["data"]), little).astype(np.dtype(x["dtype"]))


def decode_turn(x: Mapping[str, Any]) -> Turn:
    """The inverse of `encode` for a turn; raises KeyError or ValueError on anything else."""
    return Turn(
        prompt_ids=_array(x["prompt_ids"]),
        completion_ids=_array(x["completion_ids"]),
        logprobs=_array(x["logprobs"]),
        truncated=bool(x["truncated"]),
        code=x["code"],
        grade=Grade(**x["grade"]),
    )


def decode_rollout(x: Mapping[str, Any]) -> Rollout:
    """The inverse of `encode` for a rollout; raises KeyError or ValueError on anything else."""
    turns = tuple(decode_turn(turn) for turn in x["turns"])
    return Rollout(x["benchmark"], x["task_id"], int(x["index"]), turns)


def dumps(record: Any) -> str:
    """One line of JSON."""
    return json.dumps(encode(record), ensure_ascii=True, separators=(",", ":"))
