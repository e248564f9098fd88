"""Random programs with tests, in the sandbox and in plain Python: the verdicts must agree.

    python tests/sandbox/differential.py --pairs 20000 --seed 1

prints how often they did not, by kind, and what the pairs were made of. A pair is a program of two
or three topics (`programs_objects`, `programs_values`) with tests that were written by looking at
what plain Python does; in a part of them one expectation is then made wrong. Plain Python runs in a
process of its own, each pair in a fresh namespace.
"""

from __future__ import annotations

import argparse
import ast
import collections
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import random
import re
import resource
import signal
import subprocess
import sys
import traceback
import types
import unittest
from collections.abc import Iterator
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from mucode_jax.core.records import Tests
from mucode_jax.sandbox import Outcome, Pool, prelude
from tests.sandbox import programs, programs_objects, programs_values  # noqa: F401  register

PROGRAM, TESTS = "program.py", "tests.py"
_LIMIT_S = 10.0  # of a pair in plain Python
_WRONG = 0.35  # of the pairs have a wrong expectation


@dataclasses.dataclass(frozen=True)
class Pair:
    """A program and its tests.

    Attributes:
      seed: that it was drawn from.
      program, tests: their texts.
      features: what stands in it.
      verdict: what plain Python says: "pass", "fail", or the name of an exception.
      line: of all tests, from 1, where plain Python ended; 0 where it did not.
    """

    seed: int
    program: str
    tests: tuple[str, ...]
    features: tuple[str, ...]
    verdict: str = ""
    line: int = 0


def _module() -> dict[str, Any]:
    """A fresh `__main__` with the prelude, whose namespace this is."""
    main = types.ModuleType("__main__")
    main.__dict__.update(prelude.load(numpy=True))
    sys.modules["__main__"] = main
    random.seed(0)
    return main.__dict__


def draw(seed: int) -> Pair:
    """The pair of that seed; its verdict is still open."""
    chance = random.Random(seed)
    pen = programs.Pen(chance)
    names = chance.sample(sorted(programs.TOPICS), chance.choice((2, 2, 3)))
    made = [programs.TOPICS[name](pen) for name in names]
    program = "\n".join(code for code, _ in made)
    space = _module()
    exec(compile(program, PROGRAM, "exec"), space)
    texts: list[str] = []
    wrong = chance.random() < _WRONG
    count = sum(len(steps) for _, steps in made)
    place = chance.randrange(max(1, count)) if wrong else count + 1
    number = 0
    for step in _interleaved(chance, [steps for _, steps in made]):
        number += 1
        with contextlib.redirect_stdout(io.StringIO()):
            text = step[1:] if step[0] == "!" else _assertion(step, space, chance, number > place)
            if step[0] == "!" and _raises(text, space) and chance.random() < 0.9:
                continue
        texts.append(text)
        if number > place and step[0] != "!":
            break
    features = {x for name in names for x in programs.TOPICS[name].features}  # type: ignore[attr-defined]
    return Pair(seed, program, tuple(_joined(chance, texts)), tuple(sorted(features)))


def _interleaved(chance: random.Random, parts: list[list[str]]) -> Iterator[str]:
    """All steps, each part's in order."""
    parts = [part for part in parts if part]
    while parts:
        part = chance.choice(parts)
        yield part.pop(0)
        parts = [x for x in parts if x]


def _joined(chance: random.Random, texts: list[str]) -> Iterator[str]:
    """The texts, some of them as one."""
    kept: list[str] = []
    for text in texts:
        kept.append(text)
        if chance.random() < 0.4:
            yield "\n".join(kept)
            kept = []
    if kept:
        yield "\n".join(kept)


def _raises(text: str, space: dict[str, Any]) -> bool:
    try:
        exec(compile(text, TESTS, "exec"), space)
    except BaseException:
        return True
    return False


