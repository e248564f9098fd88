"""Whatever a file holds, reading it gives problems or one sentence."""

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mucode_jax import benchmarks

EXAMPLES = int(os.environ.get("MUCODE_MUTATIONS", "150"))

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

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["input", "output", "seconds", "language"]), inner)
    ),
    max_leaves=4,
)


@st.composite
def mutated_files(draw):
    """(benchmark, bytes of a file): a good record with a few fields or bytes gone wrong."""
    name = draw(st.sampled_from(sorted(RECORDS)))
    record = dict(RECORDS[name])
    for field in draw(st.lists(st.sampled_from(sorted(record)), max_size=2)):
        if draw(st.booleans()):
            record[field] = draw(ANYTHING)
        else:
            record.pop(field, None)
    data = json.dumps(record).encode()
    for _ in range(draw(st.integers(0, 2))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 3))
        data = data[:at] + draw(st.binary(max_size=3)) + data[at + length :]
    return name, data * draw(st.sampled_from([1, 1, 1, 2]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mutations")


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(mutated_files(), st.booleans(), st.booleans())
def test_a_mutated_file_is_read_or_refused_in_one_line(folder, file, compat, testless):
    name, data = file
    path = folder / "mutated.jsonl"
    path.write_bytes(data)
    try:
        benchmark = benchmarks.load(name, "all", data=path, compat=compat, testless=testless)
    except ValueError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
    else:
        assert benchmark.problems
        for problem in benchmark.problems:
            assert problem.prompt and problem.split
            assert problem.task_id in benchmark.private or problem.public != type(problem.public)()
