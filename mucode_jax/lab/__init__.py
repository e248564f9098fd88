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

from mucode_jax import interruption, search
from mucode_jax.conversation import Chat
from mucode_jax.grading import Label
from mucode_jax.models import huggingface
from mucode_jax.models.llama import LlamaConfig
from mucode_jax.progress import Progress
from mucode_jax.records import Rollout, encode
from mucode_jax.rollout import Limits
from mucode_jax.sampling.engine import Engine
from mucode_jax.sandbox import Pool
from mucode_jax.score import Scorer
from mucode_jax.workdir import Pieces, Stage, Workdir

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
    """Rollouts of a generator, sorted by problem and index, with the labels of their turns."""

    name: str
    generator: Model
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


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How completions are drawn: see `sampling.engine`."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0


class Lab:
    """Owns the tools of one experiment.

    Attributes:
      workdir, pool, progress, mesh, limits, feedback: as given.
      base: the base generator.
      chat: its chat template.
    """

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
        self.pool = pool
        # Unrolled layers compile longer and run a sixth faster on a CPU, where models are small.
        scan = jax.default_backend() != "cpu"
        self._held = {"dtype": dtype, "param_dtype": param_dtype, "remat": remat, "scan": scan}
        self._slots = slots
        self.feedback = feedback
        base = pathlib.Path(base)
        checksums = {f.name: _sha256(f) for f in sorted(base.iterdir()) if f.is_file()}
        # float32, the default, goes without saying.
        held = {"dtype": dtype, "param_dtype": param_dtype}
        settings = {"files": checksums} | {k: v for k, v in held.items() if v != "float32"}
        stage = workdir.stage("base/source", settings, {}, lambda path: {})
        self.base = Model("base", 0, base, stage)
        tokenizer = huggingface.load_tokenizer(base)
        self.chat = Chat(tokenizer, huggingface.eot_ids(base))

    def config(self, model: Model) -> LlamaConfig:
        """How a model is held and computed in this experiment."""
        return huggingface.read_config(model.path, **self._held)

    def scorer(self, verifier: Model) -> Scorer:
        """The verifier, loaded."""
        config = self.config(verifier)
        return Scorer(config, huggingface.load_verifier(verifier.path, config))

    def engine(self, generator: Model, limits: Limits, sampling: Sampling) -> Engine:
        """An idle engine with the generator loaded."""
        config = self.config(generator)
        return Engine(
            config,
            huggingface.load_generator(generator.path, config),
            slots=self._slots or None,
            context=limits.context,
            eot_ids=self.chat.eot_ids,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
        )

    def in_pieces(
        self,
        name: str,
        settings: Mapping[str, Json],
        inputs: Mapping[str, Stage],
        items: Sequence[Any],
        compute: Callable[[Sequence[Any]], list[Json]],
        unit: str,
        *,
        count: Callable[[list[Json]], Mapping[str, Json]] = lambda values: {},
        chunk: int = 128,
    ) -> tuple[Stage, list[Json]]:
        """A stage that makes one JSON value per item, in order, some at a time.

        Args:
          name, settings, inputs: of the stage (`workdir`).
          items: what it works through; `unit` is what they are called.
          compute: some of the items -> a value for each.
          count: all values -> what the stage counted, beside the items.
          chunk: how many items at a time; at most so many are done twice after an interruption.
        """

        def make(path: pathlib.Path) -> Mapping[str, Json]:
            pieces = Pieces(path / "pieces.jsonl")
            done = len(pieces.read())
            with self.progress.task(name.replace("/", ": "), len(items), unit, done) as advance:
                for start in range(done, len(items), chunk):
                    part = items[start : start + chunk]
                    for value in compute(part):
                        pieces.append(json.dumps(value))
                    advance(len(part))
                    interruption.check()
            pieces.close()
            return {unit: len(items), **count(pieces.read())}

        stage = self.workdir.stage(name, settings, inputs, make)
        lines = (stage.path / "pieces.jsonl").read_text().splitlines() if items else []
        return stage, [json.loads(line) for line in lines]


def verifier_input(rollout: Rollout, turn: int) -> np.ndarray:
    """int32 [n]: what the verifier reads of a turn: the first prompt and its completion, never the
    history (paper, section 3.2)."""
    parts = [rollout.turns[0].prompt_ids, rollout.turns[turn].completion_ids]
    return np.concatenate(parts).astype(np.int32)


def digest(value: Any) -> str:
    """A short hash of records, for stages' settings."""
    return hashlib.sha256(json.dumps(encode(value)).encode()).hexdigest()[:16]


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
