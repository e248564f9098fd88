"""The command: bad input in one line, the tiny quickstart from end to end, killed and resumed."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest

from mucode_jax import main
from tests import micro
from tests.bench import interruptions

ROOT = pathlib.Path(__file__).resolve().parents[1]
TINY = ("--config", "configs/quickstart.py:tiny")


def command(*arguments):
    return [sys.executable, "-m", "mucode_jax.main", *map(str, arguments)]


def environment():
    # One device, as a person has it.
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}


def call(*arguments):
    return subprocess.run(
        command(*arguments), cwd=ROOT, env=environment(), capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --config"),
        (
            ("--config", "configs/nowhere.py", "--workdir", "run"),
            "configs/nowhere.py cannot be read: No such file or directory (by name there are: ",
        ),
        (
            (*TINY, "--workdir", "run", "--config.seeed=3"),
            "config.seeed is an unknown setting; did you mean config.seed?",
        ),
        ((*TINY, "--workdir", "run", "--config.sft.epocs=3"), "did you mean config.sft.epochs?"),
        ((*TINY, "--workdir", "run", "--config.foo.bar=3"), "config.foo is an unknown setting"),
        (("--config", "configs/base.py:compat", "--workdir", "run"), "base.py takes no variant"),
        ((*TINY, "--workdir", "run", "--config.seed=many"), "config.seed is 'many'; it must be"),
        ((*TINY, "--workdir", "run", "--config.train.compat=so"), "it must be True or False"),
        ((*TINY, "--workdir", "run", "--config.rollout=3"), "--config.rollout.NAME=VALUE"),
        ((*TINY, "--workdir", "run", "--config.sft.clip_norm=None"), "None (in a config file)"),
        ((*TINY, "--workdir", "run", "--config.train.split=no"), "config.train: mini has no split"),
        (
            (*TINY, "--workdir", "run", "--config.verifier.path=no"),
            "verifier.path: model no",
        ),
        ((*TINY, "--workdir", "run", "--config.sft.lora_rank=999"), "the model is 128 wide"),
        (("--config=", "--workdir", "run"), "--config is empty"),
        ((*TINY, "--workdir", "run\udcff"), "--workdir: its name is no UTF-8"),
        ((*TINY, "--workdir", "run", "--config.rollout.turns=0"), "config.rollout.turns is 0"),
        ((*TINY, "--workdir", "run", "--config.expert.kind=best"), "one of lv, ov, ov+lv"),
        ((*TINY, "--workdir", "run", "--config.rollout.context=100"), "rollout.context is 100"),
        ((*TINY, "--workdir", "run", "--config.sandbox.workers=100000"), "from 0 to 1024"),
        (
            ("--config", "folder", "--workdir", "run"),
            "config file folder cannot be read: Is a directory",
        ),
        ((*TINY, "--workdir", "run", "left over"), "unexpected argument 'left over'"),
        (("--config", "configs/quickstart.py:huge", "--workdir", "run"), "no variant 'huge'"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # some of it is refused when the work directory has been made
    (tmp_path / "folder").mkdir()
    assert main.main(["main", *arguments]) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.startswith("mucode_jax: ")
    assert len(shown.err.strip().splitlines()) == 1 and not shown.out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("get_config = 3", "mine.py: TypeError: 'int' object is not callable"),
        ("def get_config(x):\n    return x", "mine.py needs a variant: --config "),
        ("def get_config():\n    return 3", "get_config returns no ConfigDict"),
        ("def get_config():\n    return None", "get_config returns no ConfigDict"),
        (
            "from ml_collections import FrozenConfigDict\n"
            "def get_config():\n    return FrozenConfigDict({})",
            "return a ConfigDict",
        ),
        (
            "from ml_collections import ConfigDict\n"
            "def get_config():\n    c = ConfigDict()\n    c.c = c\n    return c",
            "returns what holds itself",
        ),
        ("x = '\0'", "the config file: source code string cannot contain null bytes"),
    ],
)
def test_a_config_file_without_a_config_is_told_in_one_line(text, message, tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(text)
    assert main.main(["main", "--config", str(path), "--workdir", str(tmp_path / "run")]) == 2
    (shown,) = capsys.readouterr().err.splitlines()
    assert message in shown and "Traceback" not in shown


@pytest.mark.parametrize(
    "line, message",
    [
        ("c.verifier_training.pairs_per_problem = [1, 2]", "line 4: TypeError: Could not override"),
        ("raise RuntimeError('no\\nway')", "line 4: RuntimeError: no way"),
        ("c.seed = (", "'(' was never closed"),
    ],
)
def test_a_config_file_that_fails_is_told_in_one_line(line, message, tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        f"from configs import base\ndef get_config():\n    c = base.get_config()\n    {line}\n"
    )
    assert main.main(["main", "--config", str(path), "--workdir", str(tmp_path / "run")]) == 2
    (shown,) = capsys.readouterr().err.splitlines()
    assert f"{path}, line 4" in shown and message in shown and "Traceback" not in shown


def test_problems_that_are_not_there_are_told_before_the_model_is_looked_for(tmp_path, capsys):
    own = ("--config.train.benchmark=jsonl", "--config.train.data=own.jsonl")
    model = ("--config.generator.path=no/such-model", "--config.evaluation.size=1")
    where = ("--config", str(ROOT / "configs/base.py"), "--workdir", str(tmp_path / "run"))
    assert main.main(["main", *where, *own, *model]) == 2
    assert "own.jsonl: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("platform", ["foo", "cuda"])
def test_a_platform_that_is_not_there_is_one_line(platform, tmp_path):
    if platform == "cuda" and shutil.which("nvidia-smi"):
        pytest.skip("this machine has a GPU")
    command = [sys.executable, "-m", "mucode_jax.main", *TINY, "--workdir", str(tmp_path / "run")]
    environment = os.environ | {"JAX_PLATFORMS": platform}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert ended.returncode == 2 and f"JAX_PLATFORMS={platform}: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_module_is_a_command_with_help_and_exit_status(tmp_path):
    done = call("--help")
    assert done.returncode == 0 and "--config configs/quickstart.py" in done.stdout
    assert call("--config", "configs/nowhere.py", "--workdir", tmp_path).returncode == 2


@pytest.mark.parametrize("module", ["numpy", "jax", "ml_collections", "configs.base"])
def test_ctrl_c_while_the_command_starts_is_one_line(module, tmp_path):
    """Sent when that module is looked for; the last one is, when the flags are read."""
    script = (
        "import os, runpy, signal, sys, time\n"
        "class Finder:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        if name == {module!r}: interrupt()\n"
        "def interrupt():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
        f"sys.argv = ['main', *{TINY!r}, '--workdir', {str(tmp_path)!r}]\n"
        "sys.meta_path.insert(0, Finder)\n"
        "runpy.run_module('mucode_jax.main', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (130, "mucode_jax: interrupted\n")


@pytest.mark.parametrize("set_by_user", [False, True])
def test_compiled_programs_are_kept_where_the_environment_says_else_in_the_work_directory(
    set_by_user, tmp_path, monkeypatch
):
    before = jax.config.jax_compilation_cache_dir
    if not set_by_user:
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    try:
        main._keep_programs(tmp_path / "xla")
        kept = jax.config.jax_compilation_cache_dir
        assert kept == (
            os.environ["JAX_COMPILATION_CACHE_DIR"] if set_by_user else f"{tmp_path}/xla"
        )
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.parametrize(
    "given", [{}, {"XLA_CLIENT_MEM_FRACTION": ".5"}, {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".5"}]
)
def test_jax_is_given_a_gpus_memory_unless_the_user_has_said_how_much(given, monkeypatch):
    names = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
    for name in names:
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main.main(["main"]) == 2
    expected = given or {"XLA_CLIENT_MEM_FRACTION": main.MEMORY_FRACTION}
    assert {name: os.environ[name] for name in names if name in os.environ} == expected


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    done = call(*TINY, "--workdir", directory)
    assert done.returncode == 0, done.stderr
    return directory, done


def test_the_tiny_quickstart_fills_the_contract(undisturbed):
    directory, done = undisturbed
    results = micro.results(directory)
    assert results["schema"] == 1 and results["backend"] == "cpu"
    assert results["isolation"]["level"] in ("namespaces", "landlock")
    methods = {(e["method"], e["iteration"]) for e in results["evaluations"]}
    assert methods == {
        ("base", 0),
        *((m, i) for m in ("star", "multi_star", "mucode") for i in (1, 2)),
    }
    searches = {
        (e["method"], e["search"]) for e in results["evaluations"] if e["search"] != "greedy"
    }
    assert searches == {
        (m, s) for m in ("base", "mucode") for s in ("random", "pt", "lv", "pt+lv", "oracle")
    }
    for e in results["evaluations"]:
        assert len(e["per_turn"]) == e["turns"] == 3
        assert e["accuracy"] == e["per_turn"][-1]
        assert e["ci95"][0] <= e["accuracy"] <= e["ci95"][1]
        assert e["tokens"] > 0 and e["executions"] > 0
    oracle = {e["method"]: e for e in results["evaluations"] if e["search"] == "oracle"}
    pt = {e["method"]: e for e in results["evaluations"] if e["search"] == "pt"}
    assert all(oracle[m]["accuracy"] >= pt[m]["accuracy"] for m in pt)
    assert {v["loss"] for v in results["verifiers"]} == {"bt"}
    for v in results["verifiers"]:
        assert {"auc", "auc_within", "top1", "best_right", "best_right_chance", "mixed"} <= v.keys()
        assert v["brier"] is None  # pairs fix no level that could be a probability
    for e in results["evaluations"]:
        if e["search"] != "oracle":
            assert [turn["turn"] for turn in e["by_turn"]] == [1, 2, 3] and e["repairs"]
    assert (directory / "report.html").stat().st_size > 10_000
    assert "μCode" in done.stdout and "turn 3" in done.stdout
    assert "sandbox isolation" in done.stderr and "backend cpu" in done.stderr


def test_what_the_sampler_did_is_counted(undisturbed):
    directory, _ = undisturbed
    results = json.loads((directory / "results.json").read_text())
    (rollouts,) = (s for s in results["stages"] if s["name"] == "base/rollouts")
    counted = rollouts["sampling"]
    # The id that closes a truncated turn is not drawn.
    assert rollouts["tokens"] - rollouts["turns"] <= counted["decoded"] <= rollouts["tokens"]
    assert 0 < counted["occupancy"] <= 1 and counted["prefilled"] > 0 <= counted["wasted"]
    assert 0 <= counted["idle_seconds"] < counted["seconds"] <= rollouts["seconds"]
    searched = {s["name"] for s in results["stages"] if "sampling" in s}
    assert {"base/search_mini_test", "mucode_2/greedy_mini_test"} <= searched
    assert "How busy the sampler was" in (directory / "report.html").read_text()
    assert list((directory / "tensorboard" / "base" / "rollouts").glob("events.*"))


def test_a_second_run_finds_everything_done(undisturbed):
    directory, _ = undisturbed
    before = micro.results(directory)
    started = time.monotonic()
    done = call(*TINY, "--workdir", directory)
    assert done.returncode == 0, done.stderr
    assert "rollouts in" not in done.stderr  # nothing was sampled again
    assert micro.results(directory) == before
    assert time.monotonic() - started < 120


def test_interrupted_again_and_again_it_ends_with_the_same_results(undisturbed, tmp_path):
    """And so two runs of one seed agree, too. tests/bench/interruptions.py does it 50 times."""
    directory, _ = undisturbed
    at = interruptions.moments(directory, 5, seed=1)
    sessions = interruptions.disturbed(
        tmp_path, at, [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
    )
    assert [s.status for s in sessions] == [-9, 143, 130, -9, 143, 0]
    assert micro.results(tmp_path) == micro.results(directory)