def _assertion(step: str, space: dict[str, Any], chance: random.Random, wrong: bool) -> str:
    """A statement on the value of an expression, as it is or (`wrong`) as it is not."""
    try:
        value = eval(compile(step, TESTS, "eval"), space)
    except BaseException as error:
        return _on_exception(step, error, space, chance, wrong)
    text = _literal(value, space)
    step = f"({step})"
    if text is None:
        return _on_object(step, value, space, chance, wrong)
    if wrong:
        text = _other(value, space, chance)
    forms = [f"assert {step} == {text}"] * 6 + [
        f"assert {text} == {step}",
        f"assert not {step} != {text}",
    ]
    forms += [
        f"result_ = {step}\nassert result_ == {text}",
        f"def check_():\n    assert {step} == {text}\ncheck_()",
    ]
    forms += [
        f"assert [{step}] == [{text}]",
        f"assert ({step}, 1) == ({text}, 1)",
        f"assert {{'k': {step}}} == {{'k': {text}}}",
    ]
    forms += [
        f"assert {step} in ({text}, 'no')",
        f"for got_ in [{step}]:\n    assert got_ == {text}, 'differs'",
    ]
    forms += [f"assert repr({step}) == repr({text})", f"assert (lambda: {step})() == {text}"]
    kind = type(value)
    if kind in (bool, type(None)):
        forms += [f"assert {step} is {text}"] * 3
    if kind is bool and not wrong:
        forms += [f"assert {step}" if value else f"assert not {step}"] * 3
    if kind in (int, str, float, list, dict, tuple, set):
        forms += [
            f"r_ = {step}\nassert type(r_) is {kind.__name__} and r_ == {text}",
            f"assert isinstance({step}, {kind.__name__}) is not {wrong}",
        ]
        forms += (
            [f"assert str({step}) == str({text})", f"assert f'{{{step}}}' == str({text})"]
            if "'" not in step and '"' not in step
            else []
        )
    if kind in (list, tuple, dict, set, str):
        forms += [f"r_ = {step}\nassert (len(r_), r_) == (len({text}), {text})"]
    if kind in (list, tuple, set):
        forms += [f"assert sorted({step}, key=repr) == sorted({text}, key=repr)"]
    if kind in (int, float):
        forms += [
            f"assert abs({step} - {text}) < 1e-6",
            f"assert {step} - {text} == 0",
        ]
    return chance.choice(forms)


def _is_text(value: Any) -> bool:
    return type(value) is str


def _literal(value: Any, space: dict[str, Any]) -> str | None:
    """The text that gives an equal value of the same type here; None where there is none."""
    text = repr(value)
    if " at 0x" in text or (type(value) is list and "0x" in "".join(filter(_is_text, value))):
        return None
    if "<" in text and ">" in text and not isinstance(value, (str, list, tuple, dict, set)):
        return None
    try:
        again = eval(text, dict(space))
        equal = (
            type(again) is type(value)
            and bool(again == value)
            and type(value).__module__ != "__main__"
        )
        return text if equal and repr(again) == text and len(text) < 400 else None
    except BaseException:
        return None


def _other(value: Any, space: dict[str, Any], chance: random.Random) -> str:
    """The text of a value that is not equal to it."""
    options = ["None", "0", "'other'", "[]", "(1, 2)", "{'k': 0}", "3.5"]
    if type(value) is int:
        options = [repr(value + 1), repr(-value - 1), repr(float(value) + 0.5)]
    elif type(value) is bool:
        options = [repr(not value)]
    elif type(value) is str:
        options = [repr(value + "?"), repr(value[:-1] if value else "x")]
    elif type(value) in (list, tuple):
        options = [repr(type(value)([*value, 0])), repr(type(value)(value[1:]) if value else [1])]
    elif type(value) is dict:
        options = [repr({**value, "more": 1})]
    for text in chance.sample(options, len(options)):
        with contextlib.suppress(BaseException):
            if not bool(eval(text, dict(space)) == value):
                return text
    return "'different'"


