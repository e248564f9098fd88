"""The lab: an experiment's tools and its stages, each done once and taken up where it stopped.

An algorithm says *what* is made of what; the lab makes it: rollouts with their labels, a verifier,
scores, a fine-tuned generator, searches. Every result is a stage of the work directory (`workdir`),
in a folder named after the generator it belongs to, so that methods share what is the same: all of
them begin from the base's rollouts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mucode_jax.core.conversation import Chat
from mucode_jax.core.records import Rollout, encode
from mucode_jax.models import hub, huggingface, llama, sharding
from mucode_jax.models.llama import LlamaConfig, Params
from mucode_jax.rollouts import search
from mucode_jax.rollouts.collect import Limits
from mucode_jax.rollouts.grading import Label
from mucode_jax.rollouts.scorer import Scorer
from mucode_jax.runtime import hosts, interruption, summaries
from mucode_jax.runtime.progress import Progress
from mucode_jax.runtime.workdir import Shards, Stage, Workdir, checksum, write_atomically
from mucode_jax.sampling import programs
from mucode_jax.sampling.engine import Engine
from mucode_jax.sandbox import Pool

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
      workdir, pool, progress, mesh, limits: as given.
      sandbox: what decides outcomes beside the tests, the rule for code blocks among it.
      base: the base generator.
      trunk: what verifiers are trained from; the base generator unless another was given.
      chat: the base generator's chat template.
    """

    def __init__(
        self,
        workdir: Workdir,
        pool: Pool,
        progress: Progress,
        *,
        base: pathlib.Path,
        trunk: pathlib.Path | None,
        dtype: str,
        param_dtype: str,
        remat: bool,
        mesh: Mesh,
        sampling_mesh: Mesh,
        limits: Limits,
        slots: int,
        code_block: str,
        sandbox: Mapping[str, Json],
        profile_steps: int,
    ) -> None:
        """Opens the base generator's tokenizer and records the base as the first stage.

        Args:
          workdir, pool, progress: the tools.
          base: the base generator, a Hugging Face directory.
          trunk: the directory of what verifiers are trained from; None: the base generator.
          dtype, param_dtype, remat: how models are held and computed (`models.llama`).
          mesh: the devices that train, of all hosts; sampling_mesh: this host's own, that sample
            and score.
          limits: turns and tokens of conversations.
          slots: sequences decoded at a time; 0: as many as memory holds.
          code_block: the rule by which a completion's code is found.
          sandbox: what the pool was told that decides outcomes: what to show, what to allow.
          profile_steps: so many steps of each training are profiled (`summaries`).
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
        self._local = sampling_mesh
        self._loaded: tuple[str, Params] | None = None  # a generator's name, and how it decodes
        self.sandbox = {"code_block": code_block, **sandbox}
        self.profile_steps = profile_steps
        self._engines: list[Engine] = []  # of the stage being made
        workdir.meter = self._meter
        self.base = self._given("base/source", base)
        self.trunk = self._given("base/trunk", trunk) if trunk else self.base
        eot_ids = huggingface.eot_ids(base)  # before the tokenizer, which reads the same files
        self.chat = Chat(huggingface.load_tokenizer(base), eot_ids, code_block)

    def _given(self, name: str, directory: pathlib.Path) -> Model:
        """A model from elsewhere, recorded as a stage."""
        files = {f for pattern in hub.MODEL_FILES for f in directory.glob(pattern) if f.is_file()}
        checksums = {f.name: checksum(f) for f in sorted(files)}
        # float32, the default, goes without saying.
        held = {key: self._held[key] for key in ("dtype", "param_dtype")}
        settings = {"files": checksums} | {k: v for k, v in held.items() if v != "float32"}
        return Model("base", 0, directory, self.workdir.stage(name, settings, {}, lambda path: {}))

    def config(self, model: Model) -> LlamaConfig:
        """How a model is held and computed in this experiment."""
        return huggingface.read_config(model.path, **self._held)

    def _sampled(self, model: Model) -> LlamaConfig:
        """How a model is held where nothing is trained."""
        config = self.config(model)
        return dataclasses.replace(config, param_dtype=config.dtype, remat=False)

    @property
    def _spread(self) -> Mesh | None:
        return self._local if self._local.size > 1 else None

    def scorer(self, verifier: Model) -> Scorer:
        """The verifier, loaded."""
        config, mesh = self._sampled(verifier), self._spread
        params = huggingface.load_verifier(verifier.path, config, mesh=mesh)
        return Scorer(config, params, mesh=mesh)

    def engine(self, generator: Model, limits: Limits, sampling: Sampling) -> Engine:
        """An idle engine with the generator loaded."""
        config, mesh = self._sampled(generator), self._spread
        if self._loaded is None or self._loaded[0] != generator.name:
            self.forget()
            stored = huggingface.load_generator(generator.path, config, mesh=mesh)
            self._loaded = generator.name, programs.prepare(config, stored)
            del stored
        engine = Engine(
            config,
            self._loaded[1],
            slots=self._slots or None,
            context=limits.context,
            eot_ids=self.chat.eot_ids,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            mesh=mesh,
        )
        self._engines.append(engine)
        return engine

    def _counted(self) -> dict[str, float]:
        """What the engines of the stage being made have counted (`sampling.engine.Counters`)."""
        each = [dataclasses.asdict(engine.counters) for engine in self._engines]
        return {key: sum(of[key] for of in each) for key in (each[0] if each else ())}

    def _meter(self) -> Mapping[str, float]:
        counted = self._counted()
        self._engines.clear()
        return counted

    def summarise(self, name: str) -> None:
        """Tells TensorBoard what the sampler did in a stage that is nearly done."""
        if counted := self._counted():
            with summaries.watched(self.workdir.path / "tensorboard", name) as note:
                note(0, counted)

    def carry(self, name: str, params: Params) -> None:
        """Re-lays a generator just trained for the engines to come; of one device it is read back.

        All hosts call this.
        """
        if self.mesh.size == 1:
            return
        config = self._sampled(self.base)
        axes = llama.logical_axes(config)
        own = sharding.to_hosts(params, axes, self.mesh, self._local, config.dtype)
        if self._spread is None:  # as it would be read back, so that nothing is compiled anew
            own = jax.tree.map(lambda x: x.addressable_data(0), own)
        self._loaded = name, programs.prepare(config, own)

    def forget(self) -> None:
        """Frees the generator that is loaded: training needs the memory."""
        self._loaded = None

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
          items: what it works through, dealt to hosts by `task_id`; `unit` is their name.
          compute: some of the items -> a value for each.
          count: all values -> what the stage counted, beside the items.
          chunk: how many items at a time; at most so many are done twice after an interruption.
        """

        def share(path: pathlib.Path) -> None:
            shards = Shards(path)
            done = {place for place, _ in shards.read()}
            mine = hosts.mine([item.task_id for item in items])
            left = [place for place in mine if place not in done]
            title = name.replace("/", ": ")
            told = self.progress.task(title, len(mine), unit, len(mine) - len(left))
            with contextlib.closing(shards), told as advance:
                for start in range(0, len(left), chunk):
                    part = left[start : start + chunk]
                    values = compute([items[place] for place in part])
                    for place, value in zip(part, values, strict=True):
                        shards.append(json.dumps([place, value]))
                    advance(len(part))
                    interruption.check()

        def make(path: pathlib.Path) -> Mapping[str, Json]:
            found = dict(Shards(path).gather())
            values = [found[place] for place in range(len(items))]
            text = "".join(json.dumps(value) + "\n" for value in values)
            write_atomically(path / "pieces.jsonl", text)
            self.summarise(name)
            return {unit: len(items), **count(values)}

        stage = self.workdir.stage(name, settings, inputs, make, share)
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
