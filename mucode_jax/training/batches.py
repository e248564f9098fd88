"""Packed batches: several examples in one row, kept apart by segment ids.

A step holds `batch` examples whatever the mesh, the last step of an epoch what is left. They are
dealt by length: the examples, in the order of their lengths, are cut into `batch` layers, and each
step draws one of every layer at random, so that all steps hold about as many tokens and one shape
serves them all. Equal examples and equal keys give equal steps.

A row of `length` tokens holds whole examples, one after the other; what is left over is padding
with segment id 0 and weight 0, and so are whole rows that a step does not need. The losses weigh
examples, not rows: how a step is packed changes the order in which floats are added up, and nothing
else.

An example with a text longer than `length` is dropped, and `Packed.dropped` counts it: a
conversation cut in the middle would teach an answer to a question that is not there. A pair is two
texts in one row, because there the loss subtracts one score from the other; so the rows of pairs
are up to twice as long.

Keys are tuples of strings and integers (`core.keys`): (seed, iteration) and the like.

Axes: R rows of one batch, T row length, E texts per row.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mucode_jax.core import keys
from mucode_jax.core.records import SFTExample, VerifierExample

Batch = dict[str, np.ndarray]
Key = tuple[keys.Part, ...]
Pair = tuple[VerifierExample, VerifierExample]
Rows = Sequence[Sequence[Any]]  # per row, the examples or pairs in it
_ENDS = 16  # places for the ends of a row's texts, at least; above it powers of two


@dataclasses.dataclass(frozen=True)
class Packing:
    """How examples are made into batches.

    Attributes:
      batch: examples per step.
      length: of a text, in tokens, at most.
      epochs: passes over the examples, each in an order of its own.
      rows: per batch, of `length` tokens (pairs: twice that); 0: as many as are needed, as short as
        may be.
      parts: what the rows are divided over: data × fsdp × microbatches.
      section: of the config, for messages: "sft".
    """

    batch: int
    length: int
    epochs: int = 1
    rows: int = 0
    parts: int = 1
    section: str = "sft"

    def largest(self, texts: int) -> tuple[int, int]:
        """(rows, length) of the largest batches there can be, of examples of so many texts."""
        if self.rows:
            return self.rows, texts * self.length
        return _multiple(self.batch, self.parts), row_length(texts * self.length)


class Shape(NamedTuple):
    """Of every batch: R rows of T tokens, at most E texts in each."""

    rows: int
    length: int
    texts: int


@dataclasses.dataclass(frozen=True)
class Batches(Sequence[Batch]):
    """The batches of one epoch, each built when it is asked for.

    Attributes:
      contents: for each batch, for each of its filled rows, the examples (or pairs) in it.
      shape: of every batch.
      build: (contents of a batch, shape) -> its arrays.
    """

    contents: Sequence[Rows]
    shape: Shape
    build: Callable[[Rows, Shape], Batch]

    def __len__(self) -> int:
        return len(self.contents)

    def __getitem__(self, i):
        return self.build(self.contents[i], self.shape)


@dataclasses.dataclass(frozen=True)
class Packed:
    """All batches of a training.

    Attributes:
      epochs: the batches of each epoch, all of one shape.
      tokens: in the batches of one epoch, without padding.
      dropped: how many examples (or pairs) have a text that is too long.
    """

    epochs: Sequence[Batches]
    tokens: int
    dropped: int

    @property
    def steps(self) -> int:
        """Of all epochs."""
        return sum(map(len, self.epochs))


def pack_sft(examples: Sequence[SFTExample], packing: Packing, key: Key) -> Packed:
    """Batches for `losses.sft`.

    Each has tokens, targets, positions, segment_ids int32 [R, T] and weights float32 [R, T];
    weights[r, t] is the loss weight of predicting targets[r, t] from the tokens of its segment up
    to t. The weight of an example's first id is not used: nothing comes before it.

    Raises:
      ValueError: an example has fewer than two ids, ids and weights of different lengths, or no
        supervised id (named by its problem); see `_pack`.
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
    # The last id is only predicted.
    return _pack(examples, lambda e: (len(e.ids) - 1,), _sft_batch, packing, (*key, "sft"))


