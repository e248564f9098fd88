"""Whatever a config or a file holds, it is accepted, or refused in one line with status 2."""

import importlib.util
import json
import pathlib

import pytest

from tests.invented import make_run

BENCH = pathlib.Path(__file__).parent / "bench" / "mutations.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_mutations", BENCH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return json.dumps(make_run(tmp_path_factory.mktemp("run"))).encode()


def test_mutations_are_accepted_or_refused_in_one_line(bench, results):
    """500 of them; `python tests/bench/mutations.py` makes 5,000."""
    counts = bench.in_process(500, results)
    for what in ("overrides", "config files", "benchmark files", "other files", "results.json"):
        assert counts[what]["accepted"] and counts[what]["refused"]


@pytest.mark.slow
def test_whole_commands_end_with_one_line_and_no_traceback(bench, results):
    """5 of them, one of each kind; `python tests/bench/mutations.py` makes 100."""
    assert sum(bench.commands(5, results).values()) == 5
