"""Kills quickstart.py:tiny at random moments over its course, resuming each time.

    python tests/bench/interruptions.py [--moments 50] [--signal KILL|TERM|both] [--seed 0]
    python tests/bench/interruptions.py --signal INT --moments 10

A moment is a stage of the undisturbed run and a number of seconds into it, drawn with the same
chance for every second of the course. A session that gets further than the plan can be done before
its moment: what is then missing of the interruptions is made up for in a further course, from the
beginning. The final results.json of each must equal the undisturbed one, and a run that was asked
to stop (TERM) must say how to go on. Work done twice is what all sessions of the main process
computed beyond the undisturbed run, their starts (import, look ahead) not counted.

INT is Ctrl-C: the whole process group gets it, at any moment from the first import to the last
line, and each session must end with status 130 and one line about it, without a word that looks
like a fault.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from tests import micro

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = ("--config", "configs/quickstart.py:tiny")
FAULT = re.compile(r"Traceback|Error|[Ww]arn|[Ff]atal|sandbox: |attempt \d|^[EWF]\d{4} ", re.M)


@dataclasses.dataclass
class Session:
    """One process.

    Attributes:
      status: as `subprocess` gives it, negative for a signal.
      cpu: seconds of the main process.
      said: what it wrote to stderr.
    """

    status: int
    cpu: float
    said: str


class Run:
    """A run under way in `directory`, on one device, as a person starts it."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
        compiled = environment.pop("JAX_COMPILATION_CACHE_DIR", "")
        if os.path.isdir(compiled) and not (directory / "xla").exists():
            # Not the one of all tests: a process that is killed may leave half a program there.
            shutil.copytree(compiled, directory / "xla", copy_function=os.link)
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in `end`)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mucode_jax.main", *TINY, "--workdir", str(directory)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,  # what Ctrl-C reaches
        )
        self._ended: tuple[int, float] | None = None

    def ended(self) -> bool:
        if self._ended is None:
            pid, status, used = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self.process.returncode = code
                self._ended = code, used.ru_utime + used.ru_stime
        return self._ended is not None

    def said(self) -> str:
        # At a place of its own: the process goes on writing at its.
        return os.pread(self._log.fileno(), 1 << 20, 0).decode(errors="replace")

    def wait(self, *, until_stage: str | None = None, seconds: float = 0.0) -> None:
        """Returns `seconds` after that stage was begun, or its beginning was passed, or at the end.

        Without a stage: when the process has ended.
        """
        begun = None
        while not self.ended():
            if begun is None and until_stage is not None and "held out" in self.said():
                folder = self.directory / "stages" / until_stage
                if (folder / "begun.json").exists() or (folder / "stage.json").exists():
                    begun = time.monotonic()
            if begun is not None and time.monotonic() - begun >= seconds:
                return
            time.sleep(0.02)

    def end(self, with_signal: int | None = None) -> Session:
        """Sends the signal, if there is one, and waits for the end."""
        if with_signal is not None and not self.ended():
            send = os.killpg if with_signal == signal.SIGINT else os.kill
            send(self.process.pid, with_signal)
        self.wait()
        said = self.said()
        self._log.close()
        return Session(*self._ended, said)


def moments(directory: pathlib.Path, count: int, seed: int) -> list[tuple[str, float]]:
    """(stage, seconds into it) of random moments of a finished run, in order."""
    stages = json.loads((directory / "results.json").read_text())["stages"]
    chance = random.Random(seed)
    drawn = chance.choices(range(len(stages)), [s["seconds"] for s in stages], k=count)
    pairs = sorted((i, chance.uniform(0, stages[i]["seconds"])) for i in drawn)
    return [(stages[i]["name"], seconds) for i, seconds in pairs]


