"""Hugging Face model directories, in and out.

A directory holds config.json, safetensors and tokenizer files. Weights stream: each tensor goes
from its file straight into the sharded array, or back, so that no host holds a whole model at once.

    directory = huggingface.resolve("meta-llama/Llama-3.2-1B-Instruct")
    config = huggingface.read_config(directory, dtype="bfloat16")
    params = huggingface.load_generator(directory, config, mesh=mesh)
    huggingface.save_generator(params, config, "out", tokenizer_from=directory)
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from mucode_jax.models import llama, sharding, verifier, weights
from mucode_jax.models.checkpoint_config import (
    GENERATOR,
    MOST,
    VERIFIER,
    architectures,
    describe,
    read_config,
    read_json,
)
from mucode_jax.models.hub import resolve
from mucode_jax.models.llama import LlamaConfig, Params
from mucode_jax.models.tokenizer import load_tokenizer, write_json

__all__ = [
    "check_weights",
    "eot_ids",
    "is_verifier",
    "load_generator",
    "load_tokenizer",
    "load_verifier",
    "read_config",
    "resolve",
    "save_generator",
    "save_verifier",
]

Path = str | pathlib.Path

# Our path -> (their name, "{}" for the layer's number; whether it is stored transposed).
_ENDS = {
    "embed/embedding": ("model.embed_tokens.weight", False),
    "norm/scale": ("model.norm.weight", False),
}
_LAYERS = {
    "layers/attention_norm/scale": ("model.layers.{}.input_layernorm.weight", False),
    "layers/attention/query/kernel": ("model.layers.{}.self_attn.q_proj.weight", True),
    "layers/attention/key/kernel": ("model.layers.{}.self_attn.k_proj.weight", True),
    "layers/attention/value/kernel": ("model.layers.{}.self_attn.v_proj.weight", True),
    "layers/attention/output/kernel": ("model.layers.{}.self_attn.o_proj.weight", True),
    "layers/mlp_norm/scale": ("model.layers.{}.post_attention_layernorm.weight", False),
    "layers/mlp/gate/kernel": ("model.layers.{}.mlp.gate_proj.weight", True),
    "layers/mlp/up/kernel": ("model.layers.{}.mlp.up_proj.weight", True),
    "layers/mlp/down/kernel": ("model.layers.{}.mlp.down_proj.weight", True),
}
_HEAD = {GENERATOR: ("lm_head.weight", True), VERIFIER: ("score.weight", True)}
_MODULE: dict[str, Any] = {GENERATOR: llama, VERIFIER: verifier}
_CARRIED = (  # noqa: SIM905
    "tokenizer* special_tokens_map.json added_tokens.json vocab.json merges.txt *.jinja "
    "generation_config.json LICENSE* NOTICE*"
).split()


def eot_ids(directory: Path) -> tuple[int, ...]:
    """The ids that end a turn, by generation_config.json or config.json; () where none is named."""
    ids: list[int] = []
    for name in ("generation_config.json", "config.json"):
        file = pathlib.Path(directory) / name
        if file.is_file():
            value = read_json(file).get("eos_token_id")
            tokens = value if isinstance(value, list) else [] if value is None else [value]
            if not all(type(token) is int and 0 <= token < MOST for token in tokens):
                raise ValueError(
                    f"{file}: eos_token_id is {value!r}; ids are whole numbers of at least 0"
                )
            ids += tokens
    return tuple(dict.fromkeys(ids))


def is_verifier(directory: Path) -> bool:
    """Whether it is a LlamaForSequenceClassification directory rather than a generator's."""
    return VERIFIER in architectures(pathlib.Path(directory))


def load_generator(
    directory: Path, config: LlamaConfig, *, mesh: jax.sharding.Mesh | None = None
) -> Params:
    """The parameters of a LlamaForCausalLM directory, stacked over layers, in config.param_dtype.

    Args:
      directory: a model directory.
      config: its config, from `read_config`.
      mesh: where to lay them out (`sharding.RULES`); None: the default device.

    Raises:
      ValueError: another architecture, tensors missing, in excess or misshapen, or values that are
        no numbers.
    """
    return _load(pathlib.Path(directory), config, GENERATOR, mesh)


