"""The ahead-of-time table, at one small point (the whole table: python tests/bench/fit.py)."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu (extra `aot`)")
def test_a_decode_step_on_four_tpu_chips_updates_its_cache_in_place():
    command = [sys.executable, str(ROOT / "tests/bench/fit.py"), "--json"]
    run = subprocess.run(
        [*command, "tiny", "v5e:2x2", "128", "1024", "2", "2"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    row = json.loads(run.stdout)
    assert row["problems"] == []
    # 2 layers of keys and values, 128 × 1024 × 2 heads × 64, two bytes each, on 4 chips.
    assert row["cache_logical"] == 2 * 2 * 128 * 1024 * 128 * 2 // 4
    assert row["cache_stored"] <= 1.02 * row["cache_logical"]
    assert row["temporary"] <= 0.10 * row["cache_logical"]
