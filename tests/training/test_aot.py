"""One small point of the table that `tests/bench/training.py aot` prints for real models."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_between_two_tpu_slices_go_gradients_and_nothing_else():
    """A step compiled for two slices of four chips, data across them, fsdp within."""
    pytest.importorskip("libtpu", reason="compiling for a TPU needs the extra `aot`")
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "tests/bench/training.py", "aot", "tiny-sft-2-slices"],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    row = done.stdout.splitlines()[-1]
    found = re.search(r"between slices \{'all_reduce': (\d+)\} bytes; gradients are (\d+)", row)
    assert found, row
    sent, gradients = map(int, found.groups())
    # Besides: a few scalars, each padded to a tile.
    assert gradients <= sent <= 1.01 * gradients
