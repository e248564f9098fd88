"""Packing, pairs and splits: what is in a row, what is left out, what depends on what."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mucode_jax.core.records import SFTExample, VerifierExample
from mucode_jax.training import batches
from mucode_jax.training.batches import Packing

from . import toys


def _sft(task_id, ids, weights):
    return SFTExample(task_id, np.array(ids, np.int32), np.array(weights, np.float32))


def _completion(task_id, ids, correct):
    return VerifierExample(task_id, np.array(ids, np.int32), correct)


def _steps(packed):
    """Per epoch and step, the examples in it, in no order: what a step learns from."""
    return [
        [sorted(id(example) for row in step for example in row) for step in epoch.contents]
        for epoch in packed.epochs
    ]


def test_an_sft_row_is_laid_out_as_by_hand():
    examples = [_sft("a", [5, 6, 7, 8], [1, 0, 0.5, 1]), _sft("b", [9, 4], [0, 2])]
    packed = batches.pack_sft(examples, Packing(batch=2, length=6, rows=2), (0,))
    ((batch,),) = packed.epochs
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


def assert_filled_up(array, expected):
    """Texts' places: as expected, and zeros behind."""
    texts = len(expected[0])
    np.testing.assert_array_equal(array[:, :texts], expected)
    assert array.shape[1] >= 8 and not array[:, texts:].any()


def test_verifiers_of_different_data_share_a_shape():
    completions = [_completion("a", range(1, n), n % 2) for n in (3, 4, 5, 6, 7, 8, 9, 12)]
    pairs = list(itertools.product(completions[::2], completions[1::2]))
    shapes = set()
    for some in (pairs[:1], pairs[-3:], pairs):
        packed = batches.pack_pairs(some, Packing(batch=8, length=24, rows=4), (0,))
        shapes |= {tuple((k, x.shape) for k, x in batch.items()) for (batch, *_) in packed.epochs}
    assert len(shapes) == 1


def test_singles_and_pairs_are_laid_out_as_by_hand():
    right, wrong = _completion("a", [1, 2, 3], True), _completion("a", [4, 5], False)
    packed = batches.pack_singles([right, wrong], Packing(batch=2, length=6, rows=1), (0,))
    ((batch,),) = packed.epochs
    np.testing.assert_array_equal(batch["tokens"], [[1, 2, 3, 4, 5, 0]])
    np.testing.assert_array_equal(batch["segment_ids"], [[1, 1, 1, 2, 2, 0]])
    assert_filled_up(batch["ends"], [[2, 4]])
    assert_filled_up(batch["labels"], [[1, 0]])
    assert_filled_up(batch["weights"], [[1, 1]])

    # The rows of pairs are twice as long.
    packed = batches.pack_pairs([(right, wrong)], Packing(batch=1, length=3, rows=2), (0,))
    ((batch,),) = packed.epochs
    np.testing.assert_array_equal(batch["tokens"], [[1, 2, 3, 4, 5, 0], [0] * 6])
    assert_filled_up(batch["ends"], [[2, 4], [0, 0]])
    assert_filled_up(batch["weights"], [[1], [0]])


def test_what_is_too_long_is_dropped_and_counted_and_a_pair_by_its_members_alone():
    examples = [_sft("a", range(1, n + 1), [0] + [1] * (n - 1)) for n in (4, 5, 6, 9)]
    packed = batches.pack_sft(examples, Packing(batch=2, length=4), (0,))
    assert packed.dropped == 2 and packed.tokens == 3 + 4
    right, wrong = _completion("a", [1, 2, 3], True), _completion("a", [4, 5], False)
    longer = _completion("a", [6, 7, 8, 9], False)
    pairs = [(right, wrong), (right, longer)]
    for rows in (0, 2):
        for length, dropped in ((4, 0), (3, 1)):
            packed = batches.pack_pairs(pairs, Packing(batch=2, length=length, rows=rows), (0,))
            assert packed.dropped == dropped and packed.tokens == 5 + 7 * (1 - dropped)
    with pytest.raises(ValueError, match=r"config\.sft\.length is 2, .* of 4 examples takes 3 t"):
        batches.pack_sft(examples, Packing(batch=2, length=2), (0,))


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
        batches.pack_sft([_sft("Mbpp/7", ids, weights)], Packing(batch=1, length=8), (0,))
    assert "Mbpp/7" in str(error.value)


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=60), length=st.integers(50, 120))
@settings(deadline=None, max_examples=60)
def test_every_example_is_in_exactly_one_row_and_no_two_rows_could_be_one(sizes, length):
    rows = batches.first_fit_decreasing(np.array(sizes), length)
    assert sorted(i for row in rows for i in row) == list(range(len(sizes)))
    loads = [sum(sizes[i] for i in row) for row in rows]
    assert all(load <= length for load in loads)
    assert all(a + b > length for k, a in enumerate(loads) for b in loads[:k])


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60),
    batch=st.integers(1, 20),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=30)
