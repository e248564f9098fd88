"""Multi-turn Best-of-N: N candidates each turn, chosen by public tests and verifier.

Inference of the paper. All ways of choosing run side by side on the same samples: a candidate's
randomness is keyed by problem, search, turn and position, not by how it will be chosen, so two ways
that stand in the same state see the same candidates. Nothing here can see a private test; `oracle`
is read off the `pt` search afterwards (`evaluate`).
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from mucode_jax.core import keys, records
from mucode_jax.core.conversation import Chat
from mucode_jax.core.records import Problem, Turn
from mucode_jax.rollouts.collect import Limits, feedback_prompt, first_prompt
from mucode_jax.rollouts.grading import Grader, grade_of
from mucode_jax.sampling.engine import Engine, Request

Json = Any
# The ways to choose: how a candidate ranks, by its score and by how many of the N have its code.
# The highest is taken, ties by key. The verifier's score is there where the name has "lv" in it. A
# way of one's own is one entry more.
Rank = Callable[[Turn, float, int], Any]
CHOICES: dict[str, Rank] = {
    "random": lambda candidate, score, copies: 0,
    "pt": lambda candidate, score, copies: candidate.grade.passed,
    # The generator's own vote: self-consistency (Wang et al., 2022) over what passes.
    "pt+vote": lambda candidate, score, copies: (candidate.grade.passed, copies),
    "lv": lambda candidate, score, copies: score,
    "pt+lv": lambda candidate, score, copies: (candidate.grade.passed, score),
    # Equal codes add up their exp(score): weighted Best-of-N (Li et al., 2022).
    "pt+lv+vote": lambda candidate, score, copies: (
        candidate.grade.passed,
        score + math.log(copies),
    ),
}


@dataclasses.dataclass(frozen=True)
class SearchTurn:
    """The candidates of one turn and which was chosen.

    Attributes:
      candidates: N turns that share one prompt.
      scores: float32 [N], the verifier's; None where there is no verifier.
      chosen: position of the chosen one.
    """

    candidates: tuple[Turn, ...]
    scores: np.ndarray | None
    chosen: int


@dataclasses.dataclass(frozen=True)
class Search:
    """One multi-turn Best-of-N search on one problem, finished.

    Attributes:
      task_id: the problem.
      index: which of the problem's independent searches.
      choice: one of `CHOICES`.
      turns: in order; the search ended where the chosen candidate passed the public tests.
    """

    task_id: str
    index: int
    choice: str
    turns: tuple[SearchTurn, ...]


def choose(
    turn_candidates: Sequence[Turn],
    scores: np.ndarray | None,
    choice: str,
    failed: set[str],
    generator: np.random.Generator,
) -> int:
    """The position of the chosen candidate.

    Args:
      turn_candidates: N candidates of one turn.
      scores: float32 [N]; needed by a choice with "lv" in its name.
      choice: one of `CHOICES`. `random`; `pt`: one that passes the public tests; `lv`: the highest
        score; `pt+lv`: public tests first, the score among those; `pt+vote`: public tests first,
        the most frequent code among those; `pt+lv+vote`: both, a code's score and frequency.
      failed: codes that are not chosen while there is another (they failed the public tests earlier
        in this conversation).
      generator: breaks ties.
    """
    if "lv" not in choice:
        known = np.zeros(len(turn_candidates))
    elif scores is None:
        raise ValueError(f"search {choice!r} goes by scores, and there is no verifier")
    else:
        known = scores
    ties = generator.permutation(len(turn_candidates))
    copies = collections.Counter(candidate.code for candidate in turn_candidates)

    def rank(j: int) -> tuple[bool, Any, int]:
        candidate = turn_candidates[j]
        ranked = CHOICES[choice](candidate, float(known[j]), copies[candidate.code])
        return candidate.code not in failed, ranked, int(ties[j])

    return max(range(len(turn_candidates)), key=rank)


# Searches at the same place share their candidates: problem, search, conversation so far.
Place = tuple[str, int, bytes]


@dataclasses.dataclass
class _Open:
    """A search under way."""

    problem: Problem
    index: int
    choice: str
    first: np.ndarray  # the first prompt, which the verifier reads
    state: list[np.ndarray]  # the conversation so far, ready for the next completion
    turns: list[SearchTurn] = dataclasses.field(default_factory=list)
    failed: set[str] = dataclasses.field(default_factory=set)

    @property
    def chosen(self) -> Turn:
        return self.turns[-1].candidates[self.turns[-1].chosen]

    @property
    def place(self) -> Place:
        return self.problem.task_id, self.index, np.concatenate(self.state).tobytes()

    @property
    def search(self) -> Search:
        return Search(self.problem.task_id, self.index, self.choice, tuple(self.turns))


def best_of_n(
    problems: Sequence[Problem],
    *,
    engine: Engine,
    chat: Chat,
    grader: Grader,
    score: Callable[[list[np.ndarray]], np.ndarray] | None,
    limits: Limits,
    n: int,
    searches: int,
    choices: Sequence[str],
    key: tuple[int | str, ...],
    skip_failed: bool = True,
    on_turn: Callable[[Search], None] | None = None,
) -> list[Search]:
    """Searches each problem `searches` times in each of the ways `choices`.

    Args:
      problems: what to solve.
      engine: an idle engine that holds the generator.
      chat: the generator's chat template.
      grader: executes code on the public tests.
      score: ids of (first prompt, completion) -> float32 [len], the verifier; None is possible
        where no choice needs it.
      limits: turns and tokens.
      n: candidates a turn.
      searches: independent searches a problem.
      choices: among `CHOICES`.
      key: what these searches are for, e.g. (seed, "search", iteration).
      skip_failed: a code that failed in this conversation is not chosen while there is another.
      on_turn: called with a search as far as it has come, after each of its turns.

    Returns:
      One `Search` per (problem, search, choice), in that order.
    """
    unknown = sorted(set(choices) - set(CHOICES))
    if unknown:
        raise ValueError(f"unknown search {unknown[0]!r}; one of {', '.join(CHOICES)}")
    opened = []
    for problem in problems:
        first = first_prompt(chat, problem, limits)
        opened += [
            _Open(problem, index, choice, first, [first])
            for index in range(searches)
            for choice in choices
        ]
    live = opened
    for turn in range(limits.turns):
        samples = _sample(live, turn, engine, chat, grader, limits, n, key)
        scores = _score(samples, {s.place: s.first for s in live}, score)
        for s in live:
            candidates = samples[s.place]
            ties = keys.rng(*key, "ties", s.problem.benchmark, s.problem.task_id, s.index, turn)
            chosen = choose(candidates, scores[s.place], s.choice, s.failed, ties)
            s.turns.append(SearchTurn(candidates, scores[s.place], chosen))
            if on_turn is not None:
                on_turn(s.search)
        live = [s for s in live if not s.chosen.grade.passed]
        if turn + 1 < limits.turns:
            for s in live:
                if skip_failed:
                    s.failed.add(s.chosen.code)
                s.state += [
                    s.chosen.completion_ids,
                    feedback_prompt(chat, s.problem, s.chosen, limits),
                ]
    return [s.search for s in opened]


def _sample(
    live: Sequence[_Open],
    turn: int,
    engine: Engine,
    chat: Chat,
    grader: Grader,
    limits: Limits,
    n: int,
    key: tuple[int | str, ...],
) -> dict[Place, tuple[Turn, ...]]:
    """N graded candidates for every distinct place that the searches stand at."""
    places = {s.place: s for s in live}
    for place, s in places.items():
        problem = s.problem
        purpose = (*key, problem.benchmark, problem.task_id, s.index, turn)
        sample_keys = np.stack([keys.key_data(*purpose, j) for j in range(n)])
        state = np.concatenate(s.state)
        engine.submit(Request(place, state, sample_keys, limits.max_new_tokens, keep=False))
    executing = {}
    while engine.pending:
        for completion in engine.step():
            place = cast(Place, completion.request_id)
            code = chat.code(chat.text(completion.ids))
            outcome = grader.submit(places[place].problem, code)
            executing[place, completion.index] = completion, code, outcome
    return {
        place: tuple(
            Turn(s.state[-1], c.ids, c.logprobs, c.truncated, code, grade_of(outcome))
            for c, code, outcome in (executing[place, j] for j in range(n))
        )
        for place, s in places.items()
    }


def _score(
    samples: Mapping[Place, tuple[Turn, ...]],
    first: Mapping[Place, np.ndarray],
    score: Callable[[list[np.ndarray]], np.ndarray] | None,
) -> dict[Place, np.ndarray | None]:
    """float32 [N] for every place: the verifier reads the first prompt and one completion."""
    if score is None:
        return dict.fromkeys(samples)
    ids = [
        np.concatenate([first[place], candidate.completion_ids])
        for place, candidates in samples.items()
        for candidate in candidates
    ]
    flat = iter(score(ids))
    return {
        place: np.array([next(flat) for _ in candidates], np.float32)
        for place, candidates in samples.items()
    }


def encode(found: Sequence[Search]) -> Json:
    """The searches of one problem as JSON; turns that several of them share are kept once."""
    turns: dict[int, int] = {}  # id() of a shared Turn -> its place
    table: list[Json] = []
    for s in found:
        for turn in s.turns:
            for candidate in turn.candidates:
                if id(candidate) not in turns:
                    turns[id(candidate)] = len(table)
                    table.append(records.encode(candidate))
    return {
        "task_id": found[0].task_id,
        "turns": table,
        "searches": [
            {
                "index": s.index,
                "choice": s.choice,
                "turns": [
                    {
                        "candidates": [turns[id(c)] for c in turn.candidates],
                        "scores": None if turn.scores is None else turn.scores.tolist(),
                        "chosen": turn.chosen,
                    }
                    for turn in s.turns
                ],
            }
            for s in found
        ],
    }


def decode(line: Json) -> list[Search]:
    """The inverse of `encode`."""
    table = [records.decode_turn(turn) for turn in line["turns"]]
    return [
        Search(
            line["task_id"],
            s["index"],
            s["choice"],
            tuple(
                SearchTurn(
                    tuple(table[place] for place in turn["candidates"]),
                    None if turn["scores"] is None else np.array(turn["scores"], np.float32),
                    turn["chosen"],
                )
                for turn in s["turns"]
            ),
        )
        for s in line["searches"]
    ]
