"""A search as a person follows it: each turn on the terminal, the whole as JSON."""

from __future__ import annotations

import collections
import textwrap
from typing import Any

import rich.console
import rich.text

from mucode_jax.core.conversation import Chat
from mucode_jax.core.records import Problem, Turn
from mucode_jax.rollouts.agreement import passing
from mucode_jax.rollouts.collect import Limits, feedback_prompt
from mucode_jax.rollouts.search import Search
from mucode_jax.runtime.command import Unheard, spell_all

Json = Any


def chosen(search: Search, turn: int = -1) -> Turn:
    """The candidate that was chosen in a turn."""
    return search.turns[turn].candidates[search.turns[turn].chosen]


def why(search: Search, turn: int) -> str:
    """Why a turn's candidate was chosen, in words."""
    candidates = search.turns[turn].candidates
    failed = {chosen(search, earlier).code for earlier in range(turn)}
    fresh = [candidate for candidate in candidates if candidate.code not in failed]
    left = fresh or list(candidates)
    reasons = []
    if 0 < len(fresh) < len(candidates):
        reasons.append(f"{len(candidates) - len(fresh)} repeat what failed before")
    if search.choice.startswith("pt") or search.choice == "agree":
        if chosen(search, turn).grade.passed:
            left = [candidate for candidate in candidates if candidate.grade.passed]
            alike = len({candidate.code for candidate in left}) == 1
            reasons.append("it passes the tests" + ("" if alike else f", as {len(left)} do"))
        else:
            reasons.append("none passes the tests")
    agreeing, scores = search.turns[turn].agreeing, search.turns[turn].scores
    if search.choice == "agree" and passing(candidates):
        if agreeing is None:
            reasons.append("the tests give no further inputs to compare them on")
        else:
            size = agreeing[search.turns[turn].chosen]
            group = f"{size} of these" if size > 1 else "no two of these"
            reasons.append(f"{group} return the same on further inputs")
            left = [c for c, others in zip(candidates, agreeing, strict=True) if others == size]
    counts = [count for _, count in collections.Counter(c.code for c in left).most_common()]
    if len(counts) > 1:
        if search.choice in ("lv", "pt+lv") or (search.choice == "agree" and scores is not None):
            reasons.append("the verifier scores it highest")
        elif search.choice == "pt+lv+vote":
            reasons.append("the highest by score and frequency")
        elif search.choice == "pt+vote" and counts[0] > counts[1]:
            reasons.append("the most frequent")
        else:
            reasons.append("at random among equals")
    return "; ".join(reasons) or "they are all the same"


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
        styled = [(part, "") if isinstance(part, str) else part for part in parts]
        text = rich.text.Text.assemble(*((printable(part), style) for part, style in styled))
        try:
            self._console.print(text)
        except OSError as error:
            raise Unheard(*error.args) from error

    def turn(self, search: Search) -> None:
        """The latest turn: its candidates, the choice, and what the generator reads next."""
        number, turn = len(search.turns), search.turns[-1]
        self.say("")
        self.say((f"turn {number}", "bold"))
        for i, candidate in enumerate(turn.candidates):
            grade = candidate.grade
            mark = "→" if i == turn.chosen else " "
            style = "green" if grade.passed else "red"
            score = "" if turn.scores is None else f"  score {turn.scores[i]:+.2f}"
            details = f"{score}  {grade.summary}".rstrip()
            self.say(f"{mark} {i + 1}  ", (f"{grade.status:<7}", style), details)
        self.say(f"chosen: {turn.chosen + 1}, because " + why(search, number - 1))
        candidate = chosen(search)
        self.say((textwrap.indent(candidate.code.strip(), "    "), "bold"))
        if not candidate.grade.passed and number < self._limits.turns:
            self.say("feedback:")
            feedback = _feedback(self._problem, candidate, self._chat, self._limits)
            self.say(textwrap.indent(feedback, "    "))

    def end(self, search: Search) -> None:
        """How it ended, and what it took."""
        candidates = [candidate for turn in search.turns for candidate in turn.candidates]
        programs = len({candidate.code for candidate in candidates})
        tokens = sum(len(candidate.completion_ids) for candidate in candidates)
        compared = len({code for turn in search.turns for code in turn.compared})
        further = f" ({compared} of them on further inputs too)" if compared else ""
        solved = chosen(search).grade.passed
        self.say("")
        self.say(
            ("solved", "green") if solved else ("not solved", "red"),
            f" at turn {len(search.turns)}: {programs} programs executed{further}, "
            f"{tokens} tokens sampled",
        )


def _feedback(problem: Problem, failed: Turn, chat: Chat, limits: Limits) -> str:
    """What the generator reads after a turn that failed."""
    return chat.message(feedback_prompt(chat, problem, failed, limits), first=False)


def as_json(search: Search, problem: Problem, chat: Chat, limits: Limits) -> Json:
    """A finished search for programs."""
    turns = []
    for number, turn in enumerate(search.turns):
        candidate = chosen(search, number)
        is_last = number + 1 == limits.turns or candidate.grade.passed
        scores = [None] * len(turn.candidates) if turn.scores is None else turn.scores.tolist()
        turns.append(
            {
                "candidates": [
                    {"code": c.code, "status": c.grade.status, "summary": c.grade.summary}
                    | {"score": score}
                    for c, score in zip(turn.candidates, scores, strict=True)
                ],
                "chosen": turn.chosen,
                "why": why(search, number),
                "feedback": None if is_last else _feedback(problem, candidate, chat, limits),
            }
        )
    final = chosen(search)
    return {"solved": final.grade.passed, "code": final.code, "turns": turns}
