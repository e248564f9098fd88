"""Solves one problem of yours by multi-turn Best-of-N, showing each turn as it happens.

    python -m mucode_jax.solve problem.py
    python -m mucode_jax.solve problem.json --generator runs/quickstart --verifier runs/quickstart
    python -m mucode_jax.solve problem.py --generator meta-llama/Llama-3.2-1B-Instruct \\
        --verifier none --json

The problem is {"prompt", "tests": [..]} in JSON, or Python: a docstring, of the file or of a
function that is still empty, and asserts. The tests decide: all of them run on every candidate.
--generator and --verifier take "mini" (the small pair that comes along; it knows short functions on
lists of numbers and strings, see README.md), a model directory, a stage's or a whole run's work
directory, or a hub id.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import rich.console
import rich.text

from mucode_jax import export
from mucode_jax.benchmarks import files, prompts
from mucode_jax.command import Parser, fail, positive
from mucode_jax.conversation import Chat
from mucode_jax.grading import InfrastructureError, public_grader
from mucode_jax.models import hub, huggingface
from mucode_jax.records import Problem, Tests, Turn
from mucode_jax.rollout import Limits, feedback_prompt
from mucode_jax.sampling.engine import Engine
from mucode_jax.sandbox import LEVELS, IsolationError, Pool
from mucode_jax.score import Scorer
from mucode_jax.search import CHOICES, Search, best_of_n

Json = Any
TIMEOUT_S = 10.0


# The problem -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a file asks for.

    Attributes:
      words: the problem in words.
      stub: the head of an empty function with its docstring, "" where there is none.
      tests: assert statements, each of which parses.
      setup: Python text that the tests need.
      name: the function that the tests call, "" where none stands out.
    """

    words: str
    stub: str
    tests: tuple[str, ...]
    setup: str
    name: str


def read(path: str | pathlib.Path) -> Asked:
    """The problem in a file, Python where its name ends in .py, else JSON.

    Raises:
      ValueError: it cannot be read, or lacks the problem's text or its tests.
    """
    try:
        source = pathlib.Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ValueError(f"{path} cannot be read: {reason}") from error
    asked = _of_python(str(path), source) if str(path).endswith(".py") else _of_json(path, source)
    if not asked.words.strip():
        raise ValueError(f"{path}: the problem has no text; {_SHAPE}")
    if not asked.tests:
        raise ValueError(f"{path}: the problem has no tests; {_SHAPE}")
    return asked


_SHAPE = 'give {"prompt": .., "tests": ["assert ..", ..]}, or a .py file with docstring and asserts'


def _of_json(path: Any, source: str) -> Asked:
    try:
        fields = json.loads(source)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); {_SHAPE}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path} holds no JSON object; {_SHAPE}")
    row = files.Row(fields, str(path))
    tests = files.python_tests(row, row.texts("tests"), timeout_s=TIMEOUT_S).statements
    return Asked(row.text("prompt"), "", tests, "", _called(tests))


def _of_python(path: str, source: str) -> Asked:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is not Python: {error}") from error
    words, stub, name = ast.get_docstring(tree) or "", "", ""
    tests, setup = [], []
    for node in tree.body[1:] if words else tree.body:
        segment = ast.get_source_segment(source, node) or ""
        if isinstance(node, ast.Assert):
            tests.append(segment)
        elif isinstance(node, ast.FunctionDef) and _empty(node) and not stub:
            words, stub, name = words or ast.get_docstring(node) or "", segment, node.name
        else:
            setup.append(segment)
    return Asked(words, stub, tuple(tests), "\n".join(setup), name or _called(tests))


def _empty(function: ast.FunctionDef) -> bool:
    """Whether a function is a stub: a docstring, `...`, `pass` or raise NotImplementedError."""
    return all(
        isinstance(node, ast.Pass)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Raise) and "NotImplementedError" in ast.unparse(node))
        for node in function.body
    )


def _called(tests: Sequence[str]) -> str:
    """The first name that the first test calls and that Python does not bring along."""
    for node in ast.walk(ast.parse(tests[0])) if tests else ():
        match node:
            case ast.Call(func=ast.Name(id=name)) if not hasattr(builtins, name):
                return name
    return ""


def problem_of(asked: Asked, *, embedded: bool) -> Problem:
    """The problem as a generator reads it.

    `embedded`: as the suite `mini` puts it, one line and one test; else as the other benchmarks do.
    """
    tests = Tests(asked.tests, setup=asked.setup, timeout_s=TIMEOUT_S)
    if not embedded:
        both = asked.stub if asked.words in asked.stub else f"{asked.words}\n\n{asked.stub}"
        shown = "\n".join([*filter(None, [asked.setup]), *asked.tests])
        prompt = prompts.function_prompt(both, tests=shown)
    elif asked.tests[0] in asked.words:
        prompt = asked.words.strip()
    else:
        line = " ".join(asked.words.split()).removeprefix(f"{asked.name}: ")
        prompt = f"{asked.name}: {line}\n{asked.tests[0]}"
    feedback = "{summary}" if embedded else prompts.FEEDBACK
    return Problem("solve", "yours", "", prompt, tests, entry_point=asked.name, feedback=feedback)


