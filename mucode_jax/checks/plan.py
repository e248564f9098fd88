"""What an experiment asks of its devices, worked out from its config before anything is loaded.

The model, the meshes, the shapes of its programs, and the least memory they need. `main` refuses by
it what cannot fit; `aot` compiles by it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mucode_jax.models import hub, huggingface, llama, sharding, verifier
from mucode_jax.models.llama import LlamaConfig
from mucode_jax.rollouts.collect import Limits
from mucode_jax.rollouts.search import goes_by_score
from mucode_jax.sampling import programs
from mucode_jax.sampling.memory import device_memory, slot_bytes
from mucode_jax.training import losses, step
from mucode_jax.training.fit import Recipe
from mucode_jax.training.lora import LoRA
from mucode_jax.training.step import OptimizerConfig

GIB = 2**30


def model(config: ConfigDict, **changes: Any) -> LlamaConfig:
    """The base generator: by its checkpoint if that is here, or no shape is given, else by that.

    Raises:
      ValueError: the shape lacks something, or the checkpoint cannot be had.
    """
    return _model(config, "generator", hub.resolve, changes)


def verifier_model(config: ConfigDict, **changes: Any) -> LlamaConfig:
    """What verifiers are trained from: by `config.verifier`, or the base generator; see `model`."""
    if not config.verifier.path and not config.verifier.shape:
        return model(config, **changes)
    return _model(config, "verifier", hub.resolve_verifier, changes)


def _model(
    config: ConfigDict,
    section: str,
    resolve: Callable[[str], pathlib.Path],
    changes: Mapping[str, Any],
) -> LlamaConfig:
    c, named = config.generator, config[section]
    held = {"dtype": c.dtype, "param_dtype": c.param_dtype, "remat": c.remat, **changes}
    if not named.shape or hub.is_here(named.path):
        try:
            directory = resolve(named.path)
        except ValueError as error:
            raise ValueError(f"config.{section}.path: {error}") from error
        return huggingface.read_config(directory, **held)
    fields = dataclasses.fields(LlamaConfig)
    needed = [f.name for f in fields if f.default is dataclasses.MISSING]
    missing = [name for name in needed if name not in named.shape]
    if missing:
        raise ValueError(f"config.{section}.shape lacks {', '.join(missing)}")
    try:
        return LlamaConfig(**named.shape.to_dict(), **held)
    except ValueError as error:
        raise ValueError(f"config.{section}.shape: {error}") from error


def limits(config: ConfigDict) -> Limits:
    """How long conversations may grow."""
    r = config.rollout
    return Limits(r.turns, r.max_new_tokens, r.max_feedback_tokens, r.context)


def training_mesh(config: ConfigDict, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of all devices, or of those given."""
    return sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices)


