"""Which conversation sits in which slot, and what it does next: the engine's bookkeeping.

Numpy and Python only; time comes from a clock that is passed in. The engine asks `admit` what to
prefill and copy, `live_slots` what to decode, and tells `advance` what came out.

A *group* is a request, whose samples share one prompt. A conversation's turns are its *stages*: the
feed of a stage is read after the columns already cached, then its tokens are drawn. What a slot's
cache holds is a function of its stages.

A slot's life, one state after the other:

    FREE ─ READING ─ DRAWING ─ HELD ─ READING (the next turn) … or FREE
    FREE ─ READING ─ REPLAYING ─ READING ─ … ─ DRAWING     (after its slot was given away)
    FREE ─ DRAWING                                         (its prompt is copied from a sibling)
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import itertools
from collections.abc import Callable, Hashable
from typing import NamedTuple

import numpy as np

from mucode_jax.sampling.programs import Slots

# How many waits must have been seen before their median means something.
_ENOUGH_WAITS = 32

Handle = tuple[Hashable, int]


@dataclasses.dataclass(frozen=True)
class Request:
    """Samples of one conversation's next message.

    Attributes:
      id: names the request; unique among those pending or kept.
      prompt_ids: int32 [P], the whole conversation so far, generation prompt included.
      keys: uint32 [n, 2], a threefry key for each of the n samples.
      max_new_tokens: the most tokens to draw for each sample; P + max_new_tokens ≤ context.
      parent: the (request id, index) of the kept completion that the conversation continues, or
        None. `prompt_ids` must begin with the parent's prompt and completion.
      temperature: None takes the engine's; 0 is greedy.
      keep: whether completions keep their slot, as possible parents, until they are released.
    """

    id: Hashable
    prompt_ids: np.ndarray
    keys: np.ndarray
    max_new_tokens: int
    parent: Handle | None = None
    temperature: float | None = None
    keep: bool = True


@dataclasses.dataclass(frozen=True)
class Completion:
    """One finished sample.

    Attributes:
      request_id, index: which sample of which request.
      ids: int32 [C]; the last is an end-of-turn id: the drawn one, or, where `truncated`,
        `eot_ids[0]`, added to close the turn (then C = max_new_tokens + 1).
      logprobs: float32 [C], of each id in the distribution it was drawn from (after temperature,
        top-k and top-p; at temperature 0, the model's own distribution); 0 for an added id.
      truncated: the limit was met before an end-of-turn id was drawn.
    """

    request_id: Hashable
    index: int
    ids: np.ndarray
    logprobs: np.ndarray
    truncated: bool


class Stage(NamedTuple):
    """One turn: what was read (all but its last token by prefill), then what was decoded."""

    feed: np.ndarray
    drawn: np.ndarray


class State(enum.Enum):
    """What a slot does."""

    FREE = enum.auto()  # nothing; its columns may still begin with a prompt that can be copied
    READING = enum.auto()  # the feed of its stage is prefilled by the next `admit`
    REPLAYING = enum.auto()  # decodes an earlier turn again, its tokens forced
    DRAWING = enum.auto()  # decodes a new turn
    HELD = enum.auto()  # keeps a finished completion for the turn that continues it


_LIVE = (State.REPLAYING, State.DRAWING)


@dataclasses.dataclass(eq=False)
class Slot:
    """One row of the cache.

    Attributes:
      number: which row.
      state: see `State`; what follows means something unless it is FREE.
      group, index: the sample that it works for; `key`: two words, its threefry key.
      stage: which of the group's `history` it reads or replays; past them, the new turn.
      cached: how many columns of the conversation are in the cache.
      token: the token to read next, at column `cached`.
      left: how many tokens the stage may still decode.
      blocks: (ids, logprobs) that the stage has decoded so far, a pair per block.
      prompt_of: the group with whose prompt the columns begin, also when FREE.
    """

    number: int
    state: State = State.FREE
    group: _Group | None = None
    index: int = 0
    key: tuple[int, ...] = (0, 0)
    stage: int = 0
    cached: int = 0
    token: int = 0
    left: int = 0
    blocks: list[tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)
    prompt_of: _Group | None = None

    @property
    def live(self) -> bool:
        return self.state in _LIVE


@dataclasses.dataclass(eq=False)
class _Group:
    """A request under way: the earlier turns, the feed of the new one, where the prompt is cached."""

    request: Request
    history: tuple[Stage, ...]
    feed: np.ndarray
    admitted: int = 0  # samples that have had a slot
    finished: int = 0
    replaying: bool = False  # a slot is on its way through the history
    sources: set[int] = dataclasses.field(default_factory=set)  # slots that begin with the prompt


@dataclasses.dataclass(eq=False)
class _Kept:
    """A finished completion that may be continued; `slot` is None once it was given away."""

    text: np.ndarray
    stages: tuple[Stage, ...]
    slot: Slot | None
    since: float


@dataclasses.dataclass
class Work:
    """Cache operations, to be run in the order copies, prefills, late copies.

    Attributes:
      copies: (source slot, target slot, columns).
      prefills: slot -> (first position, tokens).
      late_copies: like `copies`, from slots that are prefilled in this round.
    """

    copies: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)
    prefills: dict[int, tuple[int, np.ndarray]] = dataclasses.field(default_factory=dict)
    late_copies: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)


class Scheduler:
    """Owns the slots' bookkeeping. B slots, K steps of a block of decoding."""

    def __init__(
        self,
        slots: int,
        eot_ids: tuple[int, ...],
        wait_seconds: float | None,
        clock: Callable[[], float],
    ) -> None:
        self.slots = [Slot(number) for number in range(slots)]
        self._eot_ids = eot_ids
        self._wait_seconds, self._clock = wait_seconds, clock
        self._free = collections.deque(self.slots)
        # Groups with samples to admit; conversations that continue pass before new ones.
        self._turns: collections.deque[_Group] = collections.deque()
        self._prompts: collections.deque[_Group] = collections.deque()
        self._kept: dict[Handle, _Kept] = {}
        self._active: set[Hashable] = set()
        self._step_seconds = 0.0
        self._waits: collections.deque[float] = collections.deque(maxlen=256)
        self.pending = 0
        self.evictions = 0
        self.copies = 0

    @property
    def waiting(self) -> bool:
        """Whether completions are kept for a caller who has not continued them."""
        return bool(self._kept)

    @property
    def queued(self) -> int:
        """Samples that have had no slot yet."""
        groups = itertools.chain(self._turns, self._prompts)
        return sum(len(group.request.keys) - group.admitted for group in groups)

    def submit(self, request: Request) -> None:
        """Queues a request; ValueError if its id is taken or its parent does not fit."""
        id, prompt, parent = request.id, request.prompt_ids, request.parent
        if id in self._active or any((id, i) in self._kept for i in range(len(request.keys))):
            raise ValueError(f"request {id!r}: this id is pending or kept; release it first")
        if parent is None:
            self._prompts.append(_Group(request, (), prompt))
        else:
            kept = self._kept.get(parent)
            if kept is None:
                raise ValueError(f"request {id!r}: its parent {parent!r} is not kept")
            known = len(kept.text)
            if len(prompt) <= known or not np.array_equal(prompt[:known], kept.text):
                raise ValueError(
                    f"request {id!r}: its prompt of {len(prompt)} tokens does not go on from the"
                    f" {known} of its parent {parent!r}"
                )
            cached = sum(len(stage.feed) + len(stage.drawn) - 1 for stage in kept.stages)
            group = _Group(request, kept.stages, prompt[cached:])
            if kept.slot is not None:  # the first sample goes on where its parent ended
                self._assign(kept.slot, group, len(group.history))
                kept.slot = None
            self._turns.append(group)
            self._waits.append(self._clock() - kept.since)
        self._active.add(id)
        self.pending += len(request.keys)

    def release(self, handle: Handle) -> None:
        """Forgets a kept completion and frees its slot; ValueError if it is not kept."""
        kept = self._kept.pop(handle, None)
        if kept is None:
            raise ValueError(f"completion {handle!r} is not kept: unknown, running or released")
        if kept.slot is not None:
            self._set_free(kept.slot)

    # Filling the slots.

    def admit(self) -> Work:
        """Gives slots to what can start, in order of arrival, and says how to fill them."""
        work = Work()
        for slot in self.slots:
            if slot.state is State.READING:
                self._read(slot, work)
        for queue in (self._turns, self._prompts):
            self._admit_from(queue, work)
        # Only now, so that nothing is copied from a slot that is itself copied to in this round.
        for _, target, _ in work.copies + work.late_copies:
            self._now_holds(self.slots[target], self.slots[target].group)
        return work

    def _admit_from(self, queue: collections.deque[_Group], work: Work) -> None:
        replaying = []  # their other samples wait until the prompt is in the cache again
        while queue:
            group = queue[0]
            if group.replaying:
                replaying.append(queue.popleft())
            elif group.admitted == len(group.request.keys):
                queue.popleft()
            elif (slot := self._slot_for(group)) is not None:
                self._start(slot, group, work)
            else:
                break
        queue.extendleft(reversed(replaying))

    def _slot_for(self, group: _Group) -> Slot | None:
        """A free slot, out of the list of free ones; if possible one that has the prompt."""
        for slot in (self.slots[number] for number in group.sources):
            if slot.state is State.FREE:
                self._free.remove(slot)
                return slot
        if not self._free:
            self._evict()
        return self._free.popleft() if self._free else None

    def _start(self, slot: Slot, group: _Group, work: Work) -> None:
        """Gives a free slot to the group's next sample: by copy if its prompt is cached anywhere."""
        has_prompt = slot.number in group.sources
        if not has_prompt:
            self._now_holds(slot, None)
        if not group.sources:
            slot.cached = 0
            self._assign(slot, group, 0)
            self._read(slot, work)
            return
        slot.cached = len(group.request.prompt_ids) - 1
        if not has_prompt:
            source = min(group.sources)
            copies = work.late_copies if source in work.prefills else work.copies
            copies.append((source, slot.number, slot.cached))
            self.copies += 1
        self._assign(slot, group, len(group.history))
        self._decode(slot, group.feed[-1])

    def _assign(self, slot: Slot, group: _Group, stage: int) -> None:
        """Makes a slot the place of the group's next sample, at this stage of its conversation."""
        slot.state, slot.group, slot.stage = State.READING, group, stage
        slot.index, slot.key = group.admitted, tuple(group.request.keys[group.admitted].tolist())
        group.admitted += 1

    def _read(self, slot: Slot, work: Work) -> None:
        """Prefills the feed of the slot's stage but for its last token, which decoding reads."""
        group = slot.group
        group.replaying = slot.stage < len(group.history)
        feed = group.history[slot.stage].feed if group.replaying else group.feed
        if len(feed) > 1:
            work.prefills[slot.number] = slot.cached, feed[:-1]
        slot.cached += len(feed) - 1
        if not group.replaying:
            self._now_holds(slot, group)
        self._decode(slot, feed[-1])

    def _decode(self, slot: Slot, token: int) -> None:
        """Decodes the slot's stage from its last fed token on."""
        group = slot.group
        if slot.stage < len(group.history):
            slot.state, slot.left = State.REPLAYING, len(group.history[slot.stage].drawn)
        else:
            slot.state, slot.left = State.DRAWING, group.request.max_new_tokens
        slot.token, slot.blocks = token, []

    def _now_holds(self, slot: Slot, group: _Group | None) -> None:
        """The slot begins with this group's prompt; what it began with is lost."""
        if slot.prompt_of is not None:
            slot.prompt_of.sources.discard(slot.number)
        slot.prompt_of = group
        if group is not None:
            group.sources.add(slot.number)

    def _set_free(self, slot: Slot) -> None:
        slot.state, slot.group = State.FREE, None
        self._free.append(slot)

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
            allowed = self._step_seconds * sum(len(stage.drawn) for stage in oldest.stages)
            if len(self._waits) >= _ENOUGH_WAITS:
                allowed = min(allowed, 4 * float(np.median(self._waits)))
        idle = not any(slot.live for slot in self.slots)
        if idle or self._clock() - oldest.since >= allowed:
            self._set_free(oldest.slot)
            oldest.slot = None
            self.evictions += 1

    # Decoding.

    def live_slots(self, steps: int) -> Slots | None:
        """What `programs.decode` is told, for K = `steps`; None if no slot is live."""
        live = [slot for slot in self.slots if slot.live]
        if not live:
            return None
        slots = len(self.slots)
        told = Slots(
            live=np.zeros(slots, bool),
            **{name: np.zeros(slots, np.int32) for name in ("token", "position", "left")},
            key=np.zeros((slots, 2), np.uint32),
            temperature=np.zeros(slots, np.float32),
            forced=np.full((steps, slots), -1, np.int32),
        )
        rows = [slot.number for slot in live]
        told.live[rows] = True
        told.token[rows] = [slot.token for slot in live]
        told.position[rows] = [slot.cached for slot in live]
        told.left[rows] = [slot.left for slot in live]
        told.key[rows] = [slot.key for slot in live]
        told.temperature[rows] = [slot.group.request.temperature for slot in live]
        for slot in live:
            if slot.state is State.REPLAYING:
                drawn = slot.group.history[slot.stage].drawn
                tokens = drawn[len(drawn) - slot.left :][:steps]
                told.forced[: len(tokens), slot.number] = tokens
        return told

    def advance(
        self, tokens_KxB: np.ndarray, logprobs_KxB: np.ndarray, step_seconds: float
    ) -> tuple[list[Completion], int, int]:
        """Takes up what a block of decoding drew.

        Returns the finished samples, how many tokens were drawn, and how many replayed.
        """
        self._step_seconds = step_seconds
        ends_KxB = np.isin(tokens_KxB, self._eot_ids)
        # An end-of-turn id is the last thing that a slot has drawn.
        steps_B = np.where(ends_KxB.any(0), ends_KxB.argmax(0) + 1, len(tokens_KxB)).tolist()
        finished: list[Completion] = []
        drawn = replayed = 0
        for slot in self.slots:
            if not slot.live:
                continue
            count = min(steps_B[slot.number], slot.left)
            ids, logprobs = tokens_KxB[:count, slot.number], logprobs_KxB[:count, slot.number]
            slot.blocks.append((ids, logprobs))
            slot.token = int(ids[-1])
            slot.cached += count
            slot.left -= count
            over = slot.left == 0 or slot.token in self._eot_ids
            if slot.state is State.REPLAYING:
                replayed += count
                if over:
                    slot.state, slot.stage = State.READING, slot.stage + 1
            else:
                drawn += count
                if over:
                    finished.append(self._finish(slot))
        return finished, drawn, replayed

    def _finish(self, slot: Slot) -> Completion:
        group, index = slot.group, slot.index
        request = group.request
        drawn, logprobs = (np.concatenate(blocks) for blocks in zip(*slot.blocks, strict=True))
        ids, truncated = drawn, slot.token not in self._eot_ids
        if truncated:
            ids = np.append(ids, np.int32(self._eot_ids[0]))
            logprobs = np.append(logprobs, np.float32(0))
        if request.keep:
            slot.state = State.HELD
            text = np.concatenate([request.prompt_ids, ids])
            stages = (*group.history, Stage(group.feed, drawn))
            self._kept[request.id, index] = _Kept(text, stages, slot, self._clock())
        else:
            self._set_free(slot)
        group.finished += 1
        if group.finished == len(request.keys):
            self._active.discard(request.id)
        self.pending -= 1
        return Completion(request.id, index, ids, logprobs, truncated)
