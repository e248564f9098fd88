"""The losses, each a pure function of (params, local shard of the batch), and the map over `data`.

A loss returns sums, not means: a numerator, a denominator and further (sum, count) pairs. `mapped`
runs it on every member of the mesh axis `data` with its own rows and adds the sums up apart, so
that shards with unequal amounts of supervised tokens or pairs weigh as they should. Differentiate
the mapped function from outside: inside the map, gradients of replicated parameters are already
summed, and a further sum would count them `data` times over.

Axes: B rows, T row length, D model width, V vocabulary in C pieces of P ids, E ends per row.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from mucode_jax.models import llama, verifier
from mucode_jax.models.llama import LlamaConfig
from mucode_jax.models.sharding import automatic_axes, constrain

Params = Any
Batch = dict[str, jax.Array]
# (numerator, denominator, {name: (sum, count)}), float32 scalars; loss = numerator / denominator.
Sums = tuple[jax.Array, jax.Array, dict[str, tuple[jax.Array, jax.Array]]]
Loss = Callable[[Params, Batch], Sums]

# Where a device has more logits than this (256 MB), a vocabulary larger than a piece is worked
# through in pieces of at most that size.
LOGITS = 2**26
VOCABULARY_PIECE = 16384


@jax.custom_vjp
def _normalizer_and_target(
    logits_BxTxP: jax.Array, ids_P: jax.Array, targets_BxT: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The logits' logsumexp, and the target's logit or 0: float32 [B, T].

    For the gradient the logits are kept and nothing else of their size.
    """
    is_target_BxTxP = ids_P == targets_BxT[..., None]
    target_logit_BxT = jnp.sum(jnp.where(is_target_BxTxP, logits_BxTxP, 0), axis=-1)
    return jax.nn.logsumexp(logits_BxTxP, axis=-1), target_logit_BxT


def _forward(logits_BxTxP, ids_P, targets_BxT):
    normalizer_BxT, target_logit_BxT = _normalizer_and_target(logits_BxTxP, ids_P, targets_BxT)
    return (normalizer_BxT, target_logit_BxT), (logits_BxTxP, ids_P, targets_BxT, normalizer_BxT)


def _backward(kept, d_out):
    logits_BxTxP, ids_P, targets_BxT, normalizer_BxT = kept
    d_normalizer_BxT, d_target_BxT = d_out
    is_target_BxTxP = ids_P == targets_BxT[..., None]
    softmax_BxTxP = jnp.exp(logits_BxTxP - normalizer_BxT[..., None])
    d_logits_BxTxP = softmax_BxTxP * d_normalizer_BxT[..., None]
    return d_logits_BxTxP + jnp.where(is_target_BxTxP, d_target_BxT[..., None], 0), None, None


_normalizer_and_target.defvjp(_forward, _backward)