def load_verifier(
    directory: Path, config: LlamaConfig, *, mesh: jax.sharding.Mesh | None = None
) -> Params:
    """The parameters {"trunk", "head"} of a LlamaForSequenceClassification directory (one label).

    See `load_generator`.
    """
    return _load(pathlib.Path(directory), config, VERIFIER, mesh)


def check_weights(directory: Path, config: LlamaConfig) -> None:
    """Raises ValueError where a model directory lacks the tensors that `config` asks for.

    Only the files' headers are read.
    """
    _stored(pathlib.Path(directory), config, VERIFIER if is_verifier(directory) else GENERATOR)


def save_generator(
    params: Params,
    config: LlamaConfig,
    directory: Path,
    *,
    tokenizer_from: Path | None = None,
    shard_bytes: int = 5_000_000_000,
) -> None:
    """Writes a LlamaForCausalLM directory that transformers and vLLM open.

    llama.cpp's converter opens it where it knows the tokenizer. Its list of pre-tokenizers
    does not hold that of the embedded generator.

    config.json is written last: a directory without one was cut short. With several hosts all of
    them call this, and the first one writes.

    Args:
      params: stacked or unstacked; stored in the dtype they have.
      config: their config.
      directory: made if need be.
      tokenizer_from: the directory whose tokenizer files, chat template, generation config and
        special token ids are carried along; None: weights and config.json alone.
      shard_bytes: the largest weight file.
    """
    _save(params, config, pathlib.Path(directory), GENERATOR, tokenizer_from, shard_bytes)


def save_verifier(
    params: Params,
    config: LlamaConfig,
    directory: Path,
    *,
    tokenizer_from: Path | None = None,
) -> None:
    """Writes a LlamaForSequenceClassification directory with one label; see `save_generator`.

    transformers reads a score at the last token that is not padding, so the token that pads ends no
    turn, whatever it is in `tokenizer_from`.
    """
    _save(params, config, pathlib.Path(directory), VERIFIER, tokenizer_from)


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One of our arrays, and the tensors that it is made of: one, or one per layer.

    Attributes:
      path: of the array in the tree of parameters.
      names: of the tensors.
      transposed: whether the tensors are.
      array: its shape, stacked over layers where `stacked`, and its dtype.
    """

    path: tuple[str, ...]
    names: tuple[str, ...]
    transposed: bool
    array: jax.ShapeDtypeStruct

    @property
    def stacked(self) -> bool:
        return "layers" in self.path

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of each of the tensors."""
        shape = self.array.shape[1:] if self.stacked else self.array.shape
        return shape[::-1] if self.transposed else shape


def _entries(config: LlamaConfig, architecture: str) -> list[_Entry]:
    prefix = "trunk/" if architecture == VERIFIER else ""
    has_head = architecture == VERIFIER or not config.tied
    table = {
        **{prefix + path: tensor for path, tensor in _ENDS.items()},
        **({"head/kernel": _HEAD[architecture]} if has_head else {}),
        **{prefix + path: tensor for path, tensor in _LAYERS.items()},
    }
    abstract = _MODULE[architecture].abstract_params(config)
    entries = []
    for path, (name, transposed) in table.items():
        parts = tuple(path.split("/"))
        layers = config.n_layers if "layers" in parts else 1
        names = tuple(name.format(layer) for layer in range(layers))
        entries.append(_Entry(parts, names, transposed, _at(abstract, parts)))
    return entries


def _at(tree: Any, path: tuple[str, ...], layer: int = 0) -> Any:
    for part in path:
        tree = (tree[layer] if isinstance(tree, tuple) else tree)[part]
    return tree


