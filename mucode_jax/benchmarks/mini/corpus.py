"""What the base generator of `mini` is pretrained on: conversations of a middling programmer.

A turn writes each concept right with its `familiar` probability and mistaken otherwise. After a
failed public test the next turn is the solution (`CORRECTED`, more often where a task has two
concepts than where it has three), the same program again (`REPEATED`), or a fresh try that pays no
heed to the feedback. So the generator knows the language of the tasks, has habits to lose, and some
use for feedback. Only combinations of the split `pretrain` appear.

The feedback is worded as the sandbox words it at run time. The programs are composed here, not
written by a model, and run in this process.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mucode_jax.benchmarks.mini.tasks import Task, execute, task
from mucode_jax.core import keys

TURNS = 3
CORRECTED = {2: 0.55, 3: 0.3}  # by the number of concepts
REPEATED = 0.15


def attempt(random: np.random.Generator, problem: Task) -> str:
    """A program that a middling programmer may write, without a look at the test."""
    pieces: list[str | None] = []
    for choice in problem.draft.choices:
        if choice is None:
            pieces.append(None)
            continue
        meant = len(choice.concept.meanings)
        right = (choice.meaning, *choice.others[: meant - 1])
        wrong = choice.others[meant - 1 :]
        options = right if not wrong or random.random() < choice.concept.familiar else wrong
        pieces.append(options[random.integers(len(options))])
    return problem.draft.code(tuple(pieces))


def summary(problem: Task, code: str) -> str:
    """The feedback on a composed program's public test; "" where it passes."""
    value = execute(code, problem.argument)
    if isinstance(value, Exception):
        return f"{type(value).__name__}: {value}"
    if value == problem.expected:
        return ""
    call = f"{problem.problem.entry_point}({problem.argument!r})"
    return f"{call} returned {value!r}, expected {problem.expected!r}"


def conversation(random: np.random.Generator, problem: Task) -> list[str]:
    """Messages: the prompt, a program, and, while it fails, feedback and another program."""
    messages = [problem.problem.prompt]
    code = attempt(random, problem)
    corrected = CORRECTED[sum(choice is not None for choice in problem.draft.choices)]
    for turn in range(TURNS):
        messages.append(code)
        feedback = summary(problem, code)
        if not feedback or turn == TURNS - 1:
            break
        messages.append(feedback)
        luck = random.random()
        if luck < corrected:
            code = problem.solution
        elif luck > corrected + REPEATED:
            code = attempt(random, problem)
    return messages


def conversations(count: int, seed: int) -> Iterator[tuple[str, list[str]]]:
    """(task_id, messages) of the first `count` tasks of the split `pretrain`."""
    for index in range(count):
        problem = task("pretrain", seed, index, private=False)
        random = keys.rng("mini", "conversation", seed, index)
        yield problem.problem.task_id, conversation(random, problem)
