"""What the tests share: where real benchmark files are, and a quiet, small JAX."""

import os
import pathlib
import tempfile

# Before jax is imported anywhere: tests run on the CPU, on eight virtual devices.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# What one test has compiled, or an earlier session, no other compiles again.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", f"{tempfile.gettempdir()}/mucode-tests-xla-{os.getuid()}"
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES", "")

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
    """The folder of real benchmark files: $MUCODE_DATA, or ../shared/data beside the checkout."""
    folder = pathlib.Path(os.environ.get("MUCODE_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "mbpp.jsonl").is_file():
        pytest.skip(f"no real benchmark files in {folder} (set MUCODE_DATA)")
    return folder


@pytest.fixture(scope="session")
def attacks_dir() -> pathlib.Path:
    """The folder of hostile programs: $MUCODE_ATTACKS, or ../shared/attacks beside the checkout."""
    folder = pathlib.Path(os.environ.get("MUCODE_ATTACKS", ROOT.parent / "shared" / "attacks"))
    if not (folder / "manifest.jsonl").is_file():
        pytest.skip(f"no attack suite in {folder} (set MUCODE_ATTACKS)")
    return folder
