"""μCode in JAX: a generator that repairs its own code, trained through single-step rewards."""

__version__ = "0.1.0"
