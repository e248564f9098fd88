"""Continuous batching: requests in, completions out as they finish, over a fixed set of slots.

A slot is one row of the key/value cache. A request's prompt is prefilled once and copied to the
slots of its samples; all live slots decode together; a slot that finishes is filled anew while
the others go on. A finished completion keeps its slot until it is released, so that the next turn
of the conversation reads only its new text.

**What a token depends on.** The bits of a slot's cache depend on its conversation alone: on which
part of it was prefilled (in a shape that follows from that part's length) and which was decoded.
Prefilling text that had been decoded gives other low bits, so that is never done: a conversation
whose slot was given to another one comes back by *replay*, its prompts prefilled and its
completions decoded again with the tokens forced, in the same shapes. Hence the same request gives
the same tokens and log-probabilities whatever else is running, in whatever order things arrive and
however long the caller takes between turns, as long as the engine's own shapes are the same. (On
accelerators a step reads as many columns as its longest row has; beyond a row's own end they add
zeros. That this changes no bit was measured on the plain XLA paths, not on TPUs nor with cuDNN.)

Axes: B slots, R texts of a prefill, T query length, S cache length (`context`), K decode steps.
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

from mucode_jax.models import llama, sharding
from mucode_jax.sampling import programs
from mucode_jax.sampling.memory import fitting_slots
from mucode_jax.sampling.scheduler import Completion, Handle, Request, Scheduler, Work

STEPS = 16  # K, of one dispatch
PREFILL_TOKENS = 2048  # token places of one prefill, on an accelerator
COPIES = 16  # slots copied to by one call


@dataclasses.dataclass
class Counters:
    """What the engine has done since it was made.

    Attributes:
      prefilled: prompt tokens read by prefill; `padding`: places of prefill shapes left empty.
      decoded: tokens drawn; `replayed`: tokens decoded again after a slot had been given away.
      completions: samples finished; `evictions`: kept slots given away; `copies`: slots filled from
        a sibling's prompt.
      steps: decode steps; `slot_steps`: the same times slots, `decoded / slot_steps` is occupancy.
      blocks, prefills: calls of the decode and of the prefill program.
      seconds: from a dispatch to its result, summed, and idle ones; `idle_seconds`: of these, with
        nothing to decode although completions were kept, that is, waiting for the caller.
      programs: distinct (program, shape) pairs used, an upper bound of compilations.
    """

    prefilled: int = 0
    padding: int = 0
    decoded: int = 0
    replayed: int = 0
    completions: int = 0
    evictions: int = 0
    copies: int = 0
    steps: int = 0
    slot_steps: int = 0
    blocks: int = 0
    prefills: int = 0
    seconds: float = 0.0
    idle_seconds: float = 0.0
    programs: int = 0

    @property
    def occupancy(self) -> float:
        """The share of decode work that drew a new token."""
        return self.decoded / max(self.slot_steps, 1)

    @property
    def wasted(self) -> int:
        """Token places computed for nothing: idle or replaying slots, and padding of prefills."""
        return self.slot_steps - self.decoded + self.padding


def _sizes(smallest: int, context: int) -> tuple[int, ...]:
    """Powers of two from `smallest`, the sizes half way between them, and the context."""
    sizes = {factor * smallest << power for power in range(32) for factor in (1, 3)}
    return (*sorted(size for size in sizes if size < context), context)


def prompt_lengths(context: int) -> tuple[int, ...]:
    """The lengths that prompts are filled up to."""
    return _sizes(8, context)


def prefill_rows(tokens: int, length: int, slots: int, mesh: Mesh | None) -> int:
    """R, how many texts of `length` one prefill of `tokens` token places reads."""
    return min(slots, sharding.padded_rows(max(1, tokens // length), mesh))


def _holding(size: int, sizes: Sequence[int]) -> int:
    return next(candidate for candidate in sizes if size <= candidate)


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
        eot_ids: Sequence[int],
        temperature: float,
        top_p: float = 1.0,
        top_k: int = 0,
        steps: int = STEPS,
        refill: int | None = None,
        wait_seconds: float | None = None,
        mesh: Mesh | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          config, params: the generator; parameters as `llama.init` gives them.
          slots: B, how many conversations are decoded at once; None takes what memory allows.
          context: S, the longest conversation, in tokens.
          eot_ids: ids that end a turn; the first closes truncated completions.
          temperature: of requests that do not say their own; 0 is greedy.
          top_p, top_k: see `sampler.draw`; 1 and 0 are off.
          steps: K, the most decode steps of one dispatch.
          refill: a dispatch ends once so many slots have finished (default: an eighth of B).
          wait_seconds: how long a kept slot is left to its conversation while other requests need
            it; None: as long as a replay of that conversation would take. With nothing to decode it
            is given away at once. No outcome depends on this.
          mesh: devices to spread over: slots over data and fsdp, heads over tensor.
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
        _check_temperature(temperature)
        if slots is None:
            slots = fitting_slots(config, context, mesh)
        if slots < 1 or steps < 1:
            raise ValueError(f"slots {slots} and steps {steps} must be at least 1")
        self.slots, self.context = slots, context
        self._config, self._mesh, self._clock = config, mesh, clock
        self._temperature, self._steps = temperature, steps
        self._settings = {
            "eot_ids": eot_ids,
            "top_p": float(top_p),
            "top_k": int(top_k),
            "refill": max(1, slots // 8) if refill is None else refill,
        }
        on_cpu = jax.default_backend() == "cpu"
        self._prefill_tokens = 128 if on_cpu else PREFILL_TOKENS
        self._lengths = prompt_lengths(context)
        # A CPU reads of each row what that row has (`models.attention.cpu`): one program serves all
        # lengths.
        by_row = on_cpu and (mesh is None or mesh.size == 1)
        self._reads = (context,) if by_row else _sizes(128, context)
        self._scheduler = Scheduler(slots, eot_ids, wait_seconds, clock)
        self._counters = Counters()
        self._used: set[tuple] = set()
        self._block: programs.Block | None = None
        self._started = 0.0
        self._idle_since: float | None = None
        with self._devices():
            self._params = programs.prepare(config, params)
            self._cache = self._empty_cache()

    def _devices(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self._mesh is None else jax.set_mesh(self._mesh)

    def _empty_cache(self) -> llama.Cache:
        place = None
        if self._mesh is not None:
            shape = (self.slots, self.context, self._config.n_kv_heads * self._config.head_dim)
            spec = sharding.spec(llama.CACHE_AXES, shape, dict(self._mesh.shape), "cache")
            place = NamedSharding(self._mesh, spec)
        make = jax.jit(llama.init_cache, static_argnums=(0, 1, 2), out_shardings=place)
        return make(self._config, self.slots, self.context)

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
        temperature = self._temperature if request.temperature is None else request.temperature
        _check_temperature(temperature)
        self._scheduler.submit(
            dataclasses.replace(request, prompt_ids=prompt, keys=keys, temperature=temperature)
        )

    def release(self, handle: Handle) -> None:
        """Gives up a kept completion, (request id, index): its slot is free for others.

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
        return dataclasses.replace(
            self._counters,
            evictions=self._scheduler.evictions,
            copies=self._scheduler.copies,
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
        by_shape: dict[tuple[int, int], list[tuple[int, int, np.ndarray]]] = {}
        for slot, (start, tokens) in work.prefills.items():
            length = _holding(len(tokens), self._lengths)
            # A first prompt sees itself alone; a later message the whole conversation.
            read = length if start == 0 else self.context
            by_shape.setdefault((length, read), []).append((slot, start, tokens))
        for (length, read), texts in by_shape.items():
            rows = prefill_rows(self._prefill_tokens, length, self.slots, self._mesh)
            for first in range(0, len(texts), rows):
                self._prefill(texts[first : first + rows], rows, length, read)
        self._copy(work.late_copies)

    def _prefill(
        self, texts: list[tuple[int, int, np.ndarray]], rows: int, length: int, read: int
    ) -> None:
        packed = programs.Texts(
            *(np.zeros(rows, np.int32) for _ in range(3)), np.zeros((rows, length), np.int32)
        )
        for row, (slot, start, tokens) in enumerate(texts):
            packed.slot[row], packed.start[row], packed.count[row] = slot, start, len(tokens)
            packed.tokens[row, : len(tokens)] = tokens
        self._cache = programs.prefill(self._config, self._params, self._cache, packed, read=read)
        self._used.add(("prefill", length, read))
        real = int(packed.count.sum())
        self._counters.prefills += 1
        self._counters.prefilled += real
        self._counters.padding += rows * length - real

    def _copy(self, copies: list[tuple[int, int, int]]) -> None:
        rows = min(self.slots, COPIES)
        for first in range(0, len(copies), rows):
            sources, targets, columns = zip(*copies[first : first + rows], strict=True)
            read = _holding(max(columns), self._lengths)
            nowhere = [self.slots] * (rows - len(sources))
            self._cache = programs.copy(
                self._cache,
                np.array([*sources, *nowhere], np.int32),
                np.array([*targets, *nowhere], np.int32),
                read=read,
            )
            self._used.add(("copy", read))

    def _dispatch(self) -> None:
        slots = self._scheduler.live_slots(self._steps)
        now = self._clock()
        if slots is None:
            if self._idle_since is None and self._scheduler.waiting:
                self._idle_since = now
            return
        if self._idle_since is not None:
            self._counters.idle_seconds += now - self._idle_since
            self._counters.seconds += now - self._idle_since
            self._idle_since = None
        longest = int(slots.position[slots.live].max()) + self._steps
        read = _holding(min(longest, self.context), self._reads)
        self._cache, self._block = programs.decode(
            self._config, self._params, self._cache, slots, read=read, **self._settings
        )
        self._used.add(("decode", read))
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


def _check_temperature(temperature: float) -> None:
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature {temperature} is not a finite number ≥ 0")
