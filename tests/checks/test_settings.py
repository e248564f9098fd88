"""Settings: every one of them is checked, by name, before anything is loaded."""

import pytest
from ml_collections import ConfigDict

from configs import base, mini_pretrain, quickstart
from mucode_jax.checks import settings


def good(pretrain=False):
    return mini_pretrain.get_config() if pretrain else quickstart.get_config("tiny")


def put(config, name, value):
    """`config` with one setting changed, as a config file would."""
    *sections, last = name.split(".")
    with config.ignore_type():
        section = config
        for part in sections:
            section = section[part]
        section[last] = value
    return config


def refusal(config):
    with pytest.raises(ValueError) as error:
        settings.validate(config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_there_is_a_rule_for_every_setting_and_for_nothing_else():
    required = {name for name, rule in settings.ITERATE.items() if not rule.optional}
    assert set(settings.flat(base.get_config())) == required
    assert set(settings.flat(mini_pretrain.get_config())) <= set(settings.PRETRAIN)


@pytest.mark.parametrize("pretrain", [False, True])
def test_every_setting_of_a_wrong_type_is_named(pretrain):
    for name in settings.flat(good(pretrain)):
        for wrong in (object(), ("?",), float("nan")):
            said = refusal(put(good(pretrain), name, wrong))
            assert said.startswith(f"config.{name} is ") and "it must be" in said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("seed", -1, "config.seed is -1; it must be a whole number from 0"),
        ("seed", True, "config.seed is True"),
        ("iterations", 2.0, "config.iterations is 2.0; it must be a whole number"),
        ("methods", "mucode", "config.methods is 'mucode'; it must be a tuple"),
        (
            "methods",
            ("mucode", "mucode"),
            "a tuple, like ('ssd',), each one of ssd, star,",
        ),
        ("train.benchmark", "mpbb", "it must be one of mini, mbpp"),
        ("train.size", -3, "config.train.size is -3"),
        ("train.size", 0, "config.train.size is 0; mini has no end"),
        ("rollout.top_p", 0.0, "config.rollout.top_p is 0.0; it must be a number in (0, 1]"),
        ("rollout.temperature", float("inf"), "config.rollout.temperature is inf"),
        ("sft.learning_rate", 0.0, "config.sft.learning_rate is 0.0; it must be a number above 0"),
        ("sft.schedule", "step", "one of constant, linear, cosine"),
        ("verifier_training.held_out", 1.0, "a number in [0, 1)"),
        ("sandbox.memory_mb", 1, "a whole number from 64"),
        ("mesh.data", 0, "config.mesh.data is 0; it must be -1"),
        ("mesh.fsdp", -1, "more than one -1"),
        ("rollout.context", 100, "config.rollout.context is 100, but 3 turns of 40 new tokens"),
        (
            "rollout.tempature",
            0.5,
            "is an unknown setting; did you mean config.rollout.temperature?",
        ),
        (
            "evaluation.also",
            ("mbpp:test", "mbpp:test:b.jsonl"),
            "mbpp:test is evaluated on already",
        ),
        ("evaluation.also", ("mbpp",), "a tuple of NAME:SPLIT"),
        ("evaluation.also", ("jsonl:own_labels",), "a tuple of NAME:SPLIT"),
        ("evaluation.split", "own_labels", "a word of letters, digits"),
        ("train.split", "../x", "a word of letters, digits"),
        ("train.size", 10**6, "it must be a number from 1 to 100000"),
        ("train.size", 10**11, "a whole number from 0 to 1000000"),
        ("sandbox.memory_mb", 64 * 10**12, "from 64 to 1048576"),
        ("generator.path", " ", "a directory, a hub id, mini, or random:TOKENIZER"),
        ("generator.path", "random:data/llama3", "config.generator.shape must say"),
    ],
)
def test_what_cannot_be_right_is_said_with_what_would_be(name, value, said):
    assert said in refusal(put(good(), name, value))


def test_a_setting_or_section_that_is_missing_is_named():
    config = good()
    del config.rollout.n
    assert "config.rollout.n is missing" in refusal(config)
    assert "config.seed is missing" in refusal(ConfigDict({"experiment": "iterate"}))
    assert "config.experiment is missing" in refusal(ConfigDict())
    assert "config.rollout is an unknown setting" in refusal(put(good(), "rollout", 3))


def test_heads_that_cannot_be_shared_are_named():
    assert "must be a multiple of n_kv_heads" in refusal(put(good(True), "model.n_kv_heads", 3))
