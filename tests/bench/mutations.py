"""Random mutations of configs and of files: each is accepted, or ends in one line and status 2.

    python tests/bench/mutations.py [--examples 5000] [--commands 100]

`examples` go through the commands' own validation in this process, a fifth each: overrides on the
command line, config files, benchmark files, candidates and programs and pairs, results.json.
`commands` are whole processes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

import hypothesis
from hypothesis import strategies as st

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from configs import base
from mucode_jax import benchmarks, grade, main, report, score
from mucode_jax.checks import settings
from mucode_jax.core.conversation import Chat
from mucode_jax.models import huggingface
from mucode_jax.sandbox import __main__ as sandbox

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Files.

PAIRS = {"input": ["1\n"], "output": ["2"]}
RECORDS = {
    "jsonl": {
        "task_id": "a",
        "prompt": "Write f.",
        "entry_point": "f",
        "setup": "k = 1",
        "public_tests": ["assert f(k) == 2"],
        "private_tests": ["assert f(2) == 4"],
        "solution": "def f(x): return 2 * x",
        "split": "train",
    },
    "mbpp": {
        "task_id": 601,
        "text": "Write f.",
        "code": "def f(x):\n    return 2 * x",
        "test_setup_code": "",
        "test_list": ["assert f(1) == 2", "assert f(2) == 4"],
        "challenge_test_list": [],
    },
    "mbpp_plus": {
        "task_id": 601,
        "prompt": "Write f.",
        "code": "def f(x):\n    return 2 * x",
        "test_imports": ["import math"],
        "test_list": ["assert f(1) == 2"],
        "test": "for i in range(9):\n    assert f(i) == 2 * i",
    },
    "humaneval": {
        "task_id": "HumanEval/0",
        "prompt": 'import math\n\ndef f(x):\n    """Doubles.\n    >>> f(1)\n    2\n    """\n',
        "entry_point": "f",
        "canonical_solution": "    return 2 * x\n",
        "test": "def check(candidate):\n    assert candidate(1) == 2\n",
    },
    "humanevalpack": {
        "task_id": "Python/0",
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "canonical_solution": "    return 2 * x\n",
        "test": "def check(f):\n    assert f(1) == 2\ncheck(f)\n",
        "example_test": "def check(f):\n    assert f(2) == 4\n    assert f(3) == 6\ncheck(f)\n",
    },
    "code_contests": {
        "name": "p",
        "description": "Double it.\n\nExamples\n\n1\n\n2",
        "public_tests": PAIRS,
        "private_tests": PAIRS,
        "generated_tests": PAIRS,
        "solutions": {"language": [3], "solution": ["print(2 * int(input()))"]},
        "time_limit": {"seconds": 1, "nanos": 0},
    },
}
OTHERS = {
    "candidates": {"task_id": "a", "code": "def f(x): return 2 * x"},
    "programs": {"name": "a", "code": "print(1)", "tests": ["assert True"], "timeout_s": 1},
    "stdin": {"name": "a", "code": "print(1)", "stdin": "", "stdout": "1\n"},
    "pairs": {"prompt": "f: the sum", "completion": "def f(xs):\n    return sum(xs)"},
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["input", "output", "seconds", "language"]), inner)
    ),
    max_leaves=4,
)


@st.composite
def files(draw: Callable, records: dict[str, dict[str, Any]]) -> tuple[str, bytes]:
    """(kind, bytes of a file): a good record with a few fields or bytes gone wrong."""
    name = draw(st.sampled_from(sorted(records)))
    record = dict(records[name])
    for field in draw(st.lists(st.sampled_from(sorted(record)), max_size=2)):
        if draw(st.booleans()):
            record[field] = draw(ANYTHING)
        else:
            record.pop(field, None)
    data = draw(damaged(json.dumps(record).encode()))
    return name, data * draw(st.sampled_from([1, 1, 1, 2]))


@st.composite
def damaged(draw: Callable, data: bytes) -> bytes:
    """The same with up to two places changed by a few bytes."""
    for _ in range(draw(st.integers(0, 2))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 3))
        data = data[:at] + draw(st.binary(max_size=3)) + data[at + length :]
    return data


# Settings.

NAMES = st.sampled_from(sorted(settings.flat(base.get_config())))
WORDS = st.sampled_from(
    ["", "0", "-1", "1", "2.5", "1e9", "1e400", "nan", "None", "True", "x", "mini", "()", "('x',)"]
    + ["('mucode', 'star')", "[1, 2]", "{}", "99999999999999999999", "lv", "-0.0", "é", "'", "\n"]
)
VALUES = WORDS | st.integers().map(str) | st.floats().map(str) | st.text(max_size=6)


@st.composite
def overrides(draw: Callable) -> list[str]:
    """Flags that set one to three settings, some of them with a letter gone."""
    found = []
    for name in draw(st.lists(NAMES, min_size=1, max_size=3)):
        if draw(st.integers(0, 9)) == 0:
            at = draw(st.integers(0, len(name) - 1))
            name = name[:at] + name[at + 1 :]
        found.append(f"--config.{name}={draw(VALUES)}")
    return found


@st.composite
def config_files(draw: Callable) -> bytes:
    """A config file with a few bytes, or the numbers of a line, gone wrong."""
    text = (ROOT / "configs" / "quickstart.py").read_text(encoding="utf-8")
    numbers = list(re.finditer(r"(?<== )[^\n]+", text))
    for match in draw(st.lists(st.sampled_from(numbers), max_size=1)):
        text = text[: match.start()] + draw(VALUES) + text[match.end() :]
    return draw(damaged(text.encode()))


# What is done with them.


class Accepted(BaseException):
    """The experiment would begin."""


def _accept(*_: Any) -> None:
    raise Accepted


def of_main(folder: pathlib.Path, config: str, flags: list[str]) -> str:
    """What main makes of them: "accepted" or "refused"."""
    argv = ["main", "--config", config, "--workdir", str(folder / "run"), *flags]
    said = io.StringIO()
    try:
        with (
            mock.patch.object(main, "run", _accept),
            mock.patch.object(main.pretrain, "pretrain", _accept),
            contextlib.redirect_stderr(said),
        ):
            status = main.main(argv)
    except Accepted:
        return "accepted"
    assert status == 2, (status, said.getvalue())
    assert said.getvalue().startswith("mucode_jax: ") and said.getvalue().count("\n") == 1
    return "refused"


def of_overrides(folder: pathlib.Path, flags: list[str]) -> str:
    return of_main(folder, str(ROOT / "configs/quickstart.py") + ":tiny", flags)


def of_config_file(folder: pathlib.Path, data: bytes) -> str:
    path = folder / "mutated.py"
    path.write_bytes(data)
    return of_main(folder, str(path), [])


def of_benchmark(folder: pathlib.Path, file: tuple[str, bytes], compat: bool, short: bool) -> str:
    name, data = file
    path = folder / "mutated.jsonl"
    path.write_bytes(data)
    try:
        benchmark = benchmarks.load(name, "all", data=path, compat=compat, testless=short)
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return "refused"
    assert benchmark.problems
    for problem in benchmark.problems:
        assert problem.prompt and problem.split
        assert problem.task_id in benchmark.private or problem.public != type(problem.public)()
    return "accepted"


def of_other_file(folder: pathlib.Path, file: tuple[str, bytes], chat: Chat) -> str:
    kind, data = file
    path = folder / "mutated.jsonl"
    path.write_bytes(data)
    readers = {
        "candidates": lambda: grade.check_candidates(str(path), ["a"]),
        "programs": lambda: sandbox.read_programs(path, 10.0),
        "stdin": lambda: sandbox.read_programs(path, 10.0),
        "pairs": lambda: score.as_read(score.read_pairs(str(path)), chat, 1024),
    }
    try:
        readers[kind]()
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return "refused"
    return "accepted"


def of_results(folder: pathlib.Path, data: bytes) -> str:
    (folder / "results.json").write_bytes(data)
    try:
        report.read(folder)
    except ValueError as error:
        assert str(folder) in str(error)
        return "refused"
    return "accepted"


def _each(
    examples: int, check: Callable, folder: pathlib.Path, found: Counter, inputs: st.SearchStrategy
) -> None:
    def one(arguments: tuple) -> None:
        found[check(folder, *arguments)] += 1

    hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )(hypothesis.given(inputs)(one))()


def in_process(examples: int, results: bytes) -> dict[str, Counter]:
    """How many of `examples` mutations were accepted and refused, by what was mutated."""
    counts: dict[str, Counter] = {}
    model = huggingface.resolve("mini")
    chat = Chat(huggingface.load_tokenizer(model), huggingface.eot_ids(model))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        each = {
            "overrides": (of_overrides, [overrides()]),
            "config files": (of_config_file, [config_files()]),
            "benchmark files": (of_benchmark, [files(RECORDS), st.booleans(), st.booleans()]),
            "other files": (of_other_file, [files(OTHERS), st.just(chat)]),
            "results.json": (of_results, [damaged(results)]),
        }
        for what, (check, strategies) in each.items():
            counts[what] = found = Counter()
            _each(examples // len(each), check, folder, found, st.tuples(*strategies))
    return counts


def commands(count: int, results: bytes, seed: int = 0) -> Counter:
    """Exit statuses of `count` whole commands on mutated input, none of which begins a run."""
    chance = random.Random(seed)

    def drawn(strategy: st.SearchStrategy) -> Any:
        found = []
        hypothesis.seed(chance.randrange(1 << 30))(
            hypothesis.settings(max_examples=20, database=None, deadline=None)(
                hypothesis.given(strategy)(lambda value: found.append(value))
            )
        )()
        return found[-1]

    statuses: Counter = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        problems = folder / "problems.jsonl"
        problems.write_text(json.dumps(RECORDS["jsonl"]) + "\n")
        path, out = folder / "mutated.jsonl", str(folder / "out.jsonl")
        # Nothing begins: the problems' file is not there.
        missing = ["--config.train.benchmark=jsonl", f"--config.train.data={folder}/none.jsonl"]
        quickstart = str(ROOT / "configs/quickstart.py") + ":tiny"
        of_main = ["main", "--workdir", str(folder / "run"), "--config"]
        for number in range(count):
            kind = ("overrides", "config", "candidates", "programs", "results")[number % 5]
            if kind == "overrides":
                flags = [flag for flag in drawn(overrides()) if "\0" not in flag]
                arguments = [*of_main, quickstart, *flags, *missing]
            elif kind == "config":
                (folder / "mutated.py").write_bytes(drawn(config_files()))
                arguments = [*of_main, str(folder / "mutated.py"), *missing]
            elif kind == "results":
                (folder / "run").mkdir(exist_ok=True)
                (folder / "run" / "results.json").write_bytes(drawn(damaged(results)))
                arguments = ["report", str(folder / "run")]
            else:
                path.write_bytes(drawn(files({kind: OTHERS[kind]}))[1])
                arguments = {
                    "candidates": ["grade", "--benchmark", "jsonl", "--data", str(problems)]
                    + ["--candidates", str(path), "--out", out],
                    "programs": ["sandbox", "--programs", str(path), "--out", out],
                }[kind]
            done = subprocess.run(
                [sys.executable, "-m", f"mucode_jax.{arguments[0]}", *arguments[1:]],
                cwd=ROOT,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=120,
            )
            told = (kind, arguments, done.stderr[-3000:])
            assert "Traceback" not in done.stderr, told
            assert done.returncode in ((2,) if arguments[0] == "main" else (0, 1, 2)), told
            if done.returncode == 2:
                lines = [
                    x for x in done.stderr.splitlines() if "error: " in x or "mucode_jax: " in x
                ]
                assert len(lines) == 1, told
            statuses[f"{arguments[0]}: {done.returncode}"] += 1
    return statuses


def command_line() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=5000)
    parser.add_argument("--commands", type=int, default=100)
    given = parser.parse_args()
    from tests.invented import make_run

    with tempfile.TemporaryDirectory() as folder:
        results = json.dumps(make_run(pathlib.Path(folder))).encode()
    for what, count in in_process(given.examples, results).items():
        print(f"{what}: {dict(count)}", flush=True)
    print(dict(commands(given.commands, results)))
    return 0


if __name__ == "__main__":
    sys.exit(command_line())
