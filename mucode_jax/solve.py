"""Solves one problem of yours by multi-turn Best-of-N, showing each turn as it happens.

    python -m mucode_jax.solve problem.py
    python -m mucode_jax.solve problem.json --generator runs/quickstart
    python -m mucode_jax.solve problem.py --generator meta-llama/Llama-3.2-1B-Instruct --json

The problem is {"prompt", "tests": [..]} in JSON, or Python: a docstring, of the file or of a
function that is still empty, and asserts. The tests decide: all of them run on every candidate.
--generator and --verifier take "mini" (the small pair that comes along; it knows short functions on
lists of numbers and strings, see README.md), a model directory, a stage's or a whole run's work
directory, or a hub id. Without --verifier, "mini" and a whole run bring their own, and any other
generator goes without one.
"""

from __future__ import annotations

from mucode_jax.runtime import interruption

if __name__ == "__main__":
    interruption.leave_at_once()  # the imports below take seconds

import argparse
import contextlib
import dataclasses
import json
import pathlib
import sys
import warnings
from collections.abc import Sequence

import jax

from mucode_jax import report
from mucode_jax.core.conversation import Chat
from mucode_jax.core.records import Problem
from mucode_jax.models import hub, huggingface
from mucode_jax.report import trained
from mucode_jax.rollouts.agreement import Agreement
from mucode_jax.rollouts.broken_tests import Trial
from mucode_jax.rollouts.collect import Limits
from mucode_jax.rollouts.grading import InfrastructureError, public_grader
from mucode_jax.rollouts.scorer import Scorer
from mucode_jax.rollouts.search import CHOICES, best_of_n
from mucode_jax.runtime import command, hosts
from mucode_jax.runtime.command import Parser, Unheard, cache, fail, positive, unheard
from mucode_jax.sampling.engine import Engine
from mucode_jax.sampling.memory import device_memory, slot_bytes
from mucode_jax.sandbox import LEVELS, IsolationError, Pool
from mucode_jax.solving import problem_file, story


@dataclasses.dataclass(frozen=True)
class Solver:
    """A generator and a verifier, ready; see `open_solver`."""

    engine: Engine
    chat: Chat
    scorer: Scorer | None
    limits: Limits
    embedded: bool


