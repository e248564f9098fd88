"""Packed batches: several examples in one row, kept apart by segment ids.

A row of `length` tokens holds whole examples, one after the other; what is left over is padding
with segment id 0 and weight 0. Rows are filled by first-fit decreasing: the longest example first,
each into the first row with room, examples of equal length in keyed random order, so that the same
examples and the same key always give the same batches. `rows` rows are one batch, and every batch
of a run has one shape (the last one is filled up with empty rows), so that the step compiles once.

An example longer than `length` is dropped, and `Batches.dropped` counts it: a conversation cut in
the middle would teach an answer to a question that is not there. A pair needs room for both
members, because they stand in the same row: there the loss subtracts one score from the other.

Keys are tuples of strings and integers (`core.keys`): (seed, iteration, epoch) and the like.

Axes: R rows of one batch, T row length, P pairs and E ends that fit into one row.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from mucode_jax.core import keys
from mucode_jax.core.records import SFTExample, VerifierExample

Batch = dict[str, np.ndarray]
Key = tuple[keys.Part, ...]
Pair = tuple[VerifierExample, VerifierExample]


@dataclasses.dataclass(frozen=True)
class Batches(Sequence[Batch]):
    """The batches of one epoch, each built when it is asked for.

    Attributes:
      groups: for each batch, for each of its filled rows, the indices of the examples in it.
      build: makes the arrays of one batch from its group.
      shape: (rows, length) of every batch.
      real_tokens: tokens in all batches that are not padding.
      dropped: how many examples were longer than a row.
    """

    groups: tuple[tuple[tuple[int, ...], ...], ...]
    build: Callable[[Sequence[Sequence[int]]], Batch]
    shape: tuple[int, int]
    real_tokens: int
    dropped: int

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        return self.build(self.groups[i])


def first_fit_decreasing(
    sizes: Sequence[int], length: int, rng: np.random.Generator
) -> list[list[int]]:
    """Indices of `sizes` (all ≤ length) by row; equal sizes in an order drawn from `rng`.

    Johnson et al. (1974): at most 11/9 of the fewest possible rows, plus one.
    """
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-np.asarray(sizes, np.int64)[order], kind="stable")]
    free = np.zeros(len(sizes), np.int64)  # room left in each row; rows not yet begun come last
    rows: list[list[int]] = []
    for i in order.tolist():
        row = int(np.argmax(free[: len(rows)] >= sizes[i])) if rows else 0
        if not rows or free[row] < sizes[i]:
            row = len(rows)
            rows.append([])
            free[row] = length
        rows[row].append(i)
        free[row] -= sizes[i]
    return rows


def _plan(sizes: Sequence[int], length: int, rows: int, key: Key, build: Callable) -> Batches:
    """Packs what fits, shuffles the rows and deals them into batches."""
    if length < 1 or rows < 1:
        raise ValueError(f"a batch needs at least one row of one token, not {rows} × {length}")
    rng = keys.rng(*key)
    kept = [i for i, size in enumerate(sizes) if size <= length]
    bins = first_fit_decreasing([sizes[i] for i in kept], length, rng)
    filled = [tuple(kept[i] for i in bins[k]) for k in rng.permutation(len(bins))]
    groups = tuple(tuple(filled[k : k + rows]) for k in range(0, len(filled), rows))
    real = sum(sizes[i] for i in kept)
    return Batches(groups, build, (rows, length), real, len(sizes) - len(kept))


def _most(sizes: Sequence[int], length: int) -> int:
    """How many of the smallest examples fit into one row: no packing holds more."""
    total = np.cumsum(np.sort(np.asarray(sizes, np.int64)))
    return max(1, int(np.searchsorted(total, length, side="right")))


def _rows(texts: Sequence[Sequence[np.ndarray]], rows: int, length: int) -> tuple[Batch, list]:
    """Lays texts (ids of each segment of each row) out; also gives each segment's (row, start)."""
    batch = {k: np.zeros((rows, length), np.int32) for k in ("tokens", "positions", "segment_ids")}
    places = []
    for row, segments in enumerate(texts):
        start = 0
        for number, ids in enumerate(segments, start=1):
            span = slice(start, start + len(ids))
            batch["tokens"][row, span] = ids
            batch["positions"][row, span] = np.arange(len(ids))
            batch["segment_ids"][row, span] = number
            places.append((row, start))
            start += len(ids)
    return batch, places


