"""Several processes as one run: what each does, how they agree, what happens when one is lost."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from mucode_jax.runtime import hosts

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Greedy evaluation, rollouts on a small engine, one fine-tuning.
SMALL = (
    "--config=configs/quickstart.py:tiny",
    "--config.iterations=1",
    '--config.methods=("star",)',
    "--config.search.methods=()",
    "--config.train.size=8",
    "--config.evaluation.size=4",
    "--config.rollout.slots=8",
    "--config.rollout.n=2",
    "--config.rollout.turns=1",
    "--config.rollout.max_new_tokens=24",
    "--config.rollout.context=224",
)


def test_problems_are_dealt_by_id_each_to_one_host(monkeypatch):
    ids = ["a", "a", "b", "c", "c", "c", "d", "e"]
    monkeypatch.setattr(hosts, "_count", 3)
    shares = []
    for i in range(3):
        monkeypatch.setattr(hosts, "_index", i)
        shares.append(hosts.mine(ids))
    assert shares == [[0, 1, 6], [2, 7], [3, 4, 5]]


def test_one_process_needs_nobody():
    hosts.connect(None, None, None)
    assert hosts.count() == 1 and hosts.first() and hosts.mine(["x", "y"]) == [0, 1]
    assert hosts.first_does("a thing", lambda: 3) == 3
    hosts.agree("settings", {"a": 1})
    hosts.wait("nowhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("127.0.0.1:1", None, None), "together"),
        ((None, 2, 0), "together"),
        (("127.0.0.1:1", 2, 2), "--process is 2; of 2 they are 0 … 1"),
        (("localhost", 2, 0), "--coordinator is 'localhost'; it must be HOST:PORT"),
        (("localhost:99999", 2, 0), "it must be HOST:PORT"),
    ],
)
def test_half_a_pod_is_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        hosts.connect(*arguments)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("many", "SLURM_STEP_NUM_TASKS is 'many'; it must be a number"),
        ("2", "no other hosts are known"),  # this is no cluster
    ],
)
def test_a_cluster_that_is_none_is_refused(tasks, message, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", tasks)
    with pytest.raises(ValueError, match=message):
        hosts.connect(None, None, None)


def test_a_host_to_which_nobody_comes_says_so_and_ends():
    alone = (
        "from mucode_jax.runtime import hosts; hosts.JOIN_S = 2; hosts.connect('127.0.0.1:1', 2, 1)"
    )
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True)
    assert done.returncode == 1
    assert "in 2 s the hosts did not find each other" in done.stderr.splitlines()[-1]


class Store:
    """JAX's coordination service, as far as `hosts` uses it."""

    def __init__(self, values):
        self.values = values

    def key_value_set(self, key, value):
        self.values[key] = value

    def key_value_dir_get(self, prefix):
        return [(k, v) for k, v in self.values.items() if k.startswith(prefix)]


@pytest.fixture
def pod(monkeypatch):
    """This process as host 1 of 2; gives what host 0 has said."""
    store = Store({})
    for name, value in (("_index", 1), ("_count", 2), ("_client", store), ("_meetings", 0)):
        monkeypatch.setattr(hosts, name, value)
    return store.values


def test_hosts_that_were_started_differently_are_told_which_setting(pod):
    pod["mucode/1/0"] = json.dumps({"seed": 0, "methods": ["star"]})
    with pytest.raises(ValueError, match="differ in settings: seed is 0 on host 0, 3 on host 1"):
        hosts.agree("settings", {"seed": 3, "methods": ("star",)})


def test_who_waits_says_for_whom_and_hears_of_a_failure(pod, monkeypatch):
    monkeypatch.setattr(hosts, "_QUIET_S", 0.0)
    lines = []

    def say(line):
        lines.append(line)
        pod["mucode/failed/0"] = "the disk is full"

    with pytest.raises(hosts.Lost, match="host 0 failed: the disk is full"):
        hosts.wait("base/rollouts", say)
    assert lines[0].startswith("base/rollouts: waiting for host 0")


def test_a_work_directory_that_is_not_shared_is_refused(pod, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "monotonic", iter(range(0, 10**6, 20)).__next__)
    pod |= {"mucode/1/0": '"token"', "mucode/2/0": "true"}
    with pytest.raises(ValueError, match="host 1 does not see"):
        hosts.check_shared(tmp_path)


def environment():
    # What is compiled here runs for a moment only.
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": ""}
    return {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **quick}


def children(pid):
    lines = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line) for line in lines.stdout.split()]


def run(*command):
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment(), capture_output=True, text=True
    )


@pytest.mark.slow
def test_a_pod_that_loses_a_process_ends_and_goes_on_with_the_results_of_one(tmp_path):
    """Killed in its second stage, run again; then one process makes the first stage anew."""
    pod = ("launch/local_pod.py", "-n", "2", *SMALL, "--workdir", str(tmp_path))
    launcher = subprocess.Popen(
        [sys.executable, *pod],
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    second = tmp_path / "stages/base/singles/pieces"
    while launcher.poll() is None and not second.is_dir():
        time.sleep(0.05)
    lost = max(children(launcher.pid))
    os.kill(lost, signal.SIGKILL)
    killed = time.monotonic()
    output = launcher.communicate()[1]
    assert time.monotonic() - killed < 60
    assert f"process 1 of 2 (pid {lost}) was lost: killed by SIGKILL" in output, output[-2000:]
    assert launcher.returncode == 1 and "goes on from here" in output

    done = run(*pod)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "STaR" in done.stdout and done.stdout.count("Time in stages:") == 1  # one host speaks
    assert "greedy_mini_test: " not in done.stderr.partition("base: singles")[0]
    assert not [p for p in tmp_path.rglob("*") if p.name in ("pieces", "begun.json")]

    first = tmp_path / "stages/base/greedy_mini_test"
    of_two = (first / "rollouts.jsonl").read_bytes()
    shutil.rmtree(first)
    done = run("-m", "mucode_jax.main", *SMALL, "--workdir", str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    assert (first / "rollouts.jsonl").read_bytes() == of_two
    assert "singles: " not in done.stderr  # made by two, good for one