def _on_object(
    step: str, value: Any, space: dict[str, Any], chance: random.Random, wrong: bool
) -> str:
    kind = type(value)
    forms = [f"type({step}).__name__ == {kind.__name__!r}", f"{step} is not None"]
    with contextlib.suppress(BaseException):
        for function in ("repr", "str"):
            if "0x" not in (text := eval(function)(value)):
                forms += [f"{function}({step}) == {text!r}"] * 2
    with contextlib.suppress(BaseException):
        forms += [f"bool({step}) is {bool(value)}", f"callable({step}) is {callable(value)}"]
    for name, other in space.items():
        if other is kind and name.isidentifier():
            forms += [f"isinstance({step}, {name})", f"type({step}) is {name}"] * 2
        elif other is value and name.isidentifier() and name != "_":
            forms += [f"{step} is {name}"] * 3
    if kind.__module__ == "__main__":
        with contextlib.suppress(BaseException):
            for name, inner in list(vars(value).items())[:3]:
                if (text := _literal(inner, space)) is not None:
                    forms.append(f"{step}.{name} == {text}")
    with contextlib.suppress(BaseException):
        if len(value) < 99 and (text := _literal(list(value), space)) is not None:
            forms.append(f"list({step}) == {text}")
    form = chance.choice(forms)
    return f"assert not ({form})" if wrong else f"assert {form}"


def _on_exception(
    step: str, error: BaseException, space: dict[str, Any], chance: random.Random, wrong: bool
) -> str:
    """A statement that expects what the expression raised."""
    if chance.random() < 0.06:
        return step
    kind = type(error)
    names = [name for name, value in space.items() if value is kind and name.isidentifier()]
    bases = [k.__name__ for k in kind.__mro__ if k.__module__ == "builtins" and k is not object]
    caught = (
        chance.choice([*names * 3, *bases])
        if not wrong
        else chance.choice(["FileExistsError", bases[0]])
    )
    looks = [f"type(error).__name__ == {kind.__name__!r}"]
    with contextlib.suppress(BaseException):
        if "0x" not in str(error):
            looks += [f"str(error) == {str(error)!r}"] * 2
        if (text := _literal(error.args, space)) is not None:
            looks += [f"error.args == {text}"] * 2
        for name, value in list(vars(error).items())[:3]:
            if (text := _literal(value, space)) is not None:
                looks += [f"error.{name} == {text}"]
        if error.__cause__ is not None:
            looks.append(f"type(error.__cause__).__name__ == {type(error.__cause__).__name__!r}")
    look = chance.choice([*looks, "True"])
    if wrong and caught != "FileExistsError":
        look = f"not ({look})"
    begin = f"try:\n    {step}"
    caught = f"except {caught} as error:"
    return chance.choice(
        [
            f"{begin}\n    raised_ = False\n{caught}\n    raised_ = {look}\nassert raised_",
            f"{begin}\n    assert False, 'nothing was raised'\n{caught}\n    assert {look}",
            f"def attempt_():\n    try:\n        {step}\n    {caught}\n        return {look}\n"
            "assert attempt_() is True",
        ]
    )


def _run_cases(values: list[Any]) -> None:
    """Runs those of `values` that are test classes or functions."""
    for value in values:
        if isinstance(value, type) and issubclass(value, unittest.TestCase):
            result = unittest.TestResult()
            unittest.defaultTestLoader.loadTestsFromTestCase(value).run(result)
            assert result.wasSuccessful()
        elif getattr(value, "__name__", "").startswith("test_"):
            try:
                value()
            except BaseException as error:
                if type(error).__name__ != "Skipped":  # as pytest does
                    raise


