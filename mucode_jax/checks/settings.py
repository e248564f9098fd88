"""Checks a config before anything is loaded: one clear error, naming the setting.

`ITERATE` and `PRETRAIN` say of every setting of the two kinds of experiment what it may be; what
concerns several settings at once stands in `validate`. What needs the model or the problems is
looked at by `preflight`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from flax import traverse_util
from ml_collections import ConfigDict

from mucode_jax import benchmarks
from mucode_jax.rollouts.search import CHOICES
from mucode_jax.sandbox import LEVELS
from mucode_jax.training import losses

# What `generator.path` begins with for a random model of `generator.shape`; then the tokenizer.
RANDOM = "random:"
METHODS = (
    *("ssd", "star", "multi_star", "multi_star_all", "multi_star_balanced"),
    *("rft_lv", "mucode"),
)


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a setting may be.

    Attributes:
      right: in words, after "it must be".
      holds: whether a value is right; it may be of any type.
      optional: whether the setting may be left out.
    """

    right: str
    holds: Callable[[Any], bool]
    optional: bool = False


def whole(least: int = 0, most: int = 1_000_000) -> Rule:
    """A whole number within bounds; the default is more than any experiment can do."""
    right = f"a whole number from {least} to {most}"
    return Rule(right, lambda v: type(v) is int and least <= v <= most)


def number(right: str, holds: Callable[[float], bool]) -> Rule:
    """A finite number for which `holds` is true."""
    return Rule(
        f"a number {right}", lambda v: type(v) in (int, float) and math.isfinite(v) and holds(v)
    )


def one_of(*values: str, among: Collection[str] = ()) -> Rule:
    """One of some words, or of those in a table that may grow."""
    return Rule(
        f"one of {', '.join((*among, *values))}",
        lambda v: isinstance(v, str) and (v in values or v in among),
    )


def some_of(*values: str, among: Collection[str] = ()) -> Rule:
    """A tuple of such words, none of them twice."""
    word = one_of(*values, among=among)
    first = (*among, *values)[0]
    return Rule(
        f"a tuple, like ({first!r},), each {word.right}",
        lambda v: _are(v, word.holds) and len(set(v)) == len(v),
    )


