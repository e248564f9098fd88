"""The report shows what results.json and the stages say, in a page that stands alone."""

import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from mucode_jax import report
from mucode_jax.benchmarks import load
from mucode_jax.core.conversation import Chat
from mucode_jax.core.records import dumps
from mucode_jax.models import huggingface
from mucode_jax.report import compare, evidence, page, plots, stages, talks, text, words
from mucode_jax.report.__main__ import main
from mucode_jax.rollouts import intervals, search
from tests import invented


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs of one experiment with seeds 0, 1, 2: their folders."""
    home = tmp_path_factory.mktemp("runs")
    original = stages.texts
    stages.texts = lambda directory, results: (invented.bytes_as_text, invented.bytes_as_text)
    directories = [home / f"seed{seed}" for seed in range(3)]
    for seed, directory in enumerate(directories):
        report.write(directory, invented.make_run(directory, seed=seed))
    stages.texts = original
    return directories


@pytest.fixture(scope="module")
def shown(runs):
    return (runs[0] / "report.html").read_text(encoding="utf-8")


def evaluation(method, iteration, searched, per_turn, n=1):
    return {
        **{"method": method, "iteration": iteration, "benchmark": "mini", "split": "test"},
        **{"protocol": "deployable", "search": searched, "n": n, "turns": len(per_turn)},
        **{"searches": 1, "accuracy": per_turn[-1], "per_turn": per_turn, "problems": 200},
        **{"ci95": intervals.wilson(per_turn[-1], 200), "tokens": 4000, "executions": 500},
    }


# The terminal ------------------------------------------------------------------------------------


def test_the_line_of_a_generator_tells_its_own_evaluations_only():
    evaluations = [
        evaluation("base", 0, "greedy", [0.2, 0.3, 0.3]),
        evaluation("mucode", 1, "greedy", [0.415, 0.5, 0.52]),
        evaluation("mucode", 1, "pt", [0.5, 0.6, 0.61], n=5),
        evaluation("mucode", 1, "pt+lv", [0.5, 0.6, 0.635], n=5),
        evaluation("mucode", 2, "greedy", [0.9, 0.9, 0.9]),
    ]
    assert report.line(evaluations, "mucode_1") == (
        "mucode_1: greedy 41.5 % after turn 1, 52.0 % after turn 3; "
        "best of 5: pt 61.0 %, pt+lv 63.5 %"
    )
    assert report.line(evaluations, "base") == (
        "base: greedy 20.0 % after turn 1, 30.0 % after turn 3"
    )


def test_the_table_holds_every_accuracy_with_its_interval_within_100_columns(runs):
    results = report.read(runs[0])
    results["evaluations"] += [
        evaluation("star", 2, "greedy", [0.1, 0.2, 0.385]),
        evaluation("star", 2, "lv", [0.1, 0.2, 0.25], n=5),
    ]
    shown = report.table(results)
    assert max(map(len, shown.splitlines())) <= 100
    # The intervals are scipy's: binomtest(k, 200).proportion_ci(method="wilson").
    assert re.search(r"STaR 2 +10\.0 \(7–15\) +20\.0 \(15–26\) +38\.5 \(32–45\)", shown)
    assert re.search(r"lv: the learned verifier's favourite .*25\.0 \(20–31\)", shown)
    (base,) = (line for line in shown.splitlines() if line.startswith("base          Bradley"))
    shares = r"40 +0\.770 \(0\.70–0\.83\) +72\.5 % \(60–82\) +39\.0 %"
    assert re.search(rf"Bradley-Terry +1\u202f200 +{shares} +0\.810$", base)
    assert "Backend cpu; sandbox isolation landlock; seed 0" in shown
    assert (
        "Time in stages: 5 min 07 s: rollouts 33 %, fine-tuning 26 %, Best-of-N search 20 %"
        in shown
    )


def test_a_way_to_choose_of_ones_own_stands_after_the_others():
    evaluations = [evaluation("base", 0, way, [0.5], n=5) for way in ("short", "pt", "random")]
    rows = text.search_rows(evaluations)
    assert [row[0].split(":")[0] for row in rows[1:]] == ["random", "pt", "short"]


def test_a_grid_too_wide_goes_on_below_with_its_first_column():
    rows = [["", "aaaa", "bbbb"], ["row", "1", "2"]]
    assert text.grid(rows, width=12) == "      aaaa\nrow      1\n\n      bbbb\nrow      2"


def test_durations_and_stages_are_said_in_words():
    assert [words.duration(s) for s in (0, 5.04, 42.4, 59.7, 307.2, 12030)] == [
        *("0 s", "5.0 s", "42 s", "1 min 00 s", "5 min 07 s", "3 h 20 min"),
    ]
    assert [words.work(name) for name in ("star_1/singles_labels", "star_1/singles")] == [
        *("labelling", "rollouts"),
    ]
    assert words.work("multi_star_2/verifier_singles") == "verifier training"
    assert words.work("base/greedy_mini_test") == "greedy evaluation"


# What is read off the stages ---------------------------------------------------------------------


def search_turn(passed, scores):
    return search.SearchTurn(tuple(invented.turn(bool(p)) for p in passed), scores, 0)


@pytest.mark.parametrize("choice", [c for c in words.CHOICES if "vote" not in c and c != "agree"])
def test_best_of_k_is_the_mean_over_all_subsets(choice):
    random = np.random.default_rng(5)
    for _ in range(20):
        correct = random.random(5) < 0.4
        passed = correct | (random.random(5) < 0.3)
        scores = random.integers(0, 3, 5).astype(np.float32)  # with ties
        rank = {
            "random": lambda j: 0,
            "pt": lambda j, p=passed: p[j],
            "lv": lambda j, s=scores: s[j],
            "pt+lv": lambda j, p=passed, s=scores: (p[j], s[j]),
            "oracle": lambda j, c=correct: c[j],
        }[choice]
        expected = []
        for k in range(1, 6):
            worth = []
            for subset in itertools.combinations(range(5), k):
                best = max(map(rank, subset))
                worth.append(np.mean([correct[j] for j in subset if rank(j) == best]))
            expected.append(np.mean(worth))
        curve = stages.best_of_k(search_turn(passed, scores), correct.tolist(), choice)
        np.testing.assert_allclose(curve, expected, atol=1e-12)


def test_without_scores_there_is_no_best_of_k_by_verifier():
    assert stages.best_of_k(search_turn([True], None), [True], "pt+lv") is None


def test_what_each_method_drew_is_a_row_beside_what_it_might_have_drawn():
    budget = {"method": "ssd", "iteration": 2, "drawn": 1773, "most": 4320}
    assert page._budgets([budget])[1:] == [["SSD 2", "1\u202f773", "4\u202f320"]]


def test_a_vote_has_no_best_of_k_because_it_depends_on_the_company():
    turn = search_turn([True], np.zeros(1, np.float32))
    for way in ("pt+vote", "pt+lv+vote", "agree"):
        assert stages.best_of_k(turn, [True], way) is None


def test_reliability_groups_are_equally_large_and_ordered_by_score():
    scores = np.array([0.0, 100.0, -100.0, 0.0], np.float32)
    bins = plots.reliability_bins(scores, np.array([True, True, False, False]), bins=2)
    assert bins == [(0.25, 0.5, 2), (0.75, 0.5, 2)]


def test_outcomes_by_problem_average_to_the_reported_accuracies(runs):
    evaluations = report.read(runs[0])["evaluations"]
    outcomes = evidence.outcomes(runs[0], evaluations)
    assert len(outcomes) == len(evaluations) == 13
    for e in evaluations:
        outcome = outcomes[compare.key(e)]
        assert len(outcome) == e["problems"]
        means = np.mean(list(outcome.values()), axis=0)
        np.testing.assert_allclose(means, e["per_turn"], atol=2e-6)


def test_every_sampled_candidate_counts_once_in_the_verifiers_curves(tmp_path):
    random = np.random.default_rng(0)
    found, marks = invented.make_searches(random, [0.5], searches=2)
    about = {"method": "base", "iteration": 0, "benchmark": "mini", "split": "test"}
    invented.put(
        tmp_path / "stages/base/search_mini_test", "pieces.jsonl", [dumps(search.encode(found))]
    )
    invented.put(
        tmp_path / "stages/base/search_mini_test_labels",
        "pieces.jsonl",
        [json.dumps(mark) for mark in marks],
    )
    distinct = {id(c): c for s in found for turn in s.turns for c in turn.candidates}
    read = stages.searched(tmp_path, about)
    assert len(read.scores) == len(read.correct) == len(distinct)
    assert len(read.first_turns) == 2


def test_sample_conversations_are_of_every_kind_and_always_the_same(runs):
    e = report.read(runs[1])["evaluations"][0]
    chosen = talks.sample(runs[1], e, 5, None)
    assert chosen == talks.sample(runs[1], e, 5, None)
    assert len(chosen) == 5 and len({c.task_id for c in chosen}) == 5
    solved = stages.solved(runs[1], [e])["greedy"]
    assert all(bool(c.solved) == bool(solved[c.task_id][-1]) for c in chosen)
    assert {c.solved for c in chosen} == {c.solved for c in talks.sample(runs[1], e, 99, None)}


def test_a_shown_search_tells_where_the_verifier_preferred_a_wrong_candidate(runs):
    e = next(e for e in report.read(runs[0])["evaluations"] if e["search"] == "lv")
    found = talks.sample(runs[0], e, 99, None)
    assert len(found) == e["problems"]
    assert {c.misled for c in found} == {True, False}
    for talk in found:
        wrong = []
        for turn in talk.turns:
            best = max(turn.candidates, key=lambda c: c.score)
            wrong.append(not best.correct and any(c.correct for c in turn.candidates))
            (chosen,) = (c for c in turn.candidates if c.chosen)
            assert (chosen.status, chosen.correct) == (turn.grade.status, turn.correct)
        assert talk.misled == any(wrong)
        assert talk.solved == (len(talk.turns) if talk.turns[-1].correct else 0)


def test_an_unfinished_stage_is_not_read(runs, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(runs[0], directory)
    (directory / "stages/base/greedy_mini_test_labels/stage.json").unlink()
    assert stages.greedy(directory, report.read(directory)["evaluations"][0]) == []


def test_prompts_and_feedback_are_shown_as_the_user_wrote_them():
    home = huggingface.resolve("mini")
    chat = Chat(huggingface.load_tokenizer(home), huggingface.eot_ids(home))
    message, _ = stages.texts(home, {"config": {"generator": {"path": "mini"}}})
    problem = load("mini", "test", size=1).problems[0]
    assert message(chat.first(problem.prompt), True) == problem.prompt
    assert message(chat.next("run([1]) returned 3"), False) == "run([1]) returned 3"


# The page ----------------------------------------------------------------------------------------


def test_the_page_is_well_formed_and_its_ids_are_unique(shown):
    tree = ElementTree.fromstring(shown.split("<!DOCTYPE html>")[1])
    ids = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(ids) == len(set(ids))


def test_headings_leave_out_no_level_and_every_stop_of_the_keyboard_has_a_name(shown):
    tree = ElementTree.fromstring(shown.split("<!DOCTYPE html>")[1])
    levels = [int(e.tag[1]) for e in tree.iter() if e.tag in ("h1", "h2", "h3", "h4", "h5", "h6")]
    assert all(after <= before + 1 for before, after in itertools.pairwise([0, *levels]))
    stops = [e for e in tree.iter() if e.get("tabindex") is not None]
    assert stops and all(e.get("role") == "region" and e.get("aria-label") for e in stops)


def test_the_page_refers_to_nothing_outside_it(shown):
    assert "http" not in shown.replace("http-equiv", "") and "@import" not in shown
    references = re.findall(r'(?:href|src|action|data)="([^"]*)"|url\(([^)]*)\)', shown)
    assert references
    for reference in itertools.chain.from_iterable(references):
        assert reference == "" or reference == "data:," or reference.startswith("#")
    targets = set(re.findall(r'\bid="([^"]*)"', shown))
    local = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', shown)
    assert {a or b for a, b in local} <= targets


def test_the_page_shows_the_numbers_of_results_json(runs, shown):
    results = report.read(runs[0])
    for e in results["evaluations"]:
        low, high = (f"{100 * bound:.0f}" for bound in e["ci95"])
        assert f"{100 * e['accuracy']:.1f} <small>({low}–{high})</small>" in shown
    for value in (
        "0.810",
        "0.770 <small>(0.70–0.83)",
        "72.5 % <small>(60–82)",
        "39.0 %",
        "landlock",
        "5 min 07 s",
        "12\u202f345",
        "jax",
        "0.10.2",
    ):
        assert value in shown
    first, *_, last = (e for e in results["evaluations"] if e["search"] == "greedy")
    title = re.search("<h1>(.*)</h1>", shown)[1].replace("\u00a0", " ")
    assert title == (
        f"μCode 2 solves {100 * last['accuracy']:.1f} %, its base {100 * first['accuracy']:.1f} %"
    )


def test_the_page_of_one_run_shows_its_paired_differences_with_their_denominator(runs, shown):
    results = report.read(runs[0])
    solved = {
        words.folder(e): stages.solved(runs[0], [e])["greedy"]
        for e in results["evaluations"]
        if e["search"] == "greedy"
    }
    paired = [solved["mucode_2"][task][-1] - solved["base"][task][-1] for task in solved["base"]]
    estimate = intervals.crossed(np.array(paired))
    low, high = map(words.signed, estimate.interval())
    cell = f"{words.signed(estimate.mean)} <small>({low} to {high})</small>"
    row = re.search("<tr><th[^>]*>μCode − base</th>.*?</tr>", shown)[0]
    assert cell in row
    assert "Differences in points, paired over 8 problems" in shown
    for pair in ("μCode 2 − μCode 1", "μCode <small>lv − random</small>"):
        assert f'<th scope="row">{pair}</th>' in shown


def test_the_page_counts_what_turns_come_to_with_the_denominator_of_every_share(runs, shown):
    results = report.read(runs[0])
    (base, last) = (
        e for e in results["evaluations"] if e["search"] == "greedy" and e["iteration"] != 1
    )
    for e in (base, last):
        for turn in e["by_turn"]:
            if turn["passed_public"]:
                share = f"({turn['passed_public_wrong']} of {turn['passed_public']})"
                assert f"% <small>{share}</small>" in shown
        (wrong_value,) = e["repairs"]
        assert wrong_value["error"] == "wrong value"
        share = f"({wrong_value['repaired']} of {wrong_value['turns']})"
        assert f"% <small>{share}</small>" in shown
        assert f"{100 * e['accuracy']:.1f} % of 8" in shown


def test_reliability_is_shown_of_verifiers_that_predict_probabilities_alone(runs, shown):
    assert "Verifier reliability" in shown
    results = report.read(runs[0])
    for verifier in results["verifiers"]:
        verifier["loss"], verifier["brier"] = "bt", None
    page_of_pairs = page.render(runs[0], results)
    assert "Verifier reliability" not in page_of_pairs and "Brier" not in page_of_pairs


def test_text_of_models_is_escaped(shown):
    assert "<script" not in shown and "\x1b" not in shown
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt; &amp; " in shown
    assert "␛[31m μ" in shown


def test_control_characters_and_lone_surrogates_become_visible():
    assert page.printable("a\x00\ud800\r\nb\tc\x7f") == "a␀\ufffd\nb\tc\ufffd"


def test_every_plot_has_a_text_alternative_and_takes_the_pages_colours(shown):
    drawings = re.findall(r"<svg.*?</svg>", shown, re.S)
    assert len(drawings) == 8
    for drawing in drawings:
        alt = re.search(r'<svg role="img" aria-label="([^"]*)"', drawing)[1]
        assert len(alt) > 40 and "%" in alt or "median" in alt
        assert "var(--ink)" in drawing
        assert not re.search(r"#0101[0-9a-f]{2}", drawing)
        assert "<text" in drawing  # text, not outlines
    used = set(re.findall(r"var\(--([\w-]+)\)", shown))
    assert used <= set(re.findall(r"--([\w-]+):", shown))


def test_conversations_can_be_filtered_by_turn_writer_and_the_verifiers_errors(shown):
    found = re.findall(r'<details class="talk (at-\d) (by-\d)( misled)?"', shown)
    assert f"{len(found)} conversations, chosen so that every kind is among them" in shown
    for kind in {name for names in found for name in names if name}:
        count = sum(kind in names for names in found)
        assert re.search(rf'id="show-{kind.strip()}" /> .* \({count}\)</label>', shown)
    assert "Write f for problem 0." in shown


def test_a_page_without_stages_says_what_is_missing(runs):
    empty = page.render(runs[0] / "nowhere", report.read(runs[0]))
    assert "so there are no curves" in empty
    assert "No paired differences: nowhere lacks the stages of base, greedy" in empty
    assert "The conversations of μCode 2 are not in the work directory." in empty
    ElementTree.fromstring(empty.split("<!DOCTYPE html>")[1])


def test_the_report_of_a_base_alone_is_whole(tmp_path):
    results = invented.make_run(tmp_path)
    results["evaluations"] = results["evaluations"][:1]
    results["verifiers"] = []
    report.write(tmp_path, results)
    shown = (tmp_path / "report.html").read_text()
    assert "<h1>base solves" in shown and "This run trained none." in shown


# The command -------------------------------------------------------------------------------------


def test_the_command_writes_the_report_anew(runs, tmp_path, capsys):
    directory = tmp_path / "run"
    shutil.copytree(runs[0], directory)
    before = (directory / "results.json").read_bytes()
    (directory / "report.html").unlink()
    assert main([str(directory)]) == 0
    assert "μCode 2" in capsys.readouterr().out
    assert (directory / "report.html").is_file()
    assert (directory / "results.json").read_bytes() == before


def test_a_comparison_is_written_as_a_page_where_asked_for(runs, tmp_path, capsys):
    page_file = tmp_path / "settings.html"
    other = tmp_path / "warmer"
    shutil.copytree(runs[1], other)
    results = json.loads((other / "results.json").read_text())
    results["config"]["generator"]["path"] = "another"
    (other / "results.json").write_text(json.dumps(results))
    assert main([str(runs[0]), str(other), "--page", str(page_file)]) == 0
    shown = page_file.read_text()
    assert "2 settings side by side" in shown and "warmer: μCode 2" in shown
    with pytest.raises(SystemExit):
        main([str(runs[0]), "--page", str(page_file)])
    assert "--page compares several runs" in capsys.readouterr().err


def test_several_runs_are_compared_by_mean_deviation_and_paired_difference(runs, capsys):
    assert main([*map(str, runs)]) == 0
    out = capsys.readouterr().out
    accuracies = [report.read(run)["evaluations"][0]["accuracy"] * 100 for run in runs]
    mean, deviation = statistics.mean(accuracies), statistics.stdev(accuracies)
    cells = " +".join(f"{a:.1f}" for a in accuracies)
    assert re.search(f"base, greedy +{cells} +{mean:.1f} ± {deviation:.1f}", out)
    last = [report.read(run)["evaluations"][7]["accuracy"] * 100 for run in runs]
    difference = words.signed((statistics.mean(last) - mean) / 100)
    found = re.search(r"μCode − base +greedy, turn\s3 +(\S+) \((\S+) to (\S+)\)", out)
    assert found[1] == difference
    low, at, high = (float(found[i].replace("−", "-")) for i in (2, 1, 3))
    assert low < at < high


def test_runs_of_different_settings_are_compared_with_the_first(runs, tmp_path, capsys):
    other = tmp_path / "warmer"
    shutil.copytree(runs[1], other)
    results = json.loads((other / "results.json").read_text())
    results["config"]["generator"]["path"] = "another"
    (other / "results.json").write_text(json.dumps(results))
    assert main([str(runs[0]), str(other)]) == 0
    out = capsys.readouterr().out
    assert re.search(r'generator\.path +"elsewhere" +"another"', out)
    assert "warmer − seed0" in out and "±" not in out


def test_the_markdown_table_has_a_row_a_method_and_the_means(runs, capsys):
    assert main(["--markdown", *map(str, runs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| solved, % | greedy, turn 1 | greedy, turn 2 | greedy, turn 3 |")
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| base", "| μCode 2"]
    assert {line.count("|") for line in lines[:4]} == {10}
    assert "|  | search | difference | p | p (Holm) | corrected interval |" in lines
    values = [report.read(run)["evaluations"][0]["per_turn"][0] * 100 for run in runs]
    assert lines[2].split(" | ")[1].startswith(f"{statistics.mean(values):.1f} (")
    assert any(line.startswith("| μCode − base | greedy, turn 3 | ") for line in lines)
    assert any("3 seeds" in line and "over problems and seeds, crossed" in line for line in lines)
    assert lines[-1].startswith("p (Holm) and the corrected interval are of the 6 comparisons")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not there; give the --workdir of a run that has finished"),
        ("{", "is not JSON"),
        ("[]", "has schema None; this version reads schema 1"),
        ('{"schema": 2}', "has schema 2; this version reads schema 1"),
        ('{"schema": 1}', "config is missing, of a wrong type"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_2(content, message, tmp_path, capsys):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_an_evaluation_that_lacks_something_is_named(runs, tmp_path, capsys):
    results = report.read(runs[0])
    del results["evaluations"][3]["per_turn"]
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert main([str(tmp_path)]) == 2
    assert "evaluations[3].per_turn is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("accuracy", 1.5),
        ("accuracy", float("nan")),
        ("ci95", [0.1]),
        ("ci95", [0.1, "x"]),
        ("per_turn", [0.1, None, 0.2]),
        ("protocol", "other"),
        ("turns", 10**9),
        ("n", 0),
        ("tokens", -1),
    ],
)
def test_a_value_that_cannot_be_is_named(name, value, runs, tmp_path, capsys):
    results = report.read(runs[0])
    results["evaluations"][0][name] = value
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    wrong = "per_turn" if name == "turns" else name
    assert f"{tmp_path}/results.json: evaluations[0].{wrong} " in said and said.count("\n") == 1


@pytest.mark.parametrize("file", ["greedy_mini_test", "search_mini_test_labels"])
def test_a_damaged_stage_is_named_and_no_page_is_touched(file, runs, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(runs[0], run)
    before = (run / "report.html").read_bytes()
    (data,) = (run / "stages/mucode_2" / file).glob("*s.jsonl")
    for spoil, said in (
        (lambda: data.write_text("{\n"), "does not match its checksum"),
        (data.unlink, "is missing"),
        (data.mkdir, "is missing"),
    ):
        spoil()
        assert main([str(run)]) == 2
        told = capsys.readouterr().err
        assert f"{data.parent}: {data.name} {said}" in told and told.count("\n") == 1
    assert (run / "report.html").read_bytes() == before


def test_a_run_that_is_named_twice_and_a_page_that_cannot_be_are_refused(runs, tmp_path, capsys):
    assert main([str(runs[0]), str(runs[0])]) == 2
    assert "named twice" in capsys.readouterr().err
    assert main([str(runs[0]), str(runs[1]), "--page", str(tmp_path / "no" / "page.html")]) == 2
    assert "page.html cannot be written: No such file or directory" in capsys.readouterr().err


def test_a_standard_output_that_takes_nothing_costs_no_page(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs[0], run)
    (run / "report.html").unlink()
    command = [sys.executable, "-m", "mucode_jax.report", str(run)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and (run / "report.html").exists()
    assert done.stderr.splitlines() == [
        f"{run}/report.html",
        "cannot write to standard output: No space left on device",
    ]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=ascii_only, capture_output=True, text=True)
    assert done.returncode == 0 and "\\u03bcCode 2" in done.stdout


def test_no_directory_at_all_is_exit_2_with_a_hint(capsys):
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    assert "see --help" in capsys.readouterr().err