def cross_entropy(
    states_BxTxD: jax.Array, kernel_VxD: jax.Array, targets_BxT: jax.Array, *, pieces: int
) -> jax.Array:
    """-log softmax(states · kernel)[targets], without the logits of the whole vocabulary at once.

    The vocabulary is cut into `pieces`. Each yields its own logsumexp, and the target's logit if it
    is there; the backward pass computes a piece's logits again. So a device holds the logits, and
    the gathered weights, of one piece, and the kernel's gradient is finished piece by piece.
    (Cutting along the tokens instead would carry the gradient of the whole kernel through the loop:
    it costs more than it saves.)

    Args:
      states_BxTxD: in the dtype of computation.
      kernel_VxD: the head's weights.
      targets_BxT: int32.
      pieces: 1 computes all logits at once.

    Returns:
      float32 [B, T].
    """
    vocab, dtype = kernel_VxD.shape[0], states_BxTxD.dtype
    size = -(-vocab // pieces)

    def piece(kernel_PxD, ids_P, states_BxTxD) -> tuple[jax.Array, jax.Array]:
        """(logsumexp of the logits of these P ids, the target's logit or 0), float32 [B, T]."""
        logits_NxP = jnp.einsum(
            "nd,pd->np",
            llama.flatten(states_BxTxD).astype(dtype),
            kernel_PxD.astype(dtype),
            preferred_element_type=jnp.float32,
        )
        logits_BxTxP = logits_NxP.reshape(*states_BxTxD.shape[:2], -1)
        logits_BxTxP = constrain(logits_BxTxP, "batch", "length", "vocab")
        if size * pieces > vocab:  # ids that fill up a piece
            logits_BxTxP = jnp.where(ids_P < vocab, logits_BxTxP, -jnp.inf)
        return _normalizer_and_target(logits_BxTxP, ids_P, targets_BxT)

    if pieces == 1:
        normalizer_BxT, target_logit_BxT = piece(kernel_VxD, jnp.arange(vocab), states_BxTxD)
        return normalizer_BxT - target_logit_BxT

    # Piece c holds the ids c, c + pieces, c + 2·pieces …: a kernel that is split over devices along
    # the vocabulary is cut where it lies. Float32 states let the pieces' gradients add up exactly.
    kernel_VxD = jnp.pad(kernel_VxD, [(0, size * pieces - vocab), (0, 0)])
    kernel_CxPxD = jnp.moveaxis(kernel_VxD.reshape(size, pieces, -1), 1, 0)
    ids_CxP = jnp.arange(size) * pieces + jnp.arange(pieces)[:, None]
    states_BxTxD = states_BxTxD.astype(jnp.float32)
    normalizers_CxBxT, target_logits_CxBxT = jax.lax.map(
        jax.checkpoint(lambda kernel_and_ids: piece(*kernel_and_ids, states_BxTxD)),
        (kernel_CxPxD, ids_CxP),
    )
    return jax.nn.logsumexp(normalizers_CxBxT, axis=0) - jnp.sum(target_logits_CxBxT, axis=0)


@functools.lru_cache
def sft(config: LlamaConfig) -> Loss:
    """Cross-entropy of the supervised tokens, averaged by their weights (batches: `pack_sft`)."""
    vocab = config.vocab_size

    def loss(params: Params, batch: Batch) -> Sums:
        states = llama.hidden(
            config,
            params,
            batch["tokens"],
            positions=batch["positions"],
            segment_ids=batch["segment_ids"],
        )
        kernel = params["embed"]["embedding"] if config.tied else params["head"]["kernel"].T
        logits = batch["tokens"].size * vocab / math.prod(automatic_axes().values())
        pieces = 1 if logits <= LOGITS else -(-vocab // VOCABULARY_PIECE)
        losses = cross_entropy(states, kernel, batch["targets"], pieces=pieces)
        weights = batch["weights"]
        return jnp.sum(losses * weights), jnp.sum(weights), {}

    return loss


def bce_sums(scores_BxE: jax.Array, batch: Batch, l2: float) -> Sums:
    """Binary cross-entropy of the labels under sigmoid(score), averaged over the examples.

    `l2` adds l2 · score², averaged likewise. Also gives `accuracy`, the fraction of examples whose
    score has the label's sign.

    Args:
      scores_BxE: float32.
      batch: of `pack_singles`.
    """
    labels_BxE, weights_BxE = batch["labels"], batch["weights"]
    losses_BxE = jax.nn.softplus(scores_BxE) - labels_BxE * scores_BxE + l2 * scores_BxE**2
    count = jnp.sum(weights_BxE)
    right = jnp.sum(weights_BxE * ((scores_BxE > 0) == (labels_BxE > 0.5)))
    return jnp.sum(weights_BxE * losses_BxE), count, {"accuracy": (right, count)}


def bradley_terry_sums(scores_BxE: jax.Array, batch: Batch, l2: float) -> Sums:
    """-log sigmoid(score of chosen - score of rejected), averaged over the pairs.

    `l2` adds l2 · score², averaged over all scores. Also gives `accuracy`, the fraction of pairs in
    order, and `margin`, the mean difference. Bradley & Terry 1952.

    Args:
      scores_BxE: float32, chosen and rejected in turn.
      batch: of `pack_pairs`.
    """
    chosen, rejected, weights = scores_BxE[:, 0::2], scores_BxE[:, 1::2], batch["weights"]
    margin = chosen - rejected
    losses = jax.nn.softplus(-margin) + l2 * (chosen**2 + rejected**2) / 2
    count = jnp.sum(weights)
    extras = {
        "accuracy": (jnp.sum(weights * (margin > 0)), count),
        "margin": (jnp.sum(weights * margin), count),
    }
    return jnp.sum(weights * losses), count, extras


@functools.lru_cache
def of_scores(sums: Callable[..., Sums], config: LlamaConfig, *, l2: float = 0.0) -> Loss:
    """The verifier's loss that `sums` makes of (scores float32 [B, E], batch, l2)."""

    def loss(params: Params, batch: Batch) -> Sums:
        scores = verifier.scores(
            config,
            params,
            batch["tokens"],
            positions=batch["positions"],
            segment_ids=batch["segment_ids"],
            ends=batch["ends"],
        )
        return sums(scores, batch, l2)

    return loss


# (config, l2=…) -> the loss; the same one for the same arguments, so that it compiles once.
bce = functools.partial(of_scores, bce_sums)
bradley_terry = functools.partial(of_scores, bradley_terry_sums)


@dataclasses.dataclass(frozen=True)
class VerifierLoss:
    """A way to train the verifier.

    Attributes:
      make: as `bce` and `bradley_terry`; `of_scores` makes one of a function of scores.
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

    def own_rows(params: Params, batch: Batch) -> Sums:
        split = {k: constrain(x, "batch", *[None] * (x.ndim - 1)) for k, x in batch.items()}
        return loss(params, split)

    def summed(params: Params, batch: Batch) -> Sums:
        return jax.lax.psum(own_rows(params, batch), "data")

    if mesh.shape["data"] == 1:
        return own_rows  # nothing to map (and XLA refuses a sum over an axis of one beside others)
    return jax.shard_map(
        summed,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("data")),
        out_specs=PartitionSpec(),
        axis_names={"data"},
        # The check does not see through the kernels that attention maps over the other axes.
        check_vma=False,
    )
