"""Which conversation decodes in which slot, and what lies in the cache: the engine's bookkeeping.

Numpy and Python only; time comes from a clock that is passed in. The engine asks `admit` what to
copy and prefill, `live_slots` what to decode, and tells `advance` what came out.

A *group* is a request, whose samples share one prompt. A conversation's turns are its *stages*: the
feed of a stage is read after the columns already cached, then its tokens are drawn. What the
columns of a conversation hold is a function of its stages.

A slot is one row of decoding. It belongs to a sample from its first drawn token to its last; the
columns lie in pages of their own (`pages`), which a kept completion goes on holding without a slot.
Pages are taken as they are needed. Where they run short,

  * no further sample starts,
  * the youngest sample gives its pages back and starts again later: its tokens are keyed, so that
    it draws the same ones,
  * what waits for its caller or in the queue gives its pages back if nothing else can go on, or
    after as long as a replay of it would take. It comes back by replay.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Hashable
from typing import NamedTuple

import numpy as np

from mucode_jax.sampling.pages import Columns, Pool
from mucode_jax.sampling.programs import Slots

Handle = tuple[Hashable, int]


@dataclasses.dataclass(frozen=True)
class Request:
    """Samples of one conversation's next message."""

    id: Hashable  # unique among requests that are pending or kept
    prompt_ids: np.ndarray  # int32 [P], the whole conversation, generation prompt included
    keys: np.ndarray  # uint32 [n, 2], a threefry key for each of the n samples
    max_new_tokens: int  # the most to draw for each sample; P + max_new_tokens ≤ context
    # The kept completion, (request id, index), that the conversation continues: `prompt_ids` must
    # begin with its prompt and completion.
    parent: Handle | None = None
    keep: bool = True  # whether completions keep their pages, as possible parents, until released


@dataclasses.dataclass(frozen=True)
class Completion:
    """One finished sample."""

    request_id: Hashable
    index: int  # which sample of the request
    # int32 [C]; the last one ends the turn: it was drawn, or, where `truncated`, `eot_ids[0]` was
    # added at the limit (then C = max_new_tokens + 1).
    ids: np.ndarray
    # float32 [C], of each id in the distribution it was drawn from (after temperature, top-k and
    # top-p; at temperature 0, the model's own distribution); 0 for an added id.
    logprobs: np.ndarray
    truncated: bool  # the limit was met before an end-of-turn id was drawn


class Stage(NamedTuple):
    """One turn: what was read (all but its last token by prefill), then what was decoded."""

    feed: np.ndarray
    drawn: np.ndarray


@dataclasses.dataclass(eq=False)
class _Group:
    """A request under way."""

    request: Request
    history: tuple[Stage, ...]  # the earlier turns
    feed: np.ndarray  # of the new turn
    waiting: collections.deque[int]  # samples that have no slot
    since: float  # when it was submitted
    # The prompt but for its last token, as far as it is cached. The last sample takes it along.
    columns: Columns = dataclasses.field(default_factory=Columns)
    stage: int = 0  # which of the stages is read next; those before it are cached
    replaying: bool = False  # a slot decodes the stage again
    unfinished: int = 0  # samples not returned


@dataclasses.dataclass(eq=False)
class Sample:
    """What a slot decodes: a sample of a group or, where `index` is None, its history again."""

    group: _Group
    index: int | None
    slot: int
    order: int  # of starting
    columns: Columns
    token: int  # the token to read next
    left: int  # how many tokens may still be decoded
    # What was decoded, (ids, logprobs) of each block.
    blocks: list[tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False)
class _Kept:
    """A finished completion that may be continued; `columns` are empty once given away."""

    text: np.ndarray
    history: tuple[Stage, ...]  # its turns
    columns: Columns
    since: float


@dataclasses.dataclass
class Work:
    """Cache operations, to be run in the order copies, prefills, late copies.

    Attributes:
      copies: (source page, target page).
      prefills: (pages, first position, tokens) of each text.
      late_copies: like `copies`, from pages that are prefilled in this round.
    """

    copies: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    prefills: list[tuple[list[int], int, np.ndarray]] = dataclasses.field(default_factory=list)
    late_copies: list[tuple[int, int]] = dataclasses.field(default_factory=list)


