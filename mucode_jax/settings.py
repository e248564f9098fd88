"""Checks a config before anything is loaded: one clear error, naming the setting."""

from __future__ import annotations

from ml_collections import ConfigDict

METHODS = ("star", "multi_star", "multi_star_all", "multi_star_balanced", "rft_lv", "mucode")


def validate(config: ConfigDict) -> None:
    """Raises ValueError for the first setting that cannot be right."""
    if config.get("experiment") == "pretrain":
        return
    one_of = {
        "experiment": ("iterate", "pretrain"),
        "generator.dtype": ("float32", "bfloat16"),
        "generator.param_dtype": ("float32", "bfloat16"),
        "expert.kind": ("lv", "ov", "ov+lv"),
        "expert.scope": ("all_turns", "final"),
        "verifier_training.loss": ("bt", "bce"),
        "evaluation.protocol": ("deployable", "paper"),
        "sandbox.isolation": ("namespaces", "landlock", "rlimits"),
        "sandbox.feedback": ("values", "traceback", "none"),
    }
    for name, values in one_of.items():
        _one_of(name, _get(config, name), values)
    for name, values in {
        "methods": METHODS,
        "search.methods": ("base", *METHODS),
        "search.choices": ("random", "pt", "lv", "pt+lv", "oracle"),
    }.items():
        for value in _get(config, name):
            _one_of(name, value, values)
    at_least = {
        "iterations": 1,
        "rollout.n": 1,
        "rollout.turns": 1,
        "rollout.max_new_tokens": 1,
        "rollout.max_feedback_tokens": 1,
        "rollout.slots": 0,
        "expert.max_unsuccessful": 0,
        "verifier_training.epochs": 1,
        "verifier_training.pairs_per_problem": 1,
        "verifier_training.batch": 1,
        "sft.epochs": 1,
        "sft.batch": 1,
        "search.n": 1,
        "search.searches": 1,
        "sandbox.workers": 0,
        "sandbox.memory_mb": 64,
    }
    for name, least in at_least.items():
        if _get(config, name) < least:
            raise ValueError(f"config.{name} is {_get(config, name)}; it must be at least {least}")
    for name in ("rollout.temperature", "search.temperature"):
        if _get(config, name) < 0:
            raise ValueError(f"config.{name} is {_get(config, name)}; 0 is greedy, else above 0")
    for name in ("rollout.top_p", "search.top_p"):
        if not 0 < _get(config, name) <= 1:
            raise ValueError(f"config.{name} is {_get(config, name)}; it is in (0, 1]")
    for section in ("train", "evaluation"):
        if config[section].benchmark == "mini" and config[section].size < 1:
            raise ValueError(f"config.{section}.size is 0; mini has no end, it needs a number")
    r = config.rollout
    room = r.turns * (r.max_new_tokens + 1) + (r.turns - 1) * r.max_feedback_tokens
    if r.context <= room:
        raise ValueError(
            f"config.rollout.context is {r.context}, but {r.turns} turns of {r.max_new_tokens} new "
            f"tokens with feedback of {r.max_feedback_tokens} take {room} beside the prompt"
        )


def _get(config: ConfigDict, name: str) -> object:
    for part in name.split("."):
        config = config[part]
    return config


def _one_of(name: str, value: object, values: tuple[str, ...]) -> None:
    if value not in values:
        raise ValueError(f"config.{name} is {value!r}; it is one of {', '.join(values)}")
