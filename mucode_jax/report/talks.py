"""Sample conversations for the page: greedy ones, and searches with what the verifier thought."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mucode_jax.core.records import Rollout, Turn
from mucode_jax.report import stages, words
from mucode_jax.rollouts.search import Search

Json = Any


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One of the candidates of a search's turn: outcome of its tests, the verifier's score."""

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
      status, summary: outcome of the public tests.
      correct: passes the private tests too.
      candidates: all of a search's turn; none of a greedy one.
    """

    message: str
    completion: str
    status: str
    summary: str
    correct: bool
    candidates: tuple[Candidate, ...] = ()


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
    misled: bool = False


def greedy(
    directory: pathlib.Path, of: Json, count: int, texts: stages.Texts | None
) -> list[Conversation] | None:
    """`count` conversations of a greedy evaluation (see `_pick`); None: no finished stage."""
    found = stages.greedy(directory, of)
    if found is None:
        return None
    solved = [_greedily_solved(label, of["protocol"]) for _, label in found]
    chosen = _pick([(turn, False) for turn in solved], count)
    return [
        Conversation(
            words.evaluation(of),
            found[i][0].task_id,
            tuple(_greedy_turns(*found[i], texts)),
            solved[i],
        )
        for i in chosen
    ]


def searched(
    directory: pathlib.Path, of: Json, count: int, texts: stages.Texts | None
) -> list[Conversation] | None:
    """`count` searches of an evaluation, one a problem; as `greedy`."""
    found = stages.searches(directory, of)
    if found is None:
        return None
    own, kinds = [], []
    for items, labels in found:
        for s, label in zip(items, labels, strict=True):
            if s.choice == of["search"] and s.index == 0:
                right = label[-1][s.turns[-1].chosen]
                own.append((s, label))
                kinds.append((len(s.turns) if right else 0, _misled(s, label)))
    return [
        Conversation(
            words.evaluation(of),
            own[i][0].task_id,
            tuple(_search_turns(*own[i], texts)),
            *kinds[i],
        )
        for i in _pick(kinds, count)
    ]


def _greedily_solved(label: Sequence[bool], protocol: str) -> int:
    if protocol == "paper":
        return label.index(True) + 1 if any(label) else 0
    return len(label) if label[-1] else 0


def _misled(found: Search, labels: Sequence[Sequence[bool]]) -> bool:
    return any(
        turn.scores is not None and any(label) and not label[int(np.argmax(turn.scores))]
        for turn, label in zip(found.turns, labels, strict=True)
    )


def _pick(kinds: Sequence[tuple[int, bool]], count: int) -> list[int]:
    """Which of the conversations to show, always the same ones: of each kind in turn the next in
    the order of the problems. A kind is the turn at which it was solved, and whether the verifier
    was wrong. They come sorted by kind: solved late first, never solved last."""
    order = sorted(set(kinds), key=lambda kind: (kind[0] == 0, -kind[0], not kind[1]))
    queues = [iter([i for i, kind in enumerate(kinds) if kind == of]) for of in order]
    chosen: list[int] = []
    while queues and len(chosen) < count:
        queue = queues.pop(0)
        i = next(queue, None)
        if i is not None:
            chosen.append(i)
            queues.append(queue)
    return sorted(chosen, key=lambda i: (order.index(kinds[i]), i))


def _text(turn: Turn, before: Turn | None, texts: stages.Texts | None) -> tuple[str, str]:
    """(message, completion); without the tokenizer the feedback, and the code alone."""
    if texts is None:
        return before.grade.feedback if before else "", turn.code
    return texts[0](turn.prompt_ids, before is None), texts[1](turn.completion_ids)


def _greedy_turns(
    rollout: Rollout, label: Sequence[bool], texts: stages.Texts | None
) -> Iterator[ShownTurn]:
    before = None
    for turn, correct in zip(rollout.turns, label, strict=True):
        yield ShownTurn(*_text(turn, before, texts), turn.grade.status, turn.grade.summary, correct)
        before = turn


def _search_turns(
    found: Search, labels: Sequence[Sequence[bool]], texts: stages.Texts | None
) -> Iterator[ShownTurn]:
    before = None
    for of, label in zip(found.turns, labels, strict=True):
        turn = of.candidates[of.chosen]
        candidates = tuple(
            Candidate(
                None if of.scores is None else float(of.scores[j]),
                candidate.grade.status,
                label[j],
                j == of.chosen,
            )
            for j, candidate in enumerate(of.candidates)
        )
        yield ShownTurn(
            *_text(turn, before, texts),
            turn.grade.status,
            turn.grade.summary,
            label[of.chosen],
            candidates,
        )
        before = turn
