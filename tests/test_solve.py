"""solve: a problem of one's own, in the words of the search that solves it."""

import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from mucode_jax import export, solve
from mucode_jax.benchmarks import mini
from mucode_jax.models import hub
from mucode_jax.report.__main__ import main as report_main
from mucode_jax.rollouts.search import Search, SearchTurn
from mucode_jax.runtime import command
from mucode_jax.sandbox import Pool
from mucode_jax.solving import problem_file, story
from tests.fakes import turn

TASK = mini.task("test", 0, 126)  # held out from all training
PYTHON = '''\
import math

def area(r):
    """The area of a circle of radius r."""

assert math.isclose(area(1), math.pi)
assert area(0) == 0
'''


_KEEP_COMPILED = solve._keep_compiled


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("solve") / "problem.json"
    tests = [*TASK.problem.public.statements, *TASK.private.statements]
    path.write_text(json.dumps({"prompt": TASK.problem.prompt.splitlines()[0], "tests": tests}))
    return path


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(solve, "_keep_compiled", lambda: None)


def test_the_embedded_pair_repairs_its_code_in_a_later_turn(file, capsys):
    assert solve.main([str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["solved"] and len(told["turns"]) in (2, 3)
    assert told["isolation"]["level"] and told["search"] == "pt+lv+vote"
    for number, of in enumerate(told["turns"]):
        last = number + 1 == len(told["turns"])
        assert len(of["candidates"]) == 5
        assert all(isinstance(c["score"], float) for c in of["candidates"])
        assert (of["candidates"][of["chosen"]]["status"] == "pass") == last
        assert (of["feedback"] is None) == last
    # It passes every test of the file, though the generator was shown the first alone.
    namespace = {}
    exec(told["code"] + "\n" + "\n".join(problem_file.read(file).tests), namespace)

    assert solve.main(["--problem", str(file)]) == 0
    story = capsys.readouterr().out
    assert TASK.problem.prompt in story
    assert f"solved at turn {len(told['turns'])}: " in story
    for line in told["code"].strip().splitlines():
        assert f"    {line}\n" in story
    assert told["turns"][0]["feedback"] in story and told["turns"][0]["why"] in story
    assert not any(line.endswith(" ") for line in story.splitlines())


def test_what_is_not_solved_has_exit_status_1(tmp_path, capsys):
    path = tmp_path / "impossible.json"
    path.write_text(
        json.dumps({"prompt": "f: the sum of the items", "tests": ["assert f([]) != f([])"]})
    )
    assert solve.main([str(path), "--n", "5", "--turns", "3", "--verifier", "none"]) == 1
    out = capsys.readouterr().out
    assert "not solved at turn 3" in out and "score" not in out


# Reading a problem -------------------------------------------------------------------------------


def test_a_python_file_is_a_docstring_and_asserts(tmp_path):
    path = tmp_path / "circle.py"
    path.write_text(PYTHON)
    asked = problem_file.read(path)
    assert asked.words == "The area of a circle of radius r." and asked.name == "area"
    assert asked.setup == "import math"
    assert asked.tests == ("assert math.isclose(area(1), math.pi)", "assert area(0) == 0")
    problem = problem_file.problem_of(asked, embedded=False)
    assert "def area(r):\n" in problem.prompt and "assert area(0) == 0" in problem.prompt
    assert problem.public.setup == "import math" and problem.public.statements == asked.tests
    path.write_text('"""double: twice x"""\nassert double(2) == 4\nassert double(3) == 6\n')
    problem = problem_file.problem_of(problem_file.read(path), embedded=True)
    assert problem.prompt == "double: twice x\nassert double(2) == 4"


def test_tests_in_classes_and_functions_are_tests_in_a_python_file(tmp_path):
    path = tmp_path / "sort.py"
    path.write_text(
        "import unittest\nimport pytest\n\nLIMIT = 3\n\n\n"
        'def task_func(xs):\n    """Sort xs."""\n\n\n'
        "class T(unittest.TestCase):\n    def test_a(self):\n"
        "        self.assertEqual(task_func([3, 1]), [1, 3])\n\n\n"
        '@pytest.mark.parametrize("n", [1, 2])\ndef test_b(n):\n'
        "    assert task_func([n]) == [n]\n\n\n"
        'if __name__ == "__main__":\n    unittest.main()\n'
    )
    asked = problem_file.read(path)
    assert (asked.words, asked.name, asked.setup) == ("Sort xs.", "task_func", "LIMIT = 3")
    first, second = asked.tests
    assert first.startswith("import unittest\nimport pytest\nclass T(unittest.TestCase):\n")
    assert '@pytest.mark.parametrize("n", [1, 2])\ndef test_b(n):\n' in second


def test_tests_that_cannot_run_are_told_before_anything_is_sampled(tmp_path, capsys):
    path = tmp_path / "broken.json"
    path.write_text(json.dumps({"prompt": "f: 1", "tests": ["assert f() == 1\n1 / 0"]}))
    assert solve.main([str(path), "--verifier", "none"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert (
        "broken.json: its tests cannot run: test 1, line 2 fails with any program: 1 / 0" in error
    )


def test_for_the_embedded_generator_a_problem_reads_as_in_its_suite(file):
    problem = problem_file.problem_of(problem_file.read(file), embedded=True)
    assert problem.prompt == TASK.problem.prompt
    assert problem.feedback == TASK.problem.feedback
    assert problem.entry_point == TASK.problem.entry_point


def test_a_setup_is_run_before_the_tests(tmp_path):
    path = tmp_path / "a.json"
    fields = {"prompt": "f: 1", "setup": "import math", "tests": ["assert f() == math.cos(0)"]}
    path.write_text(json.dumps(fields))
    asked = problem_file.read(path)
    assert problem_file.problem_of(asked, embedded=True).public.setup == "import math"


NODE = "class Node:\n    def __init__(self, v): self.v = v"
ANNOTATED = "def f(x: Node) -> int:\n    return x.v\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "a.py",
            f'{NODE}\n\n\ndef f(x: Node) -> int:\n    """The value."""\n\n\n'
            "assert f(Node(3)) == 3\n",
        ),
        (
            "a.json",
            json.dumps({"prompt": "f: 1", "preamble": NODE, "tests": ["assert f(Node(3)) == 3"]}),
        ),
    ],
)
def test_a_program_may_be_annotated_with_what_stands_before_it(name, content, tmp_path):
    path = tmp_path / name
    path.write_text(content)
    problem = problem_file.problem_of(problem_file.read(path), embedded=False)
    assert problem.prompt.count(NODE) == 1
    with Pool(workers=1) as pool:
        outcome = pool.submit(problem.program(ANNOTATED), problem.public).result(timeout=300)
    assert outcome.status == "pass", outcome


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.json", None, "cannot be read: No such file"),
        ("a.json", "{", "is not JSON"),
        ("a.json", "[]", "holds no JSON object"),
        ("a.json", "[" * 200_000, "is not JSON"),
        ("a.json", '{"prompt": "x"}', "field 'tests' is missing"),
        ("a.json", '{"prompt": " ", "tests": ["assert f()"]}', "the problem has no text"),
        ("a.json", '{"prompt": "x", "tests": []}', "the problem has no tests"),
        ("a.json", '{"prompt": "x", "tests": ["assert ("]}', "does not parse"),
        ("a.json", '{"prompt": "x", "tests": ["print(1)"]}', "test 1 of 1 asserts nothing"),
        ("a.py", "x = 1\nassert f(", "a.py is not Python: '(' was never closed, line 2"),
        ("a.py", "assert f(1)\0", "is not Python"),
        (
            "a.py",
            'def f():\n    """One."""\n    return 1\n\nassert f() == 1',
            "f has a body already",
        ),
        ("a.py", '"""x"""\n', "the problem has no tests"),
        ("a.py", '"""x"""\nassert True', "test 1 of 1 asserts nothing"),
    ],
)
def test_bad_problems_are_one_clear_line_and_exit_2(name, content, message, tmp_path, capsys):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    assert solve.main([str(path)]) == 2
    said = capsys.readouterr()
    assert message in said.err and len(said.err.splitlines()) == 1 and not said.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--generator", "nowhere"], "model nowhere: no such directory"),
        (["--verifier", "none", "--search", "lv"], "needs a verifier"),
        (["--n", "0"], "argument --n: invalid number from 1 value"),
        (["--temperature", "-1"], "0 is greedy"),
        (["--problem", "another.json"], "give one PROBLEM file"),
        (["--generator", ""], "a model's path is empty"),
        (["--n", "10000000"], "--n 10000000: so many conversations of 1024 tokens take"),
        (["--turns", "200"], "leave 1 of the generator's 1024 tokens for each feedback"),
        (["--max-new-tokens", "2000"], "lower --turns or --max-new-tokens, or shorten it"),
    ],
)
def test_bad_flags_are_one_clear_line_and_exit_2(arguments, message, file, capsys):
    try:
        status = solve.main([str(file), *arguments])
    except SystemExit as stopped:
        status = stopped.code
    said = capsys.readouterr().err
    assert status == 2 and message in said and len(said.splitlines()) == 1