def pack_singles(examples: Sequence[VerifierExample], packing: Packing, key: Key) -> Packed:
    """Batches for `losses.bce`.

    Each has tokens, positions, segment_ids int32 [R, T]; ends int32 [R, E], the place of each
    segment's last token (0 where there is none); labels float32 [R, E], 1 = correct; weights
    float32 [R, E], 1 where there is an example.

    Raises:
      ValueError: see `_pack`.
    """
    return _pack(examples, lambda e: (len(e.ids),), _singles_batch, packing, (*key, "singles"))


def pack_pairs(pairs: Sequence[Pair], packing: Packing, key: Key) -> Packed:
    """Batches for `losses.bradley_terry`.

    Each has tokens, positions, segment_ids int32 [R, T]; ends int32 [R, E], the places of the last
    tokens of chosen, rejected, chosen, rejected …; weights float32 [R, E/2], 1 where there is a
    pair.

    Raises:
      ValueError: a pair is not (correct, incorrect) of one problem; see `_pack`.
    """
    for chosen, rejected in pairs:
        if chosen.task_id != rejected.task_id or not chosen.correct or rejected.correct:
            raise ValueError(
                "a pair is a correct and an incorrect completion of one problem, not "
                f"{chosen.task_id!r} ({'correct' if chosen.correct else 'incorrect'}) and "
                f"{rejected.task_id!r} ({'correct' if rejected.correct else 'incorrect'})"
            )
    return _pack(
        pairs, lambda pair: [len(e.ids) for e in pair], _pairs_batch, packing, (*key, "pairs")
    )


def _pack(
    examples: Sequence[Any],
    text_lengths: Callable[[Any], Sequence[int]],
    build: Callable[[Rows, Shape], Batch],
    packing: Packing,
    key: Key,
) -> Packed:
    """Deals the examples that are short enough into steps, and each step into rows.

    Raises:
      ValueError: no example is short enough, or `packing.rows` cannot hold a step.
    """
    lengths = [text_lengths(example) for example in examples]
    kept = [i for i, texts in enumerate(lengths) if max(texts) <= packing.length]
    if not kept:
        shortest = min(map(max, lengths), default=0)
        raise ValueError(
            f"config.{packing.section}.length is {packing.length}, but the shortest of "
            f"{len(examples)} examples takes {shortest} tokens; raise it"
        )
    sizes = np.array([sum(lengths[i]) for i in kept])
    epochs = [
        _deal(sizes, packing.batch, keys.rng(*key, "epoch", epoch))
        for epoch in range(packing.epochs)
    ]
    steps = [step for epoch in epochs for step in epoch]
    texts = len(lengths[kept[0]])
    length = texts * packing.length if packing.rows else _best_length(sizes, steps, packing.parts)
    filled = [first_fit_decreasing(sizes[step], length) for step in steps]
    needed = _multiple(max(map(len, filled)), packing.parts)
    if packing.rows and packing.rows < needed:
        raise ValueError(
            f"config.{packing.section}.rows is {packing.rows}, but {packing.batch} examples take "
            f"up to {needed} rows of {length} tokens; choose {needed} or more (0: as many as are "
            f"needed), or lower config.{packing.section}.batch"
        )
    most = texts * max(len(row) for rows in filled for row in rows)
    # So that other data have the same shape, and the same program; reading ends costs nothing.
    ends = max(_ENDS, 1 << (most - 1).bit_length())
    shape = Shape(packing.rows or needed, length, ends)
    packed = iter(
        [[examples[kept[step[i]]] for i in row] for row in rows]
        for step, rows in zip(steps, filled, strict=True)
    )
    return Packed(
        [Batches(list(itertools.islice(packed, len(epoch))), shape, build) for epoch in epochs],
        int(sizes.sum()),
        len(examples) - len(kept),
    )


