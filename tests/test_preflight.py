"""Looking ahead: what would fail hours later is said before anything is computed."""

import dataclasses
import json
import shutil
import types

import pytest

from mucode_jax import preflight
from mucode_jax.benchmarks import load
from mucode_jax.conversation import Chat
from mucode_jax.models import hub, huggingface
from mucode_jax.rollout import Limits


def recipe(length):
    return types.SimpleNamespace(length=length)


RECIPES = {"verifier_training": recipe(224), "sft": recipe(288)}


@pytest.fixture(scope="module")
def lab():
    mini = huggingface.resolve("mini")
    base = types.SimpleNamespace(path=mini)
    return types.SimpleNamespace(
        base=base,
        trunk=base,
        config=lambda model: huggingface.read_config(mini),
        chat=Chat(huggingface.load_tokenizer(mini), huggingface.eot_ids(mini)),
        limits=Limits(3, 40, 48, 288),
    )


def changed(lab, **changes):
    return types.SimpleNamespace(**{**vars(lab), **changes})


def refusal(lab, problems=None, held_out=None, recipes=RECIPES):
    problems = problems or load("mini", "train", size=4)
    with pytest.raises(ValueError) as error:
        preflight.check(lab, problems, held_out or [problems], recipes)
    return str(error.value)


def test_what_fits_is_passed(lab):
    problems = load("mini", "train", size=4)
    preflight.check(lab, problems, [problems], RECIPES)


def test_problems_that_are_learned_from_and_measured_on_are_counted():
    problems, apart = load("mini", "train", size=4), load("mini", "test", size=4)
    (said,) = preflight.doubts(problems, [load("mini", "train", size=6), apart])
    assert said.startswith("warning: 4 of the 6 problems of mini, train are learned from too")


def test_a_tokenizer_of_another_model_is_refused(lab):
    small = dataclasses.replace(lab.config(None), vocab_size=1000)
    said = refusal(changed(lab, config=lambda model: small))
    assert "ids up to 1023, but the model has embeddings for 1000" in said


def test_verifiers_are_trained_from_a_model_that_reads_the_generators_tokens(lab, tmp_path):
    own = types.SimpleNamespace(path=hub.MINI_VERIFIER)
    problems = load("mini", "train", size=4)
    preflight.check(changed(lab, trunk=own), problems, [problems], RECIPES)

    short = dataclasses.replace(lab.config(None), max_positions=100)
    fewer = changed(lab, trunk=own, config=lambda m: short if m is own else lab.config(m))
    assert "has 100 positions, but a prompt and its completion may take" in refusal(fewer)

    shutil.copytree(hub.MINI_VERIFIER, tmp_path / "other")
    file = tmp_path / "other" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocab = tokenizer["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    file.write_text(json.dumps(tokenizer))
    other = types.SimpleNamespace(path=tmp_path / "other")
    said = refusal(changed(lab, trunk=other))
    assert said.startswith(f"config.verifier.path: {tmp_path}/other reads other tokens")


def test_a_context_beyond_the_models_positions_is_refused(lab):
    said = refusal(changed(lab, limits=Limits(3, 40, 48, 4096)))
    assert "config.rollout.context is 4096, but the model" in said and "1024 positions" in said


def test_a_prompt_longer_than_the_context_is_named_though_it_is_held_out(lab):
    problems = load("mini", "train", size=4)
    long = dataclasses.replace(problems.problems[2], prompt="word " * 300)
    held_out = dataclasses.replace(problems, problems=(long,))
    said = refusal(lab, held_out=[held_out])
    assert said.startswith(f"mini {long.task_id}: the prompt takes") and "context=288" in said


def test_feedback_that_does_not_fit_at_all_is_refused(lab):
    assert "raise rollout.max_feedback_tokens" in refusal(changed(lab, limits=Limits(2, 9, 1, 99)))


def test_rows_too_short_for_any_example_are_refused(lab):
    said = refusal(lab, recipes={"sft": recipe(20)})
    assert "config.sft.length is 20, but the shortest prompt of mini takes" in said
