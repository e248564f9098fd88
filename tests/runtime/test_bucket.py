"""Work directories in a bucket: what one machine leaves there, another takes up."""

import contextlib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from configs import base
from mucode_jax import export, report
from mucode_jax.lab import sweep
from mucode_jax.report import __main__ as command
from mucode_jax.report import page
from mucode_jax.runtime import bucket, lease
from mucode_jax.runtime.bucket import Bucket
from mucode_jax.runtime.pieces import Pieces
from mucode_jax.runtime.progress import Progress
from mucode_jax.runtime.workdir import Workdir
from tests import fake_gcs, invented, micro
from tests.runtime.test_workdir import spoil_unseen

if importlib.util.find_spec("gcsfs") is None:
    pytest.skip("needs gcsfs (extra `gcs`)", allow_module_level=True)

# gcsfs hands over what it sends as it is.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUN = "gs://fake/run"


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """An empty bucket; this process as the only one on a fresh machine."""
    import fsspec

    with fake_gcs.serve() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine"))
        yield server
        for name in ("gcs", "gs"):
            fsspec.get_filesystem_class(name).clear_instance_cache()


def fresh_machine(monkeypatch, tmp_path, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))


def fill(path):
    (path / "model").mkdir()
    (path / "out.jsonl").write_text("1\n2\n")
    (path / "model" / "weights").write_bytes(bytes(range(256)) * 25_000)  # in several requests
    return {"n": 2}


def never(path):
    raise AssertionError("it is there already")


def test_a_finished_stage_is_found_by_another_machine(cloud, tmp_path, monkeypatch):
    with contextlib.closing(Workdir(RUN)) as here:
        first = here.stage("base/a", {"n": 1}, {}, fill)
        here.stage("base/a_labels", {}, {"a": first}, lambda path: {})
        (here.path / "results.json").write_text("{}")
    stored = [name.removeprefix("run/stages/base/") for name in cloud.names("run/stages")]
    assert stored == ["a/model/weights", "a/out.jsonl", "a/stage.json", "a_labels/stage.json"]
    assert "run/results.json" in cloud.objects and "run/lock" not in cloud.objects
    fresh_machine(monkeypatch, tmp_path, "another")
    with contextlib.closing(Workdir(RUN)) as there:
        again = there.stage("base/a", {"n": 1}, {}, never)
        assert again.fingerprint == first.fingerprint
        assert (again.path / "model/weights").read_bytes() == bytes(range(256)) * 25_000
        assert there.path != here.path


def test_a_mirror_that_looks_as_before_is_compared_to_the_bucket_only_to_verify(cloud):
    lines = []

    def weights(verify=False):
        with contextlib.closing(Workdir(RUN, lines.append, verify=verify)) as workdir:
            return workdir.stage("a", {}, {}, fill).path / "model/weights"

    whole = weights().read_bytes()
    spoil_unseen(weights())
    assert weights().read_bytes() != whole
    assert weights(verify=True).read_bytes() == whole
    assert all("looking into" in line for line in lines)  # fetched again, nothing made again


def test_the_ledger_goes_up_when_everything_else_is_there(cloud):
    with contextlib.closing(Workdir(RUN)) as workdir:
        workdir.stage("a", {}, {}, fill)
    puts = [r for r in cloud.requests if r.startswith("POST /upload") and "upload_id" not in r]
    order = list(cloud.objects.values())
    ledger = cloud.objects["run/stages/a/stage.json"].generation
    assert puts and ledger == max(o.generation for o in order)


def test_a_changed_setting_clears_the_bucket_too(cloud, tmp_path, monkeypatch):
    lines = []
    with contextlib.closing(Workdir(RUN)) as workdir:
        workdir.stage("a", {"n": 1}, {}, fill)
    fresh_machine(monkeypatch, tmp_path, "another")
    with contextlib.closing(Workdir(RUN, lines.append)) as workdir:
        workdir.stage("a", {"n": 2}, {}, lambda path: {})
    assert lines[1:] == ["a: setting n was 1, is now 2; made again"]
    assert cloud.names("run/stages") == ["run/stages/a/stage.json"]


def test_pieces_of_a_machine_that_is_gone_are_taken_up(cloud, tmp_path, monkeypatch):
    """It says nothing at its end; what went up before, at most half a minute earlier, is there."""
    monkeypatch.setattr(bucket, "EVERY_S", 0.05)
    monkeypatch.setattr(lease, "SILENT_S", 0.2)
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    stored = []

    def share(path):
        stored.append(Pieces(path))
        assert stored[0].read() == []
        for i in range(3):
            stored[0].append(i)
        until = time.monotonic() + 10
        while not cloud.names("run/stages/a/pieces") and time.monotonic() < until:
            time.sleep(0.02)
        dead._away.push = lambda *_: None  # the machine is switched off here
        gone.set()
        over.wait()
        raise KeyboardInterrupt

    gone, over = threading.Event(), threading.Event()
    dead = Workdir(RUN)

    def work():
        with contextlib.suppress(KeyboardInterrupt):
            dead.stage("a", {}, {}, never, share)

    machine = threading.Thread(target=work)
    machine.start()
    assert gone.wait(20)
    dead._away._lease._stop_beating()

    fresh_machine(monkeypatch, tmp_path, "another")
    lines, records = [], []
    with contextlib.closing(Workdir(RUN, lines.append)) as workdir:
        assert "is held by process" in lines[1]

        def go_on(path):
            records.extend(Pieces(path).read())

        workdir.stage("a", {}, {}, lambda path: {"n": len(Pieces(path).gather())}, go_on)
    assert records == [0, 1, 2]
    assert cloud.names("run/stages") == ["run/stages/a/stage.json"]
    over.set()
    machine.join()
    stored[0].close()
    dead._lock_file.close()


