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
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

import numpy as np

from mucode_jax.core import keys, records
from mucode_jax.core.conversation import Chat
from mucode_jax.core.records import Problem, Turn
from mucode_jax.rollouts.agreement import Agreement, Runs, passing
from mucode_jax.rollouts.collect import Limits, feedback_prompt, first_prompt
from mucode_jax.rollouts.grading import Grader, grade_of
from mucode_jax.sampling.engine import Completion, Engine, Request
from mucode_jax.sampling.scheduler import Handle
from mucode_jax.sandbox import Outcome

Json = Any
SCORED_TOGETHER = 64  # texts: as many as a batch of the verifier has rows
# The ways to choose: how a candidate ranks, by its score and by how many of the N have its code.
# The highest is taken, ties by key. `pt`: passes the public tests, and comes first; `lv`: the
# verifier's score, which must be there; `vote`: equal codes count together; `agree`: programs that
# return the same on further inputs count together, the score, where there is one, tells those of a
# group apart. A way of one's own is one entry more, with "lv" in its name if it goes by the score.
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
    "agree": lambda turn, score, agreeing: (turn.grade.passed, agreeing, score),
}


def goes_by_score(choice: str) -> bool:
    """Whether a way to choose asks the verifier; `agree` does without one where there is none."""
    return "lv" in choice or choice == "agree"


@dataclasses.dataclass(frozen=True)
class SearchTurn:
    """The candidates of one turn and which was chosen."""

    candidates: tuple[Turn, ...]  # N turns that share one prompt
    scores: np.ndarray | None  # float32 [N], the verifier's; None where there is no verifier
    chosen: int  # position of the chosen one
    # int32 [N], of `agree` alone: how many of those that passed return what this one returns on
    # further inputs (`agreement`), 0 where it failed; None where no such inputs could be made.
    agreeing: np.ndarray | None = None

    @property
    def compared(self) -> list[str]:
        """The programs that were executed on further inputs."""
        return [] if self.agreeing is None else passing(self.candidates)


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
    agreeing: np.ndarray | None = None,
) -> int:
    """The position of the chosen candidate.

    Args:
      candidates: N candidates of one turn.
      scores: float32 [N]; needed by a choice with "lv" in its name.
      choice: one of `CHOICES`.
      failed: codes that are not chosen while there is another (they failed the public tests earlier
        in this conversation).
      generator: breaks ties.
      agreeing: for `agree`, as in `SearchTurn`; None: all that passed are one group.
    """
    if scores is None and "lv" in choice:
        raise ValueError(f"search {choice!r} goes by scores, and there is no verifier")
    if scores is None or not goes_by_score(choice):
        scores = np.zeros(len(candidates))
    rank = CHOICES[choice]
    copies = collections.Counter(candidate.code for candidate in candidates)
    counts = [copies[candidate.code] for candidate in candidates]
    if choice == "agree":
        counts = [0] * len(candidates) if agreeing is None else agreeing.tolist()
    ties = generator.permutation(len(candidates))
    ranks = [
        (turn.code not in failed, rank(turn, float(score), count), int(tie))
        for turn, score, count, tie in zip(candidates, scores, counts, ties, strict=True)
    ]
    return ranks.index(max(ranks))


@dataclasses.dataclass
class _Open:
    """A search under way, with the programs that have failed the public tests in it."""

    index: int
    choice: str
    turns: list[SearchTurn] = dataclasses.field(default_factory=list)
    failed: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass
class _Candidate:
    """One of the N samples of a place: its completion, its program and that one's outcome."""

    completion: Completion
    code: str
    outcome: Future[Outcome]


