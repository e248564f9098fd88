"""Small programs with things to do to them, drawn at random: what the differential test runs.

A topic is a function that gives the text of a piece of a program and the steps of its tests, in
order: statements (`!s.push(1)`), and expressions whose value is looked at. What the value is nobody
says here: plain Python does (`differential`).
"""

from __future__ import annotations

import random
from collections.abc import Callable

Topic = Callable[["Pen"], tuple[str, list[str]]]
TOPICS: dict[str, Topic] = {}
_WORDS = ("alpha", "beta", "gamma", "delta", "eps", "zeta", "eta", "theta", "iota", "kappa")


def topic(*features: str) -> Callable[[Topic], Topic]:
    """Registers a topic, with the features that it stands for."""

    def register(function: Topic) -> Topic:
        function.features = frozenset(features)  # type: ignore[attr-defined]
        TOPICS[function.__name__] = function
        return function

    return register


class Pen:
    """Draws names and values; names of one pair never collide."""

    def __init__(self, chance: random.Random):
        self.chance = chance
        self._taken: set[str] = set()

    def pick(self, *options: str) -> str:
        """One of them."""
        return self.chance.choice(options)

    def maybe(self, text: str, share: float = 0.5) -> str:
        """`text`, or nothing."""
        return text if self.chance.random() < share else ""

    def some(self, steps: list[str], share: float = 0.75) -> list[str]:
        """A part of `steps`, statements all of them, in a new order now and then."""
        kept = [x for x in steps if x[0] == "!" or self.chance.random() < share]
        if self.chance.random() < 0.1:
            place = self.chance.randrange(len(kept) + 1)
            kept = kept[:place] + self.chance.sample(kept[place:], len(kept) - place)
        return kept

    def integer(self, low: int | None = None, high: int = 20) -> int:
        """An integer; where no bounds are given, rarely a large one."""
        if low is None and self.chance.random() < 0.04:
            return self.chance.choice([2**63, -(2**70), 10**20])
        return self.chance.randrange(-9 if low is None else low, high)

    def number(self) -> int | float:
        """An integer or a float."""
        return (
            self.integer() if self.chance.random() < 0.6 else round(self.chance.uniform(-9, 9), 2)
        )

    def word(self) -> str:
        """A word."""
        return self.chance.choice(_WORDS)

    def words(self, count: int) -> list[str]:
        """Different words."""
        return self.chance.sample(_WORDS, count)

    def integers(self, count: int = 5) -> list[int]:
        """Integers, some twice."""
        return [self.chance.randrange(-5, 10) for _ in range(self.chance.randrange(1, count + 1))]

    def value(self, depth: int = 2) -> object:
        """Nested plain data."""
        kind = self.chance.randrange(10 if depth else 5)
        if kind < 5:
            options = (self.integer(), self.number(), self.word(), None, True, b"ab", 2j, "", 0.0)
            return self.chance.choice(options)
        inner = [self.value(depth - 1) for _ in range(self.chance.randrange(3))]
        if kind == 5:
            return tuple(inner)
        if kind == 6:
            return {self.word(): x for x in inner}
        if kind == 7:
            return set(self.integers(3))
        return inner

    def name(self, *options: str) -> str:
        """A name, each once."""
        base = self.chance.choice(options)
        name, number = base, 1
        while name in self._taken:
            number += 1
            name = f"{base}{number}"
        self._taken.add(name)
        return name


def indent(text: str, by: int = 4) -> str:
    """`text`, moved to the right."""
    return "".join(" " * by + line if line.strip() else line for line in text.splitlines(True))
