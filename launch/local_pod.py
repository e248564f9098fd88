"""Several processes on this machine as the hosts of one run, for tests and for teaching.

    python launch/local_pod.py -n 2 --config configs/quickstart.py --workdir runs/pod

Every process is started as `python -m mucode_jax.main`, with the arguments after -n; the first
speaks for all. Where one of them is lost, a line names it, the others are ended, and the same
command resumes. Exit status: 0, that of the process that failed first, or 1 where one was killed.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time

# Longer than the others need to notice by themselves (mucode_jax.runtime.hosts.HEARTBEAT_S).
GRACE_S = 50.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(count: int, arguments: list[str]) -> list[subprocess.Popen]:
    """Starts the processes; lines of all but the first are marked with their number."""
    port = free_port()
    processes = []
    for i in range(count):
        pod = [f"--coordinator=127.0.0.1:{port}", f"--processes={count}", f"--process={i}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "mucode_jax.main", *arguments, *pod],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            stdout=None if i == 0 else subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        threading.Thread(target=_pass_on, args=(process, i), daemon=True).start()
        processes.append(process)
    return processes


def _pass_on(process: subprocess.Popen, index: int) -> None:
    for line in process.stderr:
        sys.stderr.write(line if index == 0 else f"[{index}] {line}")
        sys.stderr.flush()


def how(status: int) -> str:
    """An exit status in words."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"


def watch(processes: list[subprocess.Popen]) -> int:
    """Waits for all; where one fails, ends the others. Returns the exit status."""
    while True:
        ended = [p.poll() for p in processes]
        failed = [i for i, status in enumerate(ended) if status]
        if failed or None not in ended:
            break
        time.sleep(0.1)
    if not failed:
        return 0
    first = failed[0]
    status = processes[first].returncode
    refused = status == 2  # bad input, and what is wrong with it is said already
    lost = "" if refused else "was lost: "
    say(f"process {first} of {len(processes)} (pid {processes[first].pid}) {lost}{how(status)}")
    until = time.monotonic() + GRACE_S
    while time.monotonic() < until and any(p.poll() is None for p in processes):
        time.sleep(0.1)
    for i, process in enumerate(processes):
        if process.poll() is None:
            say(f"process {i} (pid {process.pid}) is ended")
            process.kill()
        process.wait()
    if not refused:
        say("nothing finished is lost: the same command goes on from here")
    return status if status > 0 else 1


def say(text: str) -> None:
    print(f"local_pod: {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python launch/local_pod.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-n", type=int, required=True, help="how many processes")
    options, arguments = parser.parse_known_args()
    if options.n < 1:
        parser.error(f"-n is {options.n}; it must be at least 1")
    processes = start(options.n, arguments)
    try:
        return watch(processes)
    except KeyboardInterrupt:  # the processes of this group have got it too
        say("interrupted; the processes finish what is under way")
        return max(p.wait() for p in processes)


if __name__ == "__main__":
    sys.exit(main())
