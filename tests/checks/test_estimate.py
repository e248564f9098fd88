"""What is said before a run and during it: the most that it samples, the time that is left."""

import pathlib

from configs import quickstart
from mucode_jax.checks import estimate
from mucode_jax.runtime.ledger import Stage


def stage(name, seconds, tokens=0):
    record = {"seconds": seconds, "counts": {"tokens": tokens}}
    return Stage(name, pathlib.Path(name), "", record)


def test_the_stages_of_the_quickstart_are_counted_as_it_makes_them():
    assert estimate.stages(quickstart.get_config()) == {
        "rollouts": 5,  # base, base singles, and one of each method
        "verifier": 2,  # base (which the search shares), mucode_1
        "scores": 2,
        "generator": 6,
        "greedy": 7,
        "search": 2,
    }
    config = quickstart.get_config()
    config.methods, config.search.methods, config.iterations = ("star",), ("star",), 1
    assert estimate.stages(config) == {
        **{"rollouts": 1, "verifier": 1, "generator": 1, "greedy": 2, "search": 1}
    }


def test_single_turn_methods_share_the_bases_samples_and_a_pool_is_scored_again():
    config = quickstart.get_config()
    config.methods, config.search.methods, config.iterations = ("ssd", "star"), ("ssd",), 3
    made = estimate.stages(config)
    assert (made["rollouts"], made["verifier"], made["scores"]) == (1 + 2 * 2, 1, 0)
    config.methods, config.search.methods = ("mucode",), ()
    assert estimate.stages(config)["scores"] == 3
    config.expert.pool = "all"
    assert estimate.stages(config)["scores"] == 1 + 2 + 3


def test_a_search_by_agreement_has_a_verifier():
    config = quickstart.get_config()
    config.methods, config.search.methods, config.search.choices = ("star",), ("star",), ("agree",)
    assert estimate.stages(config)["verifier"] == 1


def test_the_bound_on_what_is_sampled_is_worked_out_by_hand():
    config = quickstart.get_config()
    # 5 sets of 480·3·3 rollout turns; 7 · 200 · 3 greedy ones; 2 searches of 200 problems with
    # 5 candidates: once in the first turn, in four ways in the two others.
    completions = 5 * 480 * 9 + 7 * 600 + 2 * 200 * 5 * (1 + 4 * 2)
    said = estimate.most(config, problems=480, held_out=200).replace("\u202f", "")
    assert said.startswith(f"at most {completions} completions ({40 * completions} tokens)")


def test_the_time_left_follows_from_what_was_measured():
    config = quickstart.get_config()
    config.methods, config.iterations = ("mucode",), 2
    done = [
        stage("base/source", 0.1),
        stage("base/rollouts", 50, 1000),
        stage("base/rollouts_labels", 10),
        stage("base/greedy_mini_test", 20, 100),
        stage("base/greedy_mini_test_labels", 0),
    ]
    # One set of rollouts and two greedy evaluations to come: 60 + 2 · 20 s, 1000 + 2 · 100 tokens.
    said = estimate.left(config, done)
    assert said.startswith("about 1 min 40 s and 1\u202f200 tokens left, beside ")
    assert "fine-tuning" in said and "Best-of-N search" in said
    # A second one was faster: the first had compiled.
    done.append(stage("mucode_1/greedy_mini_test", 5, 90))
    assert estimate.left(config, done).startswith("about 1 min 05 s and 1\u202f090 tokens left")
