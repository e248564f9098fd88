"""Measures the sandbox: speed against the published way, endurance, and fuzz.

    python tests/bench/sandbox.py speed [--programs 200] [--rounds 5]
    python tests/bench/sandbox.py endurance [--programs 100000] [--killed 0.01]
    python tests/bench/sandbox.py fuzz [--programs 10000]
    python tests/bench/sandbox.py write FILE [--programs 200]  # for `against.py`; also FILE.classes

`speed` interleaves, in one run on the same programs, the published way (a fresh `python file.py`
with its prelude, one after the other on each core) and ours, with one worker and with all; CPU time
counts every process involved. `endurance` kills workers at random on the way and holds that memory,
file descriptors and processes stay flat and that no program is lost or counted twice. `fuzz` runs
random bytes and mutated programs.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from mucode_jax.core.records import Tests
from mucode_jax.sandbox import Pool
from mucode_jax.sandbox.prelude import TEXT as PRELUDE

PROGRAMS = (
    (
        "def count_vowels(text):\n    return sum(c in 'aeiou' for c in text.lower())\n",
        ("count_vowels('Education') == 5", "count_vowels('xyz') == 0", "count_vowels('') == 0"),
    ),
    (
        "def merge(a, b):\n    return sorted(set(a) | set(b))\n",
        ("merge([3, 1], [2, 3]) == [1, 2, 3]", "merge([], []) == []", "merge([1], []) == [1]"),
    ),
    (
        "def gcd_all(values):\n    return functools.reduce(math.gcd, values)\n",
        ("gcd_all([12, 18, 30]) == 6", "gcd_all([7]) == 7", "gcd_all([5, 9]) == 1"),
    ),
    (
        "def primes(n):\n    return [k for k in range(2, n) if all(k % d for d in range(2, k))]\n",
        ("primes(12) == [2, 3, 5, 7, 11]", "primes(2) == []", "primes(4) == [2, 3]"),
    ),
    (
        "def words(text):\n    return dict(Counter(re.findall(r'[a-z]+', text.lower())))\n",
        ("words('A b a') == {'a': 2, 'b': 1}", "words('') == {}", "words('z!') == {'z': 1}"),
    ),
)


def programs(count: int) -> Iterator[tuple[str, Tests, str]]:
    """(program, tests, expected status); every seventh is wrong."""
    for number in range(count):
        code, claims = PROGRAMS[number % len(PROGRAMS)]
        wrong = number % 7 == 6
        claims = (*claims[:2], claims[2].replace("==", "!=")) if wrong else claims
        tests = Tests(tuple(f"assert {claim}" for claim in claims))
        yield f"# {number}\n{code}", tests, "fail" if wrong else "pass"


def in_classes(work: list) -> list:
    """The same programs with their tests as classes of unittest."""
    head = "import unittest\nclass T(unittest.TestCase):\n"
    return [
        (
            program,
            Tests((head + "".join(map(_method, range(9), tests.statements)),)),
            expected,
        )
        for program, tests, expected in work
    ]


def _method(number: int, statement: str) -> str:
    left, sign, right = statement.removeprefix("assert ").rpartition(" == ")
    if not sign:
        left, _, right = statement.removeprefix("assert ").rpartition(" != ")
    name = "assertEqual" if sign else "assertNotEqual"
    return f"    def test_{number}(self):\n        self.{name}({left}, {right})\n"


def _worker_processes() -> dict[int, list[str]]:
    """pid -> fields of /proc/PID/stat from the state on, for every process of our pools."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                command = pathlib.Path(f"/proc/{entry}/cmdline").read_bytes()
                stat = pathlib.Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            if b"sandbox/worker.py" in command and b'"handle"' in command:
                found[int(entry)] = stat.rpartition(")")[2].split()
    # A worker is the leader of a session of its own, to which all that it starts belongs.
    ours = {pid for pid, fields in found.items() if int(fields[1]) == os.getpid()}
    return {pid: fields for pid, fields in found.items() if int(fields[3]) in ours}


