"""What the sandbox's tests share."""

import pytest

from mucode_jax.core.records import Tests
from mucode_jax.sandbox import Pool


@pytest.fixture(scope="module")
def run():
    with Pool(workers=2) as pool:

        def run(code, *statements, **fields):
            return pool.submit(code, Tests(statements, **fields)).result(timeout=300)

        yield run
