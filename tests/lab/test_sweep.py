"""A sweep: cells share what they have in common, and its evidence is paired and complete."""

import json
import shutil

import numpy as np
import pytest

from configs import ablation_compat, quickstart
from mucode_jax import main
from mucode_jax.lab import sweep
from mucode_jax.report import evidence as evidences
from mucode_jax.report import findings
from mucode_jax.runtime.files import write_atomically
from mucode_jax.runtime.progress import Progress
from tests import invented


def config(**settings):
    c = quickstart.get_config("tiny")
    c.update(settings)
    return c


def test_every_cell_is_run_with_every_seed_and_changes_what_it_says():
    c = config(seeds=(3, 4), cells=(("bt", {}), ("bce", {"verifier_training": {"loss": "bce"}})))
    runs = sweep.expand(c)
    assert [(name, run.seed, run.verifier_training.loss) for name, run in runs] == [
        ("bt", 3, "bt"),
        ("bt", 4, "bt"),
        ("bce", 3, "bce"),
        ("bce", 4, "bce"),
    ]
    assert c.verifier_training.loss == "bt" and not any(sweep.is_sweep(run) for _, run in runs)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ((("a", {"expert": {"knid": "lv"}}),), "config.cells: a: there is no setting expert.knid"),
        ((("a", {}), ("a", {})), "name a twice"),
        ((("a",),), r"must be a tuple of \(name, settings\) pairs"),
        ((("a", 3),), r"must be a tuple of \(name, settings\) pairs"),
        ((("../b", {}),), "a name is that of a folder"),
        ((("a\0", {}),), "a name is that of a folder"),
        ((("report.html", {}),), "a name is that of a folder"),
        ((("a", {"seed": 5}),), "seeds apart in config.seeds"),
    ],
)
def test_a_cell_that_makes_no_sense_is_named(cells, message):
    with pytest.raises(ValueError, match=message):
        sweep.expand(config(cells=cells))


def test_the_published_choices_all_together_are_those_of_compat():
    cells = dict(ablation_compat.get_config().cells)
    assert cells["all"]["expert"] == {"scope": "final", "drop_unsolved": False}
    assert cells["all"]["search"] == {"skip_failed": False}
    assert cells["all"]["verifier_training"] == {
        **{"held_out": 0.0, "weight_decay": 0.01, "horizon": 2.0}
    }
    assert cells["all"]["sft"] == {"merge": False}


def test_cells_take_over_stages_of_the_same_settings_and_inputs(tmp_path):
    made = []

    def experiment(run, workdir, progress):
        def make(name):
            def fill(path):
                made.append((run.expert.kind, run.seed, name))
                (path / "out").write_text(f"{name} {run.seed}")
                return {}

            return fill

        shared = workdir.stage("base/rollouts", {"seed": run.seed}, {}, make("rollouts"))
        own = {"kind": run.expert.kind, "seed": run.seed}
        workdir.stage("mucode_1/generator", own, {"rollouts": shared}, make("generator"))
        return invented.make_run(workdir.path, seed=run.seed)

    c = config(
        seeds=(0, 1), cells=(("ov", {"expert": {"kind": "ov"}}), ("lv", {"expert": {"kind": "lv"}}))
    )
    sweep.run(c, tmp_path, Progress(), lambda run: None, experiment)
    assert made == [
        ("ov", 0, "rollouts"),
        ("ov", 0, "generator"),
        ("ov", 1, "rollouts"),
        ("ov", 1, "generator"),
        ("lv", 0, "generator"),
        ("lv", 1, "generator"),
    ]
    assert (tmp_path / "lv/seed_1/stages/base/rollouts/out").read_text() == "rollouts 1"
    result = json.loads((tmp_path / "evidence.json").read_text())
    assert {c["cell"] for c in result["cells"]} == {"ov", "lv"}


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"rollout": {"context": 4096}}, "config.rollout.context is 4096, but the model"),
        ({"evaluation": {"split": "no"}}, "config.evaluation: mini has no split 'no'"),
        ({"verifier": {"path": "no"}}, "config.verifier.path: model no: no such directory"),
    ],
)
def test_a_cell_that_cannot_be_run_is_named_before_any_is_made(tmp_path, cell, message):
    c = config(cells=(("a", {}), ("b", cell)))
    with pytest.raises(ValueError, match=f"^config.cells: b: {message}"):
        sweep.run(c, tmp_path, Progress(), main.look_ahead, never)
    assert not list(tmp_path.iterdir())


def never(*_):
    pytest.fail("a run was begun")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    home = tmp_path_factory.mktemp("runs")
    directories = [home / f"seed_{seed}" for seed in range(3)]
    for seed, directory in enumerate(directories):
        results = invented.make_run(directory, problems=30, seed=seed)
        write_atomically(directory / "results.json", json.dumps(results))
    return directories


def where(lines, **wanted):
    return [line for line in lines if all(line[k] == v for k, v in wanted.items())]


def test_accuracies_are_means_over_seeds_and_lie_in_their_intervals(runs):
    result = evidences.evidence({"": runs})
    results = [json.loads((run / "results.json").read_text()) for run in runs]
    for e in results[0]["evaluations"]:
        same = [
            where(r["evaluations"], **{k: e[k] for k in ("method", "iteration", "search")})[0]
            for r in results
        ]
        about = {k: e[k] for k in ("method", "iteration", "search")}
        for t in range(3):
            (cell,) = where(result["cells"], **about, turns=t + 1)
            assert cell["accuracy"] == pytest.approx(
                np.mean([x["per_turn"][t] for x in same]), abs=1e-5
            )
            assert cell["ci95"][0] <= cell["accuracy"] <= cell["ci95"][1]
            assert (cell["seeds"], cell["problems"]) == (3, 30)