def _are(values: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(values, (tuple, list)) and all(map(holds, values))


def section(name: str, rules: Mapping[str, Rule], optional: bool = False) -> dict[str, Rule]:
    """Rules of the settings of a section; `optional` ones may be left out."""
    return {
        f"{name}.{setting}": dataclasses.replace(rule, optional=optional)
        for setting, rule in rules.items()
    }


SEED = whole(0, 2**31 - 1)
SEEDS = Rule(
    f"a tuple of different seeds, each {SEED.right}",
    lambda v: _are(v, SEED.holds) and len(set(v)) == len(v),
)
FLAG = Rule("True or False", lambda v: isinstance(v, bool))
TEXT = Rule("text", lambda v: isinstance(v, str))
SPLIT = Rule(  # it is part of folders' names
    "a word of letters, digits, ., - and _ that does not end in _labels",
    lambda v: isinstance(v, str) and bool(re.fullmatch(r"\w[\w.-]*(?<!_labels)", v)),
)
AT_LEAST_0 = number("of at least 0", lambda v: v >= 0)
ABOVE_0 = number("above 0", lambda v: v > 0)
SHARE = number("in [0, 1)", lambda v: 0 <= v < 1)
DTYPE = one_of("float32", "bfloat16")
MESH = Rule(
    "-1 (the rest) or a whole number above 0", lambda v: type(v) is int and (v > 0 or v == -1)
)


def _is_cell(value: Any) -> bool:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        return False
    name, changed = value
    folder = r"|(?!lock$|xla$)\w[\w .,+=-]{,99}(?<!\.json|\.html)"  # or none: the only cell
    return (
        isinstance(name, str)
        and bool(re.fullmatch(folder, name))
        and isinstance(changed, Mapping)
        and not {"seed", "seeds", "cells"} & set(changed)
    )


def _is_also(value: Any) -> bool:
    name, split, *_ = [*value.split(":", 2), ""] if isinstance(value, str) else ("", "")
    return name in benchmarks.NAMES and name != "mini" and SPLIT.holds(split)


CELLS = Rule(
    "a tuple of (name, settings) pairs, seeds apart in config.seeds; a name is that of a folder: "
    "letters, digits, spaces and .,+=_- after a letter or digit, not ending in .json or .html",
    lambda v: _are(v, _is_cell),
)
ALSO = Rule(
    "a tuple of NAME:SPLIT or NAME:SPLIT:FILE, NAME one of "
    + ", ".join(name for name in benchmarks.NAMES if name != "mini"),
    lambda v: _are(v, _is_also),
)

SAMPLING = {
    "temperature": number(
        "that is 0 (greedy) or from 0.001 to 1000", lambda v: v == 0 or 1e-3 <= v <= 1e3
    ),
    "top_p": number("in (0, 1]", lambda v: 0 < v <= 1),
    "top_k": whole(0),
}
BENCHMARK = {
    "benchmark": one_of(*benchmarks.NAMES),
    "split": SPLIT,
    "data": TEXT,
    "size": whole(0),
    "seed": SEED,
    "compat": FLAG,
    "testless": FLAG,
}
OPTIMIZER = {
    "learning_rate": ABOVE_0,
    "schedule": one_of("constant", "linear", "cosine"),
    "warmup_steps": whole(0),
    "horizon": number("of at least 1", lambda v: v >= 1),
    "weight_decay": AT_LEAST_0,
    "b1": SHARE,
    "b2": SHARE,
    "eps": ABOVE_0,
    "clip_norm": Rule(
        "None (in a config file) or a number above 0", lambda v: v is None or ABOVE_0.holds(v)
    ),
    "moment_dtype": DTYPE,
    "param_dtype": DTYPE,
}
TRAINING = OPTIMIZER | {
    **{"epochs": whole(1), "batch": whole(1), "rows": whole(0), "length": whole(2)},
    **{"microbatches": whole(1), "lora_rank": whole(0), "lora_alpha": ABOVE_0},
}
SHAPE = {
    **dict.fromkeys(("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads"), whole(1)),
    **dict.fromkeys(("head_dim", "d_ff", "max_positions"), whole(2)),
    "rope_theta": ABOVE_0,
    "rms_eps": ABOVE_0,
    "tied": FLAG,
}

ITERATE = {
    "experiment": one_of("iterate", "pretrain"),
    "seed": SEED,
    "seeds": SEEDS,
    "cells": CELLS,
    "methods": some_of(*METHODS),
    "iterations": whole(1),
    "profile_steps": whole(0),
    "generator.path": Rule(
        "a directory, a hub id, mini, or random:TOKENIZER",
        lambda v: isinstance(v, str) and bool(v.strip()),
    ),
    "generator.dtype": DTYPE,
    "generator.param_dtype": DTYPE,
    "generator.stored_dtype": DTYPE,
    "generator.remat": FLAG,
    **section("generator.shape", SHAPE, optional=True),
    "verifier.path": TEXT,
    **section("verifier.shape", SHAPE, optional=True),
    **section("train", BENCHMARK),
    **section("rollout", SAMPLING),
    "rollout.n": whole(1, 100_000),
    "rollout.turns": whole(1),
    "rollout.code_block": one_of("commonmark", "published"),
    "rollout.add_correct": FLAG,
    "rollout.max_new_tokens": whole(1),
    "rollout.max_feedback_tokens": whole(1),
    "rollout.context": whole(2),
    "rollout.slots": whole(0),
    "expert.kind": one_of("lv", "ov", "ov+lv"),
    "expert.scope": one_of("all_turns", "final"),
    "expert.pool": one_of("iteration", "all"),
    "expert.drop_unsolved": FLAG,
    "expert.max_unsuccessful": whole(0),
    **section("verifier_training", TRAINING),
    "verifier_training.loss": one_of(among=losses.VERIFIER),
    "verifier_training.pairs_per_problem": whole(1),
    "verifier_training.score_penalty": AT_LEAST_0,
    "verifier_training.held_out": SHARE,
    **section("sft", TRAINING),
    "sft.merge": FLAG,
    **section("evaluation", BENCHMARK),
    "evaluation.protocol": one_of("deployable", "paper"),
    "evaluation.also": ALSO,
    **section("search", SAMPLING),
    "search.methods": some_of("base", *METHODS),
    "search.n": whole(1, 100_000),
    "search.searches": whole(1, 100_000),
    "search.choices": some_of("oracle", among=CHOICES),
    "search.skip_failed": FLAG,
    "search.agree_inputs": whole(1, 1000),
    "sandbox.isolation": one_of(*LEVELS),
    "sandbox.workers": whole(0, 1024),
    "sandbox.memory_mb": whole(64, 2**20),
    "sandbox.feedback": one_of("values", "traceback", "none"),
    "sandbox.python": TEXT,
    "sandbox.share_folder": FLAG,
    "sandbox.broken_tests": SHARE,
    **section("mesh", dict.fromkeys(("data", "fsdp", "tensor"), MESH)),
    "mesh.sampling_tensor": MESH,
}

PRETRAIN = {
    "experiment": one_of("pretrain"),
    "seed": SEED,
    "corpus.size": whole(1),
    "corpus.message_weight": AT_LEAST_0,
    "tokenizer.vocab_size": whole(261),  # four special tokens and every byte, and one thing more
    "tokenizer.conversations": whole(1),
    **section("model", dict.fromkeys(("d_model", "n_layers", "n_heads", "n_kv_heads"), whole(1))),
    **section("model", dict.fromkeys(("head_dim", "d_ff", "max_positions"), whole(2))),
    **section("train", dict.fromkeys(("epochs", "batch"), whole(1))),
    "train.length": whole(2),
    "train.rows": whole(0),
    **section("optimizer", OPTIMIZER, optional=True),
    "optimizer.learning_rate": ABOVE_0,
}


def validate(config: ConfigDict) -> None:
    """Raises ValueError for the first setting that cannot be right."""
    settings = flat(config)
    pretrain = settings.get("experiment") == "pretrain"
    rules = PRETRAIN if pretrain else ITERATE
    for name in sorted(settings, key=lambda name: name != "experiment"):  # it chooses the rules
        if name not in rules:
            near = difflib.get_close_matches(name, rules, 1)
            hint = f"; did you mean config.{near[0]}?" if near else ""
            kind = " of a pretraining" if pretrain else ""
            raise ValueError(f"config.{name} is an unknown setting{kind}{hint}")
        check(name, settings[name], rules[name])
    for name, rule in rules.items():
        if name not in settings and not rule.optional:
            raise ValueError(f"config.{name} is missing; it must be {rule.right}")
    if pretrain:
        _check_pretraining(config)
    else:
        _check_iterations(config)


def _check_pretraining(config: ConfigDict) -> None:
    model, train = config.model, config.train
    if model.n_heads % model.n_kv_heads:
        raise ValueError(
            f"config.model.n_heads is {model.n_heads}; it must be a multiple of n_kv_heads, "
            f"{model.n_kv_heads}"
        )
    if train.length > model.max_positions:
        raise ValueError(
            f"config.train.length is {train.length}, but the model has {model.max_positions} "
            "positions"
        )


def _check_iterations(config: ConfigDict) -> None:
    most = benchmarks.MOST_OF_MINI
    for name in ("train", "evaluation"):
        size = config[name].size
        if config[name].benchmark == "mini" and not 1 <= size <= most:
            raise ValueError(
                f"config.{name}.size is {size}; mini has no end, so it must be a number from 1 to "
                f"{most}"
            )
    if config.generator.path.startswith(RANDOM) and not config.generator.shape:
        raise ValueError(
            f"config.generator.path is {config.generator.path!r}, a random model; "
            "config.generator.shape must say of what shape"
        )
    also = [":".join(place.split(":", 2)[:2]) for place in config.evaluation.also]
    places = [f"{config.evaluation.benchmark}:{config.evaluation.split}", *also]
    if twice := [place for place in places if places.count(place) > 1]:
        raise ValueError(f"config.evaluation.also: {twice[0]} is evaluated on already")
    if [config.mesh[name] for name in ("data", "fsdp", "tensor")].count(-1) > 1:
        raise ValueError("config.mesh has more than one -1; only one size can be what is left")
    r = config.rollout
    room = r.turns * (r.max_new_tokens + 1) + (r.turns - 1) * r.max_feedback_tokens
    if r.context <= room:
        raise ValueError(
            f"config.rollout.context is {r.context}, but {r.turns} turns of {r.max_new_tokens} new "
            f"tokens with feedback of {r.max_feedback_tokens} take {room} beside the prompt"
        )


def check(name: str, value: Any, rule: Rule) -> None:
    """Raises ValueError where a setting is not what it may be."""
    if not rule.holds(value):
        shown = repr(value)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        raise ValueError(f"config.{name} is {shown}; it must be {rule.right}")


def flat(config: ConfigDict) -> dict[str, Any]:
    """Every setting by its whole name."""
    return traverse_util.flatten_dict(config.to_dict(), sep=".")
