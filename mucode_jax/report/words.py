"""How the report says things: names of methods and searches, percentages, durations, counts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

Json = Any

METHODS = {
    "base": "base",
    "ssd": "SSD",
    "star": "STaR",
    "multi_star": "Multi-STaR",
    "multi_star_all": "Multi-STaR, own turns",
    "multi_star_balanced": "Multi-STaR, balanced",
    "rft_lv": "RFT by verifier",
    "mucode": "μCode",
}
CHOICES = {
    "random": "any candidate",
    "pt": "one that passes the public tests",
    "lv": "the learned verifier's favourite",
    "pt+lv": "public tests first, then the verifier",
    "pt+vote": "public tests, then the most frequent code",
    "pt+lv+vote": "public tests, then score and frequency",
    "agree": "public tests, then what most return on further inputs",
    "oracle": "any correct one of pt's (bounds pt alone)",
}
PROTOCOLS = {
    "deployable": (
        "A conversation stops when its code passes the public tests; it counts as solved if that "
        "code, or else the last turn's, also passes the private tests."
    ),
    "paper": (
        "Greedy conversations go on after the public tests pass and count as solved if the code of "
        "any turn is correct; Best-of-N counts only if public tests passed and that choice is "
        "correct."
    ),
}
# What a stage does, by how its name begins after the generator's folder.
_WORK = {
    "rollouts": "rollouts",
    "singles": "rollouts",
    "verifier": "verifier training",
    "scores": "scoring",
    "generator": "fine-tuning",
    "greedy": "greedy evaluation",
    "search": "Best-of-N search",
}


def generator(item: Json) -> str:
    """ "μCode 2" for anything with `method` and `iteration`; the base has no number."""
    name = METHODS.get(item["method"], item["method"])
    return f"{name} {item['iteration']}" if item["iteration"] else name


def evaluation(e: Json) -> str:
    """ "μCode 2, best of 5 by pt+lv": the generator and how it was evaluated."""
    way = "greedy" if e["search"] == "greedy" else f"best of {e['n']} by {e['search']}"
    return f"{generator(e)}, {way}"


def folder(item: Json) -> str:
    """The name of the generator's folder, as `lab.Model.name`."""
    return f"{item['method']}_{item['iteration']}" if item["iteration"] else item["method"]


def whose(stage: str) -> Json:
    """`method` and `iteration` of the generator in whose folder a stage is."""
    folder = stage.partition("/")[0]
    method, _, iteration = folder.rpartition("_")
    if not iteration.isdecimal():
        method, iteration = folder, "0"
    return {"method": method, "iteration": int(iteration)}


def work(stage: str) -> str:
    """What a stage of that name does."""
    kind = stage.rpartition("/")[2]
    if kind.endswith("_labels"):
        return "labelling"
    return next((does for start, does in _WORK.items() if kind.startswith(start)), "preparation")


def ways(present: Collection[str]) -> list[str]:
    """Ways to choose, in the order of `CHOICES`; the user's own last."""
    return [*(c for c in CHOICES if c in present), *sorted(set(present) - set(CHOICES))]


def way(choice: str) -> str:
    """ "pt: one that passes the public tests"."""
    return f"{choice}: {CHOICES.get(choice, 'a way of your own')}"


def percent(fraction: float | None, interval: Sequence[float] | None = None) -> str:
    """ "41.5 %", or "41.5 % (35–48)" with its interval; a dash where it is undefined."""
    if fraction is None:
        return "–"
    ends = f" ({100 * interval[0]:.0f}–{100 * interval[1]:.0f})" if interval else ""
    return f"{100 * fraction:.1f} %{ends}"


def with_interval(fraction: float, interval: Sequence[float]) -> str:
    """ "41.5 (35–48)": per cent, the ends of the interval rounded to whole ones."""
    low, high = interval
    return f"{100 * fraction:.1f} ({100 * low:.0f}–{100 * high:.0f})"


def signed(fraction: float) -> str:
    """ "+3.5", "−3.5", "0.0": a difference of fractions in points."""
    points = round(100 * fraction, 1)
    return f"{points:+.1f}".replace("-", "−") if points else "0.0"


def duration(seconds: float) -> str:
    """ "42 s", "5 min 07 s", "3 h 20 min"."""
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 or seconds == 0 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def count(number: float) -> str:
    """Whole numbers in groups of three."""
    return f"{number:,.0f}".replace(",", "\u202f")


def number(value: float | None, interval: Sequence[float] | None = None) -> str:
    """ "0.770 (0.70–0.83)": a measure, with its interval if given; a dash where it is undefined."""
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" ({interval[0]:.2f}–{interval[1]:.2f})" if interval else "")


def part(count: int, whole: int) -> str:
    """ "8.3 % (10 of 120)"; a dash where there is no whole."""
    return f"{percent(count / whole)} ({count} of {whole})" if whole else "–"
