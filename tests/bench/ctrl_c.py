"""Interrupts solve, score, export and aot at random moments, as Ctrl-C does: the whole group.

    python tests/bench/ctrl_c.py [--moments 10] [--seed 0] [--only solve,score,export,aot]

A moment is a number of CPU seconds of the command, from its first import on, drawn with the same
chance up to its undisturbed end. Each time it must end with status 130 and one line, within
seconds, and leave neither process nor file behind; or, where it was done before, as undisturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from tests.test_ctrl_c import members
from tests.test_export import finished_run

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIRST_S = 0.2  # CPU seconds: before, Python itself is starting


def start(command: Sequence[str], out: pathlib.Path) -> subprocess.Popen:
    out.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", f"mucode_jax.{command[0]}", *command[1:]],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def cpu_seconds(pid: int) -> float:
    """Those that a process has used, its threads' among them."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def undisturbed(command: Sequence[str], out: pathlib.Path) -> tuple[int, float]:
    """The status, and the CPU seconds up to the end."""
    process, seconds = start(command, out), 0.0
    while process.poll() is None:
        seconds = cpu_seconds(process.pid)
        time.sleep(0.05)
    return process.returncode, seconds


def interrupted(command: Sequence[str], out: pathlib.Path, moment: float) -> tuple[int, float]:
    """The status, and the seconds from the signal to the end.

    Raises AssertionError where a process, a file or another line than the one is left.
    """
    process = start(command, out)
    while process.poll() is None and cpu_seconds(process.pid) < moment:
        time.sleep(0.01)
    sent = time.monotonic()
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate()
    seconds = time.monotonic() - sent
    if process.returncode == 130:
        assert said == "mucode_jax: interrupted\n", said
        assert not list(out.iterdir()), list(out.iterdir())
    time.sleep(0.5)
    assert not members(process.pid), members(process.pid)
    return process.returncode, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="solve,score,export,aot")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        problem, pairs = home / "problem.json", home / "pairs.jsonl"
        problem.write_text('{"prompt": "f: the sum", "tests": ["assert f([]) != f([])"]}')
        pair = {"prompt": "f: the sum", "completion": "def f(xs):\n    return sum(xs)"}
        pairs.write_text("".join(json.dumps(pair | {"i": i}) + "\n" for i in range(200)))
        run = finished_run(home / "run")
        commands = {
            "solve": [str(problem), "--n", "16"],
            "score": ["--verifier", "mini", "--pairs", str(pairs), "--out", "{out}/scored.jsonl"],
            "export": ["--workdir", str(run), "--what", "generator", "--out", "{out}/model"],
            "aot": [
                *("--config", "configs/quickstart.py", "--topology", "v5e:1x1"),
                *("--config.rollout.slots=8", "--only=decode"),
            ],
        }
        for name in given.only.split(","):

            def command(out: pathlib.Path, name: str = name) -> list[str]:
                return [name, *(flag.replace("{out}", str(out)) for flag in commands[name])]

            status, whole = undisturbed(command(home / name), home / name)
            ends = []
            for i in range(given.moments):
                out = home / f"{name}_{i}"
                moment = chance.uniform(FIRST_S, whole)
                ended, seconds = interrupted(command(out), out, moment)
                print(f"{name}: after {moment:.1f} CPU-s: {ended}, {seconds:.1f} s", flush=True)
                assert ended in (130, status), ended
                ends.append(ended)
            print(f"{name}: {ends.count(130)} of {len(ends)} interrupted, each as it should be")
    return 0


if __name__ == "__main__":
    sys.exit(main())
