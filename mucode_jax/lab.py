"""The lab: an experiment's tools and its stages, each done once and taken up where it stopped.

An algorithm says *what* is made of what; the lab makes it: rollouts with their labels, a verifier,
scores, a fine-tuned generator, searches. Every result is a stage of the work directory (`workdir`),
in a folder named after the generator it belongs to, so that methods share what is the same: all of
them begin from the base's rollouts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mucode_jax import grading, keys, rollout, search
from mucode_jax.conversation import Chat
from mucode_jax.grading import Label
from mucode_jax.models import huggingface
from mucode_jax.progress import Progress
from mucode_jax.records import (
    Benchmark,
    Rollout,
    SFTExample,
    VerifierExample,
    decode_rollout,
    dumps,
    encode,
)
from mucode_jax.rollout import Limits
from mucode_jax.sampling.engine import Engine
from mucode_jax.sandbox import Pool
from mucode_jax.score import Scorer
from mucode_jax.training.step import OptimizerConfig
from mucode_jax.workdir import Pieces, Stage, Workdir, write_atomically

Json = Any


@dataclasses.dataclass(frozen=True)
class Model:
    """A generator or a verifier on disk.

    Attributes:
      method: as in results.json; "base" for the base.
      iteration: 0 for the base, else 1 … M.
      path: a Hugging Face directory.
      stage: what made it.
    """

    method: str
    iteration: int
    path: pathlib.Path
    stage: Stage

    @property
    def name(self) -> str:
        return f"{self.method}_{self.iteration}" if self.iteration else self.method


@dataclasses.dataclass(frozen=True)
class LabelledRollouts:
    """Rollouts, sorted by problem and index, with the labels of their turns."""

    items: Sequence[Rollout]
    labels: Sequence[Label]
    stage: Stage


@dataclasses.dataclass(frozen=True)
class Scores:
    """The verifier's scores: per rollout float32 [turns]."""

    items: Sequence[np.ndarray]
    stage: Stage


@dataclasses.dataclass(frozen=True)
class Searches:
    """Finished searches with the label of every candidate of every turn."""

    items: Sequence[search.Search]
    labels: Sequence[Sequence[Label]]
    stage: Stage


Artifact = Model | LabelledRollouts | Scores


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How completions are drawn: see `sampling.engine`."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0