def test_a_step_holds_batch_examples_on_any_mesh_and_all_steps_are_of_about_one_size(
    lengths, batch, seed
):
    """The same ones, in batches of one shape, whatever the devices, microbatches and rows."""
    examples = [_completion(f"p{i}", [1] * n, bool(i % 2)) for i, n in enumerate(lengths)]
    expected = None
    for parts in (1, 2, 8, 24):
        for rows in (0, 24 * -(-batch // 24)):
            packing = Packing(batch=batch, length=50, epochs=2, rows=rows, parts=parts)
            packed = batches.pack_singles(examples, packing, (seed,))
            steps = _steps(packed)
            expected = expected or steps
            assert steps == expected
            shapes = {x.shape[:1] for epoch in packed.epochs for b in epoch for x in b.values()}
            ((count,),) = shapes
            assert count % parts == 0 and count == (rows or count)
            for epoch in packed.epochs:
                weights = [batch["weights"].sum() for batch in epoch]
                assert weights == [batch] * (len(epoch) - 1) + [len(lengths) % batch or batch]
                assert sum(int(batch["tokens"].sum()) for batch in epoch) == packed.tokens
    size = {id(example): len(example.ids) for example in examples}
    for epoch in expected:
        assert sorted(i for step in epoch for i in step) == sorted(size)
        sums = [sum(size[i] for i in step) for step in epoch if len(step) == batch]
        assert not sums or max(sums) - min(sums) <= max(lengths) - min(lengths)
    if len(lengths) > 2 * batch > 4:
        assert expected[0] != expected[1]


def test_steps_depend_on_the_key():
    examples = toys.sft_examples(60)
    one, same, other = (
        _steps(batches.pack_sft(examples, Packing(batch=7, length=48), key))
        for key in ((0, "star", 1), (0, "star", 1), (0, "star", 2))
    )
    assert one == same != other


def test_too_few_rows_are_refused_with_the_number_that_holds_a_step():
    pairs = batches.make_pairs(toys.verifier_examples(60), pairs_per_problem=5, key=(0,))
    section = "verifier_training"

    def pack(rows, parts):
        packing = Packing(batch=9, length=24, rows=rows, parts=parts, section=section)
        return batches.pack_pairs(pairs, packing, (0,))

    for parts in (1, 2, 4):
        with pytest.raises(ValueError) as error:
            pack(parts, parts)
        told = str(error.value)
        found = re.fullmatch(
            rf"config\.{section}\.rows is {parts}, but 9 examples take up to (\d+) rows of 48 "
            rf"tokens; choose \1 or more \(0: as many as are needed\), or lower "
            rf"config\.{section}\.batch",
            told,
        )
        assert found, told
        needed = int(found[1])
        assert needed % parts == 0 and pack(needed, parts).epochs[0].shape.rows == needed
        with pytest.raises(ValueError, match="take up to"):
            pack(needed - parts, parts)


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
    pair = (_completion("a", [1], True), _completion("b", [2], False))
    with pytest.raises(ValueError, match="'a' .correct. and 'b' .incorrect."):
        batches.pack_pairs([pair], Packing(batch=1, length=8), (0,))


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


@pytest.mark.parametrize(("batch", "parts", "real"), [(16, 1, 0.84), (64, 8, 0.94)])
def test_without_rows_of_ones_own_batches_waste_little(batch, parts, real):
    """Lengths as of conversations: log-normal, a long tail."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.lognormal(5.8, 0.5, 3000), 2048).astype(int)
    examples = [_completion("a", np.ones(n), True) for n in lengths]
    packing = Packing(batch=batch, length=2048, parts=parts)
    packed = batches.pack_singles(examples, packing, (0,))
    rows, length, _ = packed.epochs[0].shape
    assert rows % parts == 0 and length % 128 == 0
    assert packed.tokens / (packed.steps * rows * length) > real
    most, longest = packing.largest(1)
    assert rows * length <= most * longest and (most, longest) == (batch, 2048)
