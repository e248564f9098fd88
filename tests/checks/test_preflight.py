"""Looking ahead: what would fail hours later is said before anything is computed."""

import dataclasses
import json
import shutil

import pytest

from configs import quickstart
from mucode_jax.benchmarks import load
from mucode_jax.checks import preflight
from mucode_jax.core.conversation import Chat
from mucode_jax.core.records import Tests
from mucode_jax.models import hub, huggingface


@pytest.fixture
def config():
    return quickstart.get_config()


@pytest.fixture(scope="module")
def problems():
    return load("mini", "train", size=4)


@pytest.fixture(scope="module")
def chat():
    return Chat(huggingface.load_tokenizer(hub.MINI), huggingface.eot_ids(hub.MINI))


@pytest.fixture
def copy(tmp_path):
    """A copy of a model directory, with some of its config.json changed."""

    def make(source, **changes):
        directory = shutil.copytree(source, tmp_path / source.name)
        file = directory / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        return directory

    return make


@pytest.fixture
def refusal(config, problems, chat):
    """What the look ahead says against the config as it is then."""

    def refused(base=hub.MINI, held_out=problems):
        config.generator.path = str(base)
        with pytest.raises(ValueError) as error:
            preflight.check(config, base, chat, problems, [held_out])
        return str(error.value)

    return refused


def test_what_fits_is_passed(config, problems, chat):
    preflight.check(config, hub.MINI, chat, problems, [problems])
    config.verifier.path = "mini"
    preflight.check(config, hub.MINI, chat, problems, [problems])


def test_problems_that_are_learned_from_and_measured_on_are_counted(config, problems):
    apart = load("mini", "test", size=4)
    held_out = [load("mini", "train", size=6), apart]
    (said,) = preflight.doubts(config, hub.MINI, problems, held_out)
    assert said.startswith("warning: 4 of the 6 problems of mini, train are learned from too")


def test_problems_that_agreement_has_no_inputs_for_are_counted(config, problems):
    config.search.choices = ("agree",)
    apart = load("mini", "test", size=4)
    assert not preflight.doubts(config, hub.MINI, problems, [apart])
    first, *others = apart.problems
    bare = dataclasses.replace(first, public=Tests())
    mixed = dataclasses.replace(apart, problems=(bare, *others))
    (warning,) = preflight.doubts(config, hub.MINI, problems, [mixed])
    counted = "the choice agree has no further inputs for 1 of the 4 problems of mini, test"
    assert counted in warning


def test_a_tokenizer_of_another_model_is_refused(refusal, copy, monkeypatch):
    small = copy(hub.MINI, vocab_size=1000)
    monkeypatch.setattr(huggingface, "check_weights", lambda *_: None)
    assert "ids up to 1023, but the model has embeddings for 1000" in refusal(small)


def test_a_shape_that_is_not_the_models_is_told_by_what_it_names(config, problems):
    shape = dataclasses.asdict(huggingface.read_config(hub.MINI))
    config.generator.shape.update({"n_layers": shape["n_layers"], "d_model": shape["d_model"]})
    assert not preflight.doubts(config, hub.MINI, problems, [])
    config.generator.shape.n_layers = 7
    (said,) = preflight.doubts(config, hub.MINI, problems, [])
    there = f"n_layers 7, there {shape['n_layers']}"
    assert said.startswith("warning: config.generator.shape is not that of the model in")
    assert said.endswith(f"({there})")


@pytest.mark.parametrize("of", [hub.MINI, hub.MINI_VERIFIER])
def test_weights_that_are_cut_short_or_others_are_refused(refusal, config, copy, of):
    directory = copy(of)
    config.verifier.path = "" if of is hub.MINI else str(directory)
    base = directory if of is hub.MINI else hub.MINI
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    assert f"{file} is damaged, or is cut short" in refusal(base)
    file.unlink()
    assert f"{directory} holds neither model.safetensors nor" in refusal(base)


def test_verifiers_are_trained_from_a_model_that_reads_the_generators_tokens(refusal, config, copy):
    directory = copy(hub.MINI_VERIFIER, max_position_embeddings=100)
    config.verifier.path = str(directory)
    assert "has 100 positions, but a prompt and its completion may take" in refusal()

    file = directory / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocab = tokenizer["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    file.write_text(json.dumps(tokenizer))
    assert refusal().startswith(f"config.verifier.path: {directory} reads other tokens")


def test_a_context_beyond_the_models_positions_is_refused(refusal, config):
    config.rollout.context = 4096
    said = refusal()
    assert "config.rollout.context is 4096, but the model" in said and "1024 positions" in said


def test_a_prompt_longer_than_the_context_is_named_though_it_is_held_out(refusal, config, problems):
    long = dataclasses.replace(problems.problems[2], prompt="word " * 300)
    said = refusal(held_out=dataclasses.replace(problems, problems=(long,)))
    context = config.rollout.context
    assert said.startswith(f"mini {long.task_id}: the prompt takes")
    assert f"context={context}" in said


def test_feedback_that_does_not_fit_at_all_is_refused(refusal, config):
    config.rollout.max_feedback_tokens = 1
    assert "raise rollout.max_feedback_tokens" in refusal()


def test_rows_too_short_for_any_example_are_refused(refusal, config):
    config.sft.length = 20
    assert "config.sft.length is 20, but the shortest prompt of mini takes" in refusal()
