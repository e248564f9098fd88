"""Which conversation sits in which slot, and what it does next: the engine's bookkeeping.

Numpy and Python only; time comes from a clock that is passed in. The engine asks `admit` what to
prefill and copy, `table` what to decode, and tells `advance` what came out.

Vocabulary: a *group* is a request whose samples share one prompt. A conversation's *stages* are its
turns as (feed, drawn): `feed` is what was prefilled (all but its last token) and read (its last
token) after the columns already cached, `drawn` what was then decoded. A slot's cache is a function
of its stages.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Hashable

import numpy as np

from mucode_jax.sampling.programs import FORCED, KEY, LEFT, LENGTH, LIVE, TEMPERATURE, TOKEN

# How many waits must have been seen before their median means something.
_ENOUGH_WAITS = 32

Handle = tuple[Hashable, int]
Stage = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(eq=False)
class _Group:
    """A request: its samples, and where its prompt lies in the cache."""

    id: Hashable
    prompt: np.ndarray
    keys: np.ndarray
    limit: int
    temperature: int
    keep: bool
    history: tuple[Stage, ...]
    feed: np.ndarray
    claim: int | None  # the parent's slot, which the first sample takes over
    admitted: int = 0
    finished: int = 0
    replaying: bool = False  # a slot is on its way through the history
    sources: set[int] = dataclasses.field(default_factory=set)  # slots that begin with the prompt


@dataclasses.dataclass(eq=False)
class _Kept:
    """A finished completion that may be gone on from; `slot` is None once it was given away."""

    text: np.ndarray
    stages: tuple[Stage, ...]
    slot: int | None
    since: float


@dataclasses.dataclass
class Work:
    """Cache operations to run in this order: copies (source, target, columns), prefills (slot,
    first position, tokens), then the copies of what was just prefilled."""

    copies: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)
    prefills: list[tuple[int, int, np.ndarray]] = dataclasses.field(default_factory=list)
    late_copies: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)


class Scheduler:
    """Owns the slots' bookkeeping. B slots, S = context columns each."""

    def __init__(
        self,
        slots: int,
        context: int,
        eot_ids: tuple[int, ...],
        wait_seconds: float | None,
        clock: Callable[[], float],
    ) -> None:
        self._eot_ids = np.asarray(eot_ids, np.int32)
        self._wait_seconds, self._clock = wait_seconds, clock
        # One row a slot, as the decode program takes it (the forced tokens are added on the way).
        self._rows = np.zeros((slots, FORCED), np.int32)
        self._ids = np.zeros((slots, context), np.int32)
        self._logprobs = np.zeros((slots, context), np.float32)
        self._count = np.zeros(slots, np.int32)  # how many of a slot's ids belong to its stage
        self._sample: list[tuple[_Group, int] | None] = [None] * slots  # who decodes in a slot
        self._stage = [0] * slots
        self._replay = np.zeros(slots, bool)  # the stage is one of the group's history
        self._prompt_of: list[_Group | None] = [None] * slots  # whose prompt a slot begins with
        self._free = collections.deque(range(slots))
        # Groups with samples to admit; conversations that go on pass before new ones.
        self._turns: collections.deque[_Group] = collections.deque()
        self._prompts: collections.deque[_Group] = collections.deque()
        self._advanced: list[int] = []  # replaying slots that have reached their next stage
        self._kept: dict[Handle, _Kept] = {}
        self._active: set[Hashable] = set()
        self._step_seconds = 0.0
        self._waits: collections.deque[float] = collections.deque(maxlen=256)
        self.pending = 0
        self.evictions = 0
        self.copies = 0

    @property
    def waiting(self) -> bool:
        """Whether completions are kept for a caller who has not gone on with them."""
        return bool(self._kept)

    def at(self, slot: int) -> tuple[Handle, bool, int]:
        """Of a live slot: whose sample it is, whether it is replaying, how many tokens it has."""
        group, index = self._sample[slot]
        return (group.id, index), bool(self._replay[slot]), int(self._count[slot])

    def submit(
        self,
        id: Hashable,
        prompt: np.ndarray,
        keys: np.ndarray,
        limit: int,
        parent: Handle | None,
        temperature: int,
        keep: bool,
    ) -> None:
        """Queues a request; ValueError if its id is taken or its parent does not fit."""
        if id in self._active or any((id, i) in self._kept for i in range(len(keys))):
            raise ValueError(f"request {id!r}: this id is pending or kept; release it first")
        history: tuple[Stage, ...] = ()
        feed, claim = prompt, None
        if parent is not None:
            kept = self._kept.get(parent)
            if kept is None:
                raise ValueError(f"request {id!r}: its parent {parent!r} is not kept")
            known = len(kept.text)
            if len(prompt) <= known or not np.array_equal(prompt[:known], kept.text):
                raise ValueError(
                    f"request {id!r}: its prompt of {len(prompt)} tokens does not go on from the"
                    f" {known} of its parent {parent!r}"
                )
            history = kept.stages
            feed = prompt[sum(len(fed) + len(drawn) - 1 for fed, drawn in history) :]
            claim, kept.slot = kept.slot, None
            self._waits.append(self._clock() - kept.since)
        group = _Group(id, prompt, keys, limit, temperature, keep, history, feed, claim)
        (self._prompts if parent is None else self._turns).append(group)
        self._active.add(id)
        self.pending += len(keys)

    def release(self, handle: Handle) -> None:
        """Forgets a kept completion and frees its slot; ValueError if it is not kept."""
        kept = self._kept.pop(handle, None)
        if kept is None:
            raise ValueError(f"completion {handle!r} is not kept: unknown, running or released")
        if kept.slot is not None:
            self._free.append(kept.slot)

    # Filling the slots.

    def admit(self) -> Work:
        """Gives slots to what can start, in order of arrival, and says how to fill them."""
        work = Work()
        fresh: set[int] = set()  # prefilled in this round
        copied: list[tuple[_Group, int]] = []
        for slot in self._advanced:
            self._begin(slot, work, fresh)
        self._advanced.clear()
        # Turns that go on in their parent's slot need no other, and come first.
        for group in self._turns:
            if group.claim is not None:
                slot, group.claim = group.claim, None
                self._assign(slot, group, len(group.history))
                self._begin(slot, work, fresh)
        for queue in (self._turns, self._prompts):
            self._admit_from(queue, work, fresh, copied)
        # Only now, so that nothing of this round is copied from a slot that it copies to.
        for group, slot in copied:
            self._holds(slot, group)
        return work

    def _admit_from(
        self,
        queue: collections.deque[_Group],
        work: Work,
        fresh: set[int],
        copied: list[tuple[_Group, int]],
    ) -> None:
        waiting = []
        while queue:
            group = queue[0]
            if group.replaying:  # its other samples wait for the prompt to be there
                waiting.append(queue.popleft())
                continue
            if group.admitted == len(group.keys):
                queue.popleft()
                continue
            slot = self._slot_for(group)
            if slot is None:
                break
            own = slot in group.sources  # the prompt still lies there: nothing to copy
            source = min(group.sources, default=None)
            if source is None:
                self._take_over(slot)
                self._rows[slot, LENGTH] = 0
                self._assign(slot, group, 0)
                self._begin(slot, work, fresh)
                continue
            columns = len(group.prompt) - 1
            if not own:
                self._take_over(slot)
                copies = work.late_copies if source in fresh else work.copies
                copies.append((source, slot, columns))
                copied.append((group, slot))
                self.copies += 1
            self._assign(slot, group, len(group.history))
            self._ready(slot, group, columns, group.feed[-1])
        queue.extendleft(reversed(waiting))

    def _slot_for(self, group: _Group) -> int | None:
        for slot in group.sources:
            if slot in self._free:
                self._free.remove(slot)
                return slot
        if not self._free:
            self._evict()
        return self._free.popleft() if self._free else None

    def _assign(self, slot: int, group: _Group, stage: int) -> None:
        """Makes a slot the place of the group's next sample, at this stage of its conversation."""
        self._sample[slot] = group, group.admitted
        self._stage[slot] = stage
        self._rows[slot, KEY : KEY + 2] = group.keys[group.admitted].view(np.int32)
        self._rows[slot, TEMPERATURE] = group.temperature
        group.admitted += 1

    def _take_over(self, slot: int) -> None:
        """What the slot held is lost."""
        former = self._prompt_of[slot]
        if former is not None:
            former.sources.discard(slot)
        self._prompt_of[slot] = None

    def _holds(self, slot: int, group: _Group) -> None:
        self._take_over(slot)
        self._prompt_of[slot] = group
        if group.admitted < len(group.keys):
            group.sources.add(slot)

    def _begin(self, slot: int, work: Work, fresh: set[int]) -> None:
        """Starts the slot's stage: prefill of its feed, then decoding."""
        group, _ = self._sample[slot]
        stage = self._stage[slot]
        group.replaying = stage < len(group.history)
        feed = group.history[stage][0] if group.replaying else group.feed
        start = int(self._rows[slot, LENGTH])
        if len(feed) > 1:
            work.prefills.append((slot, start, feed[:-1]))
        self._ready(slot, group, start + len(feed) - 1, feed[-1])
        if not group.replaying:
            fresh.add(slot)
            self._holds(slot, group)

    def _ready(self, slot: int, group: _Group, cached: int, token: int) -> None:
        stage = self._stage[slot]
        self._replay[slot] = replay = stage < len(group.history)
        row = self._rows[slot]
        row[TOKEN], row[LENGTH], row[LIVE] = token, cached, 1
        row[LEFT] = len(group.history[stage][1]) if replay else group.limit
        self._count[slot] = 0

    def _evict(self) -> None:
        """Frees the kept slot that has waited longest, if that is longer than it may."""
        oldest = min(
            (kept for kept in self._kept.values() if kept.slot is not None),
            key=lambda kept: kept.since,
            default=None,
        )
        if oldest is None:
            return
        allowed = self._wait_seconds
        if allowed is None:
            # To wait as long as coming back would cost is at most twice as dear as knowing better;
            # and who has been away for much longer than others usually are will not be back soon.
            allowed = self._step_seconds * sum(len(drawn) for _, drawn in oldest.stages)
            if len(self._waits) >= _ENOUGH_WAITS:
                allowed = min(allowed, 4 * float(np.median(self._waits)))
        if self._rows[:, LIVE].any() and self._clock() - oldest.since < allowed:
            return
        self._free.append(oldest.slot)
        oldest.slot = None
        self.evictions += 1

    # Decoding.

    def table(self, steps: int) -> tuple[np.ndarray | None, int]:
        """int32 [B, 7 + steps] for `programs.decode` (None if nothing is live), and the furthest
        position at which a live slot goes on."""
        live = self._rows[:, LIVE] > 0
        if not live.any():
            return None, 0
        table = np.full((len(live), FORCED + steps), -1, np.int32)
        table[:, :FORCED] = self._rows
        for slot in np.flatnonzero(live & self._replay):
            group, _ = self._sample[slot]
            done = self._count[slot]
            tokens = group.history[self._stage[slot]][1][done : done + steps]
            table[slot, FORCED : FORCED + len(tokens)] = tokens
        return table, int(self._rows[live, LENGTH].max())

    def advance(
        self, tokens: np.ndarray, logprobs: np.ndarray, step_seconds: float
    ) -> tuple[list[tuple[Hashable, int, np.ndarray, np.ndarray]], int, int]:
        """Takes up a block's tokens [k, B] and log-probabilities.

        Returns the finished samples (request id, index, ids, logprobs), how many tokens were drawn,
        and how many replayed.
        """
        self._step_seconds = step_seconds
        steps = len(tokens)
        slots = np.flatnonzero(self._rows[:, LIVE])
        tokens, logprobs = tokens[:, slots].T, logprobs[:, slots].T
        ends = np.isin(tokens, self._eot_ids)
        count = np.where(ends.any(1), ends.argmax(1) + 1, steps)
        count = np.minimum(count, self._rows[slots, LEFT])
        row, column = np.nonzero(np.arange(steps) < count[:, None])
        place = slots[row], self._count[slots][row] + column
        self._ids[place] = tokens[row, column]
        self._logprobs[place] = logprobs[row, column]
        self._count[slots] += count
        self._rows[slots, TOKEN] = tokens[np.arange(len(slots)), count - 1]
        self._rows[slots, LENGTH] += count
        self._rows[slots, LEFT] -= count
        over = (self._rows[slots, LEFT] == 0) | np.isin(self._rows[slots, TOKEN], self._eot_ids)
        replayed = int(count[self._replay[slots]].sum())
        finished = []
        for slot in slots[over].tolist():
            self._rows[slot, LIVE] = 0
            if self._replay[slot]:
                self._stage[slot] += 1
                self._advanced.append(slot)
            else:
                finished.append(self._finish(slot))
        return finished, int(count.sum()) - replayed, replayed

    def _finish(self, slot: int) -> tuple[Hashable, int, np.ndarray, np.ndarray]:
        group, index = self._sample[slot]
        self._sample[slot] = None
        ids = self._ids[slot, : self._count[slot]].copy()
        logprobs = self._logprobs[slot, : self._count[slot]].copy()
        if group.keep:
            closed = ids if ids[-1] in self._eot_ids else np.append(ids, self._eot_ids[0])
            self._kept[group.id, index] = _Kept(
                np.concatenate([group.prompt, closed]),
                (*group.history, (group.feed, ids)),
                slot,
                self._clock(),
            )
        else:
            self._free.append(slot)
        group.finished += 1
        if group.finished == len(group.keys):
            self._active.discard(group.id)
        self.pending -= 1
        return group.id, index, ids, logprobs