def sft_size(example: SFTExample) -> int:
    """Tokens that an example takes in a row: all its ids but the last, which is only predicted."""
    return len(example.ids) - 1


def pair_size(pair: Pair) -> int:
    """Tokens that a pair takes in a row."""
    return len(pair[0].ids) + len(pair[1].ids)


def single_size(example: VerifierExample) -> int:
    """Tokens that a single example takes in a row."""
    return len(example.ids)


def pack_sft(examples: Sequence[SFTExample], *, length: int, rows: int, key: Key) -> Batches:
    """Batches for `losses.sft`.

    Each has tokens, targets, positions, segment_ids int32 [R, T] and weights float32 [R, T];
    weights[r, t] is the loss weight of predicting targets[r, t] from the tokens of its segment up
    to t. The weight of an example's first id is not used: nothing comes before it.

    Raises:
      ValueError: an example has fewer than two ids, ids and weights of different lengths, or no
        supervised id (named by its problem).
    """
    for example in examples:
        if len(example.ids) < 2 or len(example.ids) != len(example.weights):
            raise ValueError(
                f"the SFT example of problem {example.task_id!r} has {len(example.ids)} ids and "
                f"{len(example.weights)} weights; it needs at least two ids and a weight for each"
            )
        if not np.any(example.weights[1:]):
            raise ValueError(
                f"the SFT example of problem {example.task_id!r} supervises nothing: "
                "every weight after its first id is 0"
            )

    def build(group: Sequence[Sequence[int]]) -> Batch:
        batch, places = _rows([[examples[i].ids[:-1] for i in row] for row in group], rows, length)
        batch["targets"] = np.zeros((rows, length), np.int32)
        batch["weights"] = np.zeros((rows, length), np.float32)
        packed = itertools.chain.from_iterable(group)
        for (row, start), i in zip(places, packed, strict=True):
            span = slice(start, start + sft_size(examples[i]))
            batch["targets"][row, span] = examples[i].ids[1:]
            batch["weights"][row, span] = examples[i].weights[1:]
        return batch

    return _plan([sft_size(e) for e in examples], length, rows, (*key, "sft"), build)


def pack_singles(
    examples: Sequence[VerifierExample], *, length: int, rows: int, key: Key
) -> Batches:
    """Batches for `losses.bce`.

    Each has tokens, positions, segment_ids int32 [R, T]; ends int32 [R, E], the place of each
    segment's last token (0 where there is none); labels float32 [R, E], 1 = correct; weights
    float32 [R, E], 1 where there is an example.
    """
    sizes = [single_size(e) for e in examples]
    ends = _most(sizes, length)

    def build(group: Sequence[Sequence[int]]) -> Batch:
        batch, places = _rows([[examples[i].ids for i in row] for row in group], rows, length)
        batch["ends"] = np.zeros((rows, ends), np.int32)
        batch["labels"] = np.zeros((rows, ends), np.float32)
        batch["weights"] = np.zeros((rows, ends), np.float32)
        numbered = ((k, i) for row in group for k, i in enumerate(row))
        for (row, start), (k, i) in zip(places, numbered, strict=True):
            batch["ends"][row, k] = start + sizes[i] - 1
            batch["labels"][row, k] = examples[i].correct
            batch["weights"][row, k] = 1
        return batch

    return _plan(sizes, length, rows, (*key, "singles"), build)