def plain(pair: Pair) -> tuple[str, int]:
    """What plain Python says of a pair: its verdict and line."""
    space = _module()
    before = {*space}
    lines = 0  # of the tests before this one
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(pair.program, PROGRAM, "exec"), space)
            for text in pair.tests:
                exec(compile(text, TESTS, "exec"), space)
                lines += text.count("\n") + 1
            _run_cases([space[name] for name in space if name not in before])
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename in (PROGRAM, TESTS)]
        line = next((lines + x.lineno for x in own if x.filename == TESTS), 0)
        if type(error) is AssertionError and own and own[-1].filename == TESTS:
            return "fail", line
        return type(error).__qualname__.rpartition(".")[2], line
    return "pass", 0


def reason(outcome: Outcome) -> str:
    """What the sandbox says, in the same words."""
    if outcome.status == "infra":  # a test that fails by itself; the exception is named last
        return (re.findall(r": (\w+)(?=: |$)", outcome.summary.split("\n")[0]) or ["infra"])[-1]
    if outcome.status != "error":
        return outcome.status
    said = outcome.summary
    if said[:1].isspace():  # the last line of a message of several, such as that of a Flag
        said = re.findall(r"^[A-Za-z_].*", outcome.feedback, re.M)[-1]
    return said.partition(":")[0].rpartition(".")[2].strip()


def lines_of(outcome: Outcome) -> list[int]:
    """The lines of all tests through which the sandbox came to its verdict, the outermost first."""
    return list(map(int, re.findall(f'File "{TESTS}", line ([0-9]+)', outcome.feedback)))


def line_of(outcome: Outcome) -> int:
    """The first of them; 0 where there is none."""
    return next(iter(lines_of(outcome)), 0)


def drawn(seeds: list[int]) -> list[Pair]:
    """The pairs of these seeds, with plain Python's verdicts."""
    rows = _apart("draw", seeds)
    return [Pair(**{k: tuple(v) if type(v) is list else v for k, v in x.items()}) for x in rows]


def judged(pairs: list[Pair]) -> list[str]:
    """Plain Python's verdicts of these pairs."""
    return [verdict for verdict, _ in _apart("judge", [dataclasses.asdict(pair) for pair in pairs])]


def _apart(what: str, values: list) -> list:
    """The results of a process that has nothing else: one line for each of `values`."""
    command = [sys.executable, str(pathlib.Path(__file__).resolve()), "--apart", what]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        command, input=json.dumps(values), env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return [json.loads(line) for line in done.stdout.splitlines()]


