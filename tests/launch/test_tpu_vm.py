"""launch/tpu_vm.sh against a `gcloud` that records its calls and answers from a script."""

import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "launch/tpu_vm.sh"

# Notes its arguments; says the next state where it is asked for one; fails the runs it is told to.
GCLOUD = """#!/usr/bin/env python3
import json, os, pathlib, sys
here = pathlib.Path(os.environ["FAKE"])
with open(here / "calls.jsonl", "a") as f:
    f.write(json.dumps(sys.argv[1:]) + "\\n")
def pop(name):
    lines = (here / name).read_text().split()
    (here / name).write_text("\\n".join(lines[1:]))
    return lines[0] if lines else "0"
if "describe" in sys.argv:
    print(pop("states"))
elif "mucode_jax.main" in sys.argv[-1]:
    sys.exit(int(pop("statuses")))
"""


@pytest.fixture
def tpu_vm(tmp_path):
    """Runs the script; returns (exit status, output, the gcloud calls)."""
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/gcloud"
    fake.write_text(GCLOUD)
    fake.chmod(0o755)

    def call(*arguments, states="ACTIVE", runs="0", **environment):
        (tmp_path / "states").write_text(states)
        (tmp_path / "statuses").write_text(runs)
        settings = {"NAME": "mu", "ZONE": "us-west4-a", "TYPE": "v5litepod-16"}
        settings |= {"BUCKET": "gs://mine/runs", "POLL": "0", "TMPDIR": str(tmp_path)}
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        done = subprocess.run(
            [str(SCRIPT), *arguments],
            env={**os.environ, **settings, **environment, "FAKE": str(tmp_path), "PATH": path},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        calls = tmp_path / "calls.jsonl"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return done.returncode, done.stdout + done.stderr, [json.loads(line) for line in lines]

    return call


def verbs(calls):
    return [
        next(w for w in c if w in ("create", "describe", "scp", "ssh", "cp", "delete"))
        for c in calls
    ]


def test_all_creates_installs_runs_fetches_and_deletes(tpu_vm):
    states = "WAITING_FOR_RESOURCES PROVISIONING ACTIVE"
    status, output, calls = tpu_vm("all", "configs/x.py:star", "--config.seed=3", states=states)
    assert status == 0, output
    expected = ["create", *["describe"] * 3, "scp", "ssh", "ssh", "cp", "cp", "delete"]
    assert verbs(calls) == expected
    assert "--spot" in calls[0] and "v2-alpha-tpuv5-lite" in calls[0]
    assert all("--worker=all" in call for call in calls[4:7])
    command = calls[6][-1]
    assert "--config configs/x.py:star --workdir gs://mine/runs/mu --config.seed=3" in command
    assert "mucode_jax[tpu,gcs]" in calls[5][-1] and "nfs" not in calls[5][-1]
    assert calls[7][-2:] == ["gs://mine/runs/mu/results.json", "runs/mu/results.json"]
    printed = [line for line in output.splitlines() if line.startswith("+ gcloud")]
    assert len(printed) == len(calls) - 3  # every step but the looks at the queue


def test_a_preempted_slice_is_asked_for_again_and_the_run_goes_on(tpu_vm):
    status, output, calls = tpu_vm(
        "all", "configs/x.py", states="ACTIVE SUSPENDED ACTIVE", runs="255 0"
    )
    assert status == 0 and "preempted" in output
    once = ["create", "describe", "scp", "ssh", "ssh"]
    assert verbs(calls) == [*once, "describe", "delete", *once, "cp", "cp", "delete"]


def test_a_run_that_fails_on_a_living_slice_is_not_tried_again(tpu_vm):
    status, output, calls = tpu_vm("all", "configs/x.py", states="ACTIVE ACTIVE", runs="2")
    assert status == 1 and "slice is still there" in output
    assert verbs(calls).count("create") == 1 and "delete" not in verbs(calls)


def test_a_dry_run_prints_the_steps_and_calls_nothing(tpu_vm):
    status, output, calls = tpu_vm("--dry-run", "all", "configs/x.py")
    assert status == 0 and calls == []
    steps = [line for line in output.splitlines() if line.startswith("+ ")]
    assert len(steps) == 10 and "queued-resources create" in steps[0]


def test_a_share_takes_the_place_of_a_bucket(tpu_vm):
    nfs = {"BUCKET": "", "NFS": "10.0.0.2:/share"}
    _, _, calls = tpu_vm("install", **nfs)
    assert "sudo mount -t nfs 10.0.0.2:/share /mnt/mucode" in calls[1][-1]
    _, _, calls = tpu_vm("fetch", **nfs)
    assert verbs(calls[-2:]) == ["scp", "scp"] and "mu:/mnt/mucode/mu/results.json" in calls[-2]


def test_a_token_is_passed_on_and_not_printed(tpu_vm):
    _, output, calls = tpu_vm("run", "configs/x.py", HF_TOKEN="hf_secret")
    assert "HF_TOKEN=hf_secret" in calls[0][-1] and "hf_secret" not in output


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (("run",), {}, "run needs a config"),
        (("frobnicate",), {}, "no command 'frobnicate'"),
        (("create", "now"), {}, "create takes no 'now'"),
        (("create",), {"NAME": ""}, "set NAME"),
        (("create",), {"BUCKET": ""}, "set BUCKET=gs://BUCKET/PATH"),
        (("create",), {"BUCKET": "mine/runs"}, "BUCKET is mine/runs; it begins with gs://"),
        (("create",), {"TYPE": "v99-8"}, "set VERSION"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(tpu_vm, arguments, environment, message):
    status, said, calls = tpu_vm(*arguments, **environment)
    assert status == 2 and message in said and len(said.splitlines()) == 1 and not calls