def pack_pairs(pairs: Sequence[Pair], *, length: int, rows: int, key: Key) -> Batches:
    """Batches for `losses.bradley_terry`.

    Each has tokens, positions, segment_ids int32 [R, T]; ends int32 [R, 2P], the places of the last
    tokens of chosen, rejected, chosen, rejected …; weights float32 [R, P], 1 where there is a pair.

    Raises:
      ValueError: a pair is not (correct, incorrect) of one problem.
    """
    for chosen, rejected in pairs:
        if chosen.task_id != rejected.task_id or not chosen.correct or rejected.correct:
            raise ValueError(
                "a pair is a correct and an incorrect completion of one problem, not "
                f"{chosen.task_id!r} ({'correct' if chosen.correct else 'incorrect'}) and "
                f"{rejected.task_id!r} ({'correct' if rejected.correct else 'incorrect'})"
            )
    sizes = [pair_size(pair) for pair in pairs]
    most = _most(sizes, length)

    def build(group: Sequence[Sequence[int]]) -> Batch:
        texts = [[member.ids for i in row for member in pairs[i]] for row in group]
        batch, places = _rows(texts, rows, length)
        batch["ends"] = np.zeros((rows, 2 * most), np.int32)
        batch["weights"] = np.zeros((rows, most), np.float32)
        numbered = ((k, ids) for row in texts for k, ids in enumerate(row))
        for (row, start), (k, ids) in zip(places, numbered, strict=True):
            batch["ends"][row, k] = start + len(ids) - 1
            batch["weights"][row, k // 2] = 1
        return batch

    return _plan(sizes, length, rows, (*key, "pairs"), build)


def make_pairs(
    examples: Sequence[VerifierExample], *, pairs_per_problem: int, key: Key
) -> list[Pair]:
    """(correct, incorrect) pairs of the same problem, at most `pairs_per_problem` of each.

    Pairs are drawn without replacement, with a key of the problem's own, so that a problem's pairs
    do not depend on which other problems there are. Problems come in the order of their first
    example; one with only correct or only incorrect completions gives no pair.
    """
    problems: dict[str, tuple[list, list]] = {}
    for example in examples:
        problems.setdefault(example.task_id, ([], []))[not example.correct].append(example)
    pairs = []
    for task_id, (correct, incorrect) in problems.items():
        total = len(correct) * len(incorrect)
        drawn = keys.rng(*key, "pairs", task_id).permutation(total)[:pairs_per_problem]
        pairs += [(correct[k // len(incorrect)], incorrect[k % len(incorrect)]) for k in drawn]
    return pairs


def split_by_problem(
    examples: Sequence[VerifierExample], *, fraction: float, key: Key
) -> tuple[list[VerifierExample], list[VerifierExample]]:
    """(training, held out): about `fraction` of the problems are held out, with all their examples.

    Each problem is ranked by a key of its own, so that problems stay on their side as others come.
    With two problems or more neither side is left empty, unless `fraction` is 0.

    Raises:
      ValueError: `fraction` is not in [0, 1).
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"the held-out fraction of problems is in [0, 1), not {fraction}")
    names = {example.task_id for example in examples}
    ranked = sorted(names, key=lambda name: (keys.rng(*key, "held out", name).random(), name))
    count = round(fraction * len(names))
    if fraction > 0 and len(names) > 1:
        count = min(max(count, 1), len(names) - 1)
    held = set(ranked[:count])
    return (
        [example for example in examples if example.task_id not in held],
        [example for example in examples if example.task_id in held],
    )


def batch_shape(
    sizes: Sequence[int], *, per_batch: int, longest: int, rows_multiple: int = 1
) -> tuple[int, int]:
    """(length, rows) of batches that hold about `per_batch` examples with little padding.

    The length is the shortest multiple of 128 (of 32 below 256) that holds the longest example and
    leaves at most 4 % padding, measured by packing; where none does, the one with the least. Short
    rows are cheaper: attention's work grows with the length.

    Args:
      sizes: tokens that each example takes (`sft_size`, `pair_size`, `single_size`).
      per_batch: examples in a batch.
      longest: examples above this size are not counted: they are to be dropped.
      rows_multiple: the number of devices the rows are divided over (data × fsdp), times the
        microbatches.
    """
    kept = [size for size in sizes if size <= longest]
    if not kept:
        raise ValueError(f"no example of {len(sizes)} is within the limit of {longest} tokens")
    tokens = per_batch * sum(kept) / len(kept)
    sample = kept[:: max(1, len(kept) // 2000)]  # enough to measure padding by
    best = (0.0, 0, 0)
    for factor in range(1, 9):
        unit = 32 if max(kept) * factor <= 256 else 128
        length = -(-max(kept) * factor // unit) * unit
        share = sum(sample) / (len(first_fit_decreasing(sample, length, keys.rng(0))) * length)
        rows = max(1, round(tokens / (length * share * rows_multiple))) * rows_multiple
        best = max(best, (share, -length, rows))
        if share >= 0.96:
            return length, rows
        if length * rows_multiple > tokens:
            break  # one row a device holds more than a batch already
    return -best[1], best[2]
