"""The sampling engine: token ids in, token ids out, many conversations at once."""

from mucode_jax.sampling.engine import Completion, Counters, Engine, Request

__all__ = ["Completion", "Counters", "Engine", "Request"]