def open_solver(
    generator: str,
    verifier: str,
    *,
    n: int,
    turns: int,
    temperature: float,
    max_new_tokens: int | None = None,
) -> Solver:
    """Loads the models.

    Args:
      generator, verifier: as on the command line; verifier "none" for none.
      n: candidates a turn.
      turns: at most so many.
      temperature: of sampling.
      max_new_tokens: a completion's; None: what the model's context allows, at most 1000.

    Raises:
      ValueError: a model is missing or of another kind, its tokenizer does not belong to it, the
        two read different tokens, or the memory does not hold so many candidates.
    """
    directory = _model(generator, "generator")
    config = huggingface.read_config(directory)
    eot_ids = huggingface.eot_ids(directory)
    tokenizer = huggingface.load_tokenizer(directory)
    chat = Chat(tokenizer, eot_ids)
    if chat.vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer of {directory} has ids up to {chat.vocab_size - 1}, but the model has "
            f"embeddings for {config.vocab_size}; they do not belong together"
        )
    context = min(8192, config.max_positions)
    memory, device = device_memory()
    needed = n * slot_bytes(config, context)
    if needed > memory:
        raise ValueError(
            f"--n {n}: so many conversations of {context} tokens take {needed / 2**30:.0f} GiB, "
            f"and {device} has {memory / 2**30:.0f} GiB; lower it"
        )
    max_new_tokens = max_new_tokens or min(1000, context // (2 * turns))
    limits = Limits(turns, max_new_tokens, min(512, context // (4 * turns)), context)
    scorer = None
    if verifier != "none":
        scoring = _model(verifier, "verifier")
        if huggingface.load_tokenizer(scoring).get_vocab() != tokenizer.get_vocab():
            raise ValueError(
                f"verifier {verifier} reads other tokens than generator {generator}; give one that "
                "has its tokenizer, or --verifier none"
            )
        judge = huggingface.read_config(scoring)
        scorer = Scorer(judge, huggingface.load_verifier(scoring, judge), rows=n)
    engine = Engine(
        config,
        huggingface.load_generator(directory, config),
        slots=n,
        context=context,
        eot_ids=chat.eot_ids,
        temperature=temperature,
    )
    return Solver(engine, chat, scorer, limits, hub.is_embedded(directory))


def _model(path: str, what: str) -> pathlib.Path:
    if (pathlib.Path(path) / "stages").is_dir():
        return trained.find(pathlib.Path(path), what).path
    report.refuse_sweep(pathlib.Path(path))
    return hub.resolve_verifier(path) if what == "verifier" else hub.resolve(path)


def check_room(solver: Solver, problem: Problem) -> None:
    """Raises ValueError where the generator's context does not hold the problem and the turns."""
    chat, limits = solver.chat, solver.limits
    size, room = len(chat.first(problem.prompt)), max(0, limits.max_prompt_tokens)
    if size > room:
        raise ValueError(
            f"the problem takes {size} tokens, but of the generator's {limits.context} there are "
            f"{room} for it beside {limits.turns} turns of {limits.max_new_tokens} new ones and "
            "feedback; lower --turns or --max-new-tokens, or shorten it"
        )
    try:
        empty = dict.fromkeys(("feedback", "summary"), "")
        chat.next_within(problem.feedback, empty, limits.max_feedback_tokens)
    except ValueError as error:
        raise ValueError(
            f"{limits.turns} turns leave {limits.max_feedback_tokens} of the generator's "
            f"{limits.context} tokens for each feedback, which is too few; lower --turns"
        ) from error


def _own_verifier(generator: str) -> str:
    """The verifier that comes along with a generator: the embedded one's, a run's, else "none"."""
    of_run = any(pathlib.Path(generator).glob("stages/*/verifier*/stage.json"))
    return generator if generator == "mini" or of_run else "none"


def _flags(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("solve", __doc__, "0 solved, 1 not solved, 2 bad input")
    parser.add_argument("file", nargs="?", metavar="PROBLEM", help="a .json or .py file")
    parser.add_argument("--problem", help="the same as a flag")
    parser.add_argument("--generator", default="mini", help="default: %(default)s")
    parser.add_argument("--verifier", help='default: the generator\'s own; "none" for none')
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the story")
    parser.add_argument("--n", type=positive, default=5, help="candidates a turn (%(default)s)")
    parser.add_argument("--turns", type=positive, default=3, help="at most (%(default)s)")
    parser.add_argument("--temperature", type=float, default=0.7, help="of sampling (%(default)s)")
    parser.add_argument("--max-new-tokens", type=positive, help="a completion's")
    parser.add_argument(
        "--search",
        choices=CHOICES,
        help="how to choose (default pt+lv+vote; pt+vote without a verifier)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of sampling (%(default)s)")
    parser.add_isolation(LEVELS)
    flags = parser.parse_args(argv)
    if (flags.file is None) == (flags.problem is None):
        parser.error("give one PROBLEM file")
    if not (flags.temperature == 0 or 1e-3 <= flags.temperature <= 1e3):
        parser.error("argument --temperature: 0 is greedy, else from 0.001 to 1000")
    flags.file = flags.file or flags.problem
    if flags.verifier is None:
        flags.verifier = _own_verifier(flags.generator)
    flags.search = flags.search or ("pt+vote" if flags.verifier == "none" else "pt+lv+vote")
    if "lv" in flags.search and flags.verifier == "none":
        parser.error(f"--search {flags.search} needs a verifier")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    flags = _flags(argv)
    _keep_compiled()
    try:
        hosts.backend()
        asked = problem_file.read(flags.file)
        with Pool(isolation=flags.isolation) as pool:
            isolation = pool.isolation
            solver = open_solver(
                flags.generator,
                flags.verifier,
                n=flags.n,
                turns=flags.turns,
                temperature=flags.temperature,
                max_new_tokens=flags.max_new_tokens,
            )
            problem = problem_file.problem_of(asked, embedded=solver.embedded)
            check_room(solver, problem)
            if reason := Trial(pool, {}).reason(problem, problem.public):
                raise ValueError(f"{flags.file}: its tests cannot run: {reason}")
            show = story.Show(problem, solver.chat, solver.limits)
            if not flags.json:
                show.say(problem.prompt)
                show.say("")
                show.say(_introduction(flags, isolation["level"]))
            ((search,),) = best_of_n(
                [problem],
                engine=solver.engine,
                chat=solver.chat,
                grader=public_grader(pool),
                score=solver.scorer,
                limits=solver.limits,
                n=flags.n,
                searches=1,
                choices=(flags.search,),
                key=(flags.seed, "solve"),
                agreement=Agreement(pool),
                on_turn=None if flags.json else show.turn,
            )
        if not flags.json:
            show.end(search)
    except Unheard as error:
        return unheard(error)
    except (ValueError, IsolationError) as error:
        return fail("solve", str(error), 2)
    except (InfrastructureError, OSError) as error:
        return fail("solve", str(error), 1)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return fail("solve", "out of memory; lower --n or --turns, or take a smaller model", 1)
    if flags.json:
        fields = story.as_json(search, problem, solver.chat, solver.limits)
        fields |= {name: getattr(flags, name) for name in ("generator", "verifier", "search")}
        if status := command.show(json.dumps(fields | {"isolation": isolation})):
            return status
    return 0 if story.chosen(search).grade.passed else 1


def _introduction(flags: argparse.Namespace, isolation: str) -> str:
    hint = " (--verifier names one with the same tokenizer)" if flags.verifier == "none" else ""
    return (
        f"generator {flags.generator}; verifier {flags.verifier}{hint}; {flags.n} candidates "
        f"a turn, at most {flags.turns} turns; chosen by {flags.search}; sandbox "
        f"isolation {isolation}"
    )


def _keep_compiled() -> None:
    """Keeps compiled programs for the next call, unless JAX is told where already.

    Where that cannot be, all of them are compiled again, without a word.
    """
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        with contextlib.suppress(ValueError):  # no home
            jax.config.update("jax_compilation_cache_dir", str(cache() / "xla"))
    jax.config.update("jax_persistent_cache_enable_xla_caches", "")  # as in main


if __name__ == "__main__":
    sys.exit(main())
