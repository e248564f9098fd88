"""Every method from its first rollouts to its evaluation."""

import json

from tests import micro

METHODS = ("multi_star_all", "multi_star_balanced", "rft_lv")


def test_the_baselines_forms_run_to_their_end_and_learn_from_their_own_choice(tmp_path):
    """The others do in tests/test_main.py."""
    settings = (f"--config.methods={METHODS}", "--config.search.methods=()")
    assert micro.run(tmp_path, *settings, "--config.sft.merge=False") == 0
    found = micro.results(tmp_path)
    assert {e["method"] for e in found["evaluations"]} == {"base", *METHODS}
    # RFT by the verifier learns from every problem's best rollout (one or two states), solved or
    # not; the others from those that are correct, as one conversation or state by state.
    trained = {
        m: json.loads((tmp_path / f"stages/{m}_1/generator/stage.json").read_text())["counts"]
        for m in METHODS
    }
    assert 6 <= trained["rft_lv"]["examples"] <= 12
    assert 0 < trained["multi_star_all"]["examples"] <= trained["multi_star_balanced"]["examples"]
    assert [verifier["dropped"] for verifier in found["verifiers"]] == [0]