@dataclasses.dataclass(eq=False)
class _Place:
    """Where searches of one problem and index stand until their next N candidates are there.

    Ways of choosing that have chosen the same so far stand at the same place: they share it.

    Attributes:
      problem, index: whose searches they are.
      turn: which turn of the conversation is sampled here.
      state: int32 [S], the conversation so far.
      prompt_ids: int32 [P], its last message, with which `state` ends.
      handles: the engine's names of the candidates.
      searches: who stands here.
      candidates: by position, as they are sampled.
      runs: of those that passed on further inputs, once all are executed.
    """

    problem: Problem
    index: int
    turn: int
    state: np.ndarray
    prompt_ids: np.ndarray
    handles: Sequence[Handle]
    searches: Sequence[_Open]
    candidates: dict[int, _Candidate] = dataclasses.field(default_factory=dict)
    runs: Runs | None = None

    @property
    def outcomes(self) -> list[Future[Outcome]]:
        """Of all that is executed for this place."""
        further = self.runs.futures if self.runs else []
        return [candidate.outcome for candidate in self.candidates.values()] + further

    def executed(self, agreement: Agreement | None) -> bool:
        """Whether all is; begins what `agree` asks for when the candidates are."""
        agree = any(search.choice == "agree" for search in self.searches)
        if not all(outcome.done() for outcome in self.outcomes):
            return False
        if agree and agreement is not None and self.runs is None:
            self.runs = agreement.submit(self.problem, self.turns())
            return self.runs is None or not self.runs.futures
        return True

    def turns(self) -> tuple[Turn, ...]:
        """The candidates in order; raises InfrastructureError where one could not be executed."""
        ordered = [self.candidates[position] for position in range(len(self.handles))]
        return tuple(
            Turn(
                prompt_ids=self.prompt_ids,
                completion_ids=c.completion.ids,
                logprobs=c.completion.logprobs,
                truncated=c.completion.truncated,
                code=c.code,
                grade=grade_of(c.outcome),
            )
            for c in ordered
        )


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
    agreement: Agreement | None = None,
    on_turn: Callable[[Search], None] | None = None,
) -> Iterator[list[Search]]:
    """Searches each problem `searches` times in each of the ways `choices`.

    Each (problem, search) is a conversation of its own: its candidates are executed while others
    decode, and its next turn goes on from the chosen one's cache at once, whatever the others do.
    What it finds depends on itself and on the number of slots alone.

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
      agreement: executes programs on further inputs; needed by the choice `agree`.
      on_turn: called with a search as far as it has come, after each of its turns.

    Yields:
      the searches of one problem in the order (search, choice); problems as they finish.

    Raises:
      ValueError: an unknown choice, `agree` without `agreement`, or a prompt that leaves no room
        for the turns.
    """
    unknown = sorted(set(choices) - set(CHOICES))
    if unknown:
        raise ValueError(f"unknown search {unknown[0]!r}; one of {', '.join(CHOICES)}")
    if "agree" in choices and agreement is None:
        raise ValueError("search 'agree' executes further inputs, and there is nothing to do it")
    first_prompts = {p.task_id: first_prompt(chat, p, limits) for p in problems}
    opened: dict[str, list[_Open]] = {}
    open_count: dict[str, int] = {}  # task_id -> searches that have not ended
    sampling: dict[Handle, _Place] = {}
    executing: list[_Place] = []  # all candidates are sampled
    unscored: list[_Place] = []  # all candidates are executed

    def submit(request_id: Hashable, places: Sequence[_Place], parent: Handle | None) -> None:
        """One request for the candidates of places that stand in the same state."""
        first = places[0]
        sample_keys = [
            keys.key_data(*key, p.problem.benchmark, p.problem.task_id, p.index, p.turn, position)
            for p in places
            for position in range(n)
        ]
        for place in places:
            sampling.update(dict.fromkeys(place.handles, place))
        engine.submit(
            Request(
                *(request_id, first.state, np.stack(sample_keys), limits.max_new_tokens, parent),
                keep=first.turn + 1 < limits.turns,
            )
        )

    for problem in problems:
        prompt_ids, request_id = first_prompts[problem.task_id], (problem.task_id,)
        places = []
        for index in range(searches):
            handles: list[Handle] = [(request_id, index * n + position) for position in range(n)]
            here = [_Open(index, choice) for choice in choices]
            places.append(_Place(problem, index, 0, prompt_ids, prompt_ids, handles, here))
        opened[problem.task_id] = [search for place in places for search in place.searches]
        open_count[problem.task_id] = len(opened[problem.task_id])
        submit(request_id, places, None)

    while sampling or executing or unscored:
        if engine.pending:
            for completion in engine.step():
                handle = (completion.request_id, completion.index)
                place = sampling.pop(handle)
                code = chat.code(chat.text(completion.ids))
                outcome = grader.submit(place.problem, code)
                position = place.handles.index(handle)
                place.candidates[position] = _Candidate(completion, code, outcome)
                if len(place.candidates) == n:
                    executing.append(place)
        elif not unscored:
            outcomes = [outcome for place in executing for outcome in place.outcomes]
            wait([o for o in outcomes if not o.done()], return_when=FIRST_COMPLETED)
        # Asked once: programs end now.
        executed = [place for place in executing if place.executed(agreement)]
        unscored += executed
        executing = [place for place in executing if place not in executed]
        # The verifier reads many texts together, unless slots would lie idle meanwhile.
        if score and engine.queued and len(unscored) * n < SCORED_TOGETHER:
            continue
        ready, unscored = unscored, []
        candidates = [place.turns() for place in ready]
        scores = _scores(ready, candidates, first_prompts, score)
        for place, turns, place_scores in zip(ready, candidates, scores, strict=True):
            going_on = _choose_all(place, turns, place_scores, key, skip_failed, limits)
            if on_turn is not None:
                for search in place.searches:
                    on_turn(_search(place.problem, search))
            for chosen, followers in going_on.items():
                message = feedback_prompt(chat, place.problem, turns[chosen], limits)
                state = np.concatenate([place.state, turns[chosen].completion_ids, message])
                parent = place.handles[chosen]
                handles = [(parent, position) for position in range(n)]
                following = _Place(
                    place.problem, place.index, place.turn + 1, state, message, handles, followers
                )
                submit(parent, [following], parent)
            if place.turn + 1 < limits.turns:
                for handle in place.handles:
                    engine.release(handle)
            task_id = place.problem.task_id
            open_count[task_id] -= len(place.searches) - sum(map(len, going_on.values()))
            if not open_count[task_id]:
                yield [_search(place.problem, search) for search in opened.pop(task_id)]