# The search --------------------------------------------------------------------------------------


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
      ValueError: a model is not there or of another kind, or the two read different tokens.
    """
    home = _model(generator, "generator")
    config = huggingface.read_config(home)
    tokenizer = huggingface.load_tokenizer(home)
    chat = Chat(tokenizer, huggingface.eot_ids(home))
    context = min(8192, config.max_positions)
    new = max_new_tokens or min(1000, context // (2 * turns))
    limits = Limits(turns, new, min(512, context // (4 * turns)), context)
    scorer = None
    if verifier != "none":
        of_verifier = _model(verifier, "verifier")
        if huggingface.load_tokenizer(of_verifier).get_vocab() != tokenizer.get_vocab():
            raise ValueError(
                f"verifier {verifier} reads other tokens than generator {generator}; give one that "
                "was trained from the same base, or --verifier none"
            )
        scoring = huggingface.read_config(of_verifier)
        scorer = Scorer(scoring, huggingface.load_verifier(of_verifier, scoring), rows=n)
    engine = Engine(
        config,
        huggingface.load_generator(home, config),
        slots=n,
        context=context,
        eot_ids=chat.eot_ids,
        temperature=temperature,
    )
    return Solver(engine, chat, scorer, limits, hub.is_embedded(home))


def _model(path: str, what: str) -> pathlib.Path:
    if (pathlib.Path(path) / "stages").is_dir():
        return export.find(pathlib.Path(path), what).path
    return hub.resolve_verifier(path) if what == "verifier" else hub.resolve(path)


def solve(
    problem: Problem,
    solver: Solver,
    pool: Pool,
    *,
    n: int,
    choice: str,
    seed: int,
    on_turn: Callable[[Search], None] | None = None,
) -> Search:
    """One search; see `search.best_of_n`."""
    (found,) = best_of_n(
        [problem],
        engine=solver.engine,
        chat=solver.chat,
        grader=public_grader(pool),
        score=solver.scorer,
        limits=solver.limits,
        n=n,
        searches=1,
        choices=(choice,),
        key=(seed, "solve"),
        on_turn=on_turn,
    )
    return found


def why(found: Search, turn: int) -> str:
    """Why a turn's candidate was chosen, in words."""
    candidates, chosen = found.turns[turn].candidates, found.turns[turn].chosen
    failed = {t.candidates[t.chosen].code for t in found.turns[:turn]}
    passed = [c for c in candidates if c.grade.passed]
    fresh = [c for c in candidates if c.code not in failed]
    said = []
    left = fresh or list(candidates)
    if 0 < len(fresh) < len(candidates):
        said.append(f"{len(candidates) - len(fresh)} repeat what failed before")
    if found.choice in ("pt", "pt+lv"):
        if candidates[chosen].grade.passed:
            left = passed
            one = len({c.code for c in passed}) == 1
            said.append("it passes the tests" + ("" if one else f", as {len(passed)} do"))
        else:
            said.append("none passes the tests")
    several = len({c.code for c in left}) > 1
    if found.choice in ("lv", "pt+lv") and several:
        said.append("the verifier scores it highest")
    elif several:
        said.append("at random among equals")
    return "; ".join(said) or "they are all the same"


# What is shown -----------------------------------------------------------------------------------


