"""Continuous batching: requests in, completions out as they finish, over a fixed set of slots.

A slot is one row of decoding; the key/value cache is a pool of pages. A request's prompt is
prefilled once, into pages that its samples share; all live slots decode together; a slot that
finishes is filled anew while the others go on. A finished completion keeps its pages until it is
released, so that the next turn of the conversation reads only its new text.

**What a token depends on.** The bits of a conversation's columns depend on it alone: on which part
of it was prefilled (in one shape, from where that part begins) and which was decoded. Prefilling
text that had been decoded gives other low bits, so that is never done: a conversation whose pages
were given away comes back by *replay*, its prompts prefilled and its completions decoded again with
the tokens forced. Hence the same request gives the same tokens and log-probabilities whatever else
is running, in whatever order things arrive and however long the caller takes between turns, as long
as the number of slots is the same. (Measured on a CPU, not on accelerators.)

Axes: B slots, R rows of a prefill, T query length, M pages of a row, K decode steps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from mucode_jax.models import llama
from mucode_jax.sampling import memory, programs
from mucode_jax.sampling.memory import fitting_slots, pool_pages
from mucode_jax.sampling.pages import pages_of
from mucode_jax.sampling.scheduler import Completion, Handle, Request, Scheduler, Work

STEPS = 16  # K, of one dispatch
# A prefill reads texts in parts of T tokens, R parts at once: so many that it is bound by
# arithmetic, so few that little of the last one is empty.
PREFILL_LENGTH = 32  # T
PREFILL_ROWS, PREFILL_ROWS_CPU = 8, 2  # R
COPIES = 64  # pages copied by one call, at most


@dataclasses.dataclass
class Counters:
    """What the engine has done since it was made."""

    prefilled: int = 0  # prompt tokens read by prefill
    padding: int = 0  # places of prefill shapes left empty
    decoded: int = 0  # tokens drawn
    replayed: int = 0  # tokens decoded again after their pages had been given away
    completions: int = 0  # samples finished
    evictions: int = 0  # times that pages were given away
    copies: int = 0  # pages copied
    steps: int = 0  # decode steps
    slot_steps: int = 0  # the same times slots
    blocks: int = 0  # calls of the decode program
    prefills: int = 0  # calls of the prefill program
    seconds: float = 0.0  # from a dispatch to its result, and idle ones
    idle_seconds: float = 0.0  # nothing to decode although completions were kept: the caller's time
    programs: int = 0  # distinct (program, shape) pairs used, an upper bound of compilations

    @property
    def occupancy(self) -> float:
        """The share of decode work that drew a new token."""
        return self.decoded / max(self.slot_steps, 1)

    @property
    def wasted(self) -> int:
        """Token places computed for nothing: idle or replaying slots, and padding of prefills."""
        return self.slot_steps - self.decoded + self.padding


class Engine:
    """Owns the cache and the slots. Not thread-safe; the caller drives it:

        engine.submit(request) ...
        while engine.pending:
            for completion in engine.step(): ...

    `step` takes up the results of the decode block that is running, refills slots, starts the next
    block, and only then returns, so that the caller's own work runs beside the device's.
    """

    def __init__(
        self,
        config: llama.LlamaConfig,
        params: llama.Params,
        *,
        slots: int | None,
        context: int,
        pages: int | None = None,
        eot_ids: Sequence[int],
        temperature: float,
        top_p: float = 1.0,
        top_k: int = 0,
        steps: int = STEPS,
        refill: int | None = None,
        mesh: Mesh | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          config, params: the generator; parameters as `llama.init` gives them.
          slots: B, how many conversations are decoded at once; None takes what memory allows.
          context: the longest conversation, in tokens.
          pages: of the cache; None: `memory.pool_pages`. No outcome depends on this.
          eot_ids: ids that end a turn; the first closes truncated completions.
          temperature, top_p, top_k: see `sampler.draw`; 0 is greedy, 1 and 0 are off.
          steps: K, the most decode steps of one dispatch.
          refill: a dispatch ends once so many slots have finished (default: an eighth of B).
          mesh: devices to spread over, heads over tensor. (More engines on more devices are
            `replicas.Replicas`.)
          clock: seconds; for tests.

        Raises:
          ValueError: a size or a setting makes no sense; the message says which.
        """
        eot_ids = tuple(int(i) for i in eot_ids)
        if not eot_ids or not all(0 <= i < config.vocab_size for i in eot_ids):
            raise ValueError(f"eot_ids {eot_ids} must be ids of the {config.vocab_size} vocabulary")
        if not 0 < top_p <= 1 or top_k < 0:
            raise ValueError(f"top_p {top_p} is not in (0, 1], or top_k {top_k} is negative")
        if not 2 <= context <= config.max_positions:
            raise ValueError(
                f"context {context} is not between 2 and the model's {config.max_positions}"
            )
        if not (math.isfinite(temperature) and temperature >= 0):
            raise ValueError(f"temperature {temperature} is not a finite number ≥ 0")
        if slots is None:
            slots = fitting_slots(config, context, mesh)
        if slots < 1 or steps < 1:
            raise ValueError(f"slots {slots} and steps {steps} must be at least 1")
        self.slots, self.context = slots, context
        self._config, self._mesh, self._clock = config, mesh, clock
        self._temperature, self._steps = np.float32(temperature), steps
        self._settings = {
            "eot_ids": eot_ids,
            "top_p": float(top_p),
            "top_k": int(top_k),
            "refill": max(1, slots // 8) if refill is None else refill,
        }
        longest = pages_of(context)
        pages = pool_pages(slots, context, mesh) if pages is None else pages
        if pages <= longest:
            raise ValueError(
                f"{pages} pages are too few for {context} tokens: it must be {longest + 1} or more"
            )
        self._table = longest
        self._rows = PREFILL_ROWS_CPU if memory.on_cpu(mesh) else PREFILL_ROWS
        self._scheduler = Scheduler(slots, pages, longest, eot_ids, clock)
        self._counters = Counters()
        self._used: set[tuple] = set()
        self._block: programs.Block | None = None
        self._started = 0.0
        self._idle_since: float | None = None
        with self._devices():
            self._params = programs.prepare(config, params)
            self._cache = self._empty_cache(pages)

    def _devices(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self._mesh is None else jax.set_mesh(self._mesh)

    def _empty_cache(self, pages: int) -> llama.Cache:
        place = None
        if self._mesh is not None:
            place = NamedSharding(self._mesh, memory.cache_spec(self._config, self._mesh))
        make = jax.jit(llama.init_cache, static_argnums=(0, 1), out_shardings=place)
        return make(self._config, pages)

    # What the caller asks for.

    def submit(self, request: Request) -> None:
        """Queues a request.

        Raises:
          ValueError: it does not fit the context, its id is taken, its parent is not kept, or a
            field makes no sense; nothing is changed then.
        """
        prompt = np.asarray(request.prompt_ids, np.int32)
        keys = np.asarray(request.keys, np.uint32)
        where = f"request {request.id!r}"
        if prompt.ndim != 1 or not len(prompt):
            raise ValueError(f"{where}: prompt_ids must be one row of at least one id")
        if prompt.min() < 0 or prompt.max() >= self._config.vocab_size:
            raise ValueError(f"{where}: prompt ids outside 0 … {self._config.vocab_size - 1}")
        if keys.ndim != 2 or keys.shape[1] != 2 or not len(keys):
            raise ValueError(f"{where}: keys are uint32 [n, 2] with n ≥ 1, not {keys.shape}")
        if request.max_new_tokens < 1:
            raise ValueError(f"{where}: max_new_tokens {request.max_new_tokens} is less than 1")
        if len(prompt) + request.max_new_tokens > self.context:
            raise ValueError(
                f"{where}: a prompt of {len(prompt)} tokens and {request.max_new_tokens} new ones"
                f" do not fit the context of {self.context}; shorten the prompt or raise context"
            )
        self._scheduler.submit(dataclasses.replace(request, prompt_ids=prompt, keys=keys))

    def check_unused(self, request: Request) -> None:
        """Raises ValueError where a pending or kept request has this one's id."""
        self._scheduler.check_unused(request)

    def keeps(self, handle: Handle) -> bool:
        """Whether this completion is kept."""
        return handle in self._scheduler.kept

    @property
    def ready(self) -> bool:
        """Whether `step` would not wait for the device."""
        return self._block is None or self._block.steps.is_ready()

    def release(self, handle: Handle) -> None:
        """Gives up a kept completion, (request id, index): its pages are free for others.

        Children that were submitted before are not touched. Raises ValueError if it is not kept.
        """
        self._scheduler.release(handle)

    @property
    def pending(self) -> int:
        """Samples submitted and not yet returned."""
        return self._scheduler.pending

    @property
    def queued(self) -> int:
        """Samples submitted that wait for a slot."""
        return self._scheduler.queued

    @property
    def counters(self) -> Counters:
        """A copy of the counters as they stand."""
        redrawn = self._scheduler.redrawn
        return dataclasses.replace(
            self._counters,
            decoded=self._counters.decoded - redrawn,
            replayed=self._counters.replayed + redrawn,
            evictions=self._scheduler.evictions,
            programs=len(self._used),
        )

    def step(self) -> list[Completion]:
        """Takes up what has finished, refills the slots, starts the next block of decoding.

        Returns the completions of the block that was running; [] if none was. Where nothing is live
        after refilling, no block is started.
        """
        with self._devices():
            finished = self._collect()
            self._fill(self._scheduler.admit())
            self._dispatch()
        return finished

    # What the device does.

    def _fill(self, work: Work) -> None:
        """Copies, prefills and copies again, in this order."""
        self._copy(work.copies)
        parts = [
            (pages, start + first, tokens[first : first + PREFILL_LENGTH])
            for pages, start, tokens in work.prefills
            for first in range(0, len(tokens), PREFILL_LENGTH)
        ]
        for first in range(0, len(parts), self._rows):
            self._prefill(parts[first : first + self._rows])
        self._copy(work.late_copies)

    def _prefill(self, parts: list[tuple[list[int], int, np.ndarray]]) -> None:
        rows = self._rows
        texts = programs.Texts(
            np.zeros((rows, self._table), np.int32),
            *(np.zeros(rows, np.int32) for _ in range(2)),
            np.zeros((rows, PREFILL_LENGTH), np.int32),
        )
        for row, (pages, start, tokens) in enumerate(parts):
            texts.table[row, : len(pages)] = pages
            texts.start[row], texts.count[row] = start, len(tokens)
            texts.tokens[row, : len(tokens)] = tokens
        self._cache = programs.prefill(self._config, self._params, self._cache, texts)
        self._used.add(("prefill",))
        real = int(texts.count.sum())
        self._counters.prefills += 1
        self._counters.prefilled += real
        self._counters.padding += texts.tokens.size - real

    def _copy(self, copies: list[tuple[int, int]]) -> None:
        self._counters.copies += len(copies)
        for first in range(0, len(copies), COPIES):
            some = copies[first : first + COPIES]
            pages = np.zeros((2, COPIES), np.int32)
            pages[:, : len(some)] = np.transpose(some)
            self._cache = programs.copy(self._cache, *pages, np.int32(len(some)))
            self._used.add(("copy",))

    def _dispatch(self) -> None:
        slots = self._scheduler.live_slots(self._steps)
        now = self._clock()
        if slots is None:
            if self._idle_since is None and self._scheduler.kept:
                self._idle_since = now
            return
        if self._idle_since is not None:
            self._counters.idle_seconds += now - self._idle_since
            self._counters.seconds += now - self._idle_since
            self._idle_since = None
        self._cache, self._block = programs.decode(
            *(self._config, self._params, self._cache, slots, self._temperature),
            **self._settings,
        )
        self._used.add(("decode",))
        self._started = now

    def _collect(self) -> list[Completion]:
        if self._block is None:
            return []
        tokens_KxB, logprobs_KxB, steps = jax.device_get(self._block)
        steps = int(steps)
        self._block = None
        seconds = self._clock() - self._started
        finished, drawn, replayed = self._scheduler.advance(
            tokens_KxB[:steps], logprobs_KxB[:steps], seconds / steps
        )
        counters = self._counters
        counters.seconds += seconds
        counters.blocks += 1
        counters.steps += steps
        counters.slot_steps += steps * self.slots
        counters.decoded += drawn
        counters.replayed += replayed
        counters.completions += len(finished)
        return finished