def test_differences_are_of_methods_iterations_and_ways_of_choosing(runs):
    result = evidences.evidence({"": runs})
    (method,) = where(result["differences"], a="mucode", b="base", search="greedy", turns=3)
    a, b = (
        where(result["cells"], method=m, iteration=i, search="greedy", turns=3)[0]["accuracy"]
        for m, i in (("mucode", 2), ("base", 0))
    )
    assert method["difference"] == pytest.approx(a - b, abs=1e-5)
    assert 0 < method["p"] <= 1 and method["ci95"][0] <= method["difference"] <= method["ci95"][1]
    assert where(result["differences"], a="mucode_2", b="mucode_1", search="greedy", turns=1)
    assert where(result["differences"], a="mucode: pt+lv", b="mucode: pt", search="pt+lv", turns=2)
    assert evidences.evidence({"": runs}) == result


def test_what_conclusions_are_drawn_from_is_corrected_for_its_number(runs):
    differences = evidences.evidence({"": runs})["differences"]
    family = [d for d in differences if "p_holm" in d]
    assert {(d["a"], d["b"], d["search"], d["turns"]) for d in family} == {
        *(("mucode", "base", "greedy", 3), ("mucode_2", "mucode_1", "greedy", 3)),
        *((f"{g}: lv", f"{g}: random", "lv", 3) for g in ("base", "mucode")),
        *((f"{g}: pt+lv", f"{g}: pt", "pt+lv", 3) for g in ("base", "mucode")),
    }
    ordered = sorted(family, key=lambda d: d["p"])
    assert ordered[0]["p_holm"] == pytest.approx(min(1, 6 * ordered[0]["p"]), abs=1e-5)
    for d in family:
        (low, high), (family_low, family_high) = d["ci95"], d["ci95_family"]
        assert family_low < low <= high < family_high and d["p_holm"] >= d["p"]
    cells = evidences.evidence({"one": runs[:2], "two": runs[1:]})["differences"]
    family = [d for d in cells if "p_holm" in d]
    assert family and {(d["kind"], d["search"], d["turns"]) for d in family} == {
        ("cells", "greedy", 3)
    }


def test_cells_are_held_against_the_first(runs):
    result = evidences.evidence({"one": runs[:2], "two": runs[1:]})
    (line,) = where(
        result["differences"], a="two/mucode_2", b="one/mucode_2", search="greedy", turns=3
    )
    cells = [
        where(result["cells"], cell=c, method="mucode", iteration=2, search="greedy", turns=3)[0]
        for c in ("two", "one")
    ]
    assert line["difference"] == pytest.approx(
        cells[0]["accuracy"] - cells[1]["accuracy"], abs=1e-5
    )


def test_a_run_without_its_stages_is_named(runs, tmp_path):
    results = json.loads((runs[0] / "results.json").read_text())
    write_atomically(tmp_path / "results.json", json.dumps(results))
    with pytest.raises(ValueError, match=f"{tmp_path.name} lacks the stages of base, greedy"):
        evidences.evidence({"": [runs[0], tmp_path]})


def test_findings_are_shown_as_table_markdown_and_page(runs):
    result = evidences.evidence({"one": runs[:2], "two": runs[1:]})
    shown = findings.table(result)
    assert "two: μCode 2" in shown and "two − one: μCode 2" in shown
    markdown = findings.markdown(result)
    assert "| one: base |" in markdown and "30 problems, 2 seeds" in markdown
    page = findings.page(result)
    assert page.count("<svg") >= 3 and "one: μCode 2" in page and "http" not in page


def test_a_sweeps_page_leads_with_what_was_gained_and_tells_how_it_was_made(runs, tmp_path):
    result = evidences.evidence({"": runs})
    (made,) = result["made"]
    assert made["backend"] == "cpu" and made["isolation"]["level"] == "landlock"
    (base,) = where(result["cells"], method="base", search="greedy", turns=3)
    (mucode,) = where(result["cells"], method="mucode", iteration=2, search="greedy", turns=3)
    page = findings.page(result).replace("\u00a0", " ")
    title = f"<h1>μCode 2 solves {100 * mucode['accuracy']:.1f} %, its base "
    assert title + f"{100 * base['accuracy']:.1f} %</h1>" in page
    (d,) = where(
        result["differences"], kind="methods", b="base", a="mucode", search="greedy", turns=3
    )
    low, high = (f"{100 * bound:+.1f}".replace("-", "−") for bound in d["ci95"])
    assert f"points (95 % interval {low} to {high}, paired over problems and seeds)" in page
    assert "<dt>sandbox isolation</dt><dd>landlock</dd>" in page and "<dt>jax</dt>" in page
    results = json.loads((runs[0] / "results.json").read_text()) | {"backend": "gpu"}
    shutil.copytree(runs[0], tmp_path / "run")
    write_atomically(tmp_path / "run/results.json", json.dumps(results))
    result = evidences.evidence({"": [tmp_path / "run", *runs[1:]]})
    assert [made["backend"] for made in result["made"]] == ["gpu", "cpu"]
    assert "How it was made" not in findings.page({**result, "made": []})


def test_what_is_the_same_in_every_cell_is_shown_once(runs):
    result = evidences.evidence({"one": runs, "two": runs})
    shown = findings.table(result)
    assert "one:" not in shown and "two" not in shown
    assert shown.count("\nμCode 2 ") == findings.table(evidences.evidence({"": runs})).count(
        "\nμCode 2 "
    )
