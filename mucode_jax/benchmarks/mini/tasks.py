"""From concepts to tasks: drawing, wording, coding, and choosing tests that bite.

Everything here is a function of (seed, split, index) and of nothing else. The programs that are
executed are composed from the table of concepts: trusted text, run in this process.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from mucode_jax.benchmarks.mini.concepts import CONCEPTS, PLACES, Concept
from mucode_jax.core import keys
from mucode_jax.core.records import Problem, Tests

# The share of all combinations of concepts that each split owns, in percent.
SHARES = {"train": 20, "validation": 10, "test": 20, "pretrain": 50}

AMBIGUOUS = 0.10  # share of problems with one ambiguous concept; the others have none
RARE = 0.42  # share of places filled with a rare concept
# Share of problems whose public test is picked: while pretraining, the one that tells most wrong
# programs from the right one; elsewhere the one that tells fewest, as real public tests often do.
PICKED = {"pretrain": (0.4, max), "train": (0.5, min), "validation": (0.5, min), "test": (0.5, min)}
PRIVATE = 4  # private asserts a problem
POOL = 14  # inputs tried for the tests of one draft

NAMES = ("solve", "f", "task", "run", "pick", "work", "calc", "go", "make", "find", "apply", "get")
WORDS = (  # noqa: SIM905 (one a line would be a page)
    "oak fig elm ash ivy fir olive apple plum pear rose mint sage lotus aster tulip melon "
    "onion carrot tomato peach maple cedar aspen iris pansy daisy poppy lemon grape"
).split()
LETTERS = "aeioprst"  # those that constants are drawn from: common in WORDS

DOMAINS = ("numbers", "words", "letters")
DOMAIN_SHARES = (0.5, 0.28, 0.22)
FILLED = {"prepare": 0.4, "keep": 0.75, "each": 0.75, "finish": 0.8}
SOURCE = {"numbers": ("x", "xs"), "words": ("w", "s.split()"), "letters": ("c", "s")}
NOUN = {"numbers": "items", "words": "words", "letters": "letters"}
KIND = {"numbers": "int", "words": "word", "letters": "char"}


@dataclasses.dataclass(frozen=True)
class Choice:
    """A concept with its constants filled in: the words used, the code meant, the other codes."""

    concept: Concept
    words: str
    meaning: str
    others: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Draft:
    """A task before its tests: name, domain, and at most one choice a place (in `PLACES` order)."""

    name: str
    domain: str
    choices: tuple[Choice | None, ...]

    @property
    def combination(self) -> str:
        """What splits are held out by."""
        return combination(self.domain, tuple(c and c.concept for c in self.choices))

    @property
    def solution(self) -> str:
        return self.code(tuple(c and c.meaning for c in self.choices))

    @property
    def description(self) -> str:
        """One clause, such as "once sorted, the sum of the items above 3 doubled"."""
        prepare, keep, each, finish = (c.words if c else "" for c in self.choices)
        text = " ".join(part for part in ("the", NOUN[self.domain], keep, each) if part)
        if finish.endswith(("of", "distinct")):
            text = f"{finish} {text}"
        elif finish:
            text = f"{text}, {finish}"
        return f"{prepare}, {text}" if prepare else text

    def code(self, pieces: tuple[str | None, ...]) -> str:
        """The program that has these pieces of code at its places."""
        item, source = SOURCE[self.domain]
        argument = "xs" if self.domain == "numbers" else "s"
        prepare, keep, each, finish = pieces
        if keep or each:
            items = f"[{each or item} for {item} in {source}{f' if {keep}' if keep else ''}]"
        else:
            items = source
        lines = [f"def {self.name}({argument}):"]
        if prepare:
            lines.append(f"    {argument} = {prepare}")
        lines.append(f"    return {finish.replace('{L}', items) if finish else items}")
        return "\n".join(lines)

    def variants(self) -> tuple[str, ...]:
        """Every program with another piece of code at one place or more."""
        pieces = [(c.meaning, *c.others) if c else (None,) for c in self.choices]
        programs = dict.fromkeys(self.code(picked) for picked in itertools.product(*pieces))
        return tuple(code for code in programs if code != self.solution)


@dataclasses.dataclass(frozen=True)
class Task:
    """A problem with all that is known of it.

    Attributes:
      problem: the public side.
      private: `PRIVATE` asserts.
      solution: a program that passes public and private tests.
      wrong: programs that each fail the private tests.
      draft: what it was made from.
      argument: of the public test.
      expected: what the public test wants for it.
    """

    problem: Problem
    private: Tests
    solution: str
    wrong: tuple[str, ...]
    draft: Draft
    argument: Any
    expected: Any


def combination(domain: str, concepts: tuple[Concept | None, ...]) -> str:
    """The name of a combination of concepts; an empty place is "-"."""
    return " ".join([domain, *(concept.name if concept else "-" for concept in concepts)])


def owner(name: str) -> str:
    """The split that owns a combination, by a hash of its name."""
    bucket = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 100
    for split, share in SHARES.items():
        if bucket < share:
            return split
        bucket -= share
    raise AssertionError("the shares sum to 100")


def task(split: str, seed: int, index: int, *, private: bool = True) -> Task:
    """The task number `index` of a split.

    With `private=False` the private tests and wrong variants are left out (and with them most of
    the time it takes); the rest is as it would be.
    """
    if split not in SHARES:
        raise ValueError(f"mini has no split {split!r}; one of {', '.join(SHARES)}")
    random = keys.rng("mini", split, seed, index)
    while True:
        draft = _draft(random, split)
        made = draft and _with_tests(random, draft, f"{split}/{seed}/{index}", split, private)
        if made:
            return made


@functools.cache
def _concepts(place: str, domain: str, kind: str) -> tuple[list[Concept], ...]:
    """The concepts of a place: (known, rare, ambiguous)."""
    fits = [c for c in CONCEPTS if c.place == place and kind in c.domains | {""} and domain]
    plain = [c for c in fits if len(c.meanings) == 1]
    known = [c for c in plain if c.familiar >= 0.5]
    return known, [c for c in plain if c.familiar < 0.5], [c for c in fits if len(c.meanings) > 1]


def _draft(random: np.random.Generator, split: str) -> Draft | None:
    """One draw; None where it is to be drawn again."""
    domain = DOMAINS[random.choice(len(DOMAINS), p=DOMAIN_SHARES)]
    filled = [place for place in PLACES if random.random() < FILLED[place]]
    if not 2 <= len(filled) <= 3:
        return None
    ambiguous = filled[random.integers(len(filled))] if random.random() < AMBIGUOUS else ""
    kind = KIND[domain]
    concepts: list[Concept | None] = []
    for place in PLACES:
        if place not in filled:
            concepts.append(None)
            continue
        known, rare, unclear = _concepts(place, domain, kind if place == "finish" else domain)
        choices = unclear if place == ambiguous else rare if random.random() < RARE else known
        if not choices:
            return None
        concept = choices[random.integers(len(choices))]
        kind = concept.gives or kind
        concepts.append(concept)
    if owner(combination(domain, tuple(concepts))) != split:
        return None
    name = NAMES[random.integers(len(NAMES))]
    return Draft(name, domain, tuple(c and _choice(random, c, domain) for c in concepts))


def _choice(random: np.random.Generator, concept: Concept, domain: str) -> Choice:
    low, high = (2, 4) if concept.place == "finish" else (2, 10) if domain == "numbers" else (2, 6)
    if concept.place == "each" and domain == "numbers":
        high = 6
    k = str(random.integers(low, high))
    c, d = (LETTERS[i] for i in random.permutation(len(LETTERS))[:2])

    def fill(text: str) -> str:
        return text.replace("{k}", k).replace("{c}", c).replace("{d}", d)

    words = concept.words[random.integers(len(concept.words))]
    meanings = [fill(text) for text in concept.meanings]
    meaning = meanings.pop(random.integers(len(meanings)))
    return Choice(concept, fill(words), meaning, (*meanings, *map(fill, concept.mistakes)))


def _argument(random: np.random.Generator, domain: str) -> Any:
    """An input: numbers 0 to 15, a few words, or a word or two with some digits."""
    if domain == "numbers":
        return [int(x) for x in random.integers(0, 16, random.integers(4, 7))]
    if domain == "words":
        return " ".join(WORDS[i] for i in random.integers(0, len(WORDS), random.integers(3, 6)))
    word = WORDS[random.integers(len(WORDS))] + WORDS[random.integers(len(WORDS))]
    return word + (str(random.integers(1, 100)) if random.random() < 0.5 else "")


@functools.lru_cache(maxsize=100_000)
def _function(signature_and_body: str) -> Callable[[Any], Any]:
    namespace: dict[str, Any] = {}
    # composed from the table of concepts, never written by a model
    exec(f"def program{signature_and_body}", namespace)
    return namespace["program"]


def execute(code: str, argument: Any) -> Any:
    """What a composed program returns for `argument`, or the exception that it raises."""
    try:
        return _function(code[code.index("(") :])(
            list(argument) if isinstance(argument, list) else argument
        )
    except Exception as error:
        return error


def _with_tests(
    random: np.random.Generator, draft: Draft, task_id: str, split: str, private: bool
) -> Task | None:
    """Inputs for a draft; None where they cannot tell it from its neighbours, or say little."""
    solution = draft.solution
    pool = []
    for _ in range(POOL):
        argument = _argument(random, draft.domain)
        expected = execute(solution, argument)
        # an empty result tests little, a long one costs tokens
        if not isinstance(expected, Exception) and expected not in ([], "") and _short(expected):
            pool.append((argument, expected))
    if len(pool) < PRIVATE + 3 or len({repr(expected) for _, expected in pool}) < 3:
        return None

    pieces = tuple(c and c.meaning for c in draft.choices)
    nearest = [
        (draft.code((*pieces[:place], other, *pieces[place + 1 :])), len(choice.concept.meanings))
        for place, choice in enumerate(draft.choices)
        if choice
        for other in choice.others
    ]
    fails = {code: [execute(code, a) != e for a, e in pool] for code, _ in nearest}
    if not all(map(any, fails.values())):
        return None  # a place of this draft makes no difference
    # The public test must decide what the words leave open.
    unclear = [
        draft.code((*pieces[:place], choice.others[0], *pieces[place + 1 :]))
        for place, choice in enumerate(draft.choices)
        if choice and len(choice.concept.meanings) > 1
    ]
    public = [i for i in range(len(pool)) if all(fails[code][i] for code in unclear)]
    if not public:
        return None
    share, pick = PICKED[split]
    if random.random() < share:
        chosen = pick(public, key=lambda i: sum(fail[i] for fail in fails.values()))
    else:
        chosen = public[random.integers(len(public))]
    argument, expected = pool.pop(chosen)

    hidden: list[str] = []
    wrong: tuple[str, ...] = ()
    if private:
        wrong = draft.variants()
        rows = {code: [execute(code, a) != e for a, e in pool] for code in wrong}
        picked = _cover(rows, len(pool))
        if picked is None:
            return None
        hidden = [_assert(draft.name, *pool[i]) for i in picked]

    public_test = _assert(draft.name, argument, expected)
    problem = Problem(
        benchmark="mini",
        task_id=task_id,
        split=split,
        prompt=f"{draft.name}: {draft.description}\n{public_test}",
        public=Tests((public_test,)),
        entry_point=draft.name,
        feedback="{summary}",
    )
    return Task(problem, Tests(tuple(hidden)), solution, wrong, draft, argument, expected)


def _short(value: Any) -> bool:
    """Whether a result is small enough to be read back by a small model."""
    return len(repr(value)) <= 28


def _assert(name: str, argument: Any, expected: Any) -> str:
    return f"assert {name}({argument!r}) == {expected!r}"


def _cover(rows: dict[str, list[bool]], inputs: int) -> list[int] | None:
    """`PRIVATE` inputs, picked greedily, that together fail every program; None if none do."""
    left = list(rows.values())
    picked: list[int] = []
    while len(picked) < PRIVATE:
        free = [i for i in range(inputs) if i not in picked]
        best = max(free, key=lambda i: sum(row[i] for row in left))
        left = [row for row in left if not row[best]]
        picked.append(best)
    return picked if not left else None
