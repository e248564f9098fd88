"""Data sets from the hub: the upstream's fields, another attempt, and a way out when all fail."""

import os
import socket
import subprocess
import sys
import types

import pytest

from mucode_jax import benchmarks
from mucode_jax.models import hub

datasets = pytest.importorskip("datasets")
huggingface_hub = pytest.importorskip("huggingface_hub")

ROW = {
    "task_id": 600,
    "text": "Double it.",
    "code": "def twice(x):\n    return 2 * x",
    "test_setup_code": "",
    "test_list": ["assert twice(2) == 4", "assert twice(0) == 0"],
    "challenge_test_list": [],
}


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """The hub answers (or so it seems), and there is no waiting between attempts."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(hub, "WAITS_S", (0.0,) * 3)


def test_the_hub_gives_the_same_problems_as_a_file(monkeypatch):
    asked = []

    def load_dataset(path, config=None, *, split):
        asked.append((path, config, split))
        return datasets.Dataset.from_list([ROW])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    (problem,) = benchmarks.load("mbpp", "validation").problems
    assert asked == [("google-research-datasets/mbpp", "full", "validation")]
    assert problem.public.statements == ("assert twice(2) == 4",)


def test_a_hub_that_fails_once_is_asked_again(monkeypatch):
    calls = []

    def dataset_info(*_, **__):
        calls.append(1)
        if len(calls) < 2:
            raise ConnectionError("no answer")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list([ROW])
    )
    assert len(benchmarks.load("mbpp", "validation").problems) == 1
    assert len(calls) == 2


def test_a_data_set_that_the_hub_does_not_have_is_asked_for_once(monkeypatch):
    calls = []

    def dataset_info(*_, **__):
        calls.append(1)
        response = types.SimpleNamespace(headers={}, request=None)
        raise huggingface_hub.errors.RepositoryNotFoundError("no such data set", response=response)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    with pytest.raises(ValueError, match=r"no such data set.*give a local file"):
        benchmarks.load("mbpp", "validation")
    assert len(calls) == 1


def test_offline_only_the_cache_is_asked_and_once(monkeypatch):
    calls = []

    def load_dataset(*_, **__):
        calls.append(1)
        raise ConnectionError("not\ncached")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="a local file in the same field names as data") as error:
        benchmarks.load("humanevalpack", "test")
    assert "\n" not in str(error.value)
    assert len(calls) == 1


def test_a_hub_that_hangs_ends_in_one_line_with_the_way_out():
    """A real process and a loopback listener that accepts and never answers."""
    script = (
        "from mucode_jax.models import hub; hub.TIMEOUT_S, hub.WAITS_S = 0.3, (0.1, 0.2)\n"
        "from mucode_jax import benchmarks\n"
        "try: benchmarks.load('mbpp', 'test')\n"
        "except ValueError as error: print(error)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxies = {name: "" for name in os.environ if name.lower().endswith("_proxy")}
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        environment = os.environ | proxies | {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
    assert done.stdout.count("\n") == 1
    assert "a local file in the same field names as data" in done.stdout
    assert done.stderr.count("no answer") == 2


def test_a_bad_record_of_the_hub_is_named(monkeypatch):
    bad = datasets.Dataset.from_list([ROW, ROW | {"task_id": 599, "test_list": ["assert ("]}])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: bad)
    with pytest.raises(ValueError, match=r"mbpp \(full\), validation record 2: test 1 of 1"):
        benchmarks.load("mbpp", "validation")
