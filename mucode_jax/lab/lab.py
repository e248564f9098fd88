"""The tools of one experiment: models, engines, scorers, and stages made piece by piece."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mucode_jax.checks import faults
from mucode_jax.core.conversation import Chat
from mucode_jax.core.records import encode
from mucode_jax.lab.artifacts import Model
from mucode_jax.models import hub, huggingface, llama, sharding
from mucode_jax.models.llama import LlamaConfig, Params
from mucode_jax.rollouts.collect import Limits
from mucode_jax.rollouts.scorer import Scorer
from mucode_jax.runtime import hosts, interruption, summaries
from mucode_jax.runtime.files import write_atomically
from mucode_jax.runtime.ledger import Stage
from mucode_jax.runtime.pieces import Pieces
from mucode_jax.runtime.progress import Progress
from mucode_jax.runtime.workdir import Workdir
from mucode_jax.sampling import memory, programs
from mucode_jax.sampling.replicas import Replicas
from mucode_jax.sandbox import Pool

Json = Any


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How completions are drawn: see `sampling.engine`."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0


class Lab:
    """Owns the tools of one experiment.

    Attributes:
      workdir, pool, progress, mesh, limits, profile_steps: as given.
      sandbox: what decides outcomes beside the tests, `code_block` included.
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
        held: Mapping[str, Json],
        stored_dtype: str,
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
          held: dtype, param_dtype and remat of models (`models.llama`).
          stored_dtype: in which trained models are written, unless they are narrower.
          mesh: the devices that train, of all hosts.
          sampling_mesh: this host's own devices, which sample and score.
          limits: turns and tokens of conversations.
          slots: sequences decoded at a time; 0: as many as memory holds.
          code_block: the rule by which a completion's code is found.
          sandbox: the settings of the pool that decide outcomes: what to show, what to allow.
          profile_steps: so many steps of each training are profiled (`summaries`).
        """
        self.workdir, self.pool, self.progress = workdir, pool, progress
        self.mesh, self.limits = mesh, limits
        self.sandbox = {"code_block": code_block, **sandbox}
        self.profile_steps = profile_steps
        # Unrolled layers compile longer and run a sixth faster on a CPU, where models are small.
        self._held = {**held, "scan": jax.default_backend() != "cpu"}
        self._stored_dtype = jnp.dtype(stored_dtype)
        self._slots = slots
        self._sampling_mesh = sampling_mesh
        self._loaded: tuple[str, Params] | None = None  # a generator's name, and how it decodes
        self._engines: list[Replicas] = []  # of the stage being made
        workdir.meter = self._meter
        self.base = self._given("base/source", base)
        self.trunk = self._given("base/trunk", trunk) if trunk else self.base
        eot_ids = huggingface.eot_ids(base)  # before the tokenizer, which reads the same files
        self.chat = Chat(huggingface.load_tokenizer(base), eot_ids, code_block)

    def _given(self, name: str, directory: pathlib.Path) -> Model:
        """A model from elsewhere, recorded as a stage."""
        files = {f for pattern in hub.MODEL_FILES for f in directory.glob(pattern) if f.is_file()}
        # float32, the default, is not recorded.
        dtypes = {k: v for k in ("dtype", "param_dtype") if (v := self._held[k]) != "float32"}
        checksums = {file.name: self.workdir.checksums.sha256(file) for file in sorted(files)}
        settings = {"files": checksums, **dtypes}
        return Model("base", 0, directory, self.workdir.stage(name, settings, {}, lambda path: {}))

    # Models and what computes with them.

    def config(self, model: Model) -> LlamaConfig:
        """How a model is held and computed in this experiment."""
        return huggingface.read_config(model.path, **self._held)

    def _inference_config(self, model: Model) -> LlamaConfig:
        """How a model is held where nothing is trained."""
        config = self.config(model)
        return dataclasses.replace(config, param_dtype=config.dtype, remat=False)

    @property
    def _spread(self) -> Mesh | None:
        """The sampling mesh where it has several devices."""
        return self._sampling_mesh if self._sampling_mesh.size > 1 else None

    def scorer(self, verifier: Model) -> Scorer:
        """The verifier, loaded."""
        config, mesh = self._inference_config(verifier), self._spread
        params = huggingface.load_verifier(verifier.path, config, mesh=mesh)
        return Scorer(config, params, mesh=mesh)

    def engine(self, generator: Model, limits: Limits, sampling: Sampling) -> Replicas:
        """Idle engines with the generator loaded; called on all hosts, by the stage being made.

        Raises:
          faults.OutOfMemory: memory does not hold the slots that the stage was begun with.
        """
        config, mesh = self._inference_config(generator), self._spread
        if self._loaded is None or self._loaded[0] != generator.name:
            self.forget()
            stored = huggingface.load_generator(generator.path, config, mesh=mesh)
            self._loaded = generator.name, programs.prepare(config, stored)
            del stored
        engine = Replicas(
            config,
            self._loaded[1],
            slots=self._choose_slots(config, limits.context),
            context=limits.context,
            eot_ids=self.chat.eot_ids,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            mesh=mesh,
        )
        self._engines.append(engine)
        return engine

    def _choose_slots(self, config: LlamaConfig, context: int) -> int:
        """The number that is set; else that the stage was begun with; else what memory holds now.

        Low bits of a completion's log-probabilities depend on it, so a later session of a stage
        keeps the number that the first one chose. Of several hosts the least counts.
        """
        recorded = self.workdir.recorded("slots")
        if self._slots:
            slots = self._slots
        elif recorded is None:
            fitting = memory.fitting_slots(config, context, self._spread)
            slots = min(hosts.gather("slots", fitting, self.progress.say))
        else:
            slots = recorded
            most = memory.most_slots(config, context, self._spread)
            if slots > most:
                raise faults.OutOfMemory(
                    f"{self.workdir.making}: it was begun with {slots} slots, of which the free "
                    f"memory holds {most}; free some and run the same command again, or add "
                    f"--config.rollout.slots={max(most, 1)}, and a token may differ now and then"
                )
        if slots != recorded:
            self.workdir.record("slots", slots)
        return slots

    def storing(self) -> dict[str, str]:
        """For the settings of a stage that trains: how models are written, where it decides
        anything: what samples and scores reads them in the dtype of computation."""
        stored = self._stored_dtype
        decides = stored.itemsize < jnp.dtype(self._held["dtype"]).itemsize
        return {"stored_dtype": stored.name} if decides else {}

    def stored(self, params: Params) -> Params:
        """Trained parameters as they are written; whatever uses them takes these.

        So a session that trained a model and one that reads it back sample the same.
        """
        narrower = self._stored_dtype

        def rounded(x: jax.Array) -> jax.Array:
            return x.astype(narrower) if narrower.itemsize < x.dtype.itemsize else x

        return jax.tree.map(rounded, params)

    def carry(self, name: str, params: Params) -> None:
        """Re-lays a generator just trained for the engines to come; all hosts call this.

        On one device nothing is carried: the generator is read back from its files.
        """
        if self.mesh.size == 1:
            return
        config = self._inference_config(self.base)
        axes = llama.logical_axes(config)
        params = sharding.to_hosts(params, axes, self.mesh, self._sampling_mesh, config.dtype)
        if self._spread is None:  # as it would be read back, so that nothing is compiled anew
            params = jax.tree.map(lambda x: x.addressable_data(0), params)
        self._loaded = name, programs.prepare(config, params)

    def forget(self) -> None:
        """Frees the generator that is loaded: training needs the memory."""
        self._loaded = None

    # What engines counted.

    def _counted(self) -> dict[str, float]:
        """Sums over the engines of the stage being made (`sampling.engine.Counters`)."""
        counters = [dataclasses.asdict(engine.counters) for engine in self._engines]
        return {key: sum(c[key] for c in counters) for key in (counters[0] if counters else ())}

    def _meter(self) -> Mapping[str, float]:
        counted = self._counted()
        self._engines.clear()
        return counted

    def summarise(self, name: str) -> None:
        """Writes what the sampler did in a stage that is nearly finished to TensorBoard."""
        if counted := self._counted():
            with summaries.watched(self.workdir.path / "tensorboard", name) as note:
                note(0, counted)

    # Stages that are made piece by piece.

    @contextlib.contextmanager
    def pieces(
        self,
        path: pathlib.Path,
        title: str,
        unit: str,
        mine: Collection[Hashable],
        key: Callable[[Json], Hashable],
    ) -> Iterator[tuple[set[Hashable], Callable[[Json], None]]]:
        """This host's share of a stage; yields (keys that are done, by any host; store).

        Args:
          path: the stage's folder.
          title: of the progress; `unit` names a piece.
          mine: the keys of this host's pieces.
          key: stored piece -> its key.

        `store(piece)` writes a piece, a JSON value, through to the disk, and raises
        `interruption.Interrupted` where the process was asked to stop.
        """
        with contextlib.closing(Pieces(path)) as stored:
            done = {key(piece) for piece in stored.read()}
            already = sum(k in done for k in mine)
            with self.progress.task(title, len(mine), unit, already) as advance:

                def store(piece: Json) -> None:
                    stored.append(piece)
                    advance(1)
                    interruption.check()

                yield done, store

    def in_pieces(
        self,
        name: str,
        settings: Mapping[str, Json],
        inputs: Mapping[str, Stage],
        items: Sequence[Any],
        begin: Callable[[], Callable[[Sequence[Any]], Iterable[tuple[int, Json]]]],
        unit: str,
        *,
        count: Callable[[list[Json]], Mapping[str, Json]] = lambda values: {},
    ) -> tuple[Stage, list[Json]]:
        """A stage that makes one JSON value per item.

        Args:
          name, settings, inputs: of the stage (`runtime.workdir`).
          items: what it works through, dealt to hosts by `task_id`; `unit` names one of them.
          begin: called once per session, on every host; returns what computes some of the items,
            yielding (position among these, value) as they are finished, in any order.
          count: all values -> what the stage counted, beside the items.
        """

        def share(path: pathlib.Path) -> None:
            mine = hosts.mine([item.task_id for item in items])
            title = name.replace("/", ": ")
            with self.pieces(path, title, unit, mine, lambda piece: piece[0]) as (done, store):
                compute = begin()
                left = [i for i in mine if i not in done]
                for position, value in compute([items[i] for i in left]):
                    store((left[position], value))

        def make(path: pathlib.Path) -> Mapping[str, Json]:
            by_item = dict(Pieces(path).gather())
            values = [by_item[i] for i in range(len(items))]
            lines = "".join(json.dumps(value) + "\n" for value in values)
            write_atomically(path / "pieces.jsonl", lines)
            self.summarise(name)
            return {unit: len(items), **count(values)}

        stage = self.workdir.stage(name, settings, inputs, make, share)
        lines = (stage.path / "pieces.jsonl").read_text().splitlines()
        return stage, [json.loads(line) for line in lines]


def digest(value: Any) -> str:
    """A short hash of records, for stages' settings."""
    return hashlib.sha256(json.dumps(encode(value)).encode()).hexdigest()[:16]