def sampling_mesh(config: ConfigDict, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of one host's own devices, or of those given."""
    return sharding.host_mesh(config.mesh.sampling_tensor, devices)


def recipe(settings: ConfigDict, seed: int) -> Recipe:
    """How one training section of the config wants a model trained."""
    names = [field.name for field in dataclasses.fields(OptimizerConfig)]
    return Recipe(
        epochs=settings.epochs,
        batch=settings.batch,
        rows=settings.rows,
        length=settings.length,
        optimizer=OptimizerConfig(**{name: settings[name] for name in names}),
        microbatches=settings.microbatches,
        lora=LoRA(settings.lora_rank, settings.lora_alpha) if settings.lora_rank else None,
        seed=seed,
    )


@dataclasses.dataclass(frozen=True)
class Training:
    """One of the trainings: SFT of the generator, or the verifier's.

    Attributes:
      section: of the config.
      kind: sft, bradley_terry or bce.
      model: what is trained; see `models.llama`.
      recipe: see `training.fit`.
      rows, length: of a batch. Where the config leaves them to the data: the most there can be.
    """

    section: str
    kind: str
    model: LlamaConfig
    recipe: Recipe
    rows: int
    length: int

    @property
    def params(self) -> llama.Params:
        """The model's parameters as shapes."""
        return (llama if self.kind == "sft" else verifier).abstract_params(self.model)

    @property
    def axes(self) -> Any:
        """Their logical axes."""
        return (llama if self.kind == "sft" else verifier).logical_axes(self.model)

    @property
    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """A batch as shapes."""
        return batch_shapes(self.kind, self.rows, self.length)

    def lower(self, mesh: Mesh) -> jax.stages.Lowered:
        """The step's program."""
        return step.lower(
            getattr(losses, self.kind)(self.model),
            self.params,
            self.axes,
            self.batch,
            self.recipe.optimizer,
            mesh,
            microbatches=self.recipe.microbatches,
            lora=self.recipe.lora,
        )


def trainings(config: ConfigDict, mesh: Mesh, **changes: Any) -> list[Training]:
    """The verifier's training, where the experiment has one, and the generator's; see `model`.

    Raises ValueError where the mesh does not divide a batch's rows, or adapters are wider than the
    model.
    """
    verified = {"mucode", "rft_lv"} & set(config.methods) or (
        config.search.methods and any(map(goes_by_score, config.search.choices))
    )
    loss = config.verifier_training.loss
    # A loss of one's own is taken to cost what the one here does on the same kind of batch.
    kind = "bradley_terry" if losses.VERIFIER[loss].pairs else "bce"
    kinds = {"verifier_training": kind} if verified else {}
    planned = []
    for section, kind in (kinds | {"sft": "sft"}).items():
        settings = config[section]
        made_by = recipe(settings, config.seed)
        packing = made_by.packing(section, mesh, singles=kind == "bce")
        devices, parts = packing.parts // settings.microbatches, packing.parts
        if settings.rows % parts:
            raise ValueError(
                f"config.{section}.rows is {settings.rows}, which cannot be divided over "
                f"{settings.microbatches} microbatches × data × fsdp = {devices} of the mesh; "
                f"choose a multiple of {parts}"
            )
        trained = (model if kind == "sft" else verifier_model)(config, **changes)
        if settings.lora_rank > trained.d_model:
            raise ValueError(
                f"config.{section}.lora_rank is {settings.lora_rank}, but the model is "
                f"{trained.d_model} wide; choose a smaller one, or 0 to train all of it"
            )
        rows, length = packing.largest(2 if kind == "bradley_terry" else 1)
        planned.append(Training(section, kind, trained, made_by, rows, length))
    return planned


def batch_shapes(
    kind: str, rows: int, length: int, ends: int = 16
) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of `rows` of `length` tokens, for a loss of this kind; up to `ends` texts a row."""
    fields = dict.fromkeys(("tokens", "positions", "segment_ids"), (np.int32, length))
    if kind == "sft":
        fields |= {"targets": (np.int32, length), "weights": (np.float32, length)}
    else:
        pairs = kind == "bradley_terry"
        fields |= {"ends": (np.int32, ends), "weights": (np.float32, ends // (2 if pairs else 1))}
        if not pairs:
            fields["labels"] = (np.float32, ends)
    return {k: jax.ShapeDtypeStruct((rows, n), dtype) for k, (dtype, n) in fields.items()}


def nbytes(placed: Any) -> int:
    """Bytes that one device holds of a tree of shapes with shardings."""
    arrays = jax.tree.leaves(placed)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in arrays)


def training_bytes(training: Training, mesh: Mesh) -> int:
    """The least that training takes of one device: state, gradients, and what layers keep.

    What a layer needs while it is computed comes on top; the compiler knows how much (`aot`).
    """
    model, recipe = training.model, training.recipe
    state, frozen = step.abstract_state(
        training.params, training.axes, recipe.optimizer, mesh, recipe.lora
    )
    parts = recipe.microbatches * mesh.shape["data"] * mesh.shape["fsdp"]
    tokens = training.rows * training.length / parts
    kept = model.n_layers * tokens * model.d_model * np.dtype(model.dtype).itemsize
    return int(nbytes(frozen) + nbytes(state) + nbytes(state.params) + kept)


def generator_bytes(base: LlamaConfig, mesh: Mesh) -> int:
    """Bytes that one device of a sampling mesh holds of the generator as it decodes."""
    params = jax.eval_shape(functools.partial(programs.prepare, base), llama.abstract_params(base))
    axes = llama.logical_axes(base, stacked=False)
    return nbytes(step.placed(params, sharding.shardings(params, axes, mesh)))


def check(config: ConfigDict) -> None:
    """Raises ValueError where the devices' memory cannot hold what the config asks for."""
    base = model(config)
    mesh, local = training_mesh(config), sampling_mesh(config)
    limit, whose = device_memory()
    for t in trainings(config, mesh):
        need = training_bytes(t, mesh)
        if need > limit:
            raise ValueError(
                f"{t.section} does not fit the mesh {_shown(mesh)}: it needs at least "
                f"{need / GIB:.1f} GiB a device for parameters, gradients, moments and the states "
                f"of {t.rows} rows of {t.length}, and {whose} has {limit / GIB:.1f} GiB; take more "
                f"devices and raise config.mesh.fsdp, or set {t.section}.moment_dtype=bfloat16, "
                f".microbatches or .lora_rank"
            )
    slots = config.rollout.slots or 8
    cache = slots * slot_bytes(base, config.rollout.context, local) / local.size
    need = int(generator_bytes(base, local) + cache)
    if need > limit:
        raise ValueError(
            f"sampling does not fit a host's devices, mesh {_shown(local)}: the generator and "
            f"{slots} slots of {config.rollout.context} tokens need {need / GIB:.1f} GiB a device, "
            f"and {whose} has {limit / GIB:.1f} GiB; raise config.mesh.sampling_tensor, or lower "
            "config.rollout.slots or .context"
        )


def _shown(mesh: Mesh) -> str:
    return " × ".join(f"{name}={size}" for name, size in mesh.shape.items())
