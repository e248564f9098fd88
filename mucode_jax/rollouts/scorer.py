"""The verifier at work: scores of (first prompt, completion), in batches of fixed shape."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mucode_jax.models import verifier
from mucode_jax.models.llama import LlamaConfig, Params
from mucode_jax.models.sharding import constrain, padded_rows

_TOKENS = 32768  # token places of a batch, at most
_SHORTEST = 64  # columns, a power of two


@functools.partial(jax.jit, static_argnums=0)
def _scores(config: LlamaConfig, params: Params, tokens: jax.Array, ends: jax.Array) -> jax.Array:
    """float32 [B]: one text a row, from column 0 to its end; what follows is never looked at."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    scores = verifier.scores(
        config, params, tokens, positions=positions, segment_ids=None, ends=ends[:, None]
    )[:, 0]
    return constrain(scores, None)  # whole on every device, so that every host can read them


def batch_shape(length: int, rows: int = 64, mesh: Mesh | None = None) -> tuple[int, int]:
    """(rows, columns) of the batch that a text of `length` ids is scored in.

    Columns are 64 or twice, four times … as many; rows `rows`, fewer of very long texts, and a
    multiple of what the mesh splits them into.
    """
    columns = max(_SHORTEST, 1 << (length - 1).bit_length())
    return padded_rows(max(1, min(rows, _TOKENS // columns)), mesh), columns


def lower(
    config: LlamaConfig, params: Params, length: int, mesh: Mesh | None = None
) -> jax.stages.Lowered:
    """The program that scores texts of `length` ids, for parameters given as shapes."""
    rows, columns = batch_shape(length, mesh=mesh)
    ids = jax.ShapeDtypeStruct((rows, columns), np.int32)
    return _scores.lower(config, params, ids, jax.ShapeDtypeStruct((rows,), np.int32))


class Scorer:
    """A verifier that remembers what it has scored: identical texts are scored once."""

    def __init__(
        self, config: LlamaConfig, params: Params, *, mesh: Mesh | None = None, rows: int = 64
    ) -> None:
        """
        Args:
          config, params: the verifier (`models.verifier`).
          mesh: where the parameters lie; None: on one device. On a mesh of several hosts all of
            them score the same texts together.
          rows: see `batch_shape`.
        """
        self._config, self._params = config, params
        self._mesh, self._rows = mesh, rows
        self._known: dict[bytes, float] = {}

    def __call__(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """float32 [len(texts)]: the score of each int32 [n] of prompt and completion ids.

        A text's score depends on the text alone: its batch has the shape of its own length, and the
        rows of a batch do not see each other.

        Raises:
          ValueError: a text holds an id that the verifier does not know.
        """
        new = {text.tobytes(): text for text in texts if text.tobytes() not in self._known}
        highest = max((int(text.max()) for text in new.values()), default=0)
        if highest >= self._config.vocab_size:
            raise ValueError(
                f"a text holds the token id {highest}, but the verifier's vocabulary ends at "
                f"{self._config.vocab_size - 1}: it was made for another tokenizer"
            )
        buckets: dict[tuple[int, int], list[np.ndarray]] = {}
        for text in new.values():
            shape = batch_shape(len(text), self._rows, self._mesh)
            buckets.setdefault(shape, []).append(text)
        for (rows, columns), of_shape in sorted(buckets.items(), key=lambda b: b[0][1]):
            for start in range(0, len(of_shape), rows):
                batch = of_shape[start : start + rows]
                tokens = np.zeros((rows, columns), np.int32)
                ends = np.zeros(rows, np.int32)
                for row, text in enumerate(batch):
                    tokens[row, : len(text)] = text
                    ends[row] = len(text) - 1
                with contextlib.nullcontext() if self._mesh is None else jax.set_mesh(self._mesh):
                    scores = _scores(self._config, self._params, tokens, ends).addressable_data(0)
                for text, score in zip(batch, np.asarray(scores), strict=False):
                    self._known[text.tobytes()] = float(score)
        return np.array([self._known[text.tobytes()] for text in texts], np.float32)