def _cpu_seconds() -> float:
    """CPU time so far of this process, its waited-for children, and the workers."""
    ticks = sum(sum(map(int, fields[11:15])) for fields in _worker_processes().values())
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + usage.ru_utime + usage.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def _published(folder: str, program: str, tests: Tests) -> str:
    path = os.path.join(folder, f"{threading.get_ident()}.py")
    with open(path, "w") as file:
        file.write(PRELUDE + program + "\n".join(tests.statements) + "\n")
    done = subprocess.run(
        [sys.executable, path], stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )
    return "pass" if done.returncode == 0 else "fail"


def _measured(run: Callable[[str, Tests], str], work: list, width: int) -> tuple[float, float]:
    """(wall seconds, CPU seconds) of running `work`, `width` at a time; checks every status."""
    cpu, wall = _cpu_seconds(), time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(width) as threads:
        statuses = list(threads.map(lambda item: run(item[0], item[1]), work))
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    wrong = [s for s, item in zip(statuses, work, strict=True) if s != item[2]]
    if wrong:
        raise SystemExit(f"{len(wrong)} wrong statuses: {Counter(wrong)}")
    return wall, cpu


def speed(count: int, rounds: int) -> dict[str, float]:
    """Prints programs/s and CPU per program of both ways; returns the factors."""
    cores = len(os.sched_getaffinity(0))
    work = list(programs(count))
    few = work[: max(4, count // 10)]
    rows: dict[str, list[tuple[float, float]]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        Pool(workers=1, isolation="namespaces") as one,
        Pool(workers=cores, isolation="namespaces") as all_cores,
    ):
        ways = {
            "published, one at a time": (lambda p, t: _published(folder, p, t), few, 1),
            "ours, one worker": (lambda p, t: one.submit(p, t).result().status, work, 8),
            "ours, one worker, classes": (
                lambda p, t: one.submit(p, t).result().status,
                in_classes(work),
                8,
            ),
            f"published, {cores} at a time": (lambda p, t: _published(folder, p, t), few, cores),
            f"ours, {cores} workers": (
                lambda p, t: all_cores.submit(p, t).result().status,
                work,
                8 * cores,
            ),
        }
        for run, some, width in ways.values():
            _measured(run, some[: 2 * cores], width)  # everything is started and warm
        for _ in range(rounds):
            for name, (run, some, width) in ways.items():
                wall, cpu = _measured(run, some, width)
                rows.setdefault(name, []).append((wall / len(some), cpu / len(some)))
    medians = {
        name: tuple(statistics.median(column) for column in zip(*values, strict=True))
        for name, values in rows.items()
    }
    print(f"{'':28}{'programs/s':>12}{'CPU ms':>10}")
    for name, (wall, cpu) in medians.items():
        print(f"{name:28}{1 / wall:12.1f}{1000 * cpu:10.2f}")
    base, ours, classes, base_all, ours_all = medians.values()
    factors = {
        "wall, one": base[0] / ours[0],
        "CPU, one": base[1] / ours[1],
        "wall, all": base_all[0] / ours_all[0],
        "CPU, all": base_all[1] / ours_all[1],
        "all workers / one worker": ours[0] / ours_all[0],
        "CPU, classes / statements": classes[1] / ours[1],
    }
    for name, factor in factors.items():
        print(f"{name:28}{factor:12.1f} x")
    return factors


def _footprint() -> dict[str, int]:
    """What must stay flat: bytes, descriptors and processes of this process and the workers."""
    processes = _worker_processes()
    page = resource.getpagesize()
    return {
        "parent MiB": int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * page >> 20,
        "largest worker MiB": max((int(f[21]) * page >> 20 for f in processes.values()), default=0),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "processes": len(processes),
        "threads": threading.active_count(),
    }


def endurance(count: int, killed: float, workers: int | None = None) -> dict[str, object]:
    """Runs `count` programs and kills `killed * count` times a worker; returns what it saw."""
    chance = random.Random(0)
    statuses: Counter = Counter()
    counted: Counter = Counter()
    kills = 0
    footprints = []
    began = time.perf_counter()
    finished = threading.Semaphore(0)
    with Pool(workers=workers, isolation="landlock", in_flight=64) as pool:

        def count_one(number: int, expected: str) -> Callable:
            def done(future: concurrent.futures.Future) -> None:
                status = future.result().status
                statuses["as expected" if status == expected else f"{expected}: {status}"] += 1
                counted[number] += 1
                finished.release()

            return done

        for number, (program, tests, expected) in enumerate(programs(count)):
            pool.submit(program, tests).add_done_callback(count_one(number, expected))
            if chance.random() < killed:
                kills += _kill_one(chance)
            if number % max(1, count // 20) == count // 20 - 1:
                footprints.append(_footprint())
                print(f"{number + 1:8} {time.perf_counter() - began:8.1f} s {footprints[-1]}")
        for _ in range(count):
            finished.acquire()
    time.sleep(0.5)
    return {
        "statuses": dict(statuses),
        "twice": sum(times > 1 for times in counted.values()),
        "lost": count - len(counted),
        "kills": kills,
        "footprints": footprints,
        "left over": len(_worker_processes()),
        "seconds": time.perf_counter() - began,
    }


def _kill_one(chance: random.Random) -> int:
    """Kills a judge or a fork server, but no program: it would rightly count as crashed."""
    everyone = _worker_processes()
    processes = sorted(pid for pid, fields in everyone.items() if int(fields[1]) not in everyone)
    if not processes:
        return 0
    try:
        os.kill(chance.choice(processes), signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1


def mutated(number: int) -> str:
    """Random bytes, or one of the programs with random changes; the same for the same number."""
    chance = random.Random(number)
    if number % 3 == 0:
        return chance.randbytes(chance.randrange(400)).decode("latin-1")
    if number % 3 == 1:
        return chance.randbytes(chance.randrange(400)).decode("utf-8", "surrogateescape")
    text = chance.choice(PROGRAMS)[0] * chance.randrange(1, 4)
    for _ in range(chance.randrange(1, 12)):
        at = chance.randrange(len(text) + 1)
        cut = chance.randrange(4)
        piece = chance.choice((text[at : at + 9], chr(chance.randrange(1, 0x3000)), "(", ":", "\n"))
        text = text[:at] + piece + text[at + cut :]
    return text


def write(count: int, path: pathlib.Path) -> None:
    """Writes the programs as `mucode_jax.sandbox` reads them; with tests in classes beside it."""
    work = list(programs(count))
    for file, items in ((path, work), (pathlib.Path(f"{path}.classes"), in_classes(work))):
        rows = [
            {"name": str(i), "code": program, "tests": tests.statements}
            for i, (program, tests, _) in enumerate(items)
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def fuzz(count: int, workers: int | None = None) -> Counter:
    """Runs `count` mutated programs; returns how often each status came."""
    tests = Tests(("assert count_vowels('Education') == 5",), timeout_s=2.0)
    with Pool(workers=workers, isolation="landlock") as pool:
        futures = [pool.submit(mutated(number), tests) for number in range(count)]
        return Counter(future.result(timeout=600).status for future in futures)


def main() -> None:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("speed", "endurance", "fuzz", "write"))
    parser.add_argument("file", type=pathlib.Path, nargs="?")
    parser.add_argument("--programs", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--killed", type=float, default=0.01, help="kills a program")
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    if (given.what == "write") != (given.file is not None):
        parser.error("FILE is for write alone")
    if given.what == "write":
        write(given.programs or 200, given.file)
    elif given.what == "speed":
        speed(given.programs or 200, given.rounds)
    elif given.what == "endurance":
        seen = endurance(given.programs or 100_000, given.killed, given.workers)
        print({key: value for key, value in seen.items() if key != "footprints"})
    else:
        print(fuzz(given.programs or 10_000, given.workers))


if __name__ == "__main__":
    main()