def test_a_verifier_that_reads_other_tokens_is_refused(file, tmp_path, capsys):
    other = tmp_path / "verifier"
    shutil.copytree(hub.MINI_VERIFIER, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    name = next(iter(tokenizer["model"]["vocab"]))
    tokenizer["added_tokens"][0]["content"] = "<|nothing|>"
    tokenizer["model"]["vocab"]["<|nothing|>"] = tokenizer["model"]["vocab"].pop(name)
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert solve.main([str(file), "--verifier", str(other)]) == 2
    assert "reads other tokens than generator mini" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vocab_size": 512}, "the tokenizer of {0} has ids up to 1023, but the model has embed"),
        ({"eos_token_id": "x"}, "{0}/config.json: eos_token_id is 'x'; ids are whole numbers"),
        ({"tie_word_embeddings": "yes"}, "{0}/config.json: tie_word_embeddings is 'yes'"),
        ({"rms_norm_eps": "1e-6"}, "{0}/config.json: its rms_eps is '1e-6', no number above 0"),
    ],
)
def test_what_is_wrong_with_a_model_is_said_of_the_file_where_it_stands(
    change, said, file, tmp_path, capsys
):
    model = tmp_path / "model"
    shutil.copytree(hub.MINI, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | change))
    assert solve.main([str(file), "--generator", str(model)]) == 2
    told = capsys.readouterr().err
    assert said.format(model) in told and len(told.splitlines()) == 1


