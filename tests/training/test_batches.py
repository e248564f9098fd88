"""Packing, pairs and splits: what is in a row, what is left out, what depends on what."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mucode_jax.core import keys
from mucode_jax.core.records import SFTExample, VerifierExample
from mucode_jax.training import batches

from . import toys


def _sft(task_id, ids, weights):
    return SFTExample(task_id, np.array(ids, np.int32), np.array(weights, np.float32))


def _completion(task_id, ids, correct):
    return VerifierExample(task_id, np.array(ids, np.int32), correct)


def test_an_sft_row_is_laid_out_as_by_hand():
    examples = [_sft("a", [5, 6, 7, 8], [1, 0, 0.5, 1]), _sft("b", [9, 4], [0, 2])]
    (batch,) = batches.pack_sft(examples, length=6, rows=2, key=(0,))
    # The longer example comes first; its last id is predicted, never read; the second row is empty.
    expected = {
        "tokens": [[5, 6, 7, 9, 0, 0], [0] * 6],
        "targets": [[6, 7, 8, 4, 0, 0], [0] * 6],
        "weights": [[0, 0.5, 1, 2, 0, 0], [0] * 6],
        "positions": [[0, 1, 2, 0, 0, 0], [0] * 6],
        "segment_ids": [[1, 1, 1, 2, 0, 0], [0] * 6],
    }
    assert batch.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(batch[name], values, err_msg=name)


def test_singles_and_pairs_are_laid_out_as_by_hand():
    right, wrong = _completion("a", [1, 2, 3], True), _completion("a", [4, 5], False)
    (batch,) = batches.pack_singles([right, wrong], length=6, rows=1, key=(0,))
    np.testing.assert_array_equal(batch["tokens"], [[1, 2, 3, 4, 5, 0]])
    np.testing.assert_array_equal(batch["segment_ids"], [[1, 1, 1, 2, 2, 0]])
    np.testing.assert_array_equal(batch["ends"], [[2, 4]])
    np.testing.assert_array_equal(batch["labels"], [[1, 0]])
    np.testing.assert_array_equal(batch["weights"], [[1, 1]])

    (batch,) = batches.pack_pairs([(right, wrong)], length=6, rows=2, key=(0,))
    np.testing.assert_array_equal(batch["ends"], [[2, 4], [0, 0]])
    np.testing.assert_array_equal(batch["weights"], [[1], [0]])


def test_examples_longer_than_a_row_are_dropped_and_counted():
    examples = [_sft("a", range(1, n + 1), [0] + [1] * (n - 1)) for n in (4, 5, 6, 9)]
    packed = batches.pack_sft(examples, length=4, rows=1, key=(0,))
    assert packed.dropped == 2 and packed.real_tokens == 3 + 4
    pair = (_completion("a", [1, 2, 3], True), _completion("a", [4, 5], False))
    assert batches.pack_pairs([pair], length=4, rows=1, key=(0,)).dropped == 1


@pytest.mark.parametrize(
    ("ids", "weights", "message"),
    [
        ([1], [1], "at least two ids"),
        ([1, 2], [1], "a weight for each"),
        ([1, 2], [1, 0], "supervises nothing"),
    ],
)
def test_an_example_that_teaches_nothing_is_an_error_that_names_the_problem(ids, weights, message):
    with pytest.raises(ValueError, match=message) as error:
        batches.pack_sft([_sft("Mbpp/7", ids, weights)], length=8, rows=1, key=(0,))
    assert "Mbpp/7" in str(error.value)


@given(
    sizes=st.lists(st.integers(1, 50), max_size=60),
    length=st.integers(50, 120),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=60)
def test_every_example_is_in_exactly_one_row_and_no_two_rows_could_be_one(sizes, length, seed):
    rows = batches.first_fit_decreasing(sizes, length, keys.rng(seed))
    assert sorted(i for row in rows for i in row) == list(range(len(sizes)))
    loads = [sum(sizes[i] for i in row) for row in rows]
    assert all(load <= length for load in loads)
    assert all(a + b > length for k, a in enumerate(loads) for b in loads[:k])


def test_batches_depend_on_the_key_and_on_nothing_else():
    examples = toys.sft_examples(60)

    def tokens(*key):
        packed = batches.pack_sft(examples, length=48, rows=4, key=key)
        return np.concatenate([batch["tokens"] for batch in packed])

    np.testing.assert_array_equal(tokens(0, "star", 1), tokens(0, "star", 1))
    assert not np.array_equal(tokens(0, "star", 1), tokens(0, "star", 2))


def test_every_epoch_holds_the_same_examples_in_batches_of_one_shape():
    examples = toys.verifier_examples(60)
    pairs = batches.make_pairs(examples, pairs_per_problem=5, key=(0,))
    for pack, items in ((batches.pack_singles, examples), (batches.pack_pairs, pairs)):
        epochs = [pack(items, length=96, rows=3, key=(0, epoch)) for epoch in range(3)]
        shapes = {
            tuple((name, x.shape, x.dtype.name) for name, x in sorted(batch.items()))
            for epoch in epochs
            for batch in epoch
        }
        assert len(shapes) == 1
        sums = {sum(int(b["tokens"].sum()) for b in epoch) for epoch in epochs}
        assert len(sums) == 1
        assert len({sum(float(b["weights"].sum()) for b in epoch) for epoch in epochs}) == 1


def test_pairs_are_of_one_problem_drawn_without_repeats_and_unmoved_by_other_problems():
    examples = toys.verifier_examples(80, problems=6)
    pairs = batches.make_pairs(examples, pairs_per_problem=4, key=(0, 1))
    for chosen, rejected in pairs:
        assert chosen.task_id == rejected.task_id and chosen.correct and not rejected.correct
    assert len({(id(a), id(b)) for a, b in pairs}) == len(pairs)
    counts = {}
    for chosen, _ in pairs:
        counts[chosen.task_id] = counts.get(chosen.task_id, 0) + 1
    assert set(counts.values()) == {4}

    fewer = [e for e in examples if e.task_id != "p0"]
    kept = [(id(a), id(b)) for a, b in pairs if a.task_id != "p0"]
    again = batches.make_pairs(fewer, pairs_per_problem=4, key=(0, 1))
    assert [(id(a), id(b)) for a, b in again] == kept


def test_a_problem_with_one_kind_of_completion_gives_no_pair():
    examples = [_completion("a", [1, 2], True), _completion("b", [1, 2], False)]
    assert batches.make_pairs(examples, pairs_per_problem=4, key=(0,)) == []


def test_a_pair_across_problems_is_refused():
    with pytest.raises(ValueError, match="'a' .correct. and 'b' .incorrect."):
        batches.pack_pairs(
            [(_completion("a", [1], True), _completion("b", [2], False))],
            length=8,
            rows=1,
            key=(0,),
        )


def test_held_out_problems_are_whole_and_stay_held_out_as_others_come():
    examples = toys.verifier_examples(200, problems=20)
    train, held = batches.split_by_problem(examples, fraction=0.2, key=(0,))
    assert len({e.task_id for e in held}) == 4 and len(train) + len(held) == 200
    assert not {e.task_id for e in held} & {e.task_id for e in train}
    more = examples + [_completion(f"q{i}", [1, 2], True) for i in range(20)]
    _, later = batches.split_by_problem(more, fraction=0.2, key=(0,))
    moved = {e.task_id for e in held} - {e.task_id for e in later}
    # Twice the problems: the 4 lowest ranks of 20 are mostly among the 8 lowest of 40.
    assert len(moved) <= 2


def test_neither_side_of_a_split_is_empty():
    train, held = batches.split_by_problem(
        toys.verifier_examples(6, problems=2), fraction=0.01, key=(0,)
    )
    assert train and held
    train, held = batches.split_by_problem(toys.verifier_examples(6), fraction=0, key=(0,))
    assert len(train) == 6 and not held


def test_a_batch_shape_wastes_little_and_holds_the_batch_asked_for():
    """Lengths as of conversations: log-normal, a long tail."""
    rng = np.random.default_rng(0)
    sizes = np.minimum(rng.lognormal(5.8, 0.5, 3000), 2048).astype(int).tolist()
    length, rows = batches.batch_shape(sizes, per_batch=64, longest=2048, rows_multiple=4)
    assert rows % 4 == 0
    packed = batches.first_fit_decreasing(sizes, length, keys.rng(1))
    assert sum(sizes) / (len(packed) * length) >= 0.95
    assert 0.8 * 64 <= rows * len(sizes) / len(packed) <= 1.25 * 64


def test_no_example_within_the_limit_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="no example of 2 is within the limit of 10"):
        batches.batch_shape([11, 12], per_batch=2, longest=10)
