"""Stages that sample: rollouts with their labels, searches with theirs, scores."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mucode_jax.core.records import (
    Benchmark,
    Problem,
    Rollout,
    Tests,
    decode_rollout,
    decode_turn,
    dumps,
    encode,
)
from mucode_jax.lab.artifacts import LabelledRollouts, Model, Scores, Searches, verifier_input
from mucode_jax.lab.lab import Lab, Sampling, digest
from mucode_jax.rollouts import collect, grading, search
from mucode_jax.rollouts.agreement import Agreement
from mucode_jax.rollouts.collect import Limits
from mucode_jax.rollouts.scorer import Scorer
from mucode_jax.runtime import hosts
from mucode_jax.runtime.files import write_atomically
from mucode_jax.runtime.ledger import Stage
from mucode_jax.runtime.pieces import Pieces

Json = Any


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
      add_correct: one more rollout per problem: its reference solution.
    """
    limits = dataclasses.replace(lab.limits, turns=turns)
    settings = {
        **_settings(lab, benchmark, n, limits, sampling, key),
        "stop_on_pass": stop_on_pass,
        "add_correct": add_correct,
        "solutions": digest(sorted(benchmark.solutions.items())) if add_correct else None,
    }
    order = {problem.task_id: i for i, problem in enumerate(benchmark.problems)}
    stage_name = f"{generator.name}/{name}"

    def share(path: pathlib.Path) -> None:
        problems = [benchmark.problems[i] for i in hosts.mine(list(order))]
        mine = [(problem.task_id, i) for problem in problems for i in range(n)]
        title = f"{generator.name}: {name}"
        with lab.pieces(path, title, "rollouts", mine, _rollout_key) as (done, store):
            for rollout in collect.collect(
                problems,
                engine=lab.engine(generator, limits, sampling),
                chat=lab.chat,
                grader=grading.public_grader(lab.pool),
                limits=limits,
                n=n,
                key=tuple(key),
                done=done,
                stop_on_pass=stop_on_pass,
            ):
                store(encode(rollout))

    def make(path: pathlib.Path) -> Mapping[str, Json]:
        items = [decode_rollout(piece) for piece in Pieces(path).gather()]
        if add_correct:
            items += _reference_rollouts(lab, benchmark, n, limits)
        # In the order of the problems, not of arrival: the same file however it was made.
        items.sort(key=lambda rollout: (order[rollout.task_id], rollout.index))
        lines = "".join(dumps(rollout) + "\n" for rollout in items)
        write_atomically(path / "rollouts.jsonl", lines)
        lab.summarise(stage_name)
        return _rollout_counts(items)

    stage = lab.workdir.stage(stage_name, settings, {"generator": generator.stage}, make, share)
    lines = (stage.path / "rollouts.jsonl").read_text().splitlines()
    items = [decode_rollout(json.loads(line)) for line in lines]
    labelled, labels = _label(lab, stage, benchmark, items, "rollouts", grading.labels)
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
    agree_inputs: int,
) -> Searches:
    """Multi-turn Best-of-N on each problem: stages NAME and NAME_labels; see `rollouts.search`.

    `agree_inputs`: further inputs per problem, of the choice `agree`.
    """
    settings = {
        **_settings(lab, benchmark, n, lab.limits, sampling, key),
        "searches": searches,
        "choices": list(choices),
        "skip_failed": skip_failed,
        **({"agree_inputs": agree_inputs} if "agree" in choices else {}),
    }
    inputs = {"generator": generator.stage}
    if verifier is not None:
        inputs["verifier"] = verifier.stage

    def begin() -> Callable[[Sequence[Problem]], Iterator[tuple[int, Json]]]:
        # The verifier first: the engine's cache takes what memory is left.
        score = lab.scorer(verifier) if verifier is not None else None
        best_of_n = functools.partial(
            search.best_of_n,
            score=score,
            engine=lab.engine(generator, lab.limits, sampling),
            chat=lab.chat,
            grader=grading.public_grader(lab.pool),
            limits=lab.limits,
            n=n,
            searches=searches,
            choices=choices,
            key=tuple(key),
            skip_failed=skip_failed,
            agreement=Agreement(lab.pool, agree_inputs),
        )

        def compute(problems: Sequence[Problem]) -> Iterator[tuple[int, Json]]:
            position = {problem.task_id: i for i, problem in enumerate(problems)}
            for found in best_of_n(problems):
                yield position[found[0].task_id], search.encode(found)

        return compute

    stage, lines = lab.in_pieces(
        f"{generator.name}/{name}",
        settings,
        inputs,
        benchmark.problems,
        begin,
        "problems",
        count=_search_counts,
    )
    items = [item for line in lines for item in search.decode(line)]
    labelled, labels = _label(lab, stage, benchmark, items, "searches", _search_labels)
    return Searches(items, labels, labelled)


