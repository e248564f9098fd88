"""Faults, caused for real: each is told in one line, and nothing that was finished is lost."""

import ast
import contextlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import jax
import numpy as np
import pytest

import mucode_jax
from mucode_jax import main, report
from mucode_jax.checks import faults, settings
from mucode_jax.runtime import interruption
from mucode_jax.runtime.workdir import Workdir
from mucode_jax.sandbox import Outcome, pool
from mucode_jax.training.checkpoints import Checkpoints
from tests import micro
from tests.bench import reruns
from tests.fakes import mounted

ROOT = pathlib.Path(__file__).resolve().parents[2]
ITERATIONS = ROOT / "tests" / "bench" / "iterations.py"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished")
    assert micro.run(directory) == 0
    return directory


@pytest.fixture
def copy(finished, tmp_path):
    """A finished run to be spoilt."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "run", symlinks=True))


@pytest.fixture
def fails(capsys):
    """Runs; it must end in one line with this status. Returns that line."""

    def run(directory, *overrides, status=1):
        capsys.readouterr()
        assert micro.run(directory, *overrides) == status
        said = capsys.readouterr()
        assert not said.out and "Traceback" not in said.err
        last = said.err.rstrip("\n").rpartition("\n")[2]
        assert last.startswith("mucode_jax: ")
        return last

    return run


def remount(path, options):
    subprocess.run(["mount", "-o", f"remount,{options}", path], check=True)


# Files and disks.


def test_a_full_disk_stops_the_run_and_with_more_room_it_goes_on(finished, tmp_path, fails):
    disk = mounted(tmp_path / "disk", 16)
    try:
        for size in (40, 200, 2_600, 5_000):
            said = fails(disk)
            assert f"No space left on device ({disk}" in said and "nothing finished is lost" in said
            remount(disk, f"size={size}k")
        kept = {p: p.read_bytes() for p in disk.glob("stages/*/*/stage.json")}
        assert kept
        remount(disk, "size=100m")
        assert micro.run(disk) == 0
        assert all(path.read_bytes() == content for path, content in kept.items())
        assert micro.results(disk) == micro.results(finished)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_directory_that_cannot_be_written_is_said_at_once(tmp_path, fails):
    disk = mounted(tmp_path / "disk", 100)
    try:
        remount(disk, "ro")
        said = fails(disk, status=2)
        assert f"cannot write to --workdir {disk}: Read-only file system" in said
    finally:
        subprocess.run(["umount", disk], check=True)


def test_deleted_truncated_and_flipped_files_are_noticed_and_made_again(copy, finished, capsys):
    stages = copy / "stages"
    (stages / "base/rollouts_labels/pieces.jsonl").unlink()
    rollouts = stages / "base/rollouts/rollouts.jsonl"
    rollouts.write_bytes(rollouts.read_bytes()[:-1])
    model = stages / "mucode_1/generator/model/model.safetensors"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    ledger = stages / "base/greedy_mini_test/stage.json"
    ledger.write_text(ledger.read_text().replace('"tokens": ', '"tokens": 1'))
    capsys.readouterr()
    assert micro.run(copy) == 0
    said = capsys.readouterr().err
    assert "base/rollouts_labels: pieces.jsonl is missing; made again" in said
    assert "base/rollouts: rollouts.jsonl does not match its checksum; made again" in said
    assert "mucode_1/generator: model/model.safetensors does not match its checksum" in said
    assert "base/greedy_mini_test: its ledger is damaged" in said
    assert "base/verifier: " not in said  # made again, the rollouts are what they were
    assert micro.results(copy) == micro.results(finished)


def test_a_second_process_on_the_same_directory_is_told(copy, fails):
    with contextlib.closing(Workdir(copy)):
        assert "another process works in" in fails(copy, status=2)


# The sandbox.


def test_a_sandbox_that_cannot_start_refuses_before_anything_is_loaded(
    tmp_path, fails, monkeypatch
):
    monkeypatch.setattr(pool.sys, "executable", "/bin/false")
    said = fails(tmp_path, status=2)
    assert "cannot be isolated here as asked" in said and "Nothing weaker works either" in said
    assert not list(tmp_path.glob("stages/*"))


def test_a_sandbox_that_dies_ends_the_run_which_goes_on_later(copy, finished, fails, monkeypatch):
    """Every worker is killed as soon as it runs a program, time after time."""
    shutil.rmtree(copy / "stages/base/greedy_mini_test")
    run = pool._Worker.run

    def killed(self, job, patience):
        os.kill(self.process.pid, signal.SIGKILL)
        return run(self, job, patience)

    with monkeypatch.context() as patch:
        patch.setattr(pool._Worker, "run", killed)
        said = fails(copy)
    assert "the sandbox could not execute a program" in said and "nothing is lost" in said
    assert micro.run(copy) == 0
    assert micro.results(copy) == micro.results(finished)


# The device.


def test_a_loss_that_is_not_a_number_ends_the_run(copy, fails, capsys):
    said = fails(copy, "--config.sft.learning_rate=1e30", "--config.sft.epochs=3")
    assert "diverged" in said and "learning rate" in said


def test_out_of_memory_names_the_setting_to_lower_and_the_estimate(tmp_path, fails, monkeypatch):
    monkeypatch.setattr(main.plan, "check", lambda config: None)  # it would say so beforehand
    said = fails(tmp_path, "--config.rollout.slots=1000000")
    assert "base/greedy_mini_test: out of memory on the device" in said
    assert "lower config.rollout.slots (1000000)" in said
    assert re.search(r"1000000 take \d+\.\d\d GiB beside \d\.\d MiB of parameters", said), said


@pytest.mark.parametrize(
    ("making", "section"), [("mucode_1/generator", "sft"), ("base/verifier", "verifier_training")]
)
def test_out_of_memory_in_a_training_names_its_settings(making, section):
    told = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8000 bytes.")
    workdir = types.SimpleNamespace(making=making)
    with (
        pytest.raises(faults.OutOfMemory, match=f"^{making}: .*allocating 8000 bytes") as caught,
        faults.device_memory(micro.get_config(), workdir),
    ):
        raise told
    assert f"lower config.{section}.batch (8) or .length" in str(caught.value)
    assert re.search(
        r"take \d+\.\d MiB over all devices; nothing finished is lost", str(caught.value)
    )


def test_the_machines_own_memory_used_up_is_told():
    with pytest.raises(MemoryError) as caught:
        np.empty(2**60, np.int8)
    said, status = faults.told(caught.value, "runs/x")
    assert said.startswith("the machine's memory is used up") and status == 1


# Nothing solved, everything solved.


class Same(pool.Pool):
    """Every program has the same outcome."""

    outcome = Outcome("pass")

    def submit(self, program, tests):
        future = super().submit("", type(tests)())
        future.result()
        done = type(future)()
        done.set_result(self.outcome)
        return done


@pytest.mark.parametrize(
    ("status", "choices", "left"),
    [("pass", ("pt", "lv"), {"greedy", "pt"}), ("fail", ("lv", "pt+lv"), {"greedy"})],
)
def test_an_iteration_without_pairs_goes_on_and_says_what_was_skipped(
    tmp_path, capsys, monkeypatch, status, choices, left
):
    monkeypatch.setattr(Same, "outcome", Outcome(status, "wrong" * (status == "fail"), ""))
    monkeypatch.setattr(main, "Pool", Same)
    assert micro.run(tmp_path, f"--config.search.choices={choices}") == 0
    said = capsys.readouterr().err
    assert "base/verifier: skipped, because no problem has both" in said
    nothing = "mucode_1/generator: nothing was solved, so there is nothing to learn from"
    assert (nothing in said) == (status == "fail")
    searches = {e["search"] for e in micro.results(tmp_path)["evaluations"]}
    assert searches == left  # by a verifier that there is not, none


# Settings, devices and the ledger.


def test_a_training_with_checkpoints_of_another_recipe_begins_anew(copy, finished, caplog):
    stage = copy / "stages/mucode_1/generator"
    record = json.loads((stage / "stage.json").read_text())
    shutil.rmtree(stage)
    stage.mkdir()
    begun = {k: record[k] for k in ("settings", "inputs", "seconds")}
    (stage / "begun.json").write_text(json.dumps(begun))
    with Checkpoints(str(stage / "checkpoints"), {"steps": 10**6}) as saved:
        saved.save(3, {"w": np.zeros(3)})
    assert micro.run(copy) == 0
    assert "passing over checkpoint 3" in caplog.text and "with other steps" in caplog.text
    assert not (stage / "checkpoints").exists()
    assert micro.results(copy) == micro.results(finished)


def test_a_changed_setting_reruns_what_depends_on_it_and_nothing_else(copy, capsys):
    """And those that decide nothing (slots, workers, devices' memory) make nothing anew."""
    before = {p: p.stat().st_mtime_ns for p in copy.glob("stages/*/*/stage.json")}
    idle = ("--config.sandbox.workers=2", "--config.rollout.slots=4", "--config.generator.remat")
    capsys.readouterr()
    assert micro.run(copy, *idle) == 0
    assert "again" not in capsys.readouterr().err
    assert before == {p: p.stat().st_mtime_ns for p in copy.glob("stages/*/*/stage.json")}
    # What a program is shown and allowed decides its outcome.
    rollouts = json.loads((copy / "stages/base/rollouts/stage.json").read_text())["settings"]
    assert (rollouts["feedback"], rollouts["memory_mb"]) == ("values", 512)

    old = (copy / "results.json").read_bytes()
    assert micro.run(copy, "--config.sft.learning_rate=1e-4") == 0
    said = capsys.readouterr().err
    again = dict(re.findall(r"^(\S+): (.*); made again$", said, re.M))
    assert again.pop("mucode_1/generator").startswith("setting optimizer.")
    assert again == {
        "mucode_1/greedy_mini_test": "its input generator has changed",
        "mucode_1/greedy_mini_test_labels": "its input rollouts has changed",
        "mucode_1/search_mini_test": "its input generator has changed",
        "mucode_1/search_mini_test_labels": "its input searches has changed",
    }
    with pytest.raises(ValueError, match=r"is of before \S+/generator was made again"):
        (copy / "results.json").write_bytes(old)
        report.read(copy)
    for path, when in before.items():
        anew = str(path.relative_to(copy / "stages").parent) in {*again, "mucode_1/generator"}
        assert (path.stat().st_mtime_ns != when) == anew


@pytest.mark.parametrize(
    "setting", ["train.size", "rollout.temperature", "verifier.path", "verifier_training.loss"]
)
def test_a_run_with_a_changed_setting_ends_like_a_fresh_one(finished, tmp_path, setting):
    """tests/bench/reruns.py changes every setting."""
    override = f"--config.{setting}={reruns.CHANGES[setting]}"
    as_fresh, as_before, _ = reruns.rerun(finished, tmp_path, override)
    assert as_fresh and not as_before


def test_reruns_knows_every_setting():
    known = {*reruns.CHANGES, *reruns.IDLE, *reruns.UNTRIED}
    sections = {name: name.rpartition(".")[0] for name in settings.ITERATE}
    assert not [name for name, section in sections.items() if not {name, section} & known]


# Hubs, clocks, signals.


def test_a_hub_that_hangs_is_asked_again_and_then_the_way_out_is_told():
    """A loopback listener that accepts and never answers."""
    script = (
        "from mucode_jax.models import hub\nhub.TIMEOUT_S, hub.WAITS_S = 0.5, (0.1,)\n"
        "try: hub.resolve('owner/model')\n"
        "except ValueError as error: print(error)\n"
    )
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept():
            while True:
                try:
                    asked.append(listener.accept())
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        proxies = {name: "" for name in os.environ if name.lower().endswith("_proxy")}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ
            | proxies
            | {
                "HF_ENDPOINT": f"http://127.0.0.1:{listener.getsockname()[1]}",
                "HF_HUB_OFFLINE": "0",
            },
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        listener.shutdown(socket.SHUT_RDWR)
    for connection, _ in asked:
        connection.close()
    assert done.stdout.count("\n") == 1, done.stderr
    assert "cannot be fetched from the hub" in done.stdout
    assert "give the path of a local copy" in done.stdout
    assert done.stderr.count("again in 0.1 s") == 1 and len(asked) >= 2


def test_seconds_are_measured_by_a_clock_that_does_not_jump():
    for path in pathlib.Path(mucode_jax.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                called = f"{node.value.id}.{node.attr}"
                assert called not in ("time.time", "datetime.now"), path


def test_a_signal_asks_and_the_work_stops_at_its_next_piece():
    said = []
    with interruption.watched(said.append):
        assert not interruption.asked()
        interruption.check()
        os.kill(os.getpid(), signal.SIGTERM)
        until = time.monotonic() + 10
        while not interruption.asked() and time.monotonic() < until:
            time.sleep(0.01)
        with pytest.raises(interruption.Interrupted):
            interruption.check()
        assert interruption.status() == 143
    assert not said  # it took no time: the line that it stopped is the only one


@pytest.mark.parametrize(("grace", "second"), [(60.0, True), (0.3, False)])
def test_a_second_signal_or_too_long_a_piece_leaves_at_once(grace, second):
    script = (
        "import hashlib\nfrom mucode_jax.runtime import interruption\n"
        f"interruption.GRACE_S, interruption.QUIET_S = {grace}, 0.0\n"
        "with interruption.watched(lambda text: print(text, flush=True)):\n"
        "    print('ready', flush=True)\n"
        # in C for hours, without the interpreter's lock, as a compilation is
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert "SIGINT: finishing what is under way" in process.stdout.readline()
        if second:
            process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=30) == 130
        finally:
            process.kill()
        said = process.stderr.read()
    assert "the same command goes on from the last finished piece or checkpoint" in said


# Many iterations.


def test_iterations_in_one_process_leave_nothing_behind(tmp_path):
    """3 of them; `python tests/bench/iterations.py` makes 20 and measures memory, too."""
    spec = importlib.util.spec_from_file_location("bench_iterations", ITERATIONS)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    first, *_, last = bench.measure(tmp_path, 3)
    assert last["descriptors"] == first["descriptors"] and last["threads"] <= first["threads"] + 1
    # The last iteration needs no rollouts of its own, and so no verifier.
    assert last["KiB"] <= first["KiB"]
