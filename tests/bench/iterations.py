"""Twenty iterations at the smallest scale in one process: nothing may grow with them.

    python tests/bench/iterations.py [--iterations 20] [--method mucode]

After each iteration: resident memory, file descriptors, threads, and what the iteration left on
disk. What grows with the iterations by the algorithm itself, the training data, is some kilobytes.
"""

from __future__ import annotations

import argparse
import gc
import os
import pathlib
import sys
import tempfile
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from mucode_jax import main
from tests import micro


def measure(directory: pathlib.Path, iterations: int, method: str = "mucode") -> list[dict]:
    """One entry an iteration: MiB of memory, descriptors, threads, KiB on disk."""
    found = []
    line = main.report.line

    def watched(evaluations, name):
        gc.collect()
        status = pathlib.Path("/proc/self/status").read_text()
        folder = directory / "stages" / name
        files = [f for f in folder.rglob("*") if f.is_file()]
        found.append(
            {
                "name": name,
                "MiB": int(status.split("VmRSS:")[1].split()[0]) // 1024,
                "descriptors": len(os.listdir("/proc/self/fd")),
                "threads": int(status.split("Threads:")[1].split()[0]),
                "KiB": sum(f.stat().st_size for f in files) // 1024,
            }
        )
        return line(evaluations, name)

    with mock.patch.object(main.report, "line", watched):
        flags = (f"--config.iterations={iterations}", f"--config.methods=('{method}',)")
        assert micro.run(directory, *flags, "--config.search.methods=()") == 0
    return [entry for entry in found if entry["name"] != "base"]


def command_line() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--method", default="mucode")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for entry in measure(pathlib.Path(folder) / "run", given.iterations, given.method):
            print(entry)
    return 0


if __name__ == "__main__":
    sys.exit(command_line())
