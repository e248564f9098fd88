"""The scheduler over a whole iteration of rollouts, on a virtual clock."""

import numpy as np
import pytest

from mucode_jax.sampling.scheduler import Scheduler
from tests.bench import sampling as bench


def test_slots_stay_busy_and_nothing_is_read_twice():
    result = bench.iteration(problems=100)
    assert result["occupancy_before_drain"] >= 0.90
    assert result["prefilled_per_unique"] <= 1.05
    assert result["evictions"] > 0  # so that coming back by replay is in these figures
    assert result["replayed_per_drawn"] < 0.03


def test_a_static_batch_needs_many_times_the_steps():
    # Programs that hang hold up the end of so short an iteration; here there are none.
    assert bench.iteration(problems=150, slow=0.0)["static_steps_per_step"] >= 2.5


def ones(*lengths):
    return [np.ones(length, np.int32) for length in lengths]


def play(scheduler, length):
    """Admits, then lets every live slot draw `length` tokens, the last of which ends its turn."""
    work = scheduler.admit()
    table, _ = scheduler.table(length)
    tokens = np.full((length, len(table)), 7)
    tokens[-1] = 0
    scheduler.advance(tokens, np.zeros(tokens.shape), 0.1)
    return work


@pytest.fixture
def clock():
    return [0.0]


def two_slots(clock, wait_seconds=None):
    scheduler = Scheduler(2, 100, (0,), wait_seconds, lambda: clock[0])
    key = np.zeros((1, 2), np.uint32)
    prompt, other = ones(10, 20)
    scheduler.submit("a", prompt, key, 50, None, 0, True)
    scheduler.submit("b", prompt, key, 50, None, 0, False)
    play(scheduler, 5)  # a is kept, b is gone
    scheduler.submit("c", other, key, 50, None, 0, False)
    scheduler.submit("d", other, key, 50, None, 0, False)
    return scheduler


def test_a_kept_slot_is_given_away_after_as_long_as_its_replay_would_take(clock):
    scheduler = two_slots(clock)
    clock[0] = 0.4  # its five tokens took 0.5 s
    assert len(scheduler.admit().prefills) == 1
    assert scheduler.evictions == 0
    clock[0] = 0.6
    assert len(scheduler.admit().prefills) == 1
    assert scheduler.evictions == 1


def test_a_kept_slot_is_given_away_at_once_when_nothing_else_can_run(clock):
    scheduler = two_slots(clock, wait_seconds=1e9)
    assert len(scheduler.admit().prefills) == 1
    table, _ = scheduler.table(1)
    tokens = np.zeros((1, len(table)), np.int32)
    scheduler.advance(tokens, np.zeros((1, 2)), 0.1)  # c ends, d takes its slot
    scheduler.submit("e", ones(3)[0], np.zeros((1, 2), np.uint32), 50, None, 0, True)
    scheduler.admit()
    assert scheduler.evictions == 0
    scheduler.advance(tokens, np.zeros((1, 2)), 0.1)
    scheduler.admit()
    scheduler.advance(tokens, np.zeros((1, 2)), 0.1)
    scheduler.submit("f", ones(3)[0], np.zeros((1, 2), np.uint32), 50, None, 0, True)
    assert len(scheduler.admit().prefills) == 1  # both slots kept, nothing live
    assert scheduler.evictions == 1


def test_a_conversation_comes_back_in_the_parts_it_was_made_of(clock):
    scheduler = two_slots(clock, wait_seconds=0.0)
    clock[0] = 1.0
    play(scheduler, 5)  # a's slot goes to c or d
    drawn = np.asarray([7, 7, 7, 7, 0], np.int32)
    text = np.concatenate([ones(10)[0], drawn, ones(4)[0]])
    scheduler.submit("next", text, np.zeros((1, 2), np.uint32), 50, ("a", 0), 0, False)
    ((_, start, tokens),) = scheduler.admit().prefills
    assert (start, len(tokens)) == (0, 9)
    table, _ = scheduler.table(8)
    (slot,) = np.flatnonzero(table[:, 3])
    assert table[slot, 7:].tolist() == [7, 7, 7, 7, 0, -1, -1, -1]
    block = np.where(table[:, 7:] >= 0, table[:, 7:], 9).T[:5]
    assert scheduler.advance(block, np.zeros(block.shape), 0.1) == ([], 0, 5)
    ((_, start, tokens),) = scheduler.admit().prefills
    # Cached: nine by prefill, then the prompt's last token and four of the drawn ones.
    assert (start, tokens.tolist()) == (14, [0, 1, 1, 1])