def printable(text: str) -> str:
    """Text that a model wrote, without what a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


class Show:
    """Prints a search turn by turn."""

    def __init__(self, problem: Problem, solver: Solver) -> None:
        self._problem, self._solver = problem, solver
        self._console = rich.console.Console(highlight=False, soft_wrap=True)

    def say(self, *parts: str | tuple[str, str]) -> None:
        """One line (or block) of text; a part may be (text, style)."""
        shown = [
            (printable(p), "") if isinstance(p, str) else (printable(p[0]), p[1]) for p in parts
        ]
        self._console.print(rich.text.Text.assemble(*shown))

    def code(self, text: str) -> None:
        self.say(("\n".join(f"    {line}" for line in text.strip().splitlines()), "bold"))

    def turn(self, found: Search) -> None:
        """The latest turn: its candidates, the choice, and what the generator reads next."""
        number = len(found.turns)
        turn, limits = found.turns[-1], self._solver.limits
        self.say("")
        self.say((f"turn {number}", "bold"))
        for j, candidate in enumerate(turn.candidates):
            grade = candidate.grade
            score = "" if turn.scores is None else f"  score {turn.scores[j]:+.2f}"
            mark = "→" if j == turn.chosen else " "
            style = "green" if grade.passed else "red"
            told = f"{score}  {grade.summary}".rstrip()
            self.say(f"{mark} {j + 1}  ", (f"{grade.status:<7}", style), told)
        self.say(f"chosen: {turn.chosen + 1}, because " + why(found, number - 1))
        chosen = turn.candidates[turn.chosen]
        self.code(chosen.code)
        if not chosen.grade.passed and number < limits.turns:
            self.say("feedback:")
            self.say(f"    {_feedback(self._problem, chosen, self._solver)}")


def _feedback(problem: Problem, chosen: Turn, solver: Solver) -> str:
    """What the generator reads after a turn that failed."""
    ids = feedback_prompt(solver.chat, problem, chosen, solver.limits)
    return solver.chat.message(ids, first=False)


def as_json(found: Search, problem: Problem, solver: Solver) -> Json:
    """A finished search for programs."""
    turns = []
    for number, turn in enumerate(found.turns):
        chosen = turn.candidates[turn.chosen]
        last = number + 1 == solver.limits.turns or chosen.grade.passed
        turns.append(
            {
                "candidates": [
                    {
                        "code": c.code,
                        "status": c.grade.status,
                        "summary": c.grade.summary,
                        "score": None if turn.scores is None else float(turn.scores[j]),
                    }
                    for j, c in enumerate(turn.candidates)
                ],
                "chosen": turn.chosen,
                "why": why(found, number),
                "feedback": None if last else _feedback(problem, chosen, solver),
            }
        )
    final = found.turns[-1].candidates[found.turns[-1].chosen]
    return {"solved": final.grade.passed, "code": final.code, "turns": turns}


# The command -------------------------------------------------------------------------------------


def _parser() -> Parser:
    parser = Parser("solve", __doc__, "0 solved, 1 not solved, 2 bad input")
    parser.add_argument("file", nargs="?", metavar="PROBLEM", help="a .json or .py file")
    parser.add_argument("--problem", help="the same as a flag")
    parser.add_argument("--generator", default="mini", help="default: %(default)s")
    parser.add_argument("--verifier", default="mini", help='default: %(default)s; "none" for none')
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the story")
    parser.add_argument("--n", type=positive, default=5, help="candidates a turn (%(default)s)")
    parser.add_argument("--turns", type=positive, default=3, help="at most (%(default)s)")
    parser.add_argument("--temperature", type=float, default=0.7, help="of sampling (%(default)s)")
    parser.add_argument("--max-new-tokens", type=positive, help="a completion's")
    parser.add_argument(
        "--search", choices=CHOICES, help="how to choose (default pt+lv; pt without a verifier)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of sampling (%(default)s)")
    parser.add_argument(
        "--isolation", choices=LEVELS, default="landlock", help="the weakest level accepted"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = _parser()
    flags = parser.parse_args(argv)
    if (flags.file is None) == (flags.problem is None):
        parser.error("give one PROBLEM file")
    if not flags.temperature >= 0:
        parser.error("argument --temperature: 0 is greedy, else above 0")
    choice = flags.search or ("pt" if flags.verifier == "none" else "pt+lv")
    if "lv" in choice and flags.verifier == "none":
        parser.error(f"--search {choice} needs a verifier")
    _keep_compiled()
    try:
        asked = read(flags.file or flags.problem)
        with Pool(isolation=flags.isolation) as pool:
            solver = open_solver(
                flags.generator,
                flags.verifier,
                n=flags.n,
                turns=flags.turns,
                temperature=flags.temperature,
                max_new_tokens=flags.max_new_tokens,
            )
            problem = problem_of(asked, embedded=solver.embedded)
            settings = {"n": flags.n, "choice": choice, "seed": flags.seed}
            if flags.json:
                found = solve(problem, solver, pool, **settings)
                about = {"generator": flags.generator, "verifier": flags.verifier, "search": choice}
                shown = as_json(found, problem, solver) | about | {"isolation": pool.isolation}
                print(json.dumps(shown))
            else:
                show = Show(problem, solver)
                show.say(problem.prompt)
                show.say("")
                show.say(
                    f"generator {flags.generator}; verifier {flags.verifier}; {flags.n} candidates "
                    f"a turn, at most {flags.turns} turns; chosen by {choice}; sandbox isolation "
                    f"{pool.isolation['level']}"
                )
                found = solve(problem, solver, pool, on_turn=show.turn, **settings)
    except (ValueError, IsolationError) as error:
        return fail("solve", str(error), 2)
    except InfrastructureError as error:
        return fail("solve", str(error), 1)
    except KeyboardInterrupt:
        return fail("solve", "interrupted", 130)
    last = found.turns[-1]
    solved = last.candidates[last.chosen].grade.passed
    if not flags.json:
        programs = len({c.code for turn in found.turns for c in turn.candidates})
        tokens = sum(len(c.completion_ids) for turn in found.turns for c in turn.candidates)
        ending = f"turn {len(found.turns)}: {programs} programs executed, {tokens} tokens sampled"
        show.say("")
        show.say(("solved", "green") if solved else ("not solved", "red"), f" at {ending}")
    return 0 if solved else 1


def _keep_compiled() -> None:
    """Keeps compiled programs for the next call, unless JAX is told where already."""
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "mucode_jax" / "xla"))


if __name__ == "__main__":
    sys.exit(main())