def test_a_standard_output_that_takes_nothing_is_told_in_one_line(file):
    asked = [sys.executable, "-m", "mucode_jax.solve", str(file), "--n", "1", "--turns", "1"]
    for flags in ([], ["--json"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run([*asked, *flags], stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        assert done.stderr == "cannot write to standard output: No space left on device\n"


def test_a_user_without_a_home_goes_without_a_cache(monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # of nobody
    with pytest.raises(ValueError, match="no home for a cache; set XDG_CACHE_HOME"):
        command.cache()
    before = jax.config.jax_compilation_cache_dir
    _KEEP_COMPILED()
    assert jax.config.jax_compilation_cache_dir == before


# Which model -------------------------------------------------------------------------------------


def trained(workdir, *stages):
    for stage in stages:
        (workdir / "stages" / stage / "model").mkdir(parents=True)
        (workdir / "stages" / stage / "model" / "config.json").write_text("{}")
        (workdir / "stages" / stage / "stage.json").write_text("{}")


def test_a_work_directory_gives_mucodes_last_pair(tmp_path):
    trained(tmp_path, "base/verifier", "mucode_1/verifier", "star_2/generator")
    trained(tmp_path, "mucode_1/generator", "mucode_2/generator")
    stages = tmp_path / "stages"
    assert export.find(tmp_path, "generator").path == stages / "mucode_2/generator/model"
    assert export.find(tmp_path, "verifier").path == stages / "mucode_1/verifier/model"
    assert export.find(tmp_path, "generator", "star").iteration == 2
    assert export.find(tmp_path, "verifier", "star").method == "base"
    with pytest.raises(ValueError, match="no generator of mucode 3; it holds: mucode 1, mucode 2"):
        export.find(tmp_path, "generator", "mucode", 3)
    (stages / "mucode_2/generator/stage.json").unlink()  # not finished
    assert export.find(tmp_path, "generator").iteration == 1


def test_a_sweeps_folder_is_refused_with_the_names_of_its_runs(file, tmp_path, capsys):
    for run in ("bt/seed_0", "bt/seed_1", "bce/seed_0"):
        trained(tmp_path / run, "mucode_1/generator")
    out = ["--what", "generator", "--out", str(tmp_path / "out")]
    for call in (
        lambda: solve.main([str(file), "--generator", str(tmp_path)]),
        lambda: export.main(["--workdir", str(tmp_path), *out]),
        lambda: report_main([str(tmp_path)]),
    ):
        assert call() == 2
        said = capsys.readouterr().err
        runs = (tmp_path / run for run in ("bce/seed_0", "bt/seed_0", "bt/seed_1"))
        assert f"holds several runs; give one of them: {', '.join(map(str, runs))}" in said
        assert len(said.splitlines()) == 1


def test_the_folder_of_a_stage_stands_for_its_model(tmp_path):
    trained(tmp_path, "mucode_1/generator")
    stage = tmp_path / "stages/mucode_1/generator"
    assert hub.resolve(stage) == hub.resolve(stage / "model") == stage / "model"


def test_a_generator_that_brings_no_verifier_goes_without_one(tmp_path):
    trained(tmp_path / "run", "mucode_1/generator", "mucode_1/verifier")
    trained(tmp_path / "half", "mucode_1/generator")

    def taken(*arguments):
        flags = solve._flags(["problem.py", *arguments])
        return flags.verifier, flags.search

    run, half = str(tmp_path / "run"), str(tmp_path / "half")
    assert taken() == ("mini", "pt+lv+vote")
    assert taken("--generator", run) == (run, "pt+lv+vote")
    for other in (half, f"{run}/stages/mucode_1/generator", "meta-llama/Llama-3.2-1B-Instruct"):
        assert taken("--generator", other) == ("none", "pt+vote")
    assert taken("--generator", half, "--verifier", run) == (run, "pt+lv+vote")


# What is shown -----------------------------------------------------------------------------------


def search_of(choice, *turns):
    return Search("t", 0, choice, tuple(SearchTurn(*of) for of in turns))


def test_why_a_candidate_was_chosen_is_said_in_words():
    bad, worse, good, best = (
        turn("bad"),
        turn("worse"),
        turn("good", passed=True),
        turn("best", passed=True),
    )
    scores = np.array([1.0, 0.0], np.float32)
    cases = [
        (
            "pt+lv",
            ((bad, worse), scores, 0),
            "none passes the tests; the verifier scores it highest",
        ),
        ("pt+lv", ((bad, good), scores, 1), "it passes the tests"),
        (
            "pt+lv",
            ((best, good), scores, 0),
            "it passes the tests, as 2 do; the verifier scores it highest",
        ),
        ("pt", ((best, good), None, 0), "it passes the tests, as 2 do; at random among equals"),
        ("lv", ((bad, good), scores, 0), "the verifier scores it highest"),
        ("pt+vote", ((bad, worse, bad), None, 0), "none passes the tests; the most frequent"),
        ("pt+vote", ((bad, worse), None, 0), "none passes the tests; at random among equals"),
        (
            "pt+lv+vote",
            ((best, good), scores, 0),
            "it passes the tests, as 2 do; the highest by score and frequency",
        ),
        ("random", ((bad, bad), None, 0), "they are all the same"),
        (
            "agree",
            ((best, good, good), None, 1, np.array([1, 2, 2])),
            "it passes the tests, as 3 do; 2 of these return the same on further inputs",
        ),
        (
            "agree",
            ((best, good), scores, 0, np.array([1, 1])),
            "it passes the tests, as 2 do; no two of these return the same on further inputs; "
            "the verifier scores it highest",
        ),
        (
            "agree",
            ((best, good), None, 0),
            "it passes the tests, as 2 do; the tests give no further inputs to compare them on; "
            "at random among equals",
        ),
        ("agree", ((bad, good), None, 1, np.array([0, 1])), "it passes the tests"),
    ]
    for choice, of, expected in cases:
        assert story.why(search_of(choice, of), 0) == expected
    second = search_of("pt+lv", ((bad, worse), scores, 0), ((bad, worse), scores, 1))
    assert story.why(second, 1) == "1 repeat what failed before; none passes the tests"


def test_nothing_that_a_model_writes_reaches_the_terminal_as_a_command():
    assert story.printable("a\x1b[2Jb\n\tμ\x07\u202e") == "a\\x1b[2Jb\n\tμ\\x07\\u202e"
