"""What a run left in its work directory beside results.json: conversations, searches, outcomes.

The folders have the names that `main` gives to its evaluations' stages (see `lab`). A stage that is
not finished has nothing to show here; whoever shows it says so. Readers raise ValueError for a
damaged file.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mucode_jax.core.conversation import Chat
from mucode_jax.core.records import Rollout, decode_rollout
from mucode_jax.models import hub, huggingface
from mucode_jax.report import text, words
from mucode_jax.rollouts import evaluate, search
from mucode_jax.rollouts.search import Search, SearchTurn
from mucode_jax.runtime.files import Checksums
from mucode_jax.runtime.ledger import intact_stage

Json = Any
# Text of a user message from its ids (and whether it is the first), and of a completion from its.
Texts = tuple[Callable[[np.ndarray, bool], str], Callable[[np.ndarray], str]]
Labels = list[list[bool]]  # of a search: per turn and candidate


@dataclasses.dataclass(frozen=True)
class Searched:
    """What the searches of one generator say about its verifier and about N.

    Attributes:
      method, generator: its method and its name.
      scores: float32 [n]; the verifier's score of every completion that was sampled, each once;
        empty where no verifier took part.
      correct: bool [n]; their labels.
      first_turns: one per problem and search, with the labels of its candidates.
    """

    method: str
    generator: str
    scores: np.ndarray
    correct: np.ndarray
    first_turns: list[tuple[SearchTurn, list[bool]]]


def _lines(path: pathlib.Path) -> Iterator[Json]:
    with open(path, encoding="utf-8") as f:
        yield from map(json.loads, f)


def _finished(
    directory: pathlib.Path, e: Json, kind: str, file: str
) -> tuple[Iterator[Json], Iterator[Json]] | None:
    """The lines of a finished stage of an evaluation, and those of its labels."""
    folder = directory / "stages" / words.folder(e) / f"{kind}_{e['benchmark']}_{e['split']}"
    labels = folder.with_name(f"{folder.name}_labels")
    checksum = Checksums(directory).sha256
    if not intact_stage(folder, checksum) or not intact_stage(labels, checksum):
        return None
    return _lines(folder / file), _lines(labels / "pieces.jsonl")


def greedy(directory: pathlib.Path, e: Json) -> list[tuple[Rollout, list[bool]]]:
    """The greedy conversations of an evaluation with the labels of their turns."""
    if (stage := _finished(directory, e, "greedy", "rollouts.jsonl")) is None:
        return []
    rollouts, labels = stage
    return list(zip(map(decode_rollout, rollouts), labels, strict=True))


def searches(directory: pathlib.Path, e: Json) -> Iterator[list[tuple[Search, Labels]]]:
    """Problem by problem the searches of an evaluation with the labels of their candidates."""
    if (stage := _finished(directory, e, "search", "pieces.jsonl")) is not None:
        problems, labels = stage
        for problem in problems:
            yield [(s, next(labels)) for s in search.decode(problem)]


def solved(
    directory: pathlib.Path, evaluations: Sequence[Json]
) -> dict[str, dict[str, np.ndarray]]:
    """search -> task_id -> float64 [turns]: the share of conversations that solved it, by turn.

    Args:
      directory: a work directory.
      evaluations: of one generator on one split; those whose stages are missing are left out.
    """
    outcomes: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    by_search = [e for e in evaluations if e["search"] != "greedy"]
    for e in evaluations:
        for rollout, label in greedy(directory, e) if e["search"] == "greedy" else ():
            outcome = evaluate.greedy_per_turn([label], e["turns"], e["protocol"])
            outcomes["greedy"][rollout.task_id] = outcome
    for problem in searches(directory, by_search[0]) if by_search else ():
        for e in by_search:
            source = "pt" if e["search"] == "oracle" else e["search"]
            outcomes[e["search"]][problem[0][0].task_id] = np.mean(
                [
                    evaluate.search_outcome(s, labels, e["search"], e["turns"])
                    for s, labels in problem
                    if s.choice == source
                ],
                axis=0,
            )
    return outcomes


def searched(directory: pathlib.Path, e: Json) -> Searched:
    """The scores, labels and first turns of an evaluation's searches."""
    scores, correct, first_turns = [], [], []
    for problem in searches(directory, e):
        seen: set[int] = set()  # ways of choosing share candidates
        opened: set[int] = set()
        for s, labels in problem:
            for turn, label in zip(s.turns, labels, strict=True):
                if turn.scores is not None:
                    new = [j for j, c in enumerate(turn.candidates) if id(c) not in seen]
                    scores += [turn.scores[j] for j in new]
                    correct += [label[j] for j in new]
                seen.update(map(id, turn.candidates))
            if s.index not in opened:
                opened.add(s.index)
                first_turns.append((s.turns[0], labels[0]))
    return Searched(
        e["method"],
        words.generator(e),
        np.array(scores, np.float32),
        np.array(correct, bool),
        first_turns,
    )


def best_of_k(turn: SearchTurn, label: Sequence[bool], choice: str) -> np.ndarray | None:
    """float64 [N]: probability that the choice among k = 1 … N of the candidates is correct.

    The exact mean over all subsets of size k: the r-th best of N is the best of a subset in
    C(N - r, k - 1) of C(N, k) cases; candidates that tie share their mean. None: there are no
    scores to choose by, or they rank otherwise in other company (`vote`,
    `agree`).
    """
    if ("lv" in choice and turn.scores is None) or "vote" in choice or choice == "agree":
        return None
    n = len(label)
    passed = [candidate.grade.passed for candidate in turn.candidates]
    scores = [0.0] * n if turn.scores is None else turn.scores.tolist()
    ranks = {
        "random": [0] * n,
        "pt": passed,
        "lv": scores,
        "pt+lv": list(zip(passed, scores, strict=True)),
        "oracle": label,
    }[choice]
    tied = text.grouped(range(n), ranks.__getitem__)
    shares = [np.mean([label[j] for j in tied[rank]]) for rank in ranks]
    by_rank = [share for _, share in sorted(zip(ranks, shares, strict=True), reverse=True)]

    def correct_of(k: int) -> float:
        cases = ((math.comb(n - r, k - 1), right) for r, right in enumerate(by_rank, 1))
        return sum(count / math.comb(n, k) * right for count, right in cases)

    return np.array([correct_of(k) for k in range(1, n + 1)])


def texts(directory: pathlib.Path, results: Json) -> Texts | None:
    """How ids of this run become text, by the tokenizer that its models were saved with.

    Otherwise by the base generator's, where it is a directory or `mini`; never reads the hub.
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