def _choose_all(
    place: _Place,
    turns: tuple[Turn, ...],
    scores: np.ndarray | None,
    key: tuple[int | str, ...],
    skip_failed: bool,
    limits: Limits,
) -> dict[int, list[_Open]]:
    """Lets each search choose among a place's candidates, and notes its turn.

    Returns position -> the searches that go on from that candidate; of equal completions it is the
    first.
    """
    going_on: dict[int, list[_Open]] = {}
    problem = place.problem
    purpose = (*key, "ties", problem.benchmark, problem.task_id, place.index, place.turn)
    sizes = place.runs.sizes(turns) if place.runs else None
    for search in place.searches:
        agreeing = sizes if search.choice == "agree" else None
        chosen = choose(turns, scores, search.choice, search.failed, keys.rng(*purpose), agreeing)
        search.turns.append(SearchTurn(turns, scores, chosen, agreeing))
        if turns[chosen].grade.passed or place.turn + 1 == limits.turns:
            continue
        if skip_failed:
            search.failed.add(turns[chosen].code)
        ids = turns[chosen].completion_ids
        first = next(i for i, t in enumerate(turns) if np.array_equal(t.completion_ids, ids))
        going_on.setdefault(first, []).append(search)
    return going_on


def _search(problem: Problem, search: _Open) -> Search:
    return Search(problem.task_id, search.index, search.choice, tuple(search.turns))


def _scores(
    places: Sequence[_Place],
    candidates: Sequence[tuple[Turn, ...]],
    first_prompts: Mapping[str, np.ndarray],
    score: Callable[[list[np.ndarray]], np.ndarray] | None,
) -> list[np.ndarray | None]:
    """float32 [N] of each place: the verifier reads the first prompt and one completion."""
    if score is None:
        return [None] * len(places)
    texts = [
        np.concatenate([first_prompts[place.problem.task_id], turn.completion_ids])
        for place, turns in zip(places, candidates, strict=True)
        for turn in turns
    ]
    flat = iter(score(texts) if texts else ())
    return [np.array([next(flat) for _ in turns], np.float32) for turns in candidates]


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
            **({} if turn.agreeing is None else {"agreeing": turn.agreeing.tolist()}),
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
        agreeing = np.array(turn["agreeing"], np.int32) if "agreeing" in turn else None
        candidates = tuple(table[i] for i in turn["candidates"])
        return SearchTurn(candidates, scores, turn["chosen"], agreeing)

    return [
        Search(line["task_id"], s["index"], s["choice"], tuple(map(decode_turn, s["turns"])))
        for s in line["searches"]
    ]