def _load(
    directory: pathlib.Path,
    config: LlamaConfig,
    architecture: str,
    mesh: jax.sharding.Mesh | None,
) -> Params:
    stored = _stored(directory, config, architecture)
    module = _MODULE[architecture]
    abstract = module.abstract_params(config)
    if mesh is None:
        places = jax.tree.map(lambda _: SingleDeviceSharding(jax.local_devices()[0]), abstract)
    else:
        places = sharding.shardings(abstract, module.logical_axes(config), mesh)
    params: Params = {}
    for entry in _entries(config, architecture):
        node = params
        for part in entry.path[:-1]:
            node = node.setdefault(part, {})
        tensors = [stored[name] for name in entry.names]
        node[entry.path[-1]] = _load_array(tensors, entry, _at(places, entry.path))
    return params


def _stored(
    directory: pathlib.Path, config: LlamaConfig, architecture: str
) -> dict[str, weights.Stored]:
    """Every tensor of a directory that holds all of them, in the right shapes, and no others."""
    names = architectures(directory) or [architecture]
    if architecture not in names:
        raise ValueError(f"{directory} holds a {' '.join(names)}, expected a {architecture}")
    labels = read_json(directory / "config.json").get("id2label") or {"0": ""}
    if architecture == VERIFIER and (not isinstance(labels, dict) or len(labels) != 1):
        raise ValueError(f"{directory} has the labels {labels}; a verifier has one (num_labels=1)")
    entries = _entries(config, architecture)
    stored = weights.index(directory)
    # Copies that some files carry of what is known otherwise.
    surplus = {name for name in stored if name.endswith("rotary_emb.inv_freq")}
    if config.tied or architecture == VERIFIER:
        surplus.add("lm_head.weight")
    expected = {name for entry in entries for name in entry.names}
    missing, extra = sorted(expected - set(stored)), sorted(set(stored) - expected - surplus)
    if missing or extra:
        names = missing or extra
        verb = "lacks" if missing else "holds, beside what config.json describes,"
        some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise ValueError(f"{directory} {verb} {len(names)} tensor(s): {some}")
    for entry in entries:
        for name in entry.names:
            if stored[name].shape != entry.stored_shape:
                raise ValueError(
                    f"{directory}: tensor {name} has shape {stored[name].shape}; by config.json it"
                    f" should be {entry.stored_shape}"
                )
    return stored


def _load_array(
    stored: list[weights.Stored], entry: _Entry, place: jax.sharding.Sharding
) -> jax.Array:
    """One of our arrays, its layers read one after the other into the place where they will lie."""
    array, single = entry.array, place
    if isinstance(place, NamedSharding):
        axes = (*place.spec, *[None] * (array.ndim - len(place.spec)))[1 if entry.stacked else 0 :]
        single = NamedSharding(
            place.mesh, PartitionSpec(*(axes[::-1] if entry.transposed else axes))
        )
    out = jnp.zeros(array.shape, array.dtype, device=place) if entry.stacked else None
    for index, tensor in enumerate(stored):
        piece = jax.make_array_from_callback(tensor.shape, single, tensor.read)
        out, finite = _place(out, piece, np.int32(index), entry.transposed, array.dtype, place)
        if not finite:
            raise ValueError(f"{tensor.file}: tensor {tensor.name} holds what is no finite number")
    assert out is not None
    return out


@functools.partial(jax.jit, static_argnums=(3, 4, 5), donate_argnums=0)
def _place(
    out: jax.Array | None, piece: jax.Array, layer: jax.Array, transposed: bool, dtype, place
) -> tuple[jax.Array, jax.Array]:
    """`piece` as a layer of `out`, alone where there is none; whether its values are finite."""
    finite = jnp.isfinite(piece).all()
    piece = (piece.T if transposed else piece).astype(dtype)
    placed = piece if out is None else out.at[layer].set(piece)
    return jax.lax.with_sharding_constraint(placed, place), finite


def _outgoing(params: Params, entry: _Entry, layer: int) -> weights.Outgoing:
    array = _at(params, entry.path, layer)
    is_stacked = entry.stacked and not isinstance(params.get("trunk", params)["layers"], tuple)

    def fetch() -> np.ndarray:
        values = _to_host(array[layer] if is_stacked else array)
        return values.T if entry.transposed else values

    return weights.Outgoing(entry.names[layer], np.dtype(array.dtype), entry.stored_shape, fetch)


