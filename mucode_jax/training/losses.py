"""The losses, each a pure function of (params, local shard of the batch), and the map over `data`.

A loss returns sums, not means: a numerator, a denominator and further (sum, count) pairs. `mapped`
runs it on every member of the mesh axis `data` with its own rows and adds the sums up apart, so
that shards with unequal amounts of supervised tokens or pairs weigh as they should. Differentiate
the mapped function from outside: inside the map, gradients of replicated parameters are already
summed, and a further sum would count them `data` times over.

Axes: B rows, T row length, D model width, V vocabulary, E ends a row, P pairs a row.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from mucode_jax.models import llama, verifier
from mucode_jax.models.llama import LlamaConfig
from mucode_jax.models.sharding import constrain

Params = Any
Batch = dict[str, jax.Array]
# (numerator, denominator, {name: (sum, count)}), float32 scalars; loss = numerator / denominator.
Sums = tuple[jax.Array, jax.Array, dict[str, tuple[jax.Array, jax.Array]]]
Loss = Callable[[Params, Batch], Sums]

# A vocabulary larger than this is worked through in pieces of at most this size.
VOCABULARY_PIECE = 16384


def cross_entropy(
    states: jax.Array, kernel: jax.Array, targets: jax.Array, *, vocab_axis: int, pieces: int
) -> jax.Array:
    """-log softmax(states @ kernel)[targets], without the logits of the whole vocabulary at once.

    The kernel is cut into `pieces` along the vocabulary. Each piece yields its own logsumexp and
    the target's logit if it is there; the backward pass computes a piece's logits again. So a
    device holds the logits, and the gathered weights, of one piece, and the kernel's gradient is
    finished piece by piece. (Cutting along the tokens instead would carry the gradient of the whole
    kernel through the loop: it costs more than it saves.)

    Args:
      states: [B, T, D], in the dtype of computation.
      kernel: [V, D] (`vocab_axis` 0) or [D, V] (1).
      targets: int32 [B, T].
      pieces: 1 computes all logits at once.

    Returns:
      float32 [B, T].
    """
    vocab = kernel.shape[vocab_axis]

    def piece(weights: jax.Array, ids: jax.Array, states: jax.Array) -> tuple[jax.Array, jax.Array]:
        formula = "btd,vd->btv" if vocab_axis == 0 else "btd,dv->btv"
        logits = jnp.einsum(
            formula,
            states.astype(dtype),
            weights.astype(dtype),
            preferred_element_type=jnp.float32,
        )
        logits = constrain(logits, "batch", "length", "vocab")
        logits = jnp.where(ids < vocab, logits, -jnp.inf)  # columns that fill up the last piece
        picked = jnp.sum(jnp.where(ids == targets[..., None], logits, 0), axis=-1)
        return jax.nn.logsumexp(logits, axis=-1), picked

    dtype = states.dtype
    if pieces == 1:
        normalizer, picked = piece(kernel, jnp.arange(vocab), states)
        return normalizer - picked

    # Piece c holds the ids c, c + pieces, c + 2·pieces …: a kernel that is split over devices along
    # the vocabulary is cut where it lies. Float32 states let the pieces' gradients add up exactly.
    size = -(-vocab // pieces)
    padding = [(0, 0), (0, 0)]
    padding[vocab_axis] = (0, size * pieces - vocab)
    kernel = jnp.pad(kernel, padding)
    shape = list(kernel.shape)
    shape[vocab_axis : vocab_axis + 1] = [size, pieces]
    weights = jnp.moveaxis(kernel.reshape(shape), vocab_axis + 1, 0)
    ids = jnp.arange(size) * pieces + jnp.arange(pieces)[:, None]
    states = states.astype(jnp.float32)
    body = jax.checkpoint(lambda xs: piece(*xs, states))
    normalizers, picked = jax.lax.map(body, (weights, ids))
    return jax.nn.logsumexp(normalizers, axis=0) - jnp.sum(picked, axis=0)


@functools.lru_cache
def sft(config: LlamaConfig) -> Loss:
    """Cross-entropy of the supervised tokens, averaged by their weights (batches: `pack_sft`)."""
    pieces = -(-config.vocab_size // VOCABULARY_PIECE)

    def loss(params: Params, batch: Batch) -> Sums:
        states = llama.hidden(
            config,
            params,
            batch["tokens"],
            positions=batch["positions"],
            segment_ids=batch["segment_ids"],
        )
        kernel = params["embed"]["embedding"] if config.tied else params["head"]["kernel"]
        losses = cross_entropy(
            states, kernel, batch["targets"], vocab_axis=0 if config.tied else 1, pieces=pieces
        )
        weights = batch["weights"]
        return jnp.sum(losses * weights), jnp.sum(weights), {}

    return loss


def bce_sums(scores: jax.Array, labels: jax.Array, weights: jax.Array, l2: float) -> Sums:
    """Binary cross-entropy of labels under sigmoid(score), plus l2 · score²; see `bce`.

    Args:
      scores, labels (1 = correct), weights: float32 [B, E].
    """
    losses = jax.nn.softplus(scores) - labels * scores + l2 * scores**2
    count = jnp.sum(weights)
    right = jnp.sum(weights * ((scores > 0) == (labels > 0.5)))
    return jnp.sum(weights * losses), count, {"accuracy": (right, count)}


def bradley_terry_sums(scores: jax.Array, weights: jax.Array, l2: float) -> Sums:
    """-log sigmoid(chosen - rejected), plus l2 · score² over both; see `bradley_terry`.

    Args:
      scores: float32 [B, 2P], chosen and rejected in turn.
      weights: float32 [B, P].
    """
    chosen, rejected = scores[:, 0::2], scores[:, 1::2]
    margin = chosen - rejected
    losses = jax.nn.softplus(-margin) + l2 * (chosen**2 + rejected**2) / 2
    count = jnp.sum(weights)
    extras = {
        "accuracy": (jnp.sum(weights * (margin > 0)), count),
        "margin": (jnp.sum(weights * margin), count),
    }
    return jnp.sum(weights * losses), count, extras


def verifier_scores(config: LlamaConfig, params: Params, batch: Batch) -> jax.Array:
    """float32 [B, E]: the score at each of a batch's ends."""
    return verifier.scores(
        config,
        params,
        batch["tokens"],
        positions=batch["positions"],
        segment_ids=batch["segment_ids"],
        ends=batch["ends"],
    )