def disturbed(
    directory: pathlib.Path, at: Sequence[tuple[str, float]], signals: Sequence[int]
) -> list[Session]:
    """Runs in `directory`, interrupted at those moments by those signals in turn, to its end.

    Raises AssertionError where a session ends otherwise than by its signal or by being done.
    """
    sessions = []
    for number, (stage, seconds) in enumerate(at):
        run = Run(directory)
        run.wait(until_stage=stage, seconds=seconds)
        number = signals[number % len(signals)]
        session = run.end(number)
        right = (0, -number) if number == signal.SIGKILL else (0, 128 + number)
        assert session.status in right, f"at {stage}: status {session.status}\n{session.said}"
        assert "Traceback" not in session.said, session.said
        if session.status > 0:
            last = session.said.strip().splitlines()[-1]
            ways = ("resumes from", "goes on from", "start again")
            assert any(way in last for way in ways), session.said
        sessions.append(session)
    last = Run(directory).end()
    assert last.status == 0, last.said
    return [*sessions, last]


def ctrl_c(directory: pathlib.Path, count: int, longest: float, seed: int) -> int:
    """Interrupts sessions in `directory` at random moments; how many ended by that, and well.

    Args:
      count: sessions; a last one runs to its end.
      longest: a moment is at most so many seconds after the start of its session.

    Raises AssertionError where a session ends otherwise, or says what looks like a fault.
    """
    chance = random.Random(seed)
    cut = 0
    for _ in range(count):
        seconds = chance.uniform(0.1, longest)
        run = Run(directory)
        until = time.monotonic() + seconds
        while time.monotonic() < until and not run.ended():
            time.sleep(0.01)
        session = run.end(signal.SIGINT)
        lines = session.said.splitlines()
        print(f"SIGINT after {seconds:.1f} s: status {session.status}: {lines[-1:]}", flush=True)
        assert session.status in (0, 130), session.said
        assert not FAULT.search(session.said), session.said
        if session.status == 130:
            cut += 1
            about = [line for line in lines if re.search("interrupted|stopped", line)]
            assert about == lines[-1:] and about[0].startswith("mucode_jax: "), session.said
    last = Run(directory).end()
    assert last.status == 0, last.said
    return cut


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--signal", choices=("KILL", "TERM", "both", "INT"), default="both")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        began = time.monotonic()
        alone = Run(home / "undisturbed").end()
        assert alone.status == 0, alone.said
        expected = micro.results(home / "undisturbed")
        if given.signal == "INT":
            longest = (time.monotonic() - began) / 3
            cut = ctrl_c(home / "INT", given.moments, longest, given.seed)
            same = micro.results(home / "INT") == expected
            print(f"SIGINT: {cut} interruptions, results {'equal' if same else 'DIFFER'}")
            return 0 if same else 1
        start = Run(home / "undisturbed")
        while "held out" not in start.said() and not start.ended():
            time.sleep(0.01)
        startup = start.end(signal.SIGKILL).cpu
        print(f"undisturbed: {alone.cpu:.1f} CPU-s, of which {startup:.1f} to start", flush=True)
        for name in ("KILL", "TERM") if given.signal == "both" else (given.signal,):
            cut, courses, extra = 0, 0, 0.0
            while cut < given.moments:
                directory = home / f"{name}_{courses}"
                at = moments(home / "undisturbed", given.moments - cut, given.seed + courses)
                sessions = disturbed(directory, at, [getattr(signal, f"SIG{name}")])
                if micro.results(directory) != expected:
                    print(f"SIG{name}: course {courses} of seed {given.seed}: results DIFFER")
                    return 1
                cut += sum(s.status != 0 for s in sessions)
                courses += 1
                extra += sum(s.cpu for s in sessions) - alone.cpu - startup * (len(sessions) - 1)
                print(f"SIG{name}: {cut} of {given.moments} after {courses} courses", flush=True)
            print(
                f"SIG{name}: {cut} interruptions in {courses} courses, results equal in each; "
                f"done twice {extra:.1f} CPU-s, {extra / cut:.1f} an interruption",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
