"""config.json of a Hugging Face directory: read, and written so that any reader opens it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from mucode_jax.models import weights
from mucode_jax.models.llama import LlamaConfig, RopeScaling

GENERATOR = "LlamaForCausalLM"
VERIFIER = "LlamaForSequenceClassification"
MOST = 2**31  # more than any size or id
# Fields of LlamaConfig that count something.
_SIZES = ("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff")
_SIZES += ("max_positions",)


def read_json(file: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file of a model directory.

    Raises:
      ValueError: it is not there, or damaged.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        weights.refuse_adapter(file.parent)
        raise ValueError(f"{file.parent} is no model directory: it holds no {file.name}") from error
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{file} is damaged: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is damaged: no JSON object")
    return content


def architectures(directory: pathlib.Path) -> list[str]:
    """What config.json says that a model is; [] where it does not.

    Raises:
      ValueError: it is no list of names.
    """
    names = read_json(directory / "config.json").get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{directory}/config.json: architectures is {names!r}, no list of names")
    return names


def read_config(directory: str | pathlib.Path, **changes: Any) -> LlamaConfig:
    """The config of a model directory.

    Parameters and computation have the dtype that the weights were stored in (float32 for float16)
    unless `changes`, the fields of LlamaConfig to set otherwise, says so. A head that was trained
    apart from the embedding is kept, whatever tie_word_embeddings says.

    Raises:
      ValueError: no config.json, or something in it that this Llama does not do.
    """
    directory = pathlib.Path(directory)
    stored = read_json(directory / "config.json")

    def refuse(what: str) -> ValueError:
        return ValueError(f"{directory}/config.json: {what}")

    if stored.get("model_type") != "llama":
        raise refuse(f"model_type is {stored.get('model_type')!r}; only llama is supported")
    for name, value in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
        if stored.get(name, value) != value:
            raise refuse(f"{name} is {stored[name]!r}; only {value!r} is supported")
    if stored.get("quantization_config"):
        raise refuse("the weights are quantized; give the original checkpoint")

    # Newer files put theta and scaling into one entry, older ones at the top and in rope_scaling.
    rope = stored.get("rope_parameters") or stored.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise refuse(f"rope_parameters or rope_scaling is {rope!r}, no object")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise refuse(f"rope type is {kind!r}; supported are 'default' and 'llama3'")
    try:
        heads = stored["num_attention_heads"]
        scaling = None
        if kind == "llama3":
            scaling = RopeScaling(
                factor=float(rope["factor"]),
                low_freq_factor=float(rope["low_freq_factor"]),
                high_freq_factor=float(rope["high_freq_factor"]),
                original_max_positions=int(rope["original_max_position_embeddings"]),
            )
        dtype = stored.get("dtype") or stored.get("torch_dtype") or "float32"
        config = LlamaConfig(
            vocab_size=stored["vocab_size"],
            d_model=stored["hidden_size"],
            n_layers=stored["num_hidden_layers"],
            n_heads=heads,
            n_kv_heads=stored.get("num_key_value_heads") or heads,
            head_dim=stored.get("head_dim") or stored["hidden_size"] // heads,
            d_ff=stored["intermediate_size"],
            rope_theta=float(rope.get("rope_theta") or stored.get("rope_theta") or 10000.0),
            rope_scaling=scaling,
            rms_eps=stored.get("rms_norm_eps", 1e-6),
            tied=stored.get("tie_word_embeddings", False),
            max_positions=stored.get("max_position_embeddings", 2048),
            dtype="bfloat16" if dtype == "bfloat16" else "float32",
            param_dtype="bfloat16" if dtype == "bfloat16" else "float32",
        )
    except KeyError as error:
        raise refuse(f"{error.args[0]} is missing") from error
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise refuse(f"a value is of the wrong kind ({error})") from error
    for name in _SIZES:
        value = getattr(config, name)
        if type(value) is not int or not 1 <= value < MOST:
            raise refuse(f"its {name} is {value!r}, no whole number from 1 to {MOST - 1}")
    numbers = {name: getattr(config, name) for name in ("rope_theta", "rms_eps")}
    numbers |= dataclasses.asdict(scaling) if scaling else {}
    for name, value in numbers.items():
        if type(value) not in (int, float) or not 0 < value < 1e30:
            raise refuse(f"its {name} is {value!r}, no number above 0 (and below 1e30)")
    if scaling and not scaling.low_freq_factor < scaling.high_freq_factor:
        raise refuse("its low_freq_factor is not below its high_freq_factor")
    if type(config.tied) is not bool:
        raise refuse(f"tie_word_embeddings is {config.tied!r}, neither true nor false")
    if config.tied and _has_own_head(directory):
        config = dataclasses.replace(config, tied=False)
    return dataclasses.replace(config, **changes)


def _has_own_head(directory: pathlib.Path) -> bool:
    """Whether the weights hold a head that differs from the embedding, read some rows at a time.

    transformers decides the same way (`PreTrainedModel.tie_weights`).
    """
    if not weights.are_in(directory):
        return False
    stored = weights.index(directory)
    head, embedding = (stored.get(f"{name}.weight") for name in ("lm_head", "model.embed_tokens"))
    if head is None or embedding is None:
        return False
    if head.shape != embedding.shape:
        return True
    for start in range(0, head.shape[0], 4096):
        rows = (slice(start, min(start + 4096, head.shape[0])),)
        if not np.array_equal(head.read(rows), embedding.read(rows)):
            return True
    return False


def describe(
    config: LlamaConfig, architecture: str, dtype: str, ids: dict[str, Any]
) -> dict[str, Any]:
    """The contents of config.json: `ids` are its special token ids, `dtype` that of the weights."""
    scaling = config.rope_scaling
    out = {
        "architectures": [architecture],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.rms_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": None
        if scaling is None
        else {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_positions,
        },
        "tie_word_embeddings": config.tied,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": dtype,
        **ids,
    }
    if architecture == VERIFIER:
        out |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "num_labels": 1}
    return out