@functools.lru_cache
def bce(config: LlamaConfig, *, l2: float = 0.0) -> Loss:
    """Binary cross-entropy of the labels under sigmoid(score), averaged over the examples.

    Batches: `pack_singles`. `l2` adds l2 · score², averaged likewise. Also gives `accuracy`, the
    fraction of examples whose score has the label's sign.
    """

    def loss(params: Params, batch: Batch) -> Sums:
        return bce_sums(
            verifier_scores(config, params, batch), batch["labels"], batch["weights"], l2
        )

    return loss


@functools.lru_cache
def bradley_terry(config: LlamaConfig, *, l2: float = 0.0) -> Loss:
    """-log sigmoid(score of chosen - score of rejected), averaged over the pairs.

    Batches: `pack_pairs`. `l2` adds l2 · score², averaged over all scores. Also gives `accuracy`,
    the fraction of pairs in order, and `margin`, the mean difference. Bradley & Terry 1952.
    """

    def loss(params: Params, batch: Batch) -> Sums:
        return bradley_terry_sums(verifier_scores(config, params, batch), batch["weights"], l2)

    return loss


@dataclasses.dataclass(frozen=True)
class VerifierLoss:
    """A way to train the verifier.

    Attributes:
      make: (config, l2=…) -> the loss; the same one for the same arguments, so that it compiles
        once.
      pairs: whether its batches are of `pack_pairs`, else of `pack_singles`.
    """

    make: Callable[..., Loss]
    pairs: bool


# By the name that `config.verifier_training.loss` gives. One of one's own is one entry more.
VERIFIER = {"bt": VerifierLoss(bradley_terry, True), "bce": VerifierLoss(bce, False)}


def mapped(loss: Loss, mesh: Mesh) -> Loss:
    """The loss over a global batch: the `pmap` of `loss` over the mesh axis `data`.

    Each member of `data` runs `loss` on its own rows; `fsdp` and `tensor` stay with the compiler,
    which is told to split those rows further over `fsdp` (else every member of `fsdp` would do all
    the work of its `data` row).

    Args:
      loss: see above.
      mesh: with the axes data, fsdp, tensor (`models.sharding.make_mesh`).

    Returns:
      a function of (params, batch with rows divisible by data × fsdp) -> global sums, to be run
      under `jax.set_mesh(mesh)`.
    """

    def local(params: Params, batch: Batch) -> Sums:
        batch = jax.tree.map(lambda x: constrain(x, "batch", *[None] * (x.ndim - 1)), batch)
        return loss(params, batch)

    if mesh.shape["data"] == 1:
        return local  # nothing to map (and XLA refuses a sum over an axis of one beside others)
    return jax.shard_map(
        lambda params, batch: jax.lax.psum(local(params, batch), "data"),
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("data")),
        out_specs=PartitionSpec(),
        axis_names={"data"},
        # The check does not see through the kernels that attention maps over the other axes.
        check_vma=False,
    )