def test_a_stop_takes_up_what_is_there(cloud, tmp_path, monkeypatch):
    def stop(path):
        with contextlib.closing(Pieces(path)) as pieces:
            pieces.read()
            pieces.append("done")
        raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        contextlib.closing(Workdir(RUN)) as workdir,
    ):
        workdir.stage("a", {}, {}, never, stop)
    assert "run/lock" not in cloud.objects
    fresh_machine(monkeypatch, tmp_path, "another")
    with contextlib.closing(Workdir(RUN)) as workdir:
        made = workdir.stage("a", {}, {}, lambda path: {"records": Pieces(path).gather()})
    assert made.record["counts"] == {"records": ["done"]}


def test_a_living_process_keeps_others_out(cloud, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    with contextlib.closing(Workdir(RUN)):
        with pytest.raises(ValueError, match=f"another process works in {RUN}; wait"):
            Workdir(RUN)  # on the same machine: at once
        fresh_machine(monkeypatch, tmp_path, "another")
        with pytest.raises(ValueError, match=f"works in {RUN}: process {os.getpid()} on "):
            Workdir(RUN, lambda text: None)


def test_a_lock_that_the_same_machine_left_is_no_reason_to_wait(cloud):
    dead = Workdir(RUN)
    dead._away._lease._stop_beating()
    dead._lock_file.close()  # as the end of a process does
    began, lines = time.monotonic(), []
    Workdir(RUN, lines.append).close()
    assert lines == ["looking into gs://fake/run"]
    assert time.monotonic() - began < lease.BEAT_S
    assert "run/lock" not in cloud.objects


def test_who_lost_the_lock_writes_no_more(cloud, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_S", 0.02)
    workdir = Workdir(RUN, lambda text: None)
    generation = cloud.objects["run/lock"].generation
    cloud.put("run/lock", b"{}", {})
    until = time.monotonic() + 10
    while not workdir._away._lease.lost and time.monotonic() < until:
        time.sleep(0.02)
    with pytest.raises(OSError, match="another process has taken it over"):
        workdir.stage("a", {}, {}, fill)
    with pytest.raises(OSError, match="taken it over"):
        (workdir.path / "results.json").write_text("{}")
        workdir.close()
    assert cloud.objects["run/lock"].generation > generation  # the other's


def test_a_bucket_that_does_not_answer_is_asked_again_and_then_told_in_one_line(cloud, monkeypatch):
    import gcsfs.retry

    monkeypatch.setattr(gcsfs.retry, "min", lambda *_: 0.01, raising=False)  # its pauses
    lines = []
    with contextlib.closing(Workdir(RUN, lines.append)) as workdir:

        def share(path):
            cloud.fails = True
            before = len(cloud.requests)
            with pytest.raises(OSError, match="overloaded"):
                workdir._away.push("stages/a")
                (path / "x").write_text("x")
                workdir._away.push("stages/a")
            assert len(cloud.requests) - before == 6
            cloud.fails = False

        workdir.stage("a", {}, {}, fill, share)
        assert "run/stages/a/x" in cloud.objects
        cloud.fails = True
        with pytest.raises(OSError) as error:
            workdir.stage("b", {}, {}, fill)
        assert error.value.strerror and "\n" not in error.value.strerror
        cloud.fails = False
    cloud.fails = True
    with pytest.raises(ValueError, match=f"cannot write to --workdir {RUN}: the bucket does not"):
        Workdir(RUN)


@pytest.mark.parametrize("where", ["s3://bucket/run", "gs://bucket", "gs://bucket/", "gs:///run"])
def test_another_address_is_refused(where):
    with pytest.raises(ValueError, match="a bucket's is gs://BUCKET/PATH"):
        Workdir(where)


def test_a_bucket_that_is_not_there_is_named(cloud):
    with pytest.raises(ValueError, match="cannot write to --workdir gs://nobodys/run"):
        Workdir("gs://nobodys/run")


def test_gcsfs_is_asked_for_where_it_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ValueError, match=r"gs://fake/run needs gcsfs; install it with pip .*gcs"):
        Bucket(RUN, print)


# One stage of conversations: a training's checkpoints have a test of their own.
FEW = (
    "--config.methods=()",
    "--config.search.methods=()",
    "--config.evaluation.size=6",
    "--config.rollout.slots=2",
)
MICRO = """
import sys
from mucode_jax.runtime import bucket, lease
from tests import micro
lease.BEAT_S = bucket.EVERY_S = 0.1
sys.exit(micro.run(*sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_run_killed_half_way_ends_on_another_machine_with_the_results_of_a_folder(
    cloud, tmp_path, monkeypatch
):
    killed = subprocess.Popen(
        [sys.executable, "-c", MICRO, RUN, *FEW],
        cwd=ROOT,
        # Not the tests' compiled programs: it is killed, perhaps while it writes one.
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla"),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 300
    pieces = "run/stages/base/greedy_mini_test/pieces/0.jsonl"
    while killed.poll() is None and pieces not in cloud.objects and time.monotonic() < until:
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    done = [name for name in cloud.names("run/stages") if name.endswith("/stage.json")]
    assert done and cloud.objects[pieces].data and "run/lock" in cloud.objects

    monkeypatch.setattr(lease, "SILENT_S", 0.5)
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    fresh_machine(monkeypatch, tmp_path, "another")
    monkeypatch.setattr(bucket, "_BESIDE", ("tensorboard",))  # programs are shared by all tests
    assert micro.run(RUN, *FEW) == 0
    assert micro.run(tmp_path / "folder", *FEW) == 0
    (tmp_path / "results.json").write_bytes(cloud.objects["run/results.json"].data)
    assert micro.results(tmp_path) == micro.results(tmp_path / "folder")
    assert "run/report.html" in cloud.objects
    left = [n for n in cloud.names("run/stages") if "/pieces/" in n or n.endswith("/begun.json")]
    assert not left and "run/lock" not in cloud.objects


def test_checkpoints_of_a_training_lie_in_the_bucket(cloud):
    import jax

    from mucode_jax.training.checkpoints import Checkpoints

    state = {"a": jax.numpy.arange(6.0)}
    with contextlib.closing(Workdir(RUN)) as workdir:

        def train(path):
            where = workdir.address(path / "checkpoints")
            with Checkpoints(where, {"steps": 9}) as saved:
                for step in (1, 2, 3):
                    saved.save(step, state)
            del cloud.objects["run/stages/a/checkpoints/3/commit_success.txt"]  # cut short
            shapes = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
            )
            with Checkpoints(where, {"steps": 9}) as saved:
                step, restored = saved.restore(shapes)
            assert step == 2 and (restored["a"] == state["a"]).all()
            workdir._away.pull("stages/a")
            assert not (path / "checkpoints").exists()

        workdir.stage("a", {}, {}, lambda path: {}, train)
    assert cloud.names("run/stages") == ["run/stages/a/stage.json"]


def test_a_finished_run_is_read_and_its_report_written_anew(cloud, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "render", lambda *_: "<html>")  # plots take seconds
    with contextlib.closing(Workdir(RUN)) as workdir:
        report.write(workdir.path, invented.make_run(workdir.path))
        workdir._away.push("stages")
    del cloud.objects["run/report.html"]
    fresh_machine(monkeypatch, tmp_path, "desk")
    assert command.main([RUN]) == 0
    assert b"<html" in cloud.objects["run/report.html"].data
    assert not cloud.names("run/xla")


def test_a_model_is_taken_out_of_a_bucket(cloud, tmp_path, monkeypatch):
    with contextlib.closing(Workdir(RUN)) as workdir:
        for i in (1, 2):

            def make(path, i=i):
                (path / "model").mkdir()
                (path / "model/config.json").write_text("{}")
                (path / "model/model.safetensors").write_text(f"weights {i}")
                return {}

            workdir.stage(f"mucode_{i}/generator", {}, {}, make)
        results = invented.make_run(workdir.path)
        (workdir.path / "results.json").write_text(json.dumps(results))
    fresh_machine(monkeypatch, tmp_path, "desk")
    monkeypatch.setattr(export.card, "write", lambda *_: "its card")
    before = len(cloud.requests)
    out = tmp_path / "out"
    assert export.main(["--workdir", RUN, "--what", "generator", "--out", str(out)]) == 0
    assert (out / "model.safetensors").read_text() == "weights 2"
    asked = [r for r in cloud.requests[before:] if "mucode_1/generator/model" in r]
    assert not asked  # what is not exported is not brought down


def test_a_sweep_lies_in_a_bucket_with_its_runs(cloud, monkeypatch):
    monkeypatch.setattr(page, "render", lambda *_: "")
    monkeypatch.setattr(sweep.findings, "page", lambda *_: "")
    config = base.get_config()
    config.seeds = (0, 1)
    config.train.size = config.evaluation.size = 1

    def experiment(config, workdir, progress):
        workdir.stage("base/rollouts", {"seed": config.seed}, {}, fill)
        return invented.make_run(workdir.path, seed=config.seed)

    with contextlib.closing(Workdir(RUN)) as workdir:
        sweep.run(config, workdir.where, Progress(), lambda config: None, experiment)
    tops = [n for n in cloud.names("run") if "/stages/" not in n]
    per_run = [f"run/seed_{i}/{name}" for i in (0, 1) for name in ("report.html", "results.json")]
    assert tops == ["run/evidence.json", "run/report.html", *per_run]
    assert "run/seed_1/stages/base/rollouts/stage.json" in cloud.objects
