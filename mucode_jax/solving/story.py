"""A search as a person follows it: each turn on the terminal, the whole as JSON."""

from __future__ import annotations

import collections
import textwrap
from typing import Any

import rich.console
import rich.text

from mucode_jax.core.conversation import Chat
from mucode_jax.core.records import Problem, Turn
from mucode_jax.rollouts.collect import Limits, feedback_prompt
from mucode_jax.rollouts.search import Search
from mucode_jax.runtime.command import Unheard, spell_all

Json = Any


def why(found: Search, turn: int) -> str:
    """Why a turn's candidate was chosen, in words."""
    candidates = found.turns[turn].candidates
    failed = {chosen(found, t).code for t in range(turn)}
    passed = [c for c in candidates if c.grade.passed]
    fresh = [c for c in candidates if c.code not in failed]
    said = []
    left = fresh or list(candidates)
    if 0 < len(fresh) < len(candidates):
        said.append(f"{len(candidates) - len(fresh)} repeat what failed before")
    if found.choice.startswith("pt"):
        if chosen(found, turn).grade.passed:
            left = passed
            one = len({c.code for c in passed}) == 1
            said.append("it passes the tests" + ("" if one else f", as {len(passed)} do"))
        else:
            said.append("none passes the tests")
    copies = [count for _, count in collections.Counter(c.code for c in left).most_common()]
    if len(copies) == 1:
        pass
    elif found.choice in ("lv", "pt+lv"):
        said.append("the verifier scores it highest")
    elif found.choice == "pt+lv+vote":
        said.append("the highest by score and frequency")
    elif found.choice == "pt+vote" and copies[0] > copies[1]:
        said.append("the most frequent")
    else:
        said.append("at random among equals")
    return "; ".join(said) or "they are all the same"


def printable(text: str) -> str:
    """Text that a model wrote, without what a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


class Show:
    """Prints a search turn by turn."""

    def __init__(self, problem: Problem, chat: Chat, limits: Limits) -> None:
        self._problem, self._chat, self._limits = problem, chat, limits
        spell_all()
        self._console = rich.console.Console(highlight=False, soft_wrap=True)

    def say(self, *parts: str | tuple[str, str]) -> None:
        """One line (or block) of text; a part may be (text, style). Raises Unheard."""
        shown = [
            (printable(p), "") if isinstance(p, str) else (printable(p[0]), p[1]) for p in parts
        ]
        try:
            self._console.print(rich.text.Text.assemble(*shown))
        except OSError as error:
            raise Unheard(*error.args) from error

    def code(self, text: str) -> None:
        self.say((textwrap.indent(text.strip(), "    "), "bold"))

    def turn(self, found: Search) -> None:
        """The latest turn: its candidates, the choice, and what the generator reads next."""
        number = len(found.turns)
        turn = found.turns[-1]
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
        taken = turn.candidates[turn.chosen]
        self.code(taken.code)
        if not taken.grade.passed and number < self._limits.turns:
            self.say("feedback:")
            read = _feedback(self._problem, taken, self._chat, self._limits)
            self.say(textwrap.indent(read, "    "))

    def end(self, found: Search) -> None:
        """How it ended, and what it took."""
        sampled = [c for turn in found.turns for c in turn.candidates]
        solved = chosen(found).grade.passed
        self.say("")
        self.say(
            ("solved", "green") if solved else ("not solved", "red"),
            f" at turn {len(found.turns)}: {len({c.code for c in sampled})} programs executed, "
            f"{sum(len(c.completion_ids) for c in sampled)} tokens sampled",
        )


def chosen(found: Search, turn: int = -1) -> Turn:
    """The candidate that was taken in a turn."""
    return found.turns[turn].candidates[found.turns[turn].chosen]


def _feedback(problem: Problem, failed: Turn, chat: Chat, limits: Limits) -> str:
    """What the generator reads after a turn that failed."""
    return chat.message(feedback_prompt(chat, problem, failed, limits), first=False)


def as_json(found: Search, problem: Problem, chat: Chat, limits: Limits) -> Json:
    """A finished search for programs."""
    turns = []
    for number, turn in enumerate(found.turns):
        taken = turn.candidates[turn.chosen]
        last = number + 1 == limits.turns or taken.grade.passed
        scores = [None] * len(turn.candidates) if turn.scores is None else turn.scores.tolist()
        turns.append(
            {
                "candidates": [
                    {
                        "code": c.code,
                        "status": c.grade.status,
                        "summary": c.grade.summary,
                        "score": score,
                    }
                    for c, score in zip(turn.candidates, scores, strict=True)
                ],
                "chosen": turn.chosen,
                "why": why(found, number),
                "feedback": None if last else _feedback(problem, taken, chat, limits),
            }
        )
    final = chosen(found)
    return {"solved": final.grade.passed, "code": final.code, "turns": turns}
