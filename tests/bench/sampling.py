"""What sampling costs: a simulated iteration, speed beside transformers, the embedded model.

python tests/bench/sampling.py iteration            # the real scheduler on a virtual clock; seconds
python tests/bench/sampling.py searches             # Best-of-N on the same clock
python tests/bench/sampling.py conversations        # how many fit the bytes of 32 whole contexts
python tests/bench/sampling.py feedback             # prefill of a later turn, compiled for a TPU
python tests/bench/sampling.py cpu [--tunix PYTHON] # against transformers (needs torch); minutes
python tests/bench/sampling.py mini [--slots B]     # the embedded generator's shape; a minute
python tests/bench/sampling.py gpu                  # 1B in bfloat16, 256 slots, 1k context
python tests/bench/sampling.py growth               # 100,000 requests: memory, time per token
python tests/bench/sampling.py ties                 # completions that another slot count changes

`cpu` runs each contestant in turn, round after round, in its own process with one thread, and
compares CPU-seconds, which a busy machine disturbs less than wall time. PYTHON is an interpreter
that has google-tunix, whose sampler then takes part.
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import types
from concurrent.futures import Future

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
EOT = 0
WHAT = (
    "iteration",
    "searches",
    "conversations",
    "feedback",
    "cpu",
    "mini",
    "gpu",
    "growth",
    "ties",
    "contestant",
)


def completion_lengths(rng: np.random.Generator, count: int, mean: float, cap: int) -> np.ndarray:
    """Log-normal lengths (sigma 0.6) with this mean before they are cut at `cap`."""
    sigma = 0.6
    drawn = rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, count)
    return np.clip(drawn, 5, cap).astype(int)


@dataclasses.dataclass(frozen=True)
class Clock:
    """Virtual seconds; programs take code_s on average, and a share `slow` of them limit_s."""

    step_s: float = 0.005
    host_s: float = 0.001
    code_s: float = 0.04
    slow: float = 0.02
    limit_s: float = 10.0


class Simulation:
    """The engine's own scheduler on a virtual clock, each sample as long as it is told.

    Attributes:
      prefilled, places: tokens read by prefill, and the places of the programs that read them.
      steps, drawn, replayed: decode steps, new tokens, and those decoded again.
      before_drain: occupancy until nothing waited for a slot any more.
    """

    def __init__(self, slots: int, pages: int, context: int, cap: int, clock: Clock) -> None:
        from mucode_jax.sampling import engine
        from mucode_jax.sampling.pages import pages_of
        from mucode_jax.sampling.scheduler import Scheduler

        self.now = 0.0
        self._clock, self._cap, self._engine = clock, cap, engine
        self._refill = max(1, slots // 8)
        self._lengths: dict[tuple, int] = {}  # (request id, index) -> tokens
        self.scheduler = Scheduler(slots, pages, pages_of(context), (EOT,), lambda: self.now)
        self.prefilled = self.places = self.steps = self.drawn = self.replayed = 0
        self.conversations = 0  # live or kept, summed over steps
        self.before_drain: float | None = None

    def submit(self, request, lengths: np.ndarray) -> None:
        for index, length in enumerate(lengths):
            self._lengths[request.id, index] = int(length)
        self.scheduler.submit(request)

    def step(self) -> list:
        """Completions, as `Engine.step` gives them; None where no slot is live."""
        scheduler, steps = self.scheduler, self._engine.STEPS
        work = scheduler.admit()
        parts, length = 0, self._engine.PREFILL_LENGTH
        for _, _, tokens in work.prefills:
            parts += -(-len(tokens) // length)
            self.prefilled += len(tokens)
        rows = self._engine.PREFILL_ROWS
        self.places += -(-parts // rows) * rows * length
        decoding = scheduler.live_slots(steps)
        if decoding is None:
            return None
        slots = len(scheduler.samples)
        if self.before_drain is None and not scheduler._prompts and self.steps:
            self.before_drain = (self.drawn - scheduler.redrawn) / (self.steps * slots)
        # What the device would do: every live slot draws until its sample's length is reached.
        left = np.full(slots, self._cap * 2)
        for slot, sample in enumerate(scheduler.samples):
            if sample is not None and sample.index is None:
                left[slot] = sample.left
            elif sample is not None:
                length = self._lengths[sample.group.request.id, sample.index]
                left[slot] = length - sum(len(ids) for ids, _ in sample.blocks)
        block = min(steps, int(np.sort(left)[min(self._refill, decoding.live.sum()) - 1]))
        tokens = np.where(decoding.forced[:block] >= 0, decoding.forced[:block], 1)
        ending = np.flatnonzero(left <= block)
        tokens[left[ending] - 1, ending] = EOT
        self.now += block * self._clock.step_s + self._clock.host_s
        step_s = self._clock.step_s
        finished, drawn, replayed = scheduler.advance(tokens, np.zeros(tokens.shape), step_s)
        self.steps += block
        self.drawn += drawn
        self.replayed += replayed
        self.conversations += block * (len(scheduler.live) + len(scheduler.kept))
        return finished

    def figures(self, unique: int) -> dict[str, float]:
        """The shares; `unique` tokens of prompts are there to be read."""
        redrawn = self.scheduler.redrawn
        return {
            "occupancy_before_drain": self.before_drain,
            "occupancy": (self.drawn - redrawn) / (self.steps * len(self.scheduler.samples)),
            "prefilled_per_unique": self.prefilled / unique,
            "padding": 1 - self.prefilled / self.places,
            "replayed_per_drawn": (self.replayed + redrawn) / (self.drawn - redrawn),
            "evictions": self.scheduler.evictions,
            "conversations": self.conversations / self.steps,
            "steps": self.steps,
            "virtual_seconds": self.now,
        }


def pool(slots: int, context: int) -> int:
    """The pages of an accelerator's cache of so many slots."""
    from mucode_jax.sampling import memory
    from mucode_jax.sampling.pages import pages_of

    return -(-slots * pages_of(context) // round(1 / memory._OF_CONTEXT))


def iteration(
    *,
    problems: int = 374,
    samples: int = 15,
    turns: int = 3,
    slots: int = 256,
    pages: int | None = None,
    context: int = 5248,
    mean: float = 250.0,
    cap: int = 1000,
    prompt: int = 150,
    feedback: int = 120,
    clock: Clock = Clock(),
    seed: int = 0,
) -> dict[str, float]:
    """One iteration of rollouts, on the virtual clock.

    A static batch of the same size decodes each turn until its longest sample ends, and waits for
    no code.
    """
    from mucode_jax.sampling.scheduler import Request

    rng = np.random.default_rng(seed)
    simulation = Simulation(slots, pages or pool(slots, context), context, cap, clock)
    by_turn: list[list[int]] = [[] for _ in range(turns)]
    prompts: dict[object, np.ndarray] = {}

    def submit(name: tuple, turn: int, text: np.ndarray, count: int, parent: tuple | None) -> None:
        prompts[name, turn] = text
        lengths = completion_lengths(rng, count, mean, cap)
        by_turn[turn] += lengths.tolist()
        keys = np.zeros((count, 2), np.uint32)
        request = Request((name, turn), text, keys, cap + 1, parent, keep=turn + 1 < turns)
        simulation.submit(request, lengths)

    for problem in range(problems):
        submit((problem,), 0, np.ones(prompt, np.int32), samples, None)
    unique = problems * prompt
    coming: list[tuple[float, int, tuple, np.ndarray]] = []  # code that is running
    order = 0
    while simulation.scheduler.pending or coming:
        while coming and coming[0][0] <= simulation.now:
            _, _, ((name, turn), index), ids = heapq.heappop(coming)
            if turn + 1 < turns:
                text = [prompts[name, turn], ids, np.ones(feedback, np.int32)]
                child = (*name, index) if turn == 0 else name
                submit(child, turn + 1, np.concatenate(text), 1, ((name, turn), index))
                simulation.scheduler.release(((name, turn), index))
                unique += feedback
        finished = simulation.step()
        if finished is None:
            simulation.now = coming[0][0] if coming else simulation.now + clock.step_s
            continue
        for done in finished:
            slow = rng.random() < clock.slow
            wait = clock.limit_s if slow else clock.code_s * (0.5 + rng.exponential(0.5))
            order += 1
            due = simulation.now + wait
            heapq.heappush(coming, (due, order, (done.request_id, done.index), done.ids))
    static = sum(
        max(lengths[first : first + slots])
        for lengths in by_turn
        for first in range(0, len(lengths), slots)
    )
    return simulation.figures(unique) | {"static_steps_per_step": static / simulation.steps}


class _Outcomes:
    """Programs on the virtual clock: each fails, and is done when its time has come."""

    def __init__(self, simulation: Simulation, clock: Clock, seed: int) -> None:
        self._simulation, self._clock = simulation, clock
        self._rng = np.random.default_rng([seed, 1])
        self.due: list[float] = []

    def submit(self, problem: object, code: str) -> Future:
        slow = self._rng.random() < self._clock.slow
        takes = self._clock.code_s * (0.5 + self._rng.exponential(0.5))
        due = self._simulation.now + (self._clock.limit_s if slow else takes)
        self.due.append(due)
        simulation = self._simulation

        class Outcome(Future):
            def done(self) -> bool:
                return simulation.now >= due

        outcome = Outcome()
        outcome.set_result(types.SimpleNamespace(status="fail", feedback="", summary=""))
        return outcome


def searches(
    *,
    problems: int = 500,
    searches: int = 10,
    n: int = 5,
    turns: int = 3,
    slots: int = 256,
    context: int = 5248,
    mean: float = 250.0,
    cap: int = 1000,
    prompt: int = 150,
    feedback: int = 120,
    clock: Clock = Clock(),
    seed: int = 0,
) -> dict[str, float]:
    """Multi-turn Best-of-N by the real `search.best_of_n`, on the virtual clock."""
    from mucode_jax.core.records import Problem, Tests
    from mucode_jax.rollouts import search
    from mucode_jax.rollouts.collect import Limits

    rng = np.random.default_rng(seed)
    simulation = Simulation(slots, pool(slots, context), context, cap, clock)
    outcomes = _Outcomes(simulation, clock, seed)
    unique = problems * prompt

    class Engine:
        """`simulation` as `best_of_n` drives an engine."""

        @property
        def pending(self) -> int:
            return simulation.scheduler.pending + len(outcomes.due)  # time passes in `step`

        queued = 0

        def submit(self, request) -> None:
            nonlocal unique
            unique += feedback * (request.parent is not None)
            simulation.submit(request, completion_lengths(rng, len(request.keys), mean, cap))

        def step(self) -> list:
            finished = simulation.step()
            if finished is None:
                coming = (due for due in outcomes.due if due > simulation.now)
                simulation.now = min(coming, default=simulation.now + clock.step_s)
            outcomes.due = [d for d in outcomes.due if d > simulation.now]
            return finished or []

        def release(self, handle) -> None:
            simulation.scheduler.release(handle)

    class Chat:
        def first(self, text: str) -> np.ndarray:
            return np.ones(prompt, np.int32)

        def next_within(self, template: str, parts: dict, limit: int) -> np.ndarray:
            return np.ones(feedback, np.int32)

        def text(self, ids: np.ndarray) -> str:
            return ""

        code = staticmethod(str)

    found = search.best_of_n(
        [Problem("simulated", str(i), "test", "", Tests(())) for i in range(problems)],
        engine=Engine(),
        chat=Chat(),
        grader=outcomes,
        score=None,
        limits=Limits(turns, cap + 1, feedback, context),
        n=n,
        searches=searches,
        choices=("random",),
        key=(seed,),
        skip_failed=False,
    )
    for _ in found:
        pass
    return simulation.figures(unique)


def drained_searches(
    *,
    problems: int = 500,
    searches: int = 10,
    n: int = 5,
    turns: int = 3,
    slots: int = 256,
    mean: float = 250.0,
    cap: int = 1000,
    prompt: int = 150,
    feedback: int = 120,
    together: int = 12,
    seed: int = 0,
) -> dict[str, float]:
    """The same searches as 3591634 made them: a batch of problems, turn after turn.

    Each turn drains before the next one begins, and reads whole conversations again.
    """
    from mucode_jax.sampling.scheduler import Request

    rng = np.random.default_rng(seed)
    context = prompt + turns * (cap + 1 + feedback)
    simulation = Simulation(slots, pool(4 * slots, context), context, cap, Clock())
    unique = problems * prompt
    for first in range(0, problems, together):
        places = [
            (problem, index)
            for problem in range(first, min(first + together, problems))
            for index in range(searches)
        ]
        states = {place: np.ones(prompt, np.int32) for place in places}
        for turn in range(turns):
            for place, text in states.items():
                keys = np.zeros((n, 2), np.uint32)
                request = Request((place, turn), text, keys, cap + 1, keep=False)
                simulation.submit(request, completion_lengths(rng, n, mean, cap))
            while simulation.scheduler.pending:
                for done in simulation.step() or []:
                    place = done.request_id[0]
                    if done.index == 0:  # the one that is chosen
                        following = np.ones(feedback, np.int32)
                        states[place] = np.concatenate([states[place], done.ids, following])
            unique += feedback * len(places) * (turn + 1 < turns)
    return simulation.figures(unique)


def conversations(context: int = 5248) -> None:
    """Rollouts in the bytes of 32 whole contexts, with more and more slots."""
    from mucode_jax.sampling.pages import pages_of

    for slots in (32, 96, 128, 192, 256):
        result = iteration(problems=60, slots=slots, pages=32 * pages_of(context))
        print(slots, "slots", end=": ")
        _show(result)


def feedback(cached: int = 600, context: int = 5248) -> None:
    """Flops and bytes of the prefill of 100 tokens after `cached` ones: 1B, one v5e chip.

    A cost analysis counts a loop once: here one turn of the loop over pages reads what is cached.
    """
    import functools

    import jax

    from mucode_jax import aot
    from mucode_jax.models import attention, llama
    from mucode_jax.sampling import engine, programs
    from mucode_jax.sampling.pages import pages_of

    attention.PAGES_READ *= -(-pages_of(cached + 100) // attention.PAGES_READ)
    shape = 128256, 2048, 16, 32, 8, 64, 8192
    config = llama.LlamaConfig(
        *shape, tied=True, dtype="bfloat16", param_dtype="bfloat16", attention="splash"
    )
    (device,) = aot.devices("v5e:1x1")
    place = jax.sharding.SingleDeviceSharding(device)

    def placed(tree):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)

    params = jax.eval_shape(
        functools.partial(programs.prepare, config), llama.abstract_params(config)
    )
    cache = jax.eval_shape(functools.partial(llama.init_cache, config, 16 * pages_of(context)))
    rows, length = engine.PREFILL_ROWS, engine.PREFILL_LENGTH
    texts = programs.Texts(
        np.zeros((rows, pages_of(context)), np.int32),
        *(np.zeros(rows, np.int32) for _ in range(2)),
        np.zeros((rows, length), np.int32),
    )
    compiled = programs.prefill.lower(config, placed(params), placed(cache), texts).compile()
    cost = compiled.cost_analysis()
    print(
        f"{rows} × {length} places over {64 * attention.PAGES_READ} columns:"
        f" {cost['flops'] / 1e12:.3f} Tflop, {cost['bytes accessed'] / 1e9:.2f} GB"
    )


# A 25 M Llama, as in the table that others were measured by.
SHAPE = {"vocab": 8192, "width": 384, "layers": 8, "heads": 6, "kv_heads": 6, "ff": 1536}
PROMPT, NEW = 32, 96


def _config(**changes: object):
    from mucode_jax.models.llama import LlamaConfig

    s = SHAPE
    sizes = s["vocab"], s["width"], s["layers"], s["heads"], s["kv_heads"]
    return LlamaConfig(
        *sizes, s["width"] // s["heads"], s["ff"], tied=True, max_positions=512, **changes
    )


def _tell(tokens: int, began: float) -> None:
    print(json.dumps(tokens / (time.process_time() - began)), flush=True)


def contestant(name: str, model: str, batch: int) -> None:
    """Samples once per line on standard input; answers with tokens per CPU-second."""
    prompts = np.random.default_rng(0).integers(1, SHAPE["vocab"], (batch, PROMPT))
    if name == "transformers":
        import torch
        import transformers

        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        loaded = transformers.LlamaForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        text = torch.tensor(prompts)

        def sample() -> int:
            out = loaded.generate(
                text,
                attention_mask=torch.ones_like(text),
                max_new_tokens=NEW,
                min_new_tokens=NEW,
                do_sample=True,
                temperature=0.7,
                top_k=0,
                pad_token_id=0,
            )
            return out[:, PROMPT:].numel()

    elif name == "mucode_jax":
        import jax

        from mucode_jax.models import llama
        from mucode_jax.sampling.engine import Engine, Request

        config = _config()
        params = llama.init(config, jax.random.key(0))
        # A turn may end by chance (one id of 8,192); what is counted are the tokens really drawn.
        engine = Engine(
            *(config, params),
            slots=batch,
            context=256,
            eot_ids=(SHAPE["vocab"] - 1,),
            temperature=0.7,
        )
        keys = np.random.default_rng(1).integers(0, 2**32, (batch, 1, 2), dtype=np.uint32)

        def sample() -> int:
            before = engine.counters.decoded
            for row in range(batch):
                engine.submit(Request(row, prompts[row], keys[row], NEW, keep=False))
            while engine.pending:
                engine.step()
            return engine.counters.decoded - before

    elif name == "tunix":
        import jax
        from flax import nnx
        from tunix.generate.sampler import CacheConfig, Sampler
        from tunix.models.llama3.model import Llama3, ModelConfig

        class Ids:
            """A tokenizer of texts that are ids already."""

            def encode(self, text: str, **_: object) -> list[int]:
                return [int(word) for word in text.split()]

            def decode(self, ids: list[int], **_: object) -> str:
                return " ".join(map(str, ids))

            def bos_id(self) -> int:
                return int(prompts[0, 0])  # else one is put before each prompt

            def eos_id(self) -> int:
                return SHAPE["vocab"]  # never drawn

            def pad_id(self) -> int:
                return 0

        s = SHAPE
        prompts[:, 0] = prompts[0, 0]
        size = s["width"] // s["heads"]
        shape = ModelConfig(
            *(s["layers"], s["vocab"], s["width"], s["ff"], s["heads"], size, s["kv_heads"]),
            rope_theta=10_000,
            norm_eps=1e-5,
            weight_tying=True,
        )
        theirs = Sampler(
            Llama3(shape, rngs=nnx.Rngs(0)),
            Ids(),
            CacheConfig(PROMPT + NEW, s["layers"], s["kv_heads"], size),
        )
        texts = [" ".join(map(str, row)) for row in prompts]

        def sample() -> int:
            out = theirs(texts, NEW, PROMPT, temperature=0.7, top_p=1.0)
            return sum(len(ids) for ids in out.tokens)

    else:
        raise SystemExit(f"unknown contestant {name!r}")
    sample()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.process_time()
        _tell(sample(), began)


def cpu(rounds: int, tunix: str | None) -> None:
    import jax

    from mucode_jax.models import huggingface, llama

    with tempfile.TemporaryDirectory() as folder:
        config = _config()
        params = llama.init(config, jax.random.key(0))
        print(f"{sum(x.size for x in jax.tree.leaves(params)) / 1e6:.1f} M parameters")
        huggingface.save_generator(params, config, pathlib.Path(folder))
        one = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        environment = {**os.environ, "XLA_FLAGS": one, "OMP_NUM_THREADS": "1"}
        environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        for batch in (1, 32):
            runs = {}
            pythons = {"transformers": sys.executable, "mucode_jax": sys.executable}
            for name, python in (pythons | ({"tunix": tunix} if tunix else {})).items():
                runs[name] = subprocess.Popen(
                    [python, __file__, "contestant", name, folder, str(batch)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environment,
                )
                while runs[name].stdout.readline() not in ("ready\n", ""):
                    pass
            speeds: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(rounds):
                for name, process in runs.items():
                    process.stdin.write("go\n")
                    process.stdin.flush()
                    speeds[name].append(json.loads(process.stdout.readline()))
            for process in runs.values():
                process.stdin.close()
                process.wait()
            middle = {name: float(np.median(values)) for name, values in speeds.items()}
            ours = middle["mucode_jax"]
            told = ", ".join(f"{k} {v:.0f} (ours {ours / v:.2f}×)" for k, v in middle.items())
            print(f"batch {batch}: {told} tokens per CPU-second", flush=True)


def rollouts(engine, problems: int, samples: int, seed: int, sizes: dict[str, int]) -> None:
    """Three turns of every sample, with log-normal lengths, the next turn following at once."""
    from mucode_jax.sampling.engine import Request

    rng = np.random.default_rng(seed)
    vocabulary = sizes["vocab"]
    prompts = {}

    def submit(name: tuple, text: np.ndarray, count: int, turn: int, parent: tuple | None) -> None:
        prompts[name] = text
        keys = rng.integers(0, 2**32, (count, 2), dtype=np.uint32)
        limit = int(completion_lengths(rng, 1, sizes["new"], sizes["cap"])[0])
        engine.submit(Request(name, text, keys, limit, parent=parent, keep=turn < 2))

    for problem in range(problems):
        submit((seed, problem, 0), rng.integers(1, vocabulary, sizes["prompt"]), samples, 0, None)
    while engine.pending:
        for done in engine.step():
            name = done.request_id
            turn = name[2]
            if turn < 2:
                text = rng.integers(1, vocabulary, sizes["feedback"])
                text = np.concatenate([prompts[name], done.ids, text])
                child = (*name[:2], turn + 1, done.index if turn == 0 else name[3])
                submit(child, text, 1, turn + 1, (name, done.index))
                engine.release((name, done.index))


def throughput(config, slots: int, context: int, problems: int, sizes: dict[str, int]) -> None:
    import jax

    from mucode_jax.models import llama
    from mucode_jax.sampling.engine import Engine

    params = jax.jit(llama.init, static_argnums=0)(config, jax.random.key(0))
    engine = Engine(config, params, slots=slots, context=context, eot_ids=(EOT,), temperature=0.7)
    rollouts(engine, max(2, problems // 20), 5, 0, sizes)  # compiles
    before = engine.counters
    wall, used = time.monotonic(), time.process_time()
    rollouts(engine, problems, 5, 1, sizes)
    wall, used = time.monotonic() - wall, time.process_time() - used
    after = engine.counters
    tokens = after.decoded - before.decoded
    print(
        f"{slots} slots: {tokens} tokens, {tokens / wall:.0f} a second,"
        f" {tokens / used:.0f} a CPU-second, occupancy"
        f" {tokens / (after.slot_steps - before.slot_steps):.2f}"
    )
    print(after)


def growth(requests: int, slots: int) -> None:
    """Memory and time per token over many requests to one engine."""
    import jax

    from mucode_jax.models import llama
    from mucode_jax.models.llama import LlamaConfig
    from mucode_jax.sampling.engine import Engine, Request

    config = LlamaConfig(1024, 64, 2, 2, 1, 32, 128, tied=True, max_positions=256)
    params = llama.init(config, jax.random.key(0))
    engine = Engine(config, params, slots=slots, context=64, eot_ids=(EOT,), temperature=1.0)
    rng = np.random.default_rng(0)
    part = requests // 10
    print("requests   MiB   µs a token   kept by the engine")
    for tenth in range(11):
        before, began = engine.counters.decoded, time.process_time()
        for i in range(part):
            text = rng.integers(1, 1024, int(rng.integers(4, 20)))
            key = rng.integers(0, 2**32, (1, 2), dtype=np.uint32)
            engine.submit(Request((tenth, i), text, key, 16, keep=False))
        while engine.pending:
            engine.step()
        spent = (time.process_time() - began) / (engine.counters.decoded - before) * 1e6
        rss = int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4 // 1024
        kept = sum(len(x) for x in vars(engine._scheduler).values() if hasattr(x, "__len__"))
        if tenth:  # the first part compiles
            print(f"{tenth * part:8d} {rss:5d} {spent:12.1f} {kept:20d}", flush=True)


def ties(problems: int) -> None:
    """How many of the embedded generator's completions differ between slot counts."""
    from mucode_jax import benchmarks
    from mucode_jax.core.conversation import Chat
    from mucode_jax.models import huggingface
    from mucode_jax.sampling.engine import Engine, Request

    home = huggingface.resolve("mini")
    config = huggingface.read_config(home)
    params = huggingface.load_generator(home, config)
    chat = Chat(huggingface.load_tokenizer(home), huggingface.eot_ids(home))
    texts = benchmarks.load("mini", "train", size=problems).problems
    keys = np.random.default_rng(0).integers(0, 2**32, (problems, 5, 2), dtype=np.uint32)
    found = {}
    for slots in (1, 8, 32, 128):
        engine = Engine(
            config, params, slots=slots, context=128, eot_ids=chat.eot_ids, temperature=0.7
        )
        for i, problem in enumerate(texts):
            engine.submit(Request(i, chat.first(problem.prompt), keys[i], 40, keep=False))
        done = {}
        while engine.pending:
            done |= {(c.request_id, c.index): c for c in engine.step()}
        found[slots] = done
        tokens = sum(len(c.ids) for c in done.values())
        other = found[1]
        differ = sum(not np.array_equal(c.ids, other[k].ids) for k, c in done.items())
        far = max(
            float(np.abs(c.logprobs - other[k].logprobs).max())
            for k, c in done.items()
            if np.array_equal(c.ids, other[k].ids)
        )
        print(
            f"{slots} slots against 1: {differ} of {len(done)} completions ({tokens} tokens)"
            f" differ, log-probabilities by {far:.1e} at most",
            flush=True,
        )


def _show(figures: dict[str, float]) -> None:
    print({name: round(value, 3) for name, value in figures.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--tunix", help="an interpreter that has google-tunix")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slots", type=int)
    parser.add_argument("--problems", type=int, default=100, help="(%(default)s)")
    args = parser.parse_args()
    if args.what == "iteration":
        _show(iteration(slots=args.slots or 256))
    elif args.what == "searches":
        now = searches(problems=args.problems, slots=args.slots or 256)
        before = drained_searches(problems=args.problems, slots=args.slots or 256)
        print("now", end=": ")
        _show(now)
        print("drained turn by turn", end=": ")
        _show(before)
        print(f"{before['steps'] / now['steps']:.2f} times fewer decode steps")
    elif args.what == "conversations":
        conversations()
    elif args.what == "feedback":
        feedback()
    elif args.what == "cpu":
        cpu(args.rounds, args.tunix)
    elif args.what == "growth":
        growth(100_000, args.slots or 64)
    elif args.what == "ties":
        ties(args.problems)
    elif args.what == "contestant":
        contestant(args.rest[0], args.rest[1], int(args.rest[2]))
    else:
        from mucode_jax.models.llama import LlamaConfig

        if args.what == "mini":
            config = LlamaConfig(1024, 128, 3, 4, 2, 32, 320, tied=True, max_positions=512)
            sizes = {"vocab": 1024, "prompt": 56, "new": 30, "cap": 60, "feedback": 20}
            throughput(config, args.slots or 128, 288, args.problems, sizes)
        else:
            shape = 128256, 2048, 16, 32, 8, 64, 8192
            config = LlamaConfig(
                *shape, tied=True, dtype="bfloat16", param_dtype="bfloat16", rope_theta=5e5
            )
            sizes = {"vocab": 128256, "prompt": 150, "new": 180, "cap": 250, "feedback": 40}
            throughput(config, args.slots or 256, 1024, args.problems, sizes)


if __name__ == "__main__":
    main()
