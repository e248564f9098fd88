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
from mucode_jax.core.conversation import Chat, extract_code
from mucode_jax.core.records import Problem, Turn
from mucode_jax.rollouts.collect import Limits, feedback_prompt, first_prompt
from mucode_jax.rollouts.grading import Grader, grade_of
from mucode_jax.sampling.engine import Engine, Request

Json = Any
# The ways to choose: how a candidate ranks, by its score and by how many of the N have its code.
# The highest is taken, ties by key. `pt`: passes the public tests, and comes first; `lv`: the
# verifier's score, which must be there; `vote`: equal codes count together. A way of one's own is
# one entry more, with "lv" in its name if it goes by the score.
Rank = Callable[[Turn, float, int], Any]
CHOICES: dict[str, Rank] = {
    "random": lambda turn, score, copies: 0,
    "pt": lambda turn, score, copies: turn.grade.passed,
    # The generator's own vote: self-consistency (Wang et al., 2022) over what passes.
    "pt+vote": lambda turn, score, copies: (turn.grade.passed, copies),
    "lv": lambda turn, score, copies: score,
    "pt+lv": lambda turn, score, copies: (turn.grade.passed, score),
    # Equal codes add up their exp(score): weighted Best-of-N (Li et al., 2022).
    "pt+lv+vote": lambda turn, score, copies: (turn.grade.passed, score + math.log(copies)),
}


@dataclasses.dataclass(frozen=True)
class SearchTurn:
    """The candidates of one turn and which was chosen."""

    candidates: tuple[Turn, ...]  # N turns that share one prompt
    scores: np.ndarray | None  # float32 [N], the verifier's; None where there is no verifier
    chosen: int  # position of the chosen one


@dataclasses.dataclass(frozen=True)
class Search:
    """One multi-turn Best-of-N search on one problem, as far as it has come."""

    task_id: str
    index: int  # which of the problem's independent searches
    choice: str  # one of `CHOICES`
    turns: tuple[SearchTurn, ...]  # the last is the one whose choice passed the public tests, or T


def choose(
    candidates: Sequence[Turn],
    scores: np.ndarray | None,
    choice: str,
    failed: set[str],
    generator: np.random.Generator,
) -> int:
    """The position of the chosen candidate.

    Args:
      candidates: N candidates of one turn.
      scores: float32 [N]; needed by a choice with "lv" in its name.
      choice: one of `CHOICES`.
      failed: codes that are not chosen while there is another (they failed the public tests earlier
        in this conversation).
      generator: breaks ties.
    """
    if "lv" not in choice:
        scores = np.zeros(len(candidates))
    elif scores is None:
        raise ValueError(f"search {choice!r} goes by scores, and there is no verifier")
    rank = CHOICES[choice]
    copies = collections.Counter(candidate.code for candidate in candidates)
    ties = generator.permutation(len(candidates))
    ranks = [
        (turn.code not in failed, rank(turn, float(score), copies[turn.code]), int(tie))
        for turn, score, tie in zip(candidates, scores, ties, strict=True)
    ]
    return ranks.index(max(ranks))


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
      engine, chat, grader, limits: see `collect.collect`.
      score: ids of (first prompt, completion) -> float32 [len], the verifier; None is possible
        where no choice needs it.
      n: candidates per turn.
      searches: independent searches per problem.
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
        if not live:
            break
        samples = _sample(live, turn, engine, chat, grader, limits, n, key)
        scores = _score(samples, {s.place: s.first for s in live}, score)
        going_on = []
        for s in live:
            candidates, candidate_scores = samples[s.place], scores[s.place]
            ties = keys.rng(*key, "ties", s.problem.benchmark, s.problem.task_id, s.index, turn)
            position = choose(candidates, candidate_scores, s.choice, s.failed, ties)
            s.turns.append(SearchTurn(candidates, candidate_scores, position))
            if on_turn is not None:
                on_turn(s.search)
            chosen = candidates[position]
            if turn + 1 < limits.turns and not chosen.grade.passed:
                feedback = feedback_prompt(chat, s.problem, chosen, limits)
                s.state += [chosen.completion_ids, feedback]
                if skip_failed:
                    s.failed.add(chosen.code)
                going_on.append(s)
        live = going_on
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
        purpose = (*key, s.problem.benchmark, s.problem.task_id, s.index, turn)
        sample_keys = np.stack([keys.key_data(*purpose, j) for j in range(n)])
        state = np.concatenate(s.state)
        engine.submit(Request(place, state, sample_keys, limits.max_new_tokens, keep=False))
    executing = {}
    while engine.pending:
        for completion in engine.step():
            place = cast(Place, completion.request_id)
            code = extract_code(chat.text(completion.ids))
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
) -> Mapping[Place, np.ndarray | None]:
    """float32 [N] for every place: the verifier reads the first prompt and one completion."""
    if score is None:
        return dict.fromkeys(samples)
    scores = score(
        [
            np.concatenate([first[place], candidate.completion_ids])
            for place, candidates in samples.items()
            for candidate in candidates
        ]
    )
    ends = np.cumsum([len(candidates) for candidates in samples.values()])
    return dict(zip(samples, np.split(np.asarray(scores, np.float32), ends[:-1]), strict=True))


def encode(searches: Sequence[Search]) -> Json:
    """The searches of one problem as JSON; candidates that several of them share are kept once."""
    turns = [turn for s in searches for turn in s.turns]
    shared = {id(candidate): candidate for turn in turns for candidate in turn.candidates}
    place = {key: i for i, key in enumerate(shared)}

    def encode_turn(turn: SearchTurn) -> Json:
        return {
            "candidates": [place[id(candidate)] for candidate in turn.candidates],
            "scores": None if turn.scores is None else turn.scores.tolist(),
            "chosen": turn.chosen,
        }

    return {
        "task_id": searches[0].task_id,
        "turns": [records.encode(candidate) for candidate in shared.values()],
        "searches": [
            {"index": s.index, "choice": s.choice, "turns": [encode_turn(turn) for turn in s.turns]}
            for s in searches
        ],
    }


def decode(line: Json) -> list[Search]:
    """The inverse of `encode`."""
    table = [records.decode_turn(turn) for turn in line["turns"]]

    def decode_turn(turn: Json) -> SearchTurn:
        scores = None if turn["scores"] is None else np.array(turn["scores"], np.float32)
        return SearchTurn(tuple(table[i] for i in turn["candidates"]), scores, turn["chosen"])

    return [
        Search(line["task_id"], s["index"], s["choice"], tuple(map(decode_turn, s["turns"])))
        for s in line["searches"]
    ]
