"""What a run left in its work directory beside results.json: conversations, searches, outcomes.

The names of the folders are those that `main` gives to its evaluations' stages (see `lab`). A stage
that is not there, or not finished, is None here; whoever shows it says so.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mucode_jax.core.conversation import Chat
from mucode_jax.core.records import Rollout, decode_rollout
from mucode_jax.models import hub, huggingface
from mucode_jax.report import words
from mucode_jax.rollouts import evaluate, search
from mucode_jax.rollouts.search import Search
from mucode_jax.runtime.ledger import intact_stage

Json = Any
# Text of a user message from its ids, and of a completion from its ids.
Texts = tuple[Callable[[np.ndarray, bool], str], Callable[[np.ndarray], str]]


@dataclasses.dataclass(frozen=True)
class FirstTurn:
    """The N candidates of one search's first turn: bool, float32 and bool [N]."""

    passed: np.ndarray
    scores: np.ndarray | None
    correct: np.ndarray


@dataclasses.dataclass(frozen=True)
class Searched:
    """What the searches of one generator say about its verifier and about N.

    Attributes:
      method, generator: its method and its name.
      scores: float32 [n]; the verifier's score of every completion that was sampled, each once; no
        entry where no verifier took part.
      correct: bool [n]; their labels.
      first_turns: one a problem and search.
    """

    method: str
    generator: str
    scores: np.ndarray
    correct: np.ndarray
    first_turns: tuple[FirstTurn, ...]


def _lines(path: pathlib.Path) -> Iterator[Json]:
    with open(path, encoding="utf-8") as f:
        yield from map(json.loads, f)


def _finished(
    directory: pathlib.Path, of: Json, kind: str
) -> tuple[pathlib.Path, pathlib.Path] | None:
    """The folders of a finished stage and of its labels. ValueError: a file there is damaged."""
    folder = directory / "stages" / words.folder(of) / f"{kind}_{of['benchmark']}_{of['split']}"
    labels = folder.with_name(folder.name + "_labels")
    return (folder, labels) if intact_stage(folder) and intact_stage(labels) else None


def greedy(directory: pathlib.Path, of: Json) -> list[tuple[Rollout, list[bool]]] | None:
    """The greedy conversations of an evaluation with the labels of their turns."""
    found = _finished(directory, of, "greedy")
    if found is None:
        return None
    rollouts, labels = found
    decoded = map(decode_rollout, _lines(rollouts / "rollouts.jsonl"))
    return list(zip(decoded, _lines(labels / "pieces.jsonl"), strict=True))


def searches(
    directory: pathlib.Path, of: Json
) -> Iterator[tuple[list[Search], list[list[list[bool]]]]] | None:
    """Problem by problem the searches of an evaluation with the labels of their candidates."""
    folders = _finished(directory, of, "search")
    if folders is None:
        return None
    labels = _lines(folders[1] / "pieces.jsonl")

    def read() -> Iterator[tuple[list[Search], list[list[list[bool]]]]]:
        for line in _lines(folders[0] / "pieces.jsonl"):
            found = search.decode(line)
            yield found, [next(labels) for _ in found]

    return read()


def solved(
    directory: pathlib.Path, evaluations: Sequence[Json]
) -> dict[str, dict[str, np.ndarray]]:
    """search -> task_id -> float64 [turns]: the share of conversations that solved it, by turn.

    Args:
      directory: a work directory.
      evaluations: of one generator on one split; those whose stages are missing are left out.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for e in evaluations:
        if e["search"] == "greedy" and (talks := greedy(directory, e)) is not None:
            found["greedy"] = {
                rollout.task_id: evaluate.greedy_per_turn([label], e["turns"], e["protocol"])
                for rollout, label in talks
            }
    by_search = [e for e in evaluations if e["search"] != "greedy"]
    for items, labels in (searches(directory, by_search[0]) or ()) if by_search else ():
        for e in by_search:
            source = "pt" if e["search"] == "oracle" else e["search"]
            found.setdefault(e["search"], {})[items[0].task_id] = np.mean(
                [
                    evaluate.search_outcome(s, label, e["search"], e["turns"])
                    for s, label in zip(items, labels, strict=True)
                    if s.choice == source
                ],
                axis=0,
            )
    return found


def searched(directory: pathlib.Path, of: Json) -> Searched | None:
    """The scores, labels and first turns of an evaluation's searches."""
    found = searches(directory, of)
    if found is None:
        return None
    scores, correct, first_turns = [], [], []
    for items, labels in found:
        seen: set[int] = set()  # ways of choosing share candidates
        opened: set[int] = set()
        for s, label in zip(items, labels, strict=True):
            for turn, of_turn in zip(s.turns, label, strict=True):
                if turn.scores is not None:
                    new = [j for j, c in enumerate(turn.candidates) if id(c) not in seen]
                    scores += [turn.scores[j] for j in new]
                    correct += [of_turn[j] for j in new]
                seen.update(map(id, turn.candidates))
            if s.index not in opened:
                opened.add(s.index)
                passed = np.array([c.grade.passed for c in s.turns[0].candidates])
                first_turns.append(FirstTurn(passed, s.turns[0].scores, np.array(label[0], bool)))
    return Searched(
        of["method"],
        words.generator(of),
        np.array(scores, np.float32),
        np.array(correct, bool),
        tuple(first_turns),
    )


def best_of_k(turn: FirstTurn, choice: str) -> np.ndarray | None:
    """float64 [N]: probability that the choice among k = 1 … N of the candidates is correct.

    The exact mean over all subsets of size k: the r-th best of N is the best of a subset in
    C(N - r, k - 1) of C(N, k) cases; candidates that tie share their mean. None: there are no
    scores to choose by, or they rank otherwise in other company (`vote`).
    """
    if ("lv" in choice and turn.scores is None) or "vote" in choice:
        return None
    rank = {
        "random": lambda j: 0,
        "pt": lambda j: bool(turn.passed[j]),
        "lv": lambda j: float(turn.scores[j]),
        "pt+lv": lambda j: (bool(turn.passed[j]), float(turn.scores[j])),
        "oracle": lambda j: bool(turn.correct[j]),
    }[choice]
    n = len(turn.correct)
    tied: dict[Any, list[bool]] = {}
    for j in range(n):
        tied.setdefault(rank(j), []).append(bool(turn.correct[j]))
    by_rank = [np.mean(tied[value]) for value in sorted(tied, reverse=True) for _ in tied[value]]
    return np.array(
        [
            sum(
                math.comb(n - r, k - 1) / math.comb(n, k) * right
                for r, right in enumerate(by_rank, 1)
            )
            for k in range(1, n + 1)
        ]
    )


def texts(directory: pathlib.Path, results: Json) -> Texts | None:
    """How ids of this run become text, by the tokenizer that its models were saved with.

    Falls back on the base generator where it is a directory or comes along; never reads the hub.
    """
    saved = sorted((directory / "stages").glob("*/*/model/tokenizer.json"))
    path = str(results["config"].get("generator", {}).get("path", ""))
    if saved:
        home = saved[0].parent
    elif path == "mini" or (path and pathlib.Path(path).is_dir()):
        home = hub.resolve(path)
    else:
        return None
    chat = Chat(huggingface.load_tokenizer(home), huggingface.eot_ids(home))
    return lambda ids, first: chat.message(ids, first=first), chat.text
