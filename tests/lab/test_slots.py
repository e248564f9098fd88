"""How many sequences a stage decodes at a time: chosen once by memory, then kept.

The low bits of log-probabilities depend on it.
"""

import json
import os
import types

import pytest

from mucode_jax.lab import lab as labs
from mucode_jax.models import hub, huggingface
from mucode_jax.runtime import interruption
from mucode_jax.sampling import memory
from tests import micro

# Two stages that sample, one after the other.
FEW = (
    "--config.rollout.slots=0",
    "--config.methods=()",
    '--config.search.methods=("base",)',
    '--config.search.choices=("pt",)',
)
SLOT = memory.slot_bytes(huggingface.read_config(hub.resolve("mini")), 192)
FIRST, SECOND = "base/greedy_mini_test", "base/search_mini_test"


@pytest.fixture
def machine(monkeypatch):
    """Gives this machine the memory that `fitting_slots` chooses so many slots for."""

    def with_slots(slots, available=10**6):
        free = (slots + 1) * SLOT / memory._HOST_SHARE // os.sysconf("SC_PAGE_SIZE")

        def sysconf(name):
            return free if name == "SC_AVPHYS_PAGES" else os.sysconf(name)

        system = types.SimpleNamespace(sysconf=sysconf, sysconf_names=os.sysconf_names)
        monkeypatch.setattr(memory, "os", system)
        monkeypatch.setattr(memory, "_host_available", lambda: available * SLOT)

    return with_slots


def stopped(directory, monkeypatch):
    """Runs until the first stage has stored a piece."""

    def stop():
        if (directory / "stages" / FIRST / "pieces").is_dir():
            raise interruption.Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(interruption, "check", stop)
        assert micro.run(directory, *FEW) == 130
    assert os.listdir(directory / "stages" / FIRST / "pieces") == ["0.jsonl"]


def slots(directory):
    stages = json.loads((directory / "results.json").read_text())["stages"]
    return {stage["name"]: stage["slots"] for stage in stages if "slots" in stage}


def test_a_stage_keeps_the_slots_it_was_begun_with_on_a_machine_of_other_memory(
    tmp_path, machine, monkeypatch
):
    machine(16)
    stopped(tmp_path / "run", monkeypatch)
    machine(40)
    assert micro.run(tmp_path / "run", *FEW) == 0
    assert slots(tmp_path / "run") == {FIRST: 16, SECOND: 40}
    machine(16)
    assert micro.run(tmp_path / "undisturbed", *FEW) == 0
    assert slots(tmp_path / "undisturbed") == {FIRST: 16, SECOND: 16}
    resumed, undisturbed = (
        tmp_path / run / "stages" / FIRST / "rollouts.jsonl" for run in ("run", "undisturbed")
    )
    assert resumed.read_bytes() == undisturbed.read_bytes()


def test_a_machine_that_cannot_hold_them_says_so_in_one_line(
    tmp_path, machine, monkeypatch, capsys
):
    machine(16)
    stopped(tmp_path, monkeypatch)
    machine(8, available=12)
    capsys.readouterr()
    assert micro.run(tmp_path, *FEW) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{FIRST}: it was begun with 16 slots, of which the free memory holds 12" in line
    assert "--config.rollout.slots=12" in line
    assert micro.run(tmp_path, *FEW, "--config.rollout.slots=12") == 0
    assert slots(tmp_path) == {FIRST: 12, SECOND: 12}


def test_of_several_hosts_the_least_number_counts(machine, monkeypatch):
    machine(16)
    monkeypatch.setattr(labs.hosts, "gather", lambda what, value, say: [24, value])
    recorded = {}
    workdir = types.SimpleNamespace(recorded=recorded.get, record=recorded.__setitem__)
    progress = types.SimpleNamespace(say=print)
    lab = types.SimpleNamespace(_slots=0, _spread=None, workdir=workdir, progress=progress)
    config = huggingface.read_config(hub.resolve("mini"))
    assert labs.Lab._choose_slots(lab, config, 192) == 16
    assert recorded == {"slots": 16}