class Scheduler:
    """Owns the bookkeeping of slots and pages. B slots, K steps of a block of decoding, M pages of
    the longest conversation."""

    def __init__(
        self,
        slots: int,
        pages: int,
        longest: int,
        eot_ids: tuple[int, ...],
        clock: Callable[[], float],
    ) -> None:
        """`pages` of the pool, more than `longest`: M, and one that its samples do not share."""
        self.samples: list[Sample | None] = [None] * slots  # by slot
        self.pool = Pool(pages)
        self._longest, self._eot_ids, self._clock = longest, eot_ids, clock
        self._order = itertools.count()
        # Groups with samples to start; conversations that continue pass before new ones.
        self._turns: collections.deque[_Group] = collections.deque()
        self._prompts: collections.deque[_Group] = collections.deque()
        self.kept: dict[Handle, _Kept] = {}
        self._active: set[Hashable] = set()
        self._step_seconds = 0.0
        self.pending = 0
        self.evictions = 0
        self.redrawn = 0  # tokens that were drawn and given up

    @property
    def queued(self) -> int:
        """Samples that wait for a slot."""
        return sum(len(group.waiting) for group in itertools.chain(self._turns, self._prompts))

    @property
    def live(self) -> list[Sample]:
        """The samples that have a slot."""
        return [sample for sample in self.samples if sample is not None]

    def check_unused(self, request: Request) -> None:
        """Raises ValueError where a pending or kept request has this one's id."""
        id = request.id
        if id in self._active or any((id, i) in self.kept for i in range(len(request.keys))):
            raise ValueError(f"request {id!r}: this id is pending or kept; release it first")

    def submit(self, request: Request) -> None:
        """Queues a request; ValueError if its id is taken or its parent does not fit."""
        self.check_unused(request)
        id, prompt, parent = request.id, request.prompt_ids, request.parent
        count, now = len(request.keys), self._clock()
        waiting = collections.deque(range(count))
        if parent is None:
            self._prompts.append(_Group(request, (), prompt, waiting, now, unfinished=count))
        else:
            kept = self.kept.get(parent)
            if kept is None:
                raise ValueError(f"request {id!r}: its parent {parent!r} is not kept")
            known = len(kept.text)
            if len(prompt) <= known or not np.array_equal(prompt[:known], kept.text):
                raise ValueError(
                    f"request {id!r}: its prompt of {len(prompt)} tokens does not go on from the"
                    f" {known} of its parent {parent!r}"
                )
            cached = sum(len(stage.feed) + len(stage.drawn) - 1 for stage in kept.history)
            group = _Group(request, kept.history, prompt[cached:], waiting, now, unfinished=count)
            if kept.columns.pages:
                group.columns, group.stage = self.pool.share(kept.columns), len(kept.history)
            self._turns.append(group)
        self._active.add(id)
        self.pending += count

    def release(self, handle: Handle) -> None:
        """Forgets a kept completion and frees its pages; ValueError if it is not kept."""
        kept = self.kept.pop(handle, None)
        if kept is None:
            raise ValueError(f"completion {handle!r} is not kept: unknown, running or released")
        self.pool.release(kept.columns)

    # Filling the slots.

    def admit(self) -> Work:
        """Gives slots to what can start, in order of arrival, and says how to fill the cache."""
        work = Work()
        free = collections.deque(slot for slot, sample in enumerate(self.samples) if sample is None)
        for queue in (self._turns, self._prompts):
            replaying = []  # their samples wait until the prompt is in the cache again
            while queue and free:
                group = queue[0]
                if group.replaying:
                    replaying.append(queue.popleft())
                elif not group.waiting:
                    queue.popleft()
                elif (sample := self._next(group, free[0], work)) is not None:
                    self.samples[free.popleft()] = sample
                else:
                    # What is freed now serves the next round: this one's copies may read it.
                    self._give_away(force=not self.live)
                    break
            blocked = bool(queue)
            queue.extendleft(reversed(replaying))
            if blocked:
                break
        return work

    def _next(self, group: _Group, slot: int, work: Work) -> Sample | None:
        """What the group does next in a slot, its prompt being read before; None: no pages."""
        order = next(self._order)
        if self.pool.free < len(self.live):  # each of them will soon need one
            return None
        if group.stage < len(group.history):
            feed, drawn = group.history[group.stage]
            if not self._read(group, feed, work):
                return None
            group.replaying = True
            return Sample(group, None, slot, order, group.columns, int(feed[-1]), len(drawn))
        unread = group.columns.count < len(group.request.prompt_ids) - 1
        if unread and not self._read(group, group.feed, work):
            return None
        last = len(group.waiting) == 1
        columns = group.columns if last else self.pool.share(group.columns)
        copies = self.pool.reserve(columns, columns.count + 1)
        if copies is None:
            if not last:
                self.pool.release(columns)
            return None
        work.late_copies += copies
        if last:
            group.columns, group.stage = Columns(), 0
        index, limit = group.waiting.popleft(), group.request.max_new_tokens
        return Sample(group, index, slot, order, columns, int(group.feed[-1]), limit)

    def _read(self, group: _Group, feed: np.ndarray, work: Work) -> bool:
        """Prefills a feed but for its last token, which decoding reads; False: no pages."""
        columns, start = group.columns, group.columns.count
        copies = self.pool.reserve(columns, start + len(feed) - 1)
        if copies is None:
            return False
        work.copies += copies
        if len(feed) > 1:
            work.prefills.append((list(columns.pages), start, feed[:-1]))
        columns.count += len(feed) - 1
        return True

    # Giving pages away.

    def _preempt(self, sample: Sample) -> None:
        """Takes a slot, and the pages of what was drawn in it, from a sample; it starts again."""
        group = sample.group
        self.samples[sample.slot] = None
        self.evictions += 1
        if sample.index is None:
            self._forget(group)
            return
        self.redrawn += sum(len(ids) for ids, _ in sample.blocks)
        if group.columns.pages or group.replaying:
            self.pool.release(sample.columns)
        else:
            sample.columns.count = len(group.request.prompt_ids) - 1
            self.pool.trim(sample.columns)
            group.columns, group.stage = sample.columns, len(group.history)
        group.waiting.appendleft(sample.index)
        queue = self._turns if group.history else self._prompts
        if group not in queue:
            queue.appendleft(group)

    def _give_away(self, *, force: bool) -> None:
        """Frees the columns that have been parked longest, if that is too long or it must be.

        To wait as long as coming back would cost is at most twice as dear as knowing better.
        """

        def stale(parked: _Kept | _Group) -> bool:
            cost = self._step_seconds * sum(len(stage.drawn) for stage in parked.history)
            return bool(parked.history) and self._clock() - parked.since >= cost

        groups = (g for g in (*self._turns, *self._prompts) if not g.replaying)
        parked = [p for p in (*self.kept.values(), *groups) if p.columns.pages]
        oldest = min((p for p in parked if force or stale(p)), key=lambda p: p.since, default=None)
        if oldest is not None:
            self._forget(oldest)
            self.evictions += 1

    def _forget(self, parked: _Kept | _Group) -> None:
        """Frees what is cached of a conversation."""
        self.pool.release(parked.columns)
        if isinstance(parked, _Group):
            parked.stage, parked.replaying = 0, False

    # Decoding.

    def live_slots(self, steps: int) -> Slots | None:
        """What `programs.decode` is told, for K = `steps`; None if no slot is live."""
        for sample in sorted(self.live, key=lambda sample: sample.order):
            if self.samples[sample.slot] is sample:  # else it was preempted
                self._make_room(sample, sample.columns.count + min(steps, sample.left))
        live = [(slot, sample) for slot, sample in enumerate(self.samples) if sample is not None]
        if not live:
            return None
        slots = len(self.samples)
        decoding = Slots(
            live=np.zeros(slots, bool),
            **{name: np.zeros(slots, np.int32) for name in ("token", "position", "left")},
            key=np.zeros((slots, 2), np.uint32),
            table=np.zeros((slots, self._longest), np.int32),
            forced=np.full((steps, slots), -1, np.int32),
        )
        for slot, sample in live:
            decoding.live[slot] = True
            decoding.token[slot] = sample.token
            decoding.position[slot] = sample.columns.count
            decoding.left[slot] = sample.left
            decoding.table[slot, : len(sample.columns.pages)] = sample.columns.pages
            if sample.index is None:
                drawn = sample.group.history[sample.group.stage].drawn
                tokens = drawn[len(drawn) - sample.left :][:steps]
                decoding.forced[: len(tokens), slot] = tokens
            else:
                decoding.key[slot] = sample.group.request.keys[sample.index]
        return decoding

    def _make_room(self, sample: Sample, count: int) -> None:
        """Pages for `count` columns of a sample, from the youngest if none is free: maybe itself.

        The last one left gets what is parked.
        """
        while self.pool.reserve(sample.columns, count) is None:
            live = self.live
            if len(live) == 1:
                self._give_away(force=True)
                continue
            youngest = max(live, key=lambda other: other.order)
            self._preempt(youngest)
            if youngest is sample:
                return

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
        for slot, sample in enumerate(self.samples):
            if sample is None:
                continue
            count = min(steps_B[slot], sample.left)
            ids, logprobs = tokens_KxB[:count, slot], logprobs_KxB[:count, slot]
            sample.token = int(ids[-1])
            sample.columns.count += count
            sample.left -= count
            over = sample.left == 0 or sample.token in self._eot_ids
            if sample.index is None:
                replayed += count
                if over:
                    sample.group.stage += 1
                    sample.group.replaying = False
            else:
                drawn += count
                sample.blocks.append((ids, logprobs))
                if over:
                    finished.append(self._finish(sample))
            if over:
                self.samples[slot] = None
        return finished, drawn, replayed

    def _finish(self, sample: Sample) -> Completion:
        group, index, request = sample.group, sample.index, sample.group.request
        drawn, logprobs = (np.concatenate(blocks) for blocks in zip(*sample.blocks, strict=True))
        ids, truncated = drawn, sample.token not in self._eot_ids
        if truncated:
            ids = np.append(ids, np.int32(self._eot_ids[0]))
            logprobs = np.append(logprobs, np.float32(0))
        if request.keep:
            text = np.concatenate([request.prompt_ids, ids])
            stages = (*group.history, Stage(group.feed, drawn))
            self.pool.trim(sample.columns)
            self.kept[request.id, index] = _Kept(text, stages, sample.columns, self._clock())
        else:
            self.pool.release(sample.columns)
        group.unfinished -= 1
        if not group.unfinished:
            self._active.discard(request.id)
        self.pending -= 1
        return Completion(request.id, index, ids, logprobs, truncated)