def _save(
    params: Params,
    config: LlamaConfig,
    directory: pathlib.Path,
    architecture: str,
    tokenizer_from: Path | None,
    shard_bytes: int = 5_000_000_000,
) -> None:
    outgoing = [
        _outgoing(params, entry, layer)
        for entry in _entries(config, architecture)
        for layer in range(len(entry.names))
    ]
    first = jax.process_index() == 0
    if first:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").unlink(missing_ok=True)
    weights.write(outgoing, directory, shard_bytes=shard_bytes, keep=first)
    if not first:
        return
    ids = {}
    if tokenizer_from is not None:
        _carry_tokenizer(pathlib.Path(tokenizer_from), directory)
        ids = _special_ids(pathlib.Path(tokenizer_from), directory, config, architecture)
    dtype = str(np.dtype(params.get("trunk", params)["embed"]["embedding"].dtype))
    write_json(directory / "config.json", describe(config, architecture, dtype, ids))


def _to_host(array: jax.Array) -> np.ndarray:
    if array.is_fully_addressable:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def _carry_tokenizer(source: pathlib.Path, directory: pathlib.Path) -> None:
    """Copies the tokenizer's files; others, too, are to read tokenizer.json as it stands."""
    if not source.is_dir():
        raise ValueError(f"tokenizer_from: {source} is no directory")
    if source.resolve() != directory.resolve():
        for pattern in _CARRIED:
            for file in source.glob(pattern):
                shutil.copyfile(file, directory / file.name)
    if (directory / "tokenizer.json").is_file():
        _set(directory / "tokenizer_config.json", "tokenizer_class", "PreTrainedTokenizerFast")


def _special_ids(
    source: pathlib.Path, directory: pathlib.Path, config: LlamaConfig, architecture: str
) -> dict[str, Any]:
    """The ids of special tokens for config.json, of a tokenizer that was carried along."""
    tokenizer = load_tokenizer(directory)
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"the tokenizer of {source} has {len(tokenizer)} tokens, the model {config.vocab_size}"
        )
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    ids = {name: getattr(tokenizer, name) for name in names}
    for file in ("generation_config.json", "config.json"):
        if (source / file).is_file():
            settings = read_json(source / file)
            ids.update({name: settings[name] for name in names if settings.get(name) is not None})
    if architecture == VERIFIER:
        ends = {tokenizer.eos_token_id, *eot_ids(source)}
        ids["pad_token_id"] = _name_padding(directory, tokenizer, ends)
    elif ids["pad_token_id"] is None:
        eos = ids["eos_token_id"]
        ids["pad_token_id"] = eos[0] if isinstance(eos, list) else eos
    if not (directory / "generation_config.json").is_file():
        write_json(directory / "generation_config.json", ids)
    return ids


def _name_padding(directory: pathlib.Path, tokenizer: Any, ends: set[int]) -> int:
    """The id of a token that pads and is not in `ends`; the tokenizer's files name it, too."""
    added = tokenizer.added_tokens_decoder
    special = sorted((token_id for token_id in added if added[token_id].special), reverse=True)
    ordinary = range(len(tokenizer))  # texts hold them, so that they are named nowhere
    candidates = (tokenizer.pad_token_id, tokenizer.unk_token_id, *special, *ordinary)
    pad = next(token_id for token_id in candidates if token_id not in {None, *ends})
    if pad != tokenizer.pad_token_id:
        name = tokenizer.convert_ids_to_tokens(pad) if pad in special else None
        for file in ("tokenizer_config.json", "special_tokens_map.json"):
            _set(directory / file, "pad_token", name)
    return pad


def _set(file: pathlib.Path, name: str, value: str | None) -> None:
    """Changes one value in a JSON file, if the file is there and holds another one."""
    if file.is_file() and (settings := read_json(file)).get(name) != value:
        write_json(file, settings | {name: value})