def _deal(sizes: np.ndarray, batch: int, rng: np.random.Generator) -> list[np.ndarray]:
    """One epoch: the indices of each step's examples, one of every layer of like sizes.

    The sums of any two full steps differ by less than the largest and the smallest example do.
    """
    order = rng.permutation(len(sizes))
    full, rest = np.split(order, [len(order) // batch * batch])
    layers = full[np.argsort(sizes[full], kind="stable")].reshape(batch, -1)
    steps = list(rng.permuted(layers, axis=1).T)
    return [*steps, rest] if len(rest) else steps


def _best_length(sizes: np.ndarray, steps: Sequence[np.ndarray], parts: int) -> int:
    """The row length, one to two times that of the longest example, that makes small batches.

    Of lengths whose batches take at most 4 % more tokens than the smallest, the shortest:
    attention's work grows with the length.
    """
    tokens = {}
    for factor in (1, 1.25, 1.5, 1.75, 2):
        length = row_length(int(sizes.max() * factor))
        rows = max(len(first_fit_decreasing(sizes[step], length)) for step in steps)
        tokens[length] = length * _multiple(rows, parts)
    return min(n for n, count in tokens.items() if count <= 1.04 * min(tokens.values()))


def row_length(longest: int) -> int:
    """The length of rows that hold a text of `longest` tokens: the next multiple of 32 or 128."""
    return _multiple(longest, 32 if longest <= 256 else 128)


def _multiple(count: int, unit: int) -> int:
    return -(-count // unit) * unit


def first_fit_decreasing(sizes: np.ndarray, length: int) -> list[list[int]]:
    """Indices of `sizes` (all ≤ length) by row, the largest first, each in the first row with room.

    Johnson et al. (1974): at most 11/9 of the fewest possible rows, plus one.
    """
    free = np.full(len(sizes), length)
    rows: list[list[int]] = []
    for i in np.argsort(-sizes, kind="stable").tolist():
        row = int(np.argmax(free >= sizes[i]))
        if row == len(rows):
            rows.append([])
        rows[row].append(i)
        free[row] -= sizes[i]
    return rows


def _sft_batch(rows: Rows, shape: Shape) -> Batch:
    batch, _ = _texts([[e.ids[:-1] for e in row] for row in rows], shape)
    targets = [np.concatenate([e.ids[1:] for e in row]) for row in rows]
    weights = [np.concatenate([e.weights[1:] for e in row]) for row in rows]
    return batch | {
        "targets": _padded(targets, shape.rows, shape.length),
        "weights": _padded(weights, shape.rows, shape.length, np.float32),
    }


def _singles_batch(rows: Rows, shape: Shape) -> Batch:
    batch, ends = _texts([[e.ids for e in row] for row in rows], shape)
    labels = [[e.correct for e in row] for row in rows]
    weights = [np.ones(len(row)) for row in rows]
    return batch | {
        "ends": _padded(ends, shape.rows, shape.texts),
        "labels": _padded(labels, shape.rows, shape.texts, np.float32),
        "weights": _padded(weights, shape.rows, shape.texts, np.float32),
    }


def _pairs_batch(rows: Rows, shape: Shape) -> Batch:
    batch, ends = _texts([[member.ids for pair in row for member in pair] for row in rows], shape)
    weights = [np.ones(len(row)) for row in rows]
    return batch | {
        "ends": _padded(ends, shape.rows, shape.texts),
        "weights": _padded(weights, shape.rows, shape.texts // 2, np.float32),
    }


def _texts(rows: Sequence[Sequence[np.ndarray]], shape: Shape) -> tuple[Batch, list[np.ndarray]]:
    """(tokens, positions and segment ids [R, T], the columns where texts end) of rows of texts."""
    lengths = [[len(ids) for ids in row] for row in rows]
    fields = {
        "tokens": [np.concatenate(row) for row in rows],
        "positions": [np.concatenate([np.arange(n) for n in row]) for row in lengths],
        "segment_ids": [np.repeat(1 + np.arange(len(row)), row) for row in lengths],
    }
    batch = {name: _padded(lines, shape.rows, shape.length) for name, lines in fields.items()}
    return batch, [np.cumsum(row) - 1 for row in lengths]


def _padded(lines: Sequence[Any], rows: int, columns: int, dtype: Any = np.int32) -> np.ndarray:
    """[rows, columns]: the lines from the top left, and zeros."""
    array = np.zeros((rows, columns), dtype)
    for row, line in zip(array, lines, strict=False):
        row[: len(line)] = line
    return array


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
