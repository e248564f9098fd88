"""Quick compiles: these tests compare programs with each other and with torch, not their speed."""

import jax
import pytest


@pytest.fixture(autouse=True)
def quick_compiles(request):
    """Leaves XLA's optimizations out, but for tests that ask for `optimized`."""
    quick = "optimized" not in request.fixturenames
    jax.config.update("jax_disable_most_optimizations", quick)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def optimized():
    """Asked for by tests of what the compiled program costs."""