class Lab:
    """Owns the tools of one experiment: work directory, sandbox pool, mesh, models in memory."""

    def __init__(
        self,
        workdir: Workdir,
        pool: Pool,
        progress: Progress,
        *,
        base: str | pathlib.Path,
        dtype: str,
        param_dtype: str,
        remat: bool,
        mesh: Mesh,
        limits: Limits,
        slots: int,
        feedback: str,
    ) -> None:
        """Opens the base generator's tokenizer and records the base as the first stage.

        Args:
          workdir, pool, progress: the tools.
          base: the base generator, a Hugging Face directory.
          dtype, param_dtype, remat: how models are held and computed (`models.llama`).
          mesh: the devices that train.
          limits: turns and tokens of conversations.
          slots: sequences decoded at a time; 0: as many as memory holds.
          feedback: what the pool was told to show; part of what decides a rollout.
        """
        self.workdir = workdir
        self.progress = progress
        self.mesh = mesh
        self.limits = limits
        self._pool = pool
        self._precision = {"dtype": dtype, "param_dtype": param_dtype, "remat": remat}
        self._slots = slots
        self._feedback = feedback
        base = pathlib.Path(base)
        checksums = {f.name: _sha256(f) for f in sorted(base.iterdir()) if f.is_file()}
        stage = workdir.stage("base/source", {"files": checksums}, {}, lambda path: {})
        self.base = Model("base", 0, base, stage)
        tokenizer = huggingface.load_tokenizer(base)
        self.chat = Chat(tokenizer, huggingface.read_eot_ids(base))

    # Models ------------------------------------------------------------------------------------

    def _config(self, model: Model):
        return dataclasses.replace(huggingface.read_config(model.path), **self._precision)

    def _engine(self, generator: Model, limits: Limits, sampling: Sampling) -> Engine:
        config, params = self._load(generator)
        return Engine(
            config,
            params,
            slots=self._slots,
            context=limits.context,
            eot_ids=self.chat.eot_ids,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
        )

    # Sampling ----------------------------------------------------------------------------------

    def rollouts(
        self,
        name: str,
        generator: Model,
        benchmark: Benchmark,
        *,
        n: int,
        turns: int,
        sampling: Sampling,
        key: Sequence[int | str],
        stop_on_pass: bool = True,
    ) -> LabelledRollouts:
        """n rollouts of each problem, and afterwards their labels: stages NAME and NAME_labels.

        Args:
          name: of the stage, within the generator's folder.
          generator: what samples.
          benchmark: its problems are attempted; its private tests label the finished rollouts.
          n, turns, sampling, key, stop_on_pass: see `rollout.collect`.
        """
        limits = dataclasses.replace(self.limits, turns=turns)
        settings = {
            "problems": _digest(benchmark.problems),
            "n": n,
            "limits": dataclasses.asdict(limits),
            "sampling": dataclasses.asdict(sampling),
            "key": list(key),
            "stop_on_pass": stop_on_pass,
            "feedback": self._feedback,
        }
        order = {problem.task_id: i for i, problem in enumerate(benchmark.problems)}

        def make(path: pathlib.Path) -> Mapping[str, Json]:
            pieces = Pieces(path / "rollouts.jsonl")
            found = [decode_rollout(line) for line in pieces.read()]
            done = {(r.task_id, r.index) for r in found}
            title = f"{generator.name}: {name}"
            with self.progress.task(title, n * len(order), "rollouts", len(done)) as advance:
                if len(done) < n * len(order):
                    for r in rollout.collect(
                        benchmark.problems,
                        engine=self._engine(generator, limits, sampling),
                        chat=self.chat,
                        grader=grading.public_grader(self._pool),
                        limits=limits,
                        n=n,
                        key=tuple(key),
                        done=done,
                        stop_on_pass=stop_on_pass,
                    ):
                        pieces.append(dumps(r))
                        found.append(r)
                        advance(1)
            pieces.close()
            # In the order of the problems, not of arrival: the same file however it was made.
            found.sort(key=lambda r: (order[r.task_id], r.index))
            write_atomically(pieces.path, "".join(dumps(r) + "\n" for r in found))
            return _counts(found)

        stage = self.workdir.stage(
            f"{generator.name}/{name}", settings, {"generator": generator.stage}, make
        )
        lines = (stage.path / "rollouts.jsonl").read_text().splitlines()
        items = [decode_rollout(json.loads(line)) for line in lines]
        problems = {problem.task_id: problem for problem in benchmark.problems}
        grader = grading.private_grader(self._pool, benchmark.private)

        def label(chunk: Sequence[Rollout]) -> list[Json]:
            found = grading.labels(chunk, problems, benchmark.private, grader)
            return [list(label) for label in found]

        labelled, labels = self._in_pieces(
            f"{generator.name}/{name}_labels",
            {"private": _digest(sorted(benchmark.private.items()))},
            {"rollouts": stage},
            items,
            label,
            "rollouts",
        )
        return LabelledRollouts(items, [tuple(label) for label in labels], labelled)

    def searches(
        self,
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
            "problems": _digest(benchmark.problems),
            "n": n,
            "searches": searches,
            "choices": list(choices),
            "limits": dataclasses.asdict(self.limits),
            "sampling": dataclasses.asdict(sampling),
            "key": list(key),
            "skip_failed": skip_failed,
            "feedback": self._feedback,
        }
        inputs = {"generator": generator.stage}
        if verifier is not None:
            inputs["verifier"] = verifier.stage
        tools: dict[str, Any] = {}

        def search_chunk(problems: Sequence[Any]) -> list[Json]:
            if not tools:
                tools["engine"] = self._engine(generator, self.limits, sampling)
                tools["grader"] = grading.public_grader(self._pool)
                tools["score"] = self.scorer(verifier) if verifier is not None else None
            found = search.best_of_n(
                problems,
                chat=self.chat,
                limits=self.limits,
                n=n,
                searches=searches,
                choices=choices,
                key=tuple(key),
                skip_failed=skip_failed,
                **tools,
            )
            each = searches * len(choices)
            return [search.encode(found[i : i + each]) for i in range(0, len(found), each)]

        stage, lines = self._in_pieces(
            f"{generator.name}/{name}",
            settings,
            inputs,
            benchmark.problems,
            search_chunk,
            "problems",
        )
        items = [found for line in lines for found in search.decode(line)]
        problems = {problem.task_id: problem for problem in benchmark.problems}
        grader = grading.private_grader(self._pool, benchmark.private)

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

        labelled, labels = self._in_pieces(
            f"{generator.name}/{name}_labels",
            {"private": _digest(sorted(benchmark.private.items()))},
            {"searches": stage},
            items,
            label,
            "searches",
        )
        return Searches(items, labels, labelled)

    def scores(self, verifier: Model, rollouts: LabelledRollouts) -> Scores:
        """The verifier's score of every turn: its input is the first prompt and the completion."""
        tools: list[Scorer] = []

        def score(chunk: Sequence[Rollout]) -> list[Json]:
            tools.extend([self.scorer(verifier)] if not tools else [])
            texts = [verifier_input(r, t) for r in chunk for t in range(len(r.turns))]
            flat = iter(tools[0](texts).tolist())
            return [[next(flat) for _ in r.turns] for r in chunk]

        stage, scores = self._in_pieces(
            f"{verifier.name}/scores",
            {},
            {"verifier": verifier.stage, "rollouts": rollouts.stage},
            rollouts.items,
            score,
            "rollouts",
        )
        return Scores([np.array(s, np.float32) for s in scores], stage)

    def scorer(self, verifier: Model) -> Scorer:
        """The verifier, loaded."""
        return Scorer(*self._load_verifier(verifier))

    def _in_pieces(
        self,
        name: str,
        settings: Mapping[str, Json],
        inputs: Mapping[str, Stage],
        items: Sequence[Any],
        compute: Callable[[Sequence[Any]], list[Json]],
        unit: str,
        chunk: int = 128,
    ) -> tuple[Stage, list[Json]]:
        """A stage that makes one JSON value per item, in order, some at a time."""

        def make(path: pathlib.Path) -> Mapping[str, Json]:
            pieces = Pieces(path / "pieces.jsonl")
            done = len(pieces.read())
            with self.progress.task(name.replace("/", ": "), len(items), unit, done) as advance:
                for start in range(done, len(items), chunk):
                    part = items[start : start + chunk]
                    for value in compute(part):
                        pieces.append(json.dumps(value))
                    advance(len(part))
            pieces.close()
            return {unit: len(items)}

        stage = self.workdir.stage(name, settings, inputs, make)
        lines = (stage.path / "pieces.jsonl").read_text().splitlines() if items else []
        return stage, [json.loads(line) for line in lines]


def verifier_input(rollout: Rollout, turn: int) -> np.ndarray:
    """int32 [n]: what the verifier reads of a turn: the first prompt and its completion, never the
    history (paper, section 3.2)."""
    parts = [rollout.turns[0].prompt_ids, rollout.turns[turn].completion_ids]
    return np.concatenate(parts).astype(np.int32)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(encode(value)).encode()).hexdigest()[:16]


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


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
