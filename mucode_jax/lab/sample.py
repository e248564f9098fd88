"""Stages that sample: rollouts with their labels, searches with theirs, scores."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mucode_jax.core.records import Benchmark, Rollout, decode_rollout, decode_turn, dumps
from mucode_jax.lab import (
    Json,
    Lab,
    LabelledRollouts,
    Model,
    Sampling,
    Scores,
    Searches,
    digest,
    verifier_input,
)
from mucode_jax.rollouts import collect, grading, search
from mucode_jax.rollouts.scorer import Scorer
from mucode_jax.runtime import hosts, interruption
from mucode_jax.runtime.workdir import Shards, write_atomically


def rollouts(
    lab: Lab,
    name: str,
    generator: Model,
    benchmark: Benchmark,
    *,
    n: int,
    turns: int,
    sampling: Sampling,
    key: Sequence[int | str],
    stop_on_pass: bool = True,
    add_correct: bool = False,
) -> LabelledRollouts:
    """n rollouts of each problem, and afterwards their labels: stages NAME and NAME_labels.

    Args:
      name: of the stage, within the generator's folder.
      generator: what samples.
      benchmark: its problems are attempted; its private tests label the finished rollouts.
      n, turns, sampling, key, stop_on_pass: see `rollouts.collect`.
      add_correct: one rollout more of each problem: its reference solution.
    """
    limits = dataclasses.replace(lab.limits, turns=turns)
    settings = {
        "problems": digest(benchmark.problems),
        "n": n,
        "limits": dataclasses.asdict(limits),
        "sampling": dataclasses.asdict(sampling),
        "key": list(key),
        "stop_on_pass": stop_on_pass,
        "add_correct": add_correct,
        "solutions": digest(sorted(benchmark.solutions.items())) if add_correct else None,
        **lab.sandbox,
    }
    order = {problem.task_id: i for i, problem in enumerate(benchmark.problems)}

    def share(path: pathlib.Path) -> None:
        shards = Shards(path)
        done = {(line["task_id"], line["index"]) for line in shards.read()}
        problems = [benchmark.problems[i] for i in hosts.mine(list(order))]
        already = sum((p.task_id, i) in done for p in problems for i in range(n))
        title = f"{generator.name}: {name}"
        told = lab.progress.task(title, n * len(problems), "rollouts", already)
        with contextlib.closing(shards), told as advance:
            grader = grading.public_grader(lab.pool)
            if already < n * len(problems):
                for r in collect.collect(
                    problems,
                    engine=lab.engine(generator, limits, sampling),
                    chat=lab.chat,
                    grader=grader,
                    limits=limits,
                    n=n,
                    key=tuple(key),
                    done=done,
                    stop_on_pass=stop_on_pass,
                ):
                    shards.append(dumps(r))
                    advance(1)
                    interruption.check()

    def make(path: pathlib.Path) -> Mapping[str, Json]:
        found = [decode_rollout(line) for line in Shards(path).gather()]
        if add_correct:
            grader = grading.public_grader(lab.pool)
            found += [
                collect.of_solution(
                    problem,
                    benchmark.solutions[problem.task_id],
                    n,
                    chat=lab.chat,
                    grader=grader,
                    limits=limits,
                )
                for problem in benchmark.problems
                if problem.task_id in benchmark.solutions
            ]
        # In the order of the problems, not of arrival: the same file however it was made.
        found.sort(key=lambda r: (order[r.task_id], r.index))
        write_atomically(path / "rollouts.jsonl", "".join(dumps(r) + "\n" for r in found))
        lab.summarise(f"{generator.name}/{name}")
        return _counts(found)

    stage = lab.workdir.stage(
        f"{generator.name}/{name}", settings, {"generator": generator.stage}, make, share
    )
    lines = (stage.path / "rollouts.jsonl").read_text().splitlines()
    items = [decode_rollout(json.loads(line)) for line in lines]
    problems = {problem.task_id: problem for problem in benchmark.problems}
    grader = grading.private_grader(lab.pool, benchmark.private)

    def label(chunk: Sequence[Rollout]) -> list[Json]:
        found = grading.labels(chunk, problems, benchmark.private, grader)
        return [list(label) for label in found]

    labelled, labels = lab.in_pieces(
        f"{generator.name}/{name}_labels",
        {"private": digest(sorted(benchmark.private.items()))},
        {"rollouts": stage},
        items,
        label,
        "rollouts",
    )
    return LabelledRollouts(name, generator, items, [tuple(label) for label in labels], labelled)


def searches(
    lab: Lab,
    name: str,
    generator: Model,
    verifier: Model | None,
    benchmark: Benchmark,
    *,
    n: int,
    searches: int,
    choices: Sequence[str],
    sampling: Sampling,
    key: Sequence[int | str],
    skip_failed: bool,
) -> Searches:
    """Multi-turn Best-of-N on each problem: stages NAME and NAME_labels; see `search`."""
    settings = {
        "problems": digest(benchmark.problems),
        "n": n,
        "searches": searches,
        "choices": list(choices),
        "limits": dataclasses.asdict(lab.limits),
        "sampling": dataclasses.asdict(sampling),
        "key": list(key),
        "skip_failed": skip_failed,
        **lab.sandbox,
    }
    inputs = {"generator": generator.stage}
    if verifier is not None:
        inputs["verifier"] = verifier.stage
    tools: dict[str, Any] = {}

    def search_chunk(problems: Sequence[Any]) -> list[Json]:
        if not tools:
            # The verifier first: the engine's cache takes what memory is left.
            tools["score"] = lab.scorer(verifier) if verifier is not None else None
            tools["engine"] = lab.engine(generator, lab.limits, sampling)
            tools["grader"] = grading.public_grader(lab.pool)
        found = search.best_of_n(
            problems,
            chat=lab.chat,
            limits=lab.limits,
            n=n,
            searches=searches,
            choices=choices,
            key=tuple(key),
            skip_failed=skip_failed,
            **tools,
        )
        each = searches * len(choices)
        return [search.encode(found[i : i + each]) for i in range(0, len(found), each)]

    stage, lines = lab.in_pieces(
        f"{generator.name}/{name}",
        settings,
        inputs,
        benchmark.problems,
        search_chunk,
        "problems",
        count=_search_counts,
        chunk=max(1, 128 // searches),
    )
    items = [found for line in lines for found in search.decode(line)]
    problems = {problem.task_id: problem for problem in benchmark.problems}
    grader = grading.private_grader(lab.pool, benchmark.private)

    def label(chunk: Sequence[search.Search]) -> list[Json]:
        flat = iter(
            grading.label_codes(
                (
                    (problems[s.task_id], c.code, c.grade)
                    for s in chunk
                    for turn in s.turns
                    for c in turn.candidates
                ),
                benchmark.private,
                grader,
            )
        )
        return [[[next(flat) for _ in t.candidates] for t in s.turns] for s in chunk]

    labelled, labels = lab.in_pieces(
        f"{generator.name}/{name}_labels",
        {"private": digest(sorted(benchmark.private.items()))},
        {"searches": stage},
        items,
        label,
        "searches",
    )
    return Searches(items, labels, labelled)


def scores(lab: Lab, verifier: Model | None, rollouts: LabelledRollouts) -> Scores:
    """The verifier's score of every turn; 0 throughout where there is no verifier.

    Its input is the first prompt and the turn's completion, never the history.
    """
    if verifier is None:
        return Scores([np.zeros(len(r.turns), np.float32) for r in rollouts.items], rollouts.stage)
    tools: list[Scorer] = []

    def score(chunk: Sequence[Rollout]) -> list[Json]:
        tools.extend([lab.scorer(verifier)] if not tools else [])
        texts = [verifier_input(r, t) for r in chunk for t in range(len(r.turns))]
        flat = iter(tools[0](texts).tolist())
        return [[next(flat) for _ in r.turns] for r in chunk]

    stage, scores = lab.in_pieces(
        f"{verifier.name}/scores",
        {},
        {"verifier": verifier.stage, "rollouts": rollouts.stage},
        rollouts.items,
        score,
        "rollouts",
    )
    return Scores([np.array(s, np.float32) for s in scores], stage)


def _search_counts(lines: list[Json]) -> dict[str, int]:
    """What searches cost: candidates that several of them share are sampled and executed once."""
    turns = [[decode_turn(turn) for turn in line["turns"]] for line in lines]
    return {
        "tokens": sum(len(turn.completion_ids) for of_problem in turns for turn in of_problem),
        "executions": sum(len({turn.code for turn in of_problem}) for of_problem in turns),
    }


def _counts(rollouts: Sequence[Rollout]) -> dict[str, int]:
    """What a set of rollouts cost, read off the records: the same however often interrupted."""
    turns = [turn for r in rollouts for turn in r.turns]
    return {
        "rollouts": len(rollouts),
        "turns": len(turns),
        "tokens": sum(len(turn.completion_ids) for turn in turns),
        "executions": len({(r.task_id, turn.code) for r in rollouts for turn in r.turns}),
        "passed_public": sum(r.passed for r in rollouts),
    }
