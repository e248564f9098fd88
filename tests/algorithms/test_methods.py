"""Every method from its first rollouts to its evaluation."""

import json

import pytest

from tests import micro

METHODS = ("ssd", "multi_star_all", "multi_star_balanced", "rft_lv")


def counts(directory, name):
    return json.loads((directory / f"stages/{name}/stage.json").read_text())["counts"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("baselines")
    settings = (f"--config.methods={METHODS}", "--config.search.methods=()")
    assert micro.run(directory, *settings, "--config.sft.merge=False") == 0
    return directory


def test_the_baselines_forms_run_to_their_end_and_learn_from_their_own_choice(finished):
    """The others do in tests/test_main.py."""
    found = micro.results(finished)
    assert {e["method"] for e in found["evaluations"]} == {"base", *METHODS}
    # RFT by the verifier learns from every problem's best rollout (one or two states), solved or
    # not; the others from those that are correct, as one conversation or state by state; SSD from
    # all that it drew, four rollouts' worth of two turns for each of six problems.
    trained = {m: counts(finished, f"{m}_1/generator") for m in METHODS}
    assert trained["ssd"]["examples"] == 6 * 4 * 2
    assert 6 <= trained["rft_lv"]["examples"] <= 12
    assert 0 < trained["multi_star_all"]["examples"] <= trained["multi_star_balanced"]["examples"]
    assert [verifier["dropped"] for verifier in found["verifiers"]] == [0]


def test_what_each_method_drew_stands_beside_what_it_might_have_drawn(finished):
    budgets = {b["method"]: b for b in micro.results(finished)["budgets"]}
    assert {b["most"] for m, b in budgets.items() if m != "base"} == {6 * 4 * 2}
    assert budgets["ssd"]["drawn"] == counts(finished, "base/singles")["turns"] == 48
    drawn = counts(finished, "base/rollouts")["turns"]
    assert {budgets[m]["drawn"] for m in METHODS[1:]} == {drawn} and 24 <= drawn < 48
    assert budgets["base"]["drawn"] == 0  # nothing is searched, so it needs no verifier


def test_the_experts_pool_of_all_iterations_is_made_once_and_goes_on(tmp_path):
    settings = (
        "--config.iterations=2",
        "--config.expert.pool=all",
        "--config.search.methods=()",
        "--config.sft.merge=False",
    )
    assert micro.run(tmp_path, *settings) == 0
    made = micro.results(tmp_path)
    # The second verifier scores both iterations' rollouts.
    scored = {s["name"] for s in made["stages"] if "/scores" in s["name"]}
    assert scored == {"base/scores", "mucode_1/scores", "mucode_1/scores_base"}
    record = json.loads((tmp_path / "stages/mucode_2/generator/stage.json").read_text())
    assert record["settings"]["selection"]["pool"] == "all"
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("stages/*/*/stage.json")}
    assert micro.run(tmp_path, *settings) == 0
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob("stages/*/*/stage.json")} == before
    assert micro.results(tmp_path) == made