def _serve(what: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    out = sys.stdout
    for value in json.loads(sys.stdin.read()):
        if what == "draw":
            pair, (verdict, line) = _drawn_in_time(value)
            result: Any = dataclasses.asdict(dataclasses.replace(pair, verdict=verdict, line=line))
        else:
            result = plain(Pair(**value))
        out.write(json.dumps(result) + "\n")


def _drawn_in_time(seed: int) -> tuple[Pair, tuple[str, int]]:
    """The pair of the first seed from this one on that plain Python comes to an end with."""
    late: list[int] = []

    def stop(*_: object) -> None:
        late.append(seed)
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    while True:
        signal.setitimer(signal.ITIMER_REAL, _LIMIT_S, 1.0)
        try:
            pair = draw(seed)
            verdict = plain(pair)
        except TimeoutError:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if not late:
            return pair, verdict
        late.clear()
        seed += 1


@dataclasses.dataclass(frozen=True)
class Disagreement:
    """A pair of which the sandbox says something else than plain Python."""

    pair: Pair
    outcome: Outcome

    @property
    def kind(self) -> str:
        """Plain Python's verdict and the sandbox's."""
        return f"{self.pair.verdict} -> {reason(self.outcome)}"

    @property
    def documented(self) -> str:
        """Which difference of the sandbox's README it is; "" where it is none."""
        if "is no plain value, which this wants" in self.outcome.summary:
            return "2, arithmetic of an object that was given"
        ended = [x for y in _statements(self.pair, self.outcome) for x in ast.walk(y)]
        asserted = [x.test for x in ended if isinstance(x, ast.Assert)]
        compared = [x for x in ended if isinstance(x, ast.Compare)]
        members = any(isinstance(x.ops[0], (ast.In, ast.NotIn)) for x in compared)
        if members and "__contains__" in self.pair.program:
            return "3, membership in an object that was given"
        orders = any(not isinstance(x.ops[0], (ast.Eq, ast.NotEq)) for x in compared)
        methods = re.search("__(eq|ne|lt|le|gt|ge)__|total_ordering", self.pair.program)
        if methods and (orders or any(x not in asserted for x in compared)):
            return "1, comparison with a plain value"
        if re.search(r"\((set|frozenset)\):", self.pair.program) and "{" in self.outcome.summary + (
            ast.unparse(ast.Module([x for x in ended if isinstance(x, ast.stmt)], []))
        ):
            return "9, order of a set's items"
        return ""


def _statements(pair: Pair, outcome: Outcome) -> Iterator[ast.stmt]:
    """The statements of the tests through which the two verdicts were come to, and those before."""
    lines = {pair.line, *lines_of(outcome)} - {0}
    body = ast.parse("\n".join(pair.tests)).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        ends = [node, after] if isinstance(node, ast.Try) and after else [node]
        if any(x.lineno <= line <= (x.end_lineno or x.lineno) for line in lines for x in ends):
            yield node


def compared(pool: Pool, pairs: list[Pair]) -> list[Disagreement]:
    """The pairs whose verdicts differ, or the lines at which they were given."""
    futures = [pool.submit(x.program, Tests(x.tests, timeout_s=20.0)) for x in pairs]
    outcomes = [future.result() for future in futures]
    return [Disagreement(p, o) for p, o in zip(pairs, outcomes, strict=True) if not _agree(p, o)]


def _agree(pair: Pair, outcome: Outcome) -> bool:
    lines = {pair.line, line_of(outcome)} - {0}
    return pair.verdict == reason(outcome) and len(lines) < 2


def main() -> None:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--show", type=int, default=0, help="disagreements to print in full")
    parser.add_argument("--apart", choices=("draw", "judge"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.apart:
        _serve(given.apart)
        return
    chance = random.Random(given.seed)
    seeds = [chance.getrandbits(48) for _ in range(given.pairs)]
    wrong: list[Disagreement] = []
    features: collections.Counter[str] = collections.Counter()
    verdicts: collections.Counter[str] = collections.Counter()
    with Pool(workers=given.workers) as pool:
        for first in range(0, len(seeds), 500):
            pairs = drawn(seeds[first : first + 500])
            features.update(x for pair in pairs for x in pair.features)
            verdicts.update(pair.verdict for pair in pairs)
            wrong += compared(pool, pairs)
            print(f"{first + len(pairs)} pairs, {len(wrong)} disagree", file=sys.stderr)
    for disagreement in wrong[: given.show]:
        print(
            f"--- seed {disagreement.pair.seed}: {disagreement.kind}, line "
            f"{disagreement.pair.line} -> {line_of(disagreement.outcome)}, "
            f"{disagreement.documented or 'not documented'}\n{disagreement.pair.program}"
        )
        print("\n#---\n".join(disagreement.pair.tests))
        print(disagreement.outcome.summary, disagreement.outcome.stderr[-1500:], sep="\n")
    count = len(seeds)
    print({name: f"{100 * times / count:.1f} %" for name, times in sorted(features.items())})
    print({name: f"{100 * times / count:.1f} %" for name, times in verdicts.most_common(12)})
    print(f"{len(wrong)} of {count} disagree ({100 * len(wrong) / count:.2f} %)")
    kinds = collections.Counter((x.kind, x.documented or "NOT DOCUMENTED") for x in wrong)
    for (kind, documented), times in kinds.most_common():
        print(f"{times:6} {kind}: {documented}")


if __name__ == "__main__":
    main()
