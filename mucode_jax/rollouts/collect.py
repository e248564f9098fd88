"""Multi-turn rollouts: sample, execute on the public tests, show the outcome, sample again.

The generator decodes while programs run: completions leave the engine as they finish, their code
goes to the sandbox, and the next turn enters as soon as the feedback is there. Nothing here can see
a private test (see `records`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

import numpy as np

from mucode_jax.core import keys
from mucode_jax.core.conversation import Chat
from mucode_jax.core.records import Problem, Rollout, Turn
from mucode_jax.rollouts.grading import Grader, grade_of
from mucode_jax.sampling.engine import Completion, Engine, Handle, Request
from mucode_jax.sandbox import Outcome


@dataclasses.dataclass(frozen=True)
class Limits:
    """How long a conversation may grow; the context must hold all of it."""

    turns: int  # T, at most
    max_new_tokens: int  # ids sampled per turn, at most
    max_feedback_tokens: int  # ids of a feedback message; a longer one is shortened in its middle
    context: int  # ids of a whole conversation

    @property
    def max_prompt_tokens(self) -> int:
        """Ids left for the first prompt; + turns for the ids that close truncated completions."""
        later = (self.turns - 1) * self.max_feedback_tokens
        return self.context - self.turns * (self.max_new_tokens + 1) - later


def first_prompt(chat: Chat, problem: Problem, limits: Limits) -> np.ndarray:
    """int32 [P]: the opening of a conversation about `problem`.

    Raises:
      ValueError: it does not leave room for the turns.
    """
    ids = chat.first(problem.prompt)
    if len(ids) > limits.max_prompt_tokens:
        raise ValueError(
            f"{problem.benchmark} {problem.task_id}: the prompt takes {len(ids)} tokens, but "
            f"context={limits.context} leaves {limits.max_prompt_tokens} for it beside "
            f"{limits.turns} turns of {limits.max_new_tokens} and feedback of "
            f"{limits.max_feedback_tokens}; raise rollout.context or lower the others"
        )
    return ids


def feedback_prompt(chat: Chat, problem: Problem, turn: Turn, limits: Limits) -> np.ndarray:
    """int32 [P]: the user message that shows a failed turn's outcome."""
    if turn.grade.passed:  # only where turns after a public pass are asked for
        parts = dict.fromkeys(("feedback", "summary"), "All public tests passed.")
    else:
        parts = {"feedback": turn.grade.feedback, "summary": turn.grade.summary}
    return chat.next_within(problem.feedback, parts, limits.max_feedback_tokens)


@dataclasses.dataclass
class _Open:
    """A rollout under way; `prompt_ids` are of the turn being sampled."""

    problem: Problem
    index: int
    prompt_ids: np.ndarray
    turns: list[Turn] = dataclasses.field(default_factory=list)


def collect(
    problems: Sequence[Problem],
    *,
    engine: Engine,
    chat: Chat,
    grader: Grader,
    limits: Limits,
    n: int,
    key: tuple[int | str, ...],
    done: Container[tuple[str, int]] = (),
    stop_on_pass: bool = True,
) -> Iterator[Rollout]:
    """Yields n rollouts of each problem, in the order in which they finish.

    Args:
      problems: what to attempt.
      engine: an idle engine that holds the generator.
      chat: the generator's chat template.
      grader: executes code on the public tests.
      limits: turns and tokens.
      n: rollouts per problem.
      key: what these rollouts are for, e.g. (seed, "rollouts", iteration); every turn's randomness
        comes from it, the problem, the rollout's index and the turn.
      done: (task_id, index) of rollouts that exist already.
      stop_on_pass: a rollout ends when its code passes the public tests; if False it always takes
        all its turns (the `paper` protocol).
    """
    sampling: dict[Handle, _Open] = {}
    for problem in problems:
        indices = [i for i in range(n) if (problem.task_id, i) not in done]
        if not indices:
            continue
        prompt_ids = first_prompt(chat, problem, limits)
        first = (problem.task_id, indices[0], 0)
        for sample, i in enumerate(indices):
            sampling[first, sample] = _Open(problem, i, prompt_ids)
        sample_keys = np.stack([_turn_key(key, problem, i, 0) for i in indices])
        keep = limits.turns > 1
        engine.submit(Request(first, prompt_ids, sample_keys, limits.max_new_tokens, keep=keep))

    executing: dict[Handle, tuple[_Open, Completion, str, Future[Outcome]]] = {}
    while sampling or executing:
        if sampling:
            for completion in engine.step():
                handle = completion.request_id, completion.index
                rollout = sampling.pop(handle)
                code = chat.code(chat.text(completion.ids))
                outcome = grader.submit(rollout.problem, code)
                executing[handle] = rollout, completion, code, outcome
        else:
            wait([outcome for *_, outcome in executing.values()], return_when=FIRST_COMPLETED)
        for handle in [h for h, (*_, outcome) in executing.items() if outcome.done()]:
            rollout, completion, code, outcome = executing.pop(handle)
            turn = Turn(
                rollout.prompt_ids,
                *(completion.ids, completion.logprobs, completion.truncated),
                code,
                grade_of(outcome),
            )
            rollout.turns.append(turn)
            ended = len(rollout.turns) == limits.turns or (turn.grade.passed and stop_on_pass)
            if not ended:
                rollout.prompt_ids = feedback_prompt(chat, rollout.problem, turn, limits)
                request = _next_request(rollout, handle, limits, key)
                sampling[request.id, 0] = rollout
                engine.submit(request)
            if len(rollout.turns) < limits.turns:
                engine.release(handle)
            if ended:
                problem = rollout.problem
                turns = tuple(rollout.turns)
                yield Rollout(problem.benchmark, problem.task_id, rollout.index, turns)


def of_solution(
    problem: Problem, solution: str, index: int, *, chat: Chat, grader: Grader, limits: Limits
) -> Rollout:
    """A rollout of one turn whose completion is a reference solution, executed like any other."""
    text = f"```python\n{solution.rstrip()}\n```" if "```" in problem.prompt else solution
    ids, code = chat.completion(text), chat.code(text)
    turn = Turn(
        prompt_ids=first_prompt(chat, problem, limits),
        completion_ids=ids,
        logprobs=np.zeros(len(ids), np.float32),
        truncated=False,
        code=code,
        grade=grader.grade(problem, code),
    )
    return Rollout(problem.benchmark, problem.task_id, index, (turn,))


def _turn_key(key: tuple[int | str, ...], problem: Problem, index: int, turn: int) -> np.ndarray:
    return keys.key_data(*key, problem.benchmark, problem.task_id, index, turn)


def _next_request(
    rollout: _Open, parent: Handle, limits: Limits, key: tuple[int | str, ...]
) -> Request:
    """The request of the next turn: the conversation so far and the feedback on its last turn."""
    problem, turn = rollout.problem, len(rollout.turns)
    state = [ids for t in rollout.turns for ids in (t.prompt_ids, t.completion_ids)]
    return Request(
        id=(problem.task_id, rollout.index, turn),
        prompt_ids=np.concatenate([*state, rollout.prompt_ids]),
        keys=_turn_key(key, problem, rollout.index, turn)[None],
        max_new_tokens=limits.max_new_tokens,
        parent=parent,
        keep=turn + 1 < limits.turns,
    )