def scores(lab: Lab, verifier: Model | None, rollouts: LabelledRollouts) -> Scores:
    """The verifier's score of every turn; 0 throughout where there is no verifier.

    Its input is the first prompt and the turn's completion, never the history. The stage is named
    after the rollouts where they are not the last that the verifier was trained on.
    """
    name = "scores"
    if verifier is not None and rollouts.generator.name != verifier.name:
        name = f"scores_{rollouts.generator.name}"
    if verifier is None:
        return Scores([np.zeros(len(r.turns), np.float32) for r in rollouts.items], rollouts.stage)
    stage, scores = lab.in_pieces(
        f"{verifier.name}/{name}",
        {},
        {"verifier": verifier.stage, "rollouts": rollouts.stage},
        rollouts.items,
        lambda: _in_chunks(functools.partial(_turn_scores, lab.scorer(verifier))),
        "rollouts",
    )
    return Scores([np.array(s, np.float32) for s in scores], stage)


def _settings(
    lab: Lab,
    benchmark: Benchmark,
    n: int,
    limits: Limits,
    sampling: Sampling,
    key: Sequence[int | str],
) -> dict[str, Json]:
    """What decides any stage that samples."""
    return {
        "problems": digest(benchmark.problems),
        "n": n,
        "limits": dataclasses.asdict(limits),
        "sampling": dataclasses.asdict(sampling),
        "key": list(key),
        **lab.sandbox,
    }


def _label(
    lab: Lab,
    stage: Stage,
    benchmark: Benchmark,
    items: Sequence[Any],
    unit: str,
    labels: Callable[
        [Sequence[Any], Mapping[str, Problem], Mapping[str, Tests], grading.Grader], list[Json]
    ],
) -> tuple[Stage, list[Json]]:
    """The stage NAME_labels of a finished stage: the labels of its items, by all tests."""
    problems = {problem.task_id: problem for problem in benchmark.problems}
    private = benchmark.private

    def begin() -> Callable[[Sequence[Any]], Iterator[tuple[int, Json]]]:
        grader = grading.private_grader(lab.pool, private)
        return _in_chunks(lambda some: labels(some, problems, private, grader))

    settings = {"private": digest(sorted(private.items()))}
    return lab.in_pieces(f"{stage.name}_labels", settings, {unit: stage}, items, begin, unit)


def _search_labels(
    searches: Sequence[search.Search],
    problems: Mapping[str, Problem],
    private: Mapping[str, Tests],
    grader: grading.Grader,
) -> list[list[list[bool]]]:
    """Search, turn, candidate -> whether its code is correct; see `grading.label_codes`."""
    codes = (
        (problems[s.task_id], candidate.code, candidate.grade)
        for s in searches
        for turn in s.turns
        for candidate in turn.candidates
    )
    flat = iter(grading.label_codes(codes, private, grader))
    return [[[next(flat) for _ in turn.candidates] for turn in s.turns] for s in searches]


def _turn_scores(scorer: Scorer, rollouts: Sequence[Rollout]) -> list[list[float]]:
    """Rollout, turn -> score."""
    texts = [verifier_input(r, t) for r in rollouts for t in range(len(r.turns))]
    flat = iter(scorer(texts).tolist())
    return [[next(flat) for _ in r.turns] for r in rollouts]


def _in_chunks(
    compute: Callable[[Sequence[Any]], list[Json]], chunk: int = 128
) -> Callable[[Sequence[Any]], Iterator[tuple[int, Json]]]:
    """What computes items a chunk at a time, in order, as `Lab.in_pieces` takes it."""

    def pieces(items: Sequence[Any]) -> Iterator[tuple[int, Json]]:
        for start in range(0, len(items), chunk):
            yield from enumerate(compute(items[start : start + chunk]), start)

    return pieces


def _rollout_key(piece: Json) -> tuple[str, int]:
    return piece["task_id"], piece["index"]


def _reference_rollouts(
    lab: Lab, benchmark: Benchmark, index: int, limits: Limits
) -> Iterator[Rollout]:
    """One rollout per problem that has a reference solution."""
    grader = grading.public_grader(lab.pool)
    for problem in benchmark.problems:
        if problem.task_id in benchmark.solutions:
            solution = benchmark.solutions[problem.task_id]
            yield collect.of_solution(
                problem, solution, index, chat=lab.chat, grader=grader, limits=limits
            )


def _search_counts(lines: list[Json]) -> dict[str, int]:
    """What searches cost: candidates that several of them share are sampled and executed once."""
    tokens = executions = 0
    for line in lines:
        candidates = [decode_turn(turn) for turn in line["turns"]]
        tokens += sum(len(candidate.completion_ids) for candidate in candidates)
        executions += len({candidate.code for candidate in candidates})
        taken = [turn for s in search.decode(line) for turn in s.turns]
        executions += len({code for turn in taken for code in turn.compared})
    return {"tokens": tokens, "executions": executions}


def _rollout_counts(rollouts: Sequence[Rollout]) -> dict[str, int]:
    """What rollouts cost, read off the records: the same however often interrupted."""
    turns = [turn for rollout in rollouts for turn in rollout.turns]
    return {
        "rollouts": len(rollouts),
        "turns": len(turns),
        "tokens": sum(len(turn.completion_ids) for turn in turns),
        "executions": len({(r.task_id, turn.code) for r in rollouts for turn in r.turns}),
        "passed_public": sum(rollout.passed for rollout in rollouts),
    }
