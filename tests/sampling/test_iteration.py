"""The scheduler over a whole iteration of rollouts, on a virtual clock."""

import numpy as np
import pytest

from mucode_jax.sampling.scheduler import Request, Scheduler
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
    tokens = np.full((length, len(scheduler.slots)), 7)
    tokens[-1] = 0
    scheduler.advance(tokens, np.zeros(tokens.shape), 0.1)
    return work


@pytest.fixture
def clock():
    return [0.0]


def submit(scheduler, name, text, parent=None, keep=False):
    keys = np.zeros((1, 2), np.uint32)
    scheduler.submit(Request(name, text, keys, 50, parent, 0.0, keep))


def two_slots(clock, wait_seconds=None):
    scheduler = Scheduler(2, (0,), wait_seconds, lambda: clock[0])
    prompt, other = ones(10, 20)
    submit(scheduler, "a", prompt, keep=True)
    submit(scheduler, "b", prompt)
    play(scheduler, 5)  # a is kept, b is gone
    submit(scheduler, "c", other)
    submit(scheduler, "d", other)
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
    tokens = np.zeros((1, 2), np.int32)
    scheduler.advance(tokens, np.zeros((1, 2)), 0.1)  # c ends, d takes its slot
    submit(scheduler, "e", ones(3)[0], keep=True)
    scheduler.admit()
    assert scheduler.evictions == 0
    scheduler.advance(tokens, np.zeros((1, 2)), 0.1)
    scheduler.admit()
    scheduler.advance(tokens, np.zeros((1, 2)), 0.1)
    submit(scheduler, "f", ones(3)[0], keep=True)
    assert len(scheduler.admit().prefills) == 1  # both slots kept, nothing live
    assert scheduler.evictions == 1


def test_a_conversation_comes_back_in_the_parts_it_was_made_of(clock):
    scheduler = two_slots(clock, wait_seconds=0.0)
    clock[0] = 1.0
    play(scheduler, 5)  # a's slot goes to c or d
    drawn = np.asarray([7, 7, 7, 7, 0], np.int32)
    text = np.concatenate([ones(10)[0], drawn, ones(4)[0]])
    submit(scheduler, "next", text, parent=("a", 0))
    ((start, tokens),) = scheduler.admit().prefills.values()
    assert (start, len(tokens)) == (0, 9)
    told = scheduler.live_slots(8)
    (slot,) = np.flatnonzero(told.live)
    assert told.forced[:, slot].tolist() == [7, 7, 7, 7, 0, -1, -1, -1]
    block = np.where(told.forced >= 0, told.forced, 9)[:5]
    assert scheduler.advance(block, np.zeros(block.shape), 0.1) == ([], 0, 5)
    ((start, tokens),) = scheduler.admit().prefills.values()
    # Cached: nine by prefill, then the prompt's last token and four of the drawn ones.
    assert (start, tokens.tolist()) == (14, [0, 1, 1, 1])
