"""The scheduler over whole stages, on a virtual clock, and by hand."""

import numpy as np

from mucode_jax.models.llama import PAGE
from mucode_jax.sampling.pages import Columns, Pool
from mucode_jax.sampling.scheduler import Request, Scheduler
from tests.bench import sampling as bench


def test_slots_stay_busy_and_nothing_is_read_twice():
    result = bench.iteration(problems=100)
    assert result["occupancy_before_drain"] >= 0.90
    assert result["prefilled_per_unique"] <= 1.05
    assert result["padding"] <= 0.15
    assert result["replayed_per_drawn"] < 0.03


def test_a_static_batch_needs_many_times_the_steps():
    # Programs that hang hold up the end of so short an iteration; here there are none.
    clock = bench.Clock(slow=0.0)
    assert bench.iteration(problems=150, clock=clock)["static_steps_per_step"] >= 2.5


def test_searches_keep_the_slots_busy_and_read_nothing_twice():
    sizes = {"problems": 16, "searches": 10, "slots": 64}
    now, before = bench.searches(**sizes), bench.drained_searches(**sizes)
    assert now["occupancy_before_drain"] >= 0.90
    assert now["prefilled_per_unique"] <= 1.05
    assert before["prefilled_per_unique"] > 5


def test_a_conversation_takes_less_than_a_third_of_the_longest_ones_bytes():
    """As many pages as 32 slots of the whole context had; 160 slots, so that pages decide."""
    result = bench.iteration(problems=40, slots=160, pages=32 * 82)
    assert result["conversations"] >= 3 * 32
    assert result["occupancy_before_drain"] >= 0.90
    assert result["replayed_per_drawn"] < 0.03


def test_pages_are_shared_until_they_are_written_and_free_when_nobody_has_them():
    pool = Pool(4)
    first = Columns()
    assert pool.reserve(first, PAGE + 3) == []
    first.count = PAGE + 3
    second = pool.share(first)
    assert pool.free == 2
    ((source, target),) = pool.reserve(second, PAGE + 4)
    assert (source, target) == (first.pages[1], second.pages[1])
    assert first.pages[0] == second.pages[0]
    assert pool.reserve(first, PAGE + 4) == []  # nobody else has its last page now
    assert pool.reserve(second, 4 * PAGE) is None  # one is free, two are asked for
    assert pool.free == 1
    pool.release(first)
    assert pool.free == 2
    assert pool.reserve(second, 4 * PAGE) == []
    pool.trim(second)
    assert len(second.pages) == 2  # of PAGE + 3 columns
    pool.release(second)
    assert pool.free == 4


def ones(length):
    return np.ones(length, np.int32)


def play(scheduler, length):
    """Admits, then lets every live slot draw `length` tokens, the last of which ends its turn."""
    work = scheduler.admit()
    scheduler.live_slots(length)
    tokens = np.full((length, len(scheduler.samples)), 7)
    tokens[-1] = 0
    scheduler.advance(tokens, np.zeros(tokens.shape), 0.1)
    return work


def submit(scheduler, name, text, parent=None, keep=False, count=1):
    keys = np.zeros((count, 2), np.uint32)
    scheduler.submit(Request(name, text, keys, 50, parent, keep))


def new(slots, pages, longest=4):
    return Scheduler(slots, pages, longest, (0,), lambda: 0.0)


def test_a_kept_completion_takes_pages_and_no_slot():
    scheduler = new(slots=1, pages=8)
    submit(scheduler, "a", ones(10), keep=True)
    play(scheduler, 5)
    assert scheduler.samples == [None]
    assert scheduler.pool.free == 7
    text = np.concatenate([ones(10), [7, 7, 7, 7, 0], ones(10)])
    submit(scheduler, "b", text, parent=("a", 0))
    scheduler.release(("a", 0))
    assert scheduler.pool.free == 7  # "b" has them
    ((_, start, tokens),) = play(scheduler, 5).prefills
    assert (start, len(tokens)) == (14, 10)
    assert scheduler.pool.free == 8


def test_samples_share_the_pages_of_their_prompt_and_copy_the_last_one():
    scheduler = new(slots=3, pages=20)
    submit(scheduler, "a", ones(2 * PAGE + 10), count=3)
    work = scheduler.admit()
    assert len(work.prefills) == 1
    assert len(work.late_copies) == 2  # the last sample takes the prompt's own page
    assert scheduler.pool.free == 20 - 2 - 3


def test_where_pages_run_short_the_youngest_sample_waits():
    scheduler = new(slots=2, pages=4)
    for name in "ab":
        submit(scheduler, name, ones(PAGE + 30))
    scheduler.admit()
    assert scheduler.live_slots(16).live.tolist() == [True, True]
    scheduler.advance(np.full((16, 2), 7), np.zeros((16, 2)), 0.1)
    assert scheduler.live_slots(PAGE).live.tolist() == [True, False]  # of 50 new ones 34 are left
    assert scheduler.queued == 1
    assert scheduler.redrawn == 16
    assert scheduler.evictions == 2  # what it had drawn, and then its prompt


def test_a_conversation_comes_back_in_the_parts_it_was_made_of():
    scheduler = new(slots=2, pages=4)
    submit(scheduler, "a", ones(10), keep=True)
    play(scheduler, 5)
    submit(scheduler, "b", ones(4 * PAGE - 50))
    scheduler.admit()  # nothing is live, and three pages are free: what "a" has is given away
    assert scheduler.evictions == 1
    play(scheduler, 5)
    drawn = np.asarray([7, 7, 7, 7, 0], np.int32)
    text = np.concatenate([ones(10), drawn, ones(4)])
    submit(scheduler, "next", text, parent=("a", 0))
    ((_, start, tokens),) = scheduler.admit().prefills
    assert (start, len(tokens)) == (0, 9)
    decoding = scheduler.live_slots(8)
    (slot,) = np.flatnonzero(decoding.live)
    assert decoding.forced[:, slot].tolist() == [7, 7, 7, 7, 0, -1, -1, -1]
    block = np.where(decoding.forced >= 0, decoding.forced, 9)[:5]
    assert scheduler.advance(block, np.zeros(block.shape), 0.1) == ([], 0, 5)
    ((_, start, tokens),) = scheduler.admit().prefills
    # Cached: nine by prefill, then the prompt's last token and four of the drawn ones.
    assert (start, tokens.tolist()) == (14, [0, 1, 1, 1])
