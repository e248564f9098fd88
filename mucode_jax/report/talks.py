"""Sample conversations for the page: greedy ones, and searches with what the verifier thought."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mucode_jax.core.records import Grade
from mucode_jax.report import stages, words
from mucode_jax.rollouts.search import SearchTurn

Json = Any


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A candidate in a search's turn: outcome of its tests, the verifier's score."""

    score: float | None
    status: str
    correct: bool
    chosen: bool


@dataclasses.dataclass(frozen=True)
class ShownTurn:
    """One turn, as text.

    Attributes:
      message: what the generator read: the problem, later the feedback.
      completion: what it wrote, or of several what was chosen.
      grade: outcome of the public tests.
      correct: passes the private tests too.
      candidates: of a search; empty in a greedy conversation.
    """

    message: str
    completion: str
    grade: Grade
    correct: bool
    candidates: tuple[Candidate, ...]


@dataclasses.dataclass(frozen=True)
class Conversation:
    """A greedy conversation, or a search along its chosen candidates.

    Attributes:
      writer: generator and way, e.g. "μCode 2, best of 5 by lv".
      task_id: the problem.
      turns: in order.
      solved: the turn (from 1) that counts as solved, 0 for none.
      misled: in some turn the verifier liked a wrong candidate best though another was correct.
    """

    writer: str
    task_id: str
    turns: tuple[ShownTurn, ...]
    solved: int
    misled: bool


Talk = tuple[str, Sequence[SearchTurn], stages.Labels]  # the problem, its turns and their labels


def sample(
    directory: pathlib.Path, e: Json, count: int, texts: stages.Texts | None
) -> list[Conversation]:
    """`count` conversations of an evaluation, one per problem; none where its stages are missing.

    Always the same ones: their kinds, by `solved` and `misled`, take turns, each with its next
    conversation in the order of the problems. They come sorted by kind: solved late first, never
    solved last.
    """
    talks = list(_talks(directory, e))
    kinds = [(_solved(e, talk), _misled(talk)) for talk in talks]
    order = sorted(set(kinds), key=lambda kind: (kind[0] == 0, -kind[0], not kind[1]))
    queues = [[i for i in range(len(kinds)) if kinds[i] == kind] for kind in order]
    rounds = itertools.zip_longest(*queues)  # the first of every kind, the second of every kind …
    chosen = [i for indices in rounds for i in indices if i is not None][:count]
    return [
        Conversation(words.evaluation(e), talks[i][0], _shown(e, talks[i], texts), *kinds[i])
        for i in sorted(chosen, key=lambda i: order.index(kinds[i]))
    ]


def _talks(directory: pathlib.Path, e: Json) -> Iterator[Talk]:
    """The conversations of an evaluation, greedy ones as searches among one candidate."""
    if e["search"] == "greedy":
        for rollout, label in stages.greedy(directory, e):
            turns = [SearchTurn((turn,), None, 0) for turn in rollout.turns]
            yield rollout.task_id, turns, [[correct] for correct in label]
    else:
        for problem in stages.searches(directory, e):
            for s, labels in problem:
                if s.choice == e["search"] and s.index == 0:
                    yield s.task_id, s.turns, labels


def _solved(e: Json, talk: Talk) -> int:
    _, turns, labels = talk
    right = [label[turn.chosen] for turn, label in zip(turns, labels, strict=True)]
    if e["search"] == "greedy" and e["protocol"] == "paper":
        return right.index(True) + 1 if any(right) else 0
    return len(right) if right[-1] else 0


def _misled(talk: Talk) -> bool:
    _, turns, labels = talk
    return any(
        turn.scores is not None and any(label) and not label[int(np.argmax(turn.scores))]
        for turn, label in zip(turns, labels, strict=True)
    )


def _shown(e: Json, talk: Talk, texts: stages.Texts | None) -> tuple[ShownTurn, ...]:
    """The turns as text; without the tokenizer the feedback, and the code alone."""
    shown: list[ShownTurn] = []
    for turn, label in zip(*talk[1:], strict=True):
        chosen = turn.candidates[turn.chosen]
        if texts is None:
            message, completion = shown[-1].grade.feedback if shown else "", chosen.code
        else:
            message = texts[0](chosen.prompt_ids, not shown)
            completion = texts[1](chosen.completion_ids)
        candidates = tuple(
            Candidate(
                None if turn.scores is None else float(turn.scores[j]),
                candidate.grade.status,
                label[j],
                j == turn.chosen,
            )
            for j, candidate in enumerate(turn.candidates if e["search"] != "greedy" else ())
        )
        correct = label[turn.chosen]
        shown.append(ShownTurn(message, completion, chosen.grade, correct, candidates))
    return tuple(shown)
